"""What a participant has asked for and the federation has not carried out yet."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class ConsentRequest(msgspec.Struct, frozen=True, kw_only=True, tag="consent"):
    """Let others have copies.

    Attributes:
        recipients: Their numbers, increasing.
        blocks: For how many blocks the consent lives, > 0.
        max_shares: Copies at most, > 0.
        epsilon: Most that all copies together may reveal of a rating, > 0; None: copies may be open.
        rating_fraction: Part of the ratings that a copy has, 0 < rating_fraction <= 1.
        items: Items whose ratings it may have, by their index in the catalogue, increasing; None: all.
        purpose: What the copies are for.
    """

    recipients: tuple[int, ...]
    blocks: int
    max_shares: int
    epsilon: float | None
    rating_fraction: float
    items: tuple[int, ...] | None
    purpose: str


class ShareCopyRequest(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """Hand a copy over.

    Attributes:
        consent: Position of the consent's entry.
        recipient: The recipient's number.
    """

    consent: int
    recipient: int


class WithdrawalRequest(msgspec.Struct, frozen=True, kw_only=True, tag="withdrawal"):
    """Take a consent back.

    Attributes:
        consent: Position of its entry; None: everything, for good.
    """

    consent: int | None


class ErasureRequest(msgspec.Struct, frozen=True, kw_only=True, tag="erasure"):
    """Leave for good."""


DataSubjectRequest: TypeAlias = ConsentRequest | ShareCopyRequest | WithdrawalRequest | ErasureRequest
"""What a participant asks of whoever owns the ledger next."""


class QueuedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is not known to be carried out.

    Attributes:
        id: Of the request, > 0.
        slot: Whose.
        request: What is wanted.
        seq: The sequence number with which its entry was, or would have been, signed; 0 before it was tried.
    """

    id: int
    slot: int
    request: DataSubjectRequest
    seq: int

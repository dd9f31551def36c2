"""Copies of ratings as they travel: payload, scope, and the sealed copy."""

from __future__ import annotations

import msgspec


class ConsentScope(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a consent that only recipients are told; the ledger has a salted commitment to it.

    Attributes:
        purpose: What the copies are for.
        rating_fraction: Part of the sender's ratings that a copy has, 0 < rating_fraction <= 1.
        items: Indices of the items whose ratings it may have, increasing; None if all.
    """

    purpose: str
    rating_fraction: float
    items: tuple[int, ...] | None = None


class CopyPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed copy holds for its recipient.

    Attributes:
        copy: The copy, as `Ratings.user_bytes` writes it.
        salt: Opens the share's commitment to it.
        scope: A `ConsentScope`, as MessagePack.
        scope_salt: Opens the consent's commitment to it.
    """

    copy: bytes
    salt: bytes
    scope: bytes
    scope_salt: bytes


class SealedCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy on its way to its recipient.

    Attributes:
        consent: Entry of the consent that covers it.
        share: Entry of the share.
        sealed: `CopyPayload`, sealed to the recipient's signing key.
    """

    consent: bytes
    share: bytes
    sealed: bytes

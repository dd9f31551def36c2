"""What a device stores about sharing: consents, base copies, copies given and received, entries to be appended."""

from __future__ import annotations

import msgspec

from liberate.crypto.commitments import salted_commitment
from liberate.identifiers import Digest


class GivenConsent(msgspec.Struct, frozen=True, kw_only=True, tag="granted"):
    """A consent that was given.

    Attributes:
        entry: Its entry.
        scope: What recipients are told, as bytes.
        salt: Opens the commitment to it, 32 bytes.
    """

    entry: bytes
    scope: bytes
    salt: bytes


class BaseCopy(msgspec.Struct, frozen=True, kw_only=True, tag="base"):
    """A base copy, made once and stored while it is in use: every recipient's copy is made from it.

    Attributes:
        ratings: As `Ratings.user_bytes` writes them.
        salt: Opens the commitment to them, 32 bytes.
        key: All that is random in it, and all marks, follow from it, 32 bytes.
        epsilon_nano: At which each rating was perturbed, in 1e-9; None: open.
        fraction: Part of the ratings that it has, 0 < fraction <= 1.
        items: Items that it may have; None: all.
        scale: Lowest level, step between levels, number of levels.
        source: SHA-256 of the ratings it was made of.
    """

    ratings: bytes
    salt: bytes
    key: bytes
    epsilon_nano: int | None
    fraction: float
    items: tuple[int, ...] | None
    scale: tuple[float, float, int]
    source: bytes

    @property
    def commitment(self) -> Digest:
        """What shares say of it."""
        return salted_commitment(self.salt, self.ratings)


class GivenCopy(msgspec.Struct, frozen=True, kw_only=True, tag="given"):
    """A copy that was handed over; the copy itself is made again from its base copy.

    Attributes:
        entry: Entry of the share.
        salt: Opens its commitment to the copy, 32 bytes.
    """

    entry: bytes
    salt: bytes


class ReceivedCopy(msgspec.Struct, frozen=True, kw_only=True, tag="received"):
    """A copy that was received.

    Attributes:
        sender: The sender's number.
        copy: The copy, as `Ratings.user_bytes` writes it.
        salt: Opens the share's commitment to it, 32 bytes.
        max_shares: Copies that its consent allows, > 0.
        epsilon_nano: At which its ratings were perturbed, in 1e-9; 0: they are open.
    """

    sender: int
    copy: bytes
    salt: bytes
    max_shares: int
    epsilon_nano: int


SharingRow = GivenConsent | BaseCopy | GivenCopy | ReceivedCopy
"""What a device stores under a digest: the leaf hash of a consent or share, or the commitment of a base copy."""


class PendingEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that is not yet known to be in the log: enough to append it and to bring it into force.

    Attributes:
        entry: The signed entry.
        digest: By which `row` is stored.
        row: What the device stores once the entry is in the log; None: nothing.
    """

    entry: bytes
    digest: bytes = b""
    row: GivenConsent | GivenCopy | ReceivedCopy | None = None

"""The rows of a device store: what a device keeps, sealed for its person, and what is known of it without the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from liberate.arrays import Digest
from liberate.crypto.encoding import commitment
from liberate.errors import FederationError
from liberate.ledger.state import OpenRound


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one device keeps for good.

    Attributes:
        signing_seed: Seed of the Ed25519 key, 32 bytes.
        dataset_salt: Opens the dataset commitment, 32 bytes.
        ratings: The own ratings, as `Ratings.user_bytes` writes them.
        dataset_seq: Sequence number with which these ratings are, or will be, committed to.
    """

    signing_seed: bytes
    dataset_salt: bytes
    ratings: bytes
    dataset_seq: int = 1


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it lies in the outbox: enough to send the same bytes again.

    Attributes:
        entry: The signed update entry.
        noise_key: Regenerates the noise, and so the upload, bit for bit, 32 bytes.
        upload_salt: Opens the upload's commitment, 32 bytes.
        profile_salt: Opens the profile's commitment, 32 bytes.
    """

    entry: bytes
    noise_key: bytes
    upload_salt: bytes
    profile_salt: bytes


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbour in a masked round, and the public keys it signed for.

    Attributes:
        number: Its number on the ledger.
        mask: X25519 key of the masks shared with it.
        seal: X25519 key that seals shares to it.
    """

    number: int
    mask: bytes
    seal: bytes


class Masking(msgspec.Struct, frozen=True, kw_only=True):
    """How far a device is in a masked round. What is set is never changed: that binds it to one answer in each phase.

    Attributes:
        round_hash: Leaf hash of the round's entry.
        secret: All keys of the round are derived from it, 32 bytes.
        peers: Neighbours it shared its secrets with, by increasing number; empty before it did.
        sent: Sealed shares of its secrets, one for each peer.
        received: Sealed shares of peers' secrets by number, increasing: with these it masks; empty before it did.
        survivors: Digest of the survivor set for which it has given shares away; None before it did.
    """

    round_hash: bytes
    secret: bytes
    peers: tuple[Peer, ...] = ()
    sent: tuple[bytes, ...] = ()
    received: tuple[tuple[int, bytes], ...] = ()
    survivors: bytes | None = None


class PendingKey(msgspec.Struct, frozen=True, kw_only=True):
    """A change of key that is not known to stand on the ledger yet: enough to bring it to its end.

    Attributes:
        entry: The signed `key` entry.
        signing_seed: Seed of the key that it names, 32 bytes; None: it revokes.
    """

    entry: bytes
    signing_seed: bytes | None


class Granted(msgspec.Struct, frozen=True, kw_only=True, tag="granted"):
    """A consent that was given.

    Attributes:
        entry: Its entry.
        scope: What recipients are told, as bytes.
        salt: Opens the commitment to it, 32 bytes.
    """

    entry: bytes
    scope: bytes
    salt: bytes


class Base(msgspec.Struct, frozen=True, kw_only=True, tag="base"):
    """A base copy, made once and kept while it is in use: every recipient's copy is made of it.

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
        return commitment(self.salt, self.ratings)


class Given(msgspec.Struct, frozen=True, kw_only=True, tag="given"):
    """A copy that was handed over; the copy itself is made again from its base copy.

    Attributes:
        entry: Entry of the share.
        salt: Opens its commitment to the copy, 32 bytes.
    """

    entry: bytes
    salt: bytes


class Received(msgspec.Struct, frozen=True, kw_only=True, tag="received"):
    """A copy that was received.

    Attributes:
        giver: The giver's number.
        copy: The copy, as `Ratings.user_bytes` writes it.
        salt: Opens the share's commitment to it, 32 bytes.
        max_shares: Copies that its consent allows, > 0.
        epsilon_nano: At which its ratings were perturbed, in 1e-9; 0: they are open.
    """

    giver: int
    copy: bytes
    salt: bytes
    max_shares: int
    epsilon_nano: int


Kept = Granted | Base | Given | Received
"""What a device keeps of sharing, by a digest: the leaf hash of a consent or share, the commitment of a base copy."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """An act that is not known to stand on the ledger yet: enough to bring it to its end.

    Attributes:
        entry: The signed entry.
        key: By which `kept` is kept.
        kept: What the device keeps once the entry stands; None: nothing.
    """

    entry: bytes
    key: bytes = b""
    kept: Granted | Given | Received | None = None


class WishToConsent(msgspec.Struct, frozen=True, kw_only=True, tag="consent"):
    """Let others have copies.

    Attributes:
        recipients: Their numbers, increasing.
        blocks: For how many blocks the consent lives, > 0.
        max_shares: Copies at most, > 0.
        epsilon: Most that all copies together may reveal of a rating, > 0; None: copies may be open.
        rating_fraction: Part of the own ratings that a copy has, 0 < rating_fraction <= 1.
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


class WishToShare(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """Hand a copy over.

    Attributes:
        consent: Position of the consent's entry.
        recipient: The recipient's number.
    """

    consent: int
    recipient: int


class WishToWithdraw(msgspec.Struct, frozen=True, kw_only=True, tag="withdrawal"):
    """Take a consent back.

    Attributes:
        consent: Position of its entry; None: everything, for good.
    """

    consent: int | None


class WishToBeForgotten(msgspec.Struct, frozen=True, kw_only=True, tag="erasure"):
    """Leave for good."""


Wish: TypeAlias = WishToConsent | WishToShare | WishToWithdraw | WishToBeForgotten
"""What a person wants to be done by whoever owns the ledger next."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A wish that is not known to be carried out.

    Attributes:
        id: Of the wish, > 0.
        slot: Whose.
        wish: What is wanted.
        seq: The sequence number with which its entry was, or would have been, signed; 0 before it was tried.
    """

    id: int
    slot: int
    wish: Wish
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is known of a device without its sealing key.

    Attributes:
        slot: Index on this host, 0 <= slot.
        user_id: The person's id in the data set.
        number: The person's number on the ledger, None before enrolment.
        last_seq: Largest sequence number signed.
        last_round: Last round answered, 0 if none.
        epsilon_nano: Spent from the epsilon account by all answers so far, in 1e-9.
        rho_nano: Spent from the rho account, likewise.
        run: The run that its person has agreed to take part in, 0 if none.
        epsilon_nano_agreed: Most that may be spent from the epsilon account by then, all runs together, in 1e-9.
        rho_nano_agreed: Most from the rho account, likewise.
        is_revoked: Whether its key was revoked, and not replaced since.
        is_erased: Whether its sealing key was destroyed: then nothing is kept but this row, so that the same data set
            does not bring the person back.
    """

    slot: int
    user_id: str
    number: int | None
    last_seq: int
    last_round: int
    epsilon_nano: int
    rho_nano: int
    run: int
    epsilon_nano_agreed: int
    rho_nano_agreed: int
    is_revoked: bool
    is_erased: bool

    @property
    def enrolled_number(self) -> int:
        """The number on the ledger.

        Raises:
            FederationError: It is not enrolled.
        """
        if self.number is None:
            raise FederationError(f"device {self.slot} is not enrolled")
        return self.number

    def is_awaited(self, current: OpenRound | None) -> bool:
        """Whether it has answered the open round, and the ledger has not got the answer yet."""
        if current is None or self.last_round != current.record.number:
            return False
        return self.number not in current.answered

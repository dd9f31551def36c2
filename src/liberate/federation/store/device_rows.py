"""The rows of a device store: what a device stores under its key, and what is known of it without the key."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from liberate.errors import FederationError
from liberate.ledger.format.parts import KeyName
from liberate.ledger.rules.round_state import OpenRound
from liberate.ledger.rules.state import State

EMPTY_RATINGS = bytes(4)
"""What a device without ratings stores, in the encoding of `Ratings.user_bytes`."""


class DeviceData(msgspec.Struct, frozen=True, kw_only=True):
    """What one device stores for good.

    Attributes:
        person_seed: Seed of the Ed25519 key with which its person decides, 32 bytes.
        device_seed: Seed of the Ed25519 key of the device itself, for updates, commitments to ratings and mask keys.
        dataset_salt: Opens the dataset commitment, 32 bytes.
        ratings: The participant's ratings, in the encoding of `Ratings.user_bytes`.
        held_out: Ratings that nothing learns from, likewise. They show their owner how good predictions are, and are
            neither committed to nor sent.
        dataset_seq: Sequence number with which these ratings are, or will be, committed to.
    """

    person_seed: bytes
    device_seed: bytes
    dataset_salt: bytes
    ratings: bytes
    held_out: bytes = EMPTY_RATINGS
    dataset_seq: int = 1

    def seed_of(self, which: KeyName) -> bytes:
        """Return the seed of one of the two keys."""
        return self.device_seed if which == "device" else self.person_seed

    def with_seed(self, which: KeyName, seed: bytes) -> DeviceData:
        """Return the same with another seed of one of the two keys."""
        if which == "device":
            return msgspec.structs.replace(self, device_seed=seed)
        return msgspec.structs.replace(self, person_seed=seed)


class AnswerSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What hides one answer, 32 bytes each.

    Attributes:
        noise_key: Regenerates the noise, and so the upload, bit for bit.
        upload_salt: Opens the upload's commitment.
        profile_salt: Opens the profile's commitment.
    """

    noise_key: bytes
    upload_salt: bytes
    profile_salt: bytes


class OutboxMessage(AnswerSecrets, frozen=True, kw_only=True):
    """An answer in the outbox: what is needed to send the same bytes again.

    Attributes:
        entry: The signed update entry.
    """

    entry: bytes


class NeighbourKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbour in a masked round, and the public keys it signed for.

    Attributes:
        number: Its number on the ledger.
        mask: X25519 key of the masks shared with it.
        seal: X25519 key that seals shares to it.
        is_holder: Whether the device chose it, and so deals it shares of its secrets.
        is_dealer: Whether it chose the device, which so holds shares of its secrets.
    """

    number: int
    mask: bytes
    seal: bytes
    is_holder: bool
    is_dealer: bool


class SecAggState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a device is in a masked round. What is set is never changed: that binds it to one answer in each phase.

    Attributes:
        round_hash: Leaf hash of the round's entry.
        secret: All keys of the round are derived from it, 32 bytes.
        advertised: Digest of the recorded set for which it revealed its seed; None before it did.
        graph: Digest of the recorded set whose keys and seeds it took; None before it shared its secrets.
        neighbours: Whom it chose or was chosen by, by increasing number; empty before it shared.
        sent: Sealed shares of its secrets, one for each neighbour that it chose.
        shared: Digest of the recorded set of those who continue; None before it masked.
        continuing: Its neighbours in that set, increasing: with exactly these it masks.
        received: Sealed shares by dealer, increasing.
        survivors: Digest of the survivor set for which it has given shares away; None before it did.
    """

    round_hash: bytes
    secret: bytes
    advertised: bytes | None = None
    graph: bytes | None = None
    neighbours: tuple[NeighbourKeys, ...] = ()
    sent: tuple[bytes, ...] = ()
    shared: bytes | None = None
    continuing: tuple[int, ...] = ()
    received: tuple[tuple[int, bytes], ...] = ()
    survivors: bytes | None = None

    @property
    def mask_context(self) -> bytes:
        """What keys of shared masks are for: all that defines the graph, so that masks of unequal views never cancel.

        Raises:
            ValueError: The device has not masked yet.
        """
        if self.advertised is None or self.graph is None or self.shared is None:
            raise ValueError("the sets of the round are not known")
        return self.round_hash + self.advertised + self.graph + self.shared


class PendingKeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of key that is not yet known to be in the log: enough to complete it.

    Attributes:
        entry: The signed `key` entry.
        which: Which key.
        seed: Seed of the key that it names, 32 bytes; None: it revokes.
    """

    entry: bytes
    which: KeyName
    seed: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is known of a device without its sealing key.

    Attributes:
        slot: Index on this host, 0 <= slot.
        user_id: The participant's id in the data set.
        number: The participant's number on the ledger, None before enrolment.
        last_seq: Largest sequence number signed.
        last_round: Last round answered, 0 if none.
        epsilon_nano: Spent from the epsilon account by all answers so far, in 1e-9.
        rho_nano: Spent from the rho account, likewise.
        run: The run that the participant has agreed to take part in, 0 if none.
        epsilon_nano_agreed: Most that may be spent from the epsilon account by then, all runs together, in 1e-9.
        rho_nano_agreed: Most from the rho account, likewise.
        epsilon_nano_limit: Most that may ever be spent from the epsilon account, in 1e-9, as first agreed to; None: the
            participant has agreed to no private run yet.
        rho_nano_limit: Most from the rho account, likewise.
        is_revoked: Whether it has signed that its key or its person's is revoked, and no other has replaced that since.
        has_withdrawn: Whether it has signed that its participant withdraws from everything: it answers no round any
            more, whatever the ledger shows.
        terms_hash: Leaf hash of the entry whose terms its participant has accepted, None before the first.
        is_erased: Whether its sealing key was destroyed: only this row is left, so that the same data set does not
            bring the participant back.
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
    epsilon_nano_limit: int | None
    rho_nano_limit: int | None
    is_revoked: bool
    has_withdrawn: bool
    terms_hash: bytes | None
    is_erased: bool

    @property
    def has_limit(self) -> bool:
        """Whether its participant has a limit for life: then every answer has a price, all from one account."""
        return self.epsilon_nano_limit is not None

    @property
    def enrolled_number(self) -> int:
        """The number on the ledger.

        Raises:
            FederationError: It is not enrolled.
        """
        if self.number is None:
            raise FederationError(f"device {self.slot} is not enrolled")
        return self.number

    def next_sequence(self, state: State) -> int:
        """Return a sequence number that neither the ledger nor the device has seen used."""
        return 1 + max(state.principals[self.enrolled_number].sequence, self.last_seq)

    def is_awaited(self, current: OpenRound | None) -> bool:
        """Whether it has answered the open round, and the ledger has not got the answer yet."""
        if current is None or self.last_round != current.record.number:
            return False
        return self.number not in current.answered

"""What people do with their consent: they grant it, hand copies over, take copies, and withdraw it.

    prepare -> append -> settle

An act is durable on the device, with all that it leaves there, before the ledger sees its entry; once the entry stands,
what it leaves is in force. A crash leaves acts under way: whoever owns the ledger next sends the same bytes again,
which the ledger takes once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypedDict

import msgspec

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.signing import SigningKey
from liberate.data.rating_scale import RatingScale
from liberate.errors import CopyDeclined, FederationError, LiberateError, RefusedEntry
from liberate.federation.sharing.copies import fingerprinted_copy, make_base_copy, open_copy, seal_copy
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy, PendingEntry, ReceivedCopy
from liberate.federation.wire.copies import ConsentScope, SealedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.records import Record
from liberate.ledger.format.sharing_records import Consent, Receipt, Share, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.randomness import Randomness
from liberate.units import NANO, from_nano, to_nano

_ACTS_IN_A_BLOCK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentTerms:
    """What a consent allows.

    Attributes:
        recipients: Numbers of those who may get copies: participants, or the coordinator for the pool.
        expiry: Height of the last block in which copies may be handed over or used, > 0.
        max_shares: Copies at most, > 0.
        epsilon: At which each rating is perturbed, once, before any copy is made, and most that all copies together
            reveal of it, 1e-9 at least; None: copies are open.
        rating_fraction: Part of the own ratings that copies have, the same ones in each, 0 < rating_fraction <= 1.
        items: Items whose ratings copies may have, by their index in the catalogue, increasing; None: all.
        purpose: What copies are for. Recipients are told; the ledger has a salted commitment only.
    """

    recipients: tuple[int, ...]
    expiry: int
    max_shares: int
    epsilon: float | None = None
    rating_fraction: float = 1.0
    items: tuple[int, ...] | None = None
    purpose: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.rating_fraction <= 1:
            raise ValueError(f"rating_fraction is {self.rating_fraction}, wanted 0 < rating_fraction <= 1")
        if self.epsilon is not None and not 1 <= self.epsilon * NANO <= LARGEST_INTEGER:
            raise ValueError(f"epsilon is {self.epsilon}, wanted 1e-9 <= epsilon <= {LARGEST_INTEGER // NANO}")
        for name, value in (("expiry", self.expiry), ("max_shares", self.max_shares)):
            if not 1 <= value <= LARGEST_INTEGER:
                raise ValueError(f"{name} is {value}, wanted 1 <= {name} <= {LARGEST_INTEGER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOverCopy:
    """What a sender keeps of a copy: enough to make it again, and to open its commitments.

    Attributes:
        sender: The sender's number.
        share: The share.
        hash: Leaf hash of its entry.
        salt: Opens its commitment to the copy.
        base: The base copy, with its salt, key and scale.
    """

    sender: int
    share: Share
    hash: Digest
    salt: bytes
    base: BaseCopy

    @property
    def copy(self) -> bytes:
        """The copy, as `Ratings.user_bytes` writes it."""
        return fingerprinted_copy(self.base, self.share.recipient)


EntryOutcome = int | LiberateError
"""The position of an act's entry, or why there is none."""


# --- acts of one person -----------------------------------------------------------------------------------------------


def give_consent(
    ledger: Ledger, devices: DeviceStore, device: Device, terms: ConsentTerms, randomness: Randomness
) -> int:
    """Consent to copies; give the position of the entry.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device.
        device: The sender's.
        terms: What is allowed.
        randomness: Source of salts.

    Raises:
        FederationError: An answer of the device is on its way, or the ledger refuses.
    """
    return _position(give_consents(ledger, devices, [(device, terms)], randomness), "consent")


def withdraw(ledger: Ledger, devices: DeviceStore, device: Device, consent: Digest | None) -> int:
    """Take one consent back, by the leaf hash of its entry, or everything for good; give the position of the entry.

    Raises:
        FederationError: An answer of the device is on its way, or the ledger refuses.
    """
    acting = _Acting(ledger, devices)
    acting.add(device, PendingEntry(entry=acting.sign(device, Withdrawal(**acting.header(device), consent=consent))))
    return _position(acting.carry_out(), "withdrawal")


def hand_over(
    ledger: Ledger,
    devices: DeviceStore,
    device: Device,
    consent: Digest,
    recipient: int,
    scale: RatingScale,
    randomness: Randomness,
) -> tuple[int, SealedCopy]:
    """Hand a copy over; give the position of the entry, and the copy for the recipient.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device.
        device: The sender's.
        consent: Leaf hash of the consent that covers it.
        recipient: The recipient's number.
        scale: Of the ratings.
        randomness: Source of keys and salts.

    Raises:
        FederationError: An answer of the device is on its way, there is no such consent, or the ledger refuses.
    """
    position = _position(hand_over_all(ledger, devices, [(device, consent, recipient)], scale, randomness), "share")
    return position, sealed_copy_of(ledger, devices, device.slot, decode_entry(ledger.entry(position)).leaf_hash)


def accept_copy(ledger: Ledger, devices: DeviceStore, device: Device, sealed_copy: SealedCopy, n_items: int) -> int:
    """Take a copy; give the position of the receipt.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device.
        device: The recipient's.
        sealed_copy: The copy.
        n_items: Size of the catalogue.

    Raises:
        SealBroken: It is sealed to another key.
        FederationError: An answer of the device is on its way, the sealed_copy is not what it should be, or the ledger
            refuses.
    """
    return _position(receive_all(ledger, devices, [(device, sealed_copy)], n_items), "receipt")


# --- acts of many people ----------------------------------------------------------------------------------------------


def give_consents(
    ledger: Ledger, devices: DeviceStore, grants: Sequence[tuple[Device, ConsentTerms]], randomness: Randomness
) -> list[EntryOutcome]:
    """Let people consent, a block at a time; see `give_consent`."""
    acting = _Acting(ledger, devices)
    for device, terms in grants:
        header = acting.header(device)
        scope = msgspec.msgpack.encode(
            ConsentScope(purpose=terms.purpose, rating_fraction=terms.rating_fraction, items=terms.items)
        )
        salt = randomness.secret("consent salt", header["author"], header["seq"])
        record = Consent(
            **header,
            recipients=to_ranges(sorted(terms.recipients)),
            expiry=terms.expiry,
            max_shares=terms.max_shares,
            epsilon_nano=to_nano(terms.epsilon),
            terms=salted_commitment(salt, scope),
        )
        entry = acting.sign(device, record)
        kept = GivenConsent(entry=entry, scope=scope, salt=salt)
        acting.add(device, PendingEntry(entry=entry, digest=decode_entry(entry).leaf_hash, row=kept))
    return acting.carry_out()


def hand_over_all(
    ledger: Ledger,
    devices: DeviceStore,
    shares: Sequence[tuple[Device, Digest, int]],
    scale: RatingScale,
    randomness: Randomness,
) -> list[EntryOutcome]:
    """Let people hand copies over, a block at a time; see `hand_over`.

    Args:
        ledger: The ledger.
        devices: The store that holds their devices.
        shares: (device, leaf hash of the consent, recipient) of each copy.
        scale: Of the ratings.
        randomness: Source of keys and salts.
    """
    acting = _Acting(ledger, devices)
    bases: dict[tuple[int, Digest], BaseCopy] = {}
    for device, consent, recipient in shares:
        header = acting.header(device)
        author, seq = header["author"], header["seq"]
        if (device.slot, consent) not in bases:
            bases[device.slot, consent] = _base_for(devices, device, consent, scale, randomness, seq)
        base = bases[device.slot, consent]
        salt = randomness.secret("copy salt", author, seq)
        record = Share(
            **header,
            consent=consent,
            recipient=recipient,
            base=base.commitment,
            epsilon_nano=base.epsilon_nano,
            copy=salted_commitment(salt, fingerprinted_copy(base, recipient)),
        )
        entry = acting.sign(device, record)
        act = PendingEntry(entry=entry, digest=decode_entry(entry).leaf_hash, row=GivenCopy(entry=entry, salt=salt))
        acting.add(device, act, base)
    return acting.carry_out()


def receive_all(
    ledger: Ledger, devices: DeviceStore, sealed_copies: Sequence[tuple[Device, SealedCopy]], n_items: int
) -> list[EntryOutcome]:
    """Let people take copies, a block at a time; see `accept_copy`.

    One that is not what it should be, or is not wanted, is left: a `CopyDeclined` says that somebody takes no more.
    """
    acting, room = _Acting(ledger, devices), _Room(devices)
    outcomes: list[EntryOutcome | None] = []
    for device, sealed_copy in sealed_copies:
        try:
            opened = open_copy(sealed_copy, acting.key(device), device.enrolled_number, n_items)
            room.take(device)
        except LiberateError as error:
            outcomes.append(error)
            continue
        share = opened.share
        record = Receipt(**acting.header(device), sender=share.author, share=opened.hash, copy=share.copy)
        acting.add(device, PendingEntry(entry=acting.sign(device, record), digest=opened.hash, row=opened.received))
        outcomes.append(None)
    taken = iter(acting.carry_out())
    return [next(taken) if outcome is None else outcome for outcome in outcomes]


class _Room:
    """How many more copies people want."""

    def __init__(self, devices: DeviceStore) -> None:
        self._devices = devices
        self._left: dict[int, int | None] = {}

    def take(self, device: Device) -> None:
        """Count one copy more.

        Raises:
            CopyDeclined: It is one too many.
        """
        slot = device.slot
        if slot not in self._left:
            most = self._devices.copy_quota(slot)
            held = 0 if most is None else sum(1 for _ in self._devices.sharing_rows(ReceivedCopy, slot))
            self._left[slot] = None if most is None else max(0, most - held)
        left = self._left[slot]
        if left == 0:
            raise CopyDeclined(f"participant {device.number} takes no more copies")
        self._left[slot] = None if left is None else left - 1


def resume_pending_entries(ledger: Ledger, devices: DeviceStore) -> None:
    """End the acts that a crash left under way: they stand on the ledger, or it refuses them."""
    _carry_out(ledger, devices, devices.pending_entries())


# --- what senders keep ------------------------------------------------------------------------------------------------


def sealed_copy_of(ledger: Ledger, devices: DeviceStore, slot: int, share: Digest) -> SealedCopy:
    """Make the sealed_copy of a share that stands on the ledger, by its leaf hash; again, with the same copy in it.

    Raises:
        FederationError: The device has not handed over such a copy.
    """
    given = devices.sharing_row(GivenCopy, slot, share)
    record = None if given is None else decode_entry(given.entry).record
    if given is None or not isinstance(record, Share):
        raise FederationError(f"device {slot} keeps no share {share.hex()[:16]}")
    base = devices.sharing_row(BaseCopy, slot, record.base)
    granted = devices.sharing_row(GivenConsent, slot, record.consent)
    if base is None or granted is None:
        raise FederationError(f"device {slot} does not keep what share {share.hex()[:16]} was made of")
    return seal_copy(granted, given, base, record, ledger.state.principals[record.recipient].key)


def handed_over_copies(devices: DeviceStore, slot: int | None = None) -> Iterator[HandedOverCopy]:
    """Give what all senders, or one by the device's slot, keep of the copies they handed over, by leaf hash."""
    bases = {(owner, key): base for owner, key, base in devices.sharing_rows(BaseCopy, slot)}
    for owner, hash, given in devices.sharing_rows(GivenCopy, slot):
        share = decode_entry(given.entry).record
        if isinstance(share, Share):
            yield HandedOverCopy(
                sender=share.author, share=share, hash=hash, salt=given.salt, base=bases[owner, share.base]
            )


def _base_for(
    devices: DeviceStore, device: Device, consent: Digest, scale: RatingScale, randomness: Randomness, seq: int
) -> BaseCopy:
    """Give the base copy of a consent: the one that is kept if it was made of the same ratings in the same way."""
    granted = devices.sharing_row(GivenConsent, device.slot, consent)
    terms = None if granted is None else decode_entry(granted.entry).record
    if granted is None or not isinstance(terms, Consent):
        raise FederationError(f"participant {device.number} keeps no consent {consent.hex()[:16]}")
    scope = msgspec.msgpack.decode(granted.scope, type=ConsentScope)
    ratings = devices.data_of(device.slot).ratings
    covered = scope.rating_fraction, scope.items
    wanted = terms.epsilon_nano, covered, (scale.low, scale.step, scale.n_levels), sha256(ratings).digest()
    for _, _, base in devices.sharing_rows(BaseCopy, device.slot):
        if (base.epsilon_nano, (base.fraction, base.items), base.scale, base.source) == wanted:
            return base
    return make_base_copy(
        ratings,
        scale,
        scope,
        key=randomness.secret("base key", device.enrolled_number, seq),
        salt=randomness.secret("base salt", device.enrolled_number, seq),
        epsilon=from_nano(terms.epsilon_nano),
    )


# --- prepare, append, settle ------------------------------------------------------------------------------------------


class _Header(TypedDict):
    origin: str
    author: int
    seq: int


@dataclass(slots=True)
class _Acting:
    """Acts of people that are being prepared, each with the next sequence number of its author."""

    ledger: Ledger
    devices: DeviceStore
    _acts: list[tuple[int, int, PendingEntry]] = field(default_factory=list)
    _bases: dict[tuple[int, Digest], BaseCopy] = field(default_factory=dict)
    _keys: dict[int, SigningKey] = field(default_factory=dict)
    _seqs: dict[int, int] = field(default_factory=dict)

    def header(self, device: Device) -> _Header:
        number = device.enrolled_number
        if device.slot not in self._seqs:
            _check_no_answer_waits(self.ledger, device)
            self._seqs[device.slot] = max(self.ledger.state.principals[number].sequence, device.last_seq)
        return {"origin": self.ledger.origin, "author": number, "seq": self._seqs[device.slot] + 1}

    def key(self, device: Device) -> SigningKey:
        if device.slot not in self._keys:
            self._keys[device.slot] = SigningKey.from_seed(self.devices.data_of(device.slot).signing_seed)
        return self._keys[device.slot]

    def sign(self, device: Device, record: Record) -> bytes:
        return sign(record, self.key(device))

    def add(self, device: Device, act: PendingEntry, base: BaseCopy | None = None) -> None:
        self._seqs[device.slot] += 1
        self._acts.append((device.slot, self._seqs[device.slot], act))
        if base is not None:
            self._bases[device.slot, base.commitment] = base

    def carry_out(self) -> list[EntryOutcome]:
        """Keep all acts, then append them a block at a time, then put them into force."""
        bases = [(slot, base) for (slot, _), base in self._bases.items()]
        self.devices.put_pending_entries(self._acts, bases)
        return _carry_out(self.ledger, self.devices, self._acts)


def _carry_out(
    ledger: Ledger, devices: DeviceStore, acts: Sequence[tuple[int, int, PendingEntry]]
) -> list[EntryOutcome]:
    outcomes: list[EntryOutcome] = []
    for begin in range(0, len(acts), _ACTS_IN_A_BLOCK):
        some = acts[begin : begin + _ACTS_IN_A_BLOCK]
        appended = ledger.append([act.entry for _, _, act in some])
        pairs = list(zip(some, appended, strict=True))
        devices.settle_pending_entries(
            [act for act, outcome in pairs if not isinstance(outcome, RefusedEntry)],
            [(slot, seq) for (slot, seq, _), outcome in pairs if isinstance(outcome, RefusedEntry)],
        )
        outcomes += appended
    return outcomes


def _check_no_answer_waits(ledger: Ledger, device: Device) -> None:
    if device.is_awaited(ledger.state.open_round):
        raise FederationError(
            f"participant {device.number} has answered round {device.last_round}, and the ledger has not got the answer"
            " yet",
            hint="the train command goes on with the round; act after it",
        )


def _position(outcomes: Sequence[EntryOutcome], what: str) -> int:
    (outcome,) = outcomes
    if isinstance(outcome, RefusedEntry):
        raise FederationError(f"the ledger refuses the {what}: {outcome}") from outcome
    if isinstance(outcome, LiberateError):
        raise outcome
    return outcome

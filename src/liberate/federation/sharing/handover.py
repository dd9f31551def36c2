"""Participants hand copies of their ratings over, and keep what makes each copy again and opens its commitments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.merkle import leaf_hash
from liberate.data.rating_scale import RatingScale
from liberate.errors import FederationError
from liberate.federation.entry_writer import accepted_position
from liberate.federation.sharing.copies import fingerprinted_copy, make_base_copy, seal_copy
from liberate.federation.sharing.outbox import EntryOutbox, EntryOutcome
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy, PendingEntry
from liberate.federation.wire.copies import ConsentScope, SealedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.sharing_records import Consent, Share
from liberate.ledger.interface import Ledger
from liberate.randomness import Randomness
from liberate.units import from_nano


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
        """The copy, in the encoding of `Ratings.user_bytes`."""
        return fingerprinted_copy(self.base, self.share.recipient)


def hand_over(
    ledger: Ledger,
    devices: DeviceStore,
    device: Device,
    consent: Digest,
    recipient: int,
    scale: RatingScale,
    randomness: Randomness,
) -> tuple[int, SealedCopy]:
    """Hand a copy over, and return the position of the entry and the copy for the recipient.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device.
        device: The sender's device.
        consent: Leaf hash of the consent that covers it.
        recipient: The recipient's number.
        scale: Scale of the ratings.
        randomness: Source of keys and salts.

    Raises:
        FederationError: An answer of the device is on its way, there is no such consent, or the ledger refuses the
            share.
    """
    (outcome,) = hand_over_copies(ledger, devices, [(device, consent, recipient)], scale, randomness)
    position = accepted_position(outcome, "the share")
    return position, sealed_copy_of(ledger, devices, device.slot, leaf_hash(ledger.entry(position)))


def hand_over_copies(
    ledger: Ledger,
    devices: DeviceStore,
    shares: Sequence[tuple[Device, Digest, int]],
    scale: RatingScale,
    randomness: Randomness,
) -> list[EntryOutcome]:
    """Let several participants hand copies over, a block at a time; see `hand_over`.

    Args:
        ledger: The ledger.
        devices: The store that holds their devices.
        shares: (device, leaf hash of the consent, recipient) of each copy.
        scale: Scale of the ratings.
        randomness: Source of keys and salts.
    """
    outbox = EntryOutbox(ledger, devices)
    bases: dict[tuple[int, Digest], BaseCopy] = {}
    for device, consent, recipient in shares:
        header = outbox.header(device)
        # All copies under a consent are made of one base copy, which is stored only with the first of them.
        if (device.slot, consent) not in bases:
            bases[device.slot, consent] = _base_for(devices, device, consent, scale, randomness, header["seq"])
        base = bases[device.slot, consent]
        salt = randomness.secret("copy salt", header["author"], header["seq"])

        record = Share(
            **header,
            consent=consent,
            recipient=recipient,
            base=base.commitment,
            epsilon_nano=base.epsilon_nano,
            copy=salted_commitment(salt, fingerprinted_copy(base, recipient)),
        )
        entry = outbox.sign(device, record)
        given = GivenCopy(entry=entry, salt=salt)
        outbox.add(device, PendingEntry(entry=entry, digest=leaf_hash(entry), row=given), base)
    return outbox.send()


def sealed_copy_of(ledger: Ledger, devices: DeviceStore, slot: int, share: Digest) -> SealedCopy:
    """Return a recorded share as its recipient gets it, by its leaf hash: always with the same copy in it.

    Raises:
        FederationError: The device has not handed over such a copy.
    """
    given = devices.sharing_row(GivenCopy, slot, share)
    if given is None:
        raise FederationError(f"device {slot} keeps no share {share.hex()[:16]}")

    record = decode_record(given.entry, Share)
    base = devices.sharing_row(BaseCopy, slot, record.base)
    consent = devices.sharing_row(GivenConsent, slot, record.consent)
    if base is None or consent is None:
        raise FederationError(f"device {slot} does not keep what share {share.hex()[:16]} was made of")
    return seal_copy(consent, given, base, record, ledger.state.principals[record.recipient].key)


def handed_over_copies(devices: DeviceStore, slot: int | None = None) -> Iterator[HandedOverCopy]:
    """Yield what all senders, or one by the device's slot, keep of the copies they handed over, by leaf hash."""
    bases = {(owner, key): base for owner, key, base in devices.sharing_rows(BaseCopy, slot)}
    for owner, hash, given in devices.sharing_rows(GivenCopy, slot):
        share = decode_record(given.entry, Share)
        base = bases[owner, share.base]
        yield HandedOverCopy(sender=share.author, share=share, hash=hash, salt=given.salt, base=base)


def _base_for(
    devices: DeviceStore, device: Device, consent: Digest, scale: RatingScale, randomness: Randomness, seq: int
) -> BaseCopy:
    """Return the base copy of a consent: the one that is kept if it was made of the same ratings in the same way."""
    given = devices.sharing_row(GivenConsent, device.slot, consent)
    if given is None:
        raise FederationError(f"participant {device.number} keeps no consent {consent.hex()[:16]}")
    epsilon_nano = decode_record(given.entry, Consent).epsilon_nano
    scope = msgspec.msgpack.decode(given.scope, type=ConsentScope)
    ratings = devices.data_of(device.slot).ratings

    # Perturbed anew, the same ratings would reveal more than the consent allows.
    method = epsilon_nano, scope.rating_fraction, scope.items, (scale.low, scale.step, scale.n_levels)
    for _, _, base in devices.sharing_rows(BaseCopy, device.slot):
        is_same_method = (base.epsilon_nano, base.fraction, base.items, base.scale) == method
        if is_same_method and base.source == sha256(ratings).digest():
            return base

    return make_base_copy(
        ratings,
        scale,
        scope,
        key=randomness.secret("base key", device.enrolled_number, seq),
        salt=randomness.secret("base salt", device.enrolled_number, seq),
        epsilon=from_nano(epsilon_nano),
    )

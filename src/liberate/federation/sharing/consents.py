"""Participants consent to copies of their ratings, and withdraw their consents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.merkle import leaf_hash
from liberate.federation.entry_writer import accepted_position
from liberate.federation.sharing.outbox import EntryOutbox, EntryOutcome
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import GivenConsent, PendingEntry
from liberate.federation.wire.copies import ConsentScope
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.sharing_records import Consent, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.randomness import Randomness
from liberate.units import NANO, to_nano

RECOVER_HINT = "keys recover replaces a revoked key"
"""What helps whoever can sign nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentTerms:
    """What a consent allows.

    Attributes:
        recipients: Numbers of those who may get copies: participants, or the coordinator for the pool.
        expiry: Height of the last block in which copies may be handed over or used, > 0.
        max_shares: Largest number of copies, > 0.
        epsilon: At which each rating is perturbed, once, before any copy is made, and most that all copies together
            reveal of it, >= 1e-9; None: copies are open.
        rating_fraction: Part of the sender's ratings that copies have, the same ones in each, 0 < rating_fraction <= 1.
        items: Items whose ratings copies may have, by their index in the catalogue, increasing; None: all.
        purpose: What copies are for. Recipients are told; the ledger has only a salted commitment to it.
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


def give_consent(
    ledger: Ledger, devices: DeviceStore, device: Device, terms: ConsentTerms, randomness: Randomness
) -> int:
    """Consent to copies, and return the position of the entry.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device.
        device: The sender's device.
        terms: What is allowed.
        randomness: Source of salts.

    Raises:
        FederationError: An answer of the device is on its way, or the ledger refuses the consent.
    """
    (outcome,) = give_consents(ledger, devices, [(device, terms)], randomness)
    return accepted_position(outcome, "the consent")


def give_consents(
    ledger: Ledger, devices: DeviceStore, grants: Sequence[tuple[Device, ConsentTerms]], randomness: Randomness
) -> list[EntryOutcome]:
    """Let several participants consent, a block at a time; see `give_consent`."""
    outbox = EntryOutbox(ledger, devices)
    for device, terms in grants:
        header = outbox.header(device)
        scope = msgspec.msgpack.encode(
            ConsentScope(purpose=terms.purpose, rating_fraction=terms.rating_fraction, items=terms.items)
        )
        salt = randomness.secret("consent salt", header["author"], header["seq"])

        record = Consent(
            **header,
            recipients=to_ranges(terms.recipients),
            expiry=terms.expiry,
            max_shares=terms.max_shares,
            epsilon_nano=to_nano(terms.epsilon),
            terms=salted_commitment(salt, scope),
        )
        entry = outbox.sign(device, record)
        given = GivenConsent(entry=entry, scope=scope, salt=salt)
        outbox.add(device, PendingEntry(entry=entry, digest=leaf_hash(entry), row=given))
    return outbox.send()


def withdraw(ledger: Ledger, devices: DeviceStore, device: Device, consent: Digest | None) -> int:
    """Withdraw one consent, by the leaf hash of its entry, or from everything for good; return the entry's position.

    Who withdraws from everything does not wait for an answer on its way: it counts as not given.

    Raises:
        FederationError: An answer of the device is on its way, or the ledger refuses the withdrawal.
    """
    outbox, is_everything = EntryOutbox(ledger, devices), consent is None
    record = Withdrawal(**outbox.header(device, overtakes_answer=is_everything), consent=consent)
    outbox.add(device, PendingEntry(entry=outbox.sign(device, record)), is_last_answer=is_everything)
    (outcome,) = outbox.send()
    return accepted_position(outcome, "the withdrawal", hint=RECOVER_HINT)

"""Sharing as the settings of a simulation arrange it: who consents, to whom, and that every copy arrives.

Arranged again, nothing is done twice: a participant whose copies have arrived is left as they are. A copy of ratings
that have changed since is withdrawn before another one is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np

from liberate.crypto.signing import SigningKey
from liberate.data.rating_scale import RatingScale
from liberate.errors import CopyDeclined, FederationError, LiberateError
from liberate.federation.sharing.acceptance import accept_copies
from liberate.federation.sharing.config import SharingConfig
from liberate.federation.sharing.consents import ConsentTerms, give_consents, withdraw
from liberate.federation.sharing.handover import hand_over_copies, sealed_copy_of
from liberate.federation.sharing.outbox import EntryOutcome
from liberate.federation.sharing.pool_intake import accept_into_pool
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy
from liberate.federation.wire.copies import ConsentScope, SealedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import includes
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.sharing_state import LiveConsent
from liberate.randomness import Randomness, stream_words
from liberate.timing import Progress
from liberate.units import to_nano

_BATCH_SIZE = 1000
_LIFETIME_BLOCKS = 1_000_000
"""Blocks after which an arranged consent expires."""

_PURPOSE = "recommendations for all who take part"

_Recipients = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A copy that is on its way: recipient, slot of the sender's device, and leaf hash of the share."""

    recipient: int
    slot: int
    share: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingSimulation:
    """Lets the participants of a simulation share.

    Attributes:
        config: Who shares, with whom, and on which terms.
        ledger: The ledger, owned by this process, between rounds.
        devices: The store of the one host.
        participants: Numbers of the run's participants.
        coordinator: The coordinator's number.
        coordinator_key: Its signing key.
        pool: Where it keeps copies.
        n_items: Size of the catalogue.
        scale: Scale of the ratings.
        choices: Source of what is chosen for participants: the same in each run.
        randomness: Source of keys and salts, another one in each run.
    """

    config: SharingConfig
    ledger: Ledger
    devices: DeviceStore
    participants: Sequence[int]
    coordinator: int
    coordinator_key: SigningKey
    pool: PoolStore
    n_items: int
    scale: RatingScale
    choices: Randomness
    randomness: Randomness

    def run(self, progress: Progress) -> None:
        """Let participants consent and hand over what is missing, and bring every copy to its recipient.

        Raises:
            FederationError: The ledger refuses an entry, or a copy does not arrive.
        """
        senders = self._senders()
        devices = self._enrolled_devices()
        for begin in range(0, len(senders), _BATCH_SIZE):
            batch = senders[begin : begin + _BATCH_SIZE]
            missing = {sender: self._recipients_without_copy(devices[sender]) for sender in batch}
            if any(missing.values()):
                done = f"{begin + len(batch):,} of {len(senders):,}"
                progress(f"sharing copies with {self.config.recipients}: {done} participants")
                self._share({sender: recipients for sender, recipients in missing.items() if recipients})
        self._deliver()

    def _enrolled_devices(self) -> dict[int, Device]:
        """Return the devices as they are now, by number: entries move their sequence numbers on."""
        return {device.number: device for device in self.devices.devices() if device.number is not None}

    def _senders(self) -> list[int]:
        """Choose who shares: in each run the same participants, as far as they take part."""
        count = round(self.config.user_fraction * len(self.participants))
        return sorted(sorted(self.participants, key=lambda number: self.choices.secret("sharer", number))[:count])

    def _recipients(self, sender: int) -> _Recipients:
        """Choose who gets a sender's copies: in each run the same participants, as far as they take part."""
        if self.config.recipients == "pool":
            return (self.coordinator,)
        others = np.array([number for number in self.participants if number != sender], np.int32)
        order = np.argsort(stream_words(self.choices.secret("recipients", sender), others), kind="stable")
        return tuple(sorted(others[order[: self.config.n_recipients]].tolist()))

    def _recipients_without_copy(self, device: Device) -> _Recipients:
        """Return the recipients who have no copy of the present ratings on the present terms.

        Consents to copies of other ratings, or on other terms, are withdrawn; what participants decided to share by
        themselves stays as it is, and counts.
        """
        wanted = self._recipients(device.enrolled_number)
        ratings = sha256(self.devices.data_of(device.slot).ratings).digest()
        present = ratings, self.config.rating_fraction, to_nano(self.config.epsilon)
        current: set[int] = set()
        stale: dict[Digest, None] = {}
        for consent, share, base in self._kept_shares(device):
            if share.recipient not in wanted:
                continue
            if (base.source, base.fraction, share.epsilon_nano) == present or not self._is_arranged(device, consent):
                current.add(share.recipient)
            else:
                stale[consent] = None

        for consent in stale:
            withdraw(self.ledger, self.devices, device, consent)
        return tuple(number for number in wanted if number not in current)

    def _kept_shares(self, device: Device) -> Iterator[tuple[Digest, Share, BaseCopy]]:
        """Yield a sender's valid shares whose base copy is kept, with it and with their consent's leaf hash."""
        shares = self.ledger.state.sharing.shares
        for hash, consent in self._consents(device).items():
            for share in (shares[share].record for share in consent.shares):
                base = self.devices.sharing_row(BaseCopy, device.slot, share.base)
                if base is not None:
                    yield hash, share, base

    def _consents(self, device: Device) -> Mapping[Digest, LiveConsent]:
        return self.ledger.state.sharing.consents.get(device.enrolled_number, {})

    def _is_arranged(self, device: Device, consent: Digest) -> bool:
        """Whether a consent was given here, not by a participant's decision."""
        scope = self._scope(device, consent)
        return scope is not None and scope.purpose == _PURPOSE

    def _scope(self, device: Device, consent: Digest) -> ConsentScope | None:
        given = self.devices.sharing_row(GivenConsent, device.slot, consent)
        return None if given is None else msgspec.msgpack.decode(given.scope, type=ConsentScope)

    def _share(self, missing: Mapping[int, _Recipients]) -> None:
        """Let senders consent, where no consent on these terms is left, and hand the missing copies over."""
        devices = self._enrolled_devices()
        grants = [
            (devices[sender], self._terms(recipients))
            for sender, recipients in missing.items()
            if self._usable_consent(devices[sender], recipients) is None
        ]
        _raise_first(give_consents(self.ledger, self.devices, grants, self.randomness))

        devices = self._enrolled_devices()
        shares = [
            (devices[sender], consent, recipient)
            for sender, recipients in missing.items()
            if (consent := self._usable_consent(devices[sender], recipients)) is not None
            for recipient in recipients
        ]
        _raise_first(hand_over_copies(self.ledger, self.devices, shares, self.scale, self.randomness))

    def _terms(self, recipients: _Recipients) -> ConsentTerms:
        # Of as many copies as there may be, each weighs an equal part of a participant: so no more than are handed out.
        is_pool = self.config.recipients == "pool"
        peers = max(1, min(self.config.n_recipients, len(self.participants) - 1))
        return ConsentTerms(
            recipients=recipients,
            expiry=self.ledger.height + _LIFETIME_BLOCKS,
            max_shares=1 if is_pool else peers,
            epsilon=self.config.epsilon,
            rating_fraction=self.config.rating_fraction,
            purpose=_PURPOSE,
        )

    def _usable_consent(self, device: Device, recipients: _Recipients) -> Digest | None:
        """Return an arranged, valid consent on the present terms under which all recipients can still get copies."""
        scope = ConsentScope(purpose=_PURPOSE, rating_fraction=self.config.rating_fraction)
        for hash, consent in self._consents(device).items():
            terms = consent.record
            if (
                self._scope(device, hash) == scope
                and terms.epsilon_nano == to_nano(self.config.epsilon)
                and all(includes(terms.recipients, number) for number in recipients)
                and len(consent.shares) + len(recipients) <= terms.max_shares
                and self.ledger.height < terms.expiry
            ):
                return hash
        return None

    def _deliver(self) -> None:
        """Bring every copy that was handed over, and may still be received, to its recipient, who accepts it."""
        numbers = self._enrolled_devices().keys()
        waiting = list(self._undelivered())

        to_pool = [delivery for delivery in waiting if delivery.recipient == self.coordinator]
        for begin in range(0, len(to_pool), _BATCH_SIZE):
            copies = [copy for _, copy in self._sealed(to_pool[begin : begin + _BATCH_SIZE])]
            key, number = self.coordinator_key, self.coordinator
            _raise_first(accept_into_pool(self.ledger, self.pool, key, number, copies, self.n_items))

        to_peers = [delivery for delivery in waiting if delivery.recipient in numbers]
        for begin in range(0, len(to_peers), _BATCH_SIZE):
            devices = self._enrolled_devices()
            received = [(devices[number], copy) for number, copy in self._sealed(to_peers[begin : begin + _BATCH_SIZE])]
            _raise_first(accept_copies(self.ledger, self.devices, received, self.n_items))

    def _undelivered(self) -> Iterator[_Delivery]:
        """Yield the copies whose senders keep them and whose recipients may still receive them."""
        state = self.ledger.state
        devices = self._enrolled_devices()
        for hash, share in state.sharing.shares.items():  # in ledger order: that of hashes would follow from ratings
            recipient = share.record.recipient
            if share.is_received or not state.may_use(hash, share) or not state.principals[recipient].is_active:
                continue
            sender = devices.get(share.sender)
            if sender is not None and self.devices.sharing_row(GivenCopy, sender.slot, hash) is not None:
                yield _Delivery(recipient, sender.slot, hash)

    def _sealed(self, deliveries: Iterable[_Delivery]) -> Iterator[tuple[int, SealedCopy]]:
        for delivery in deliveries:
            yield delivery.recipient, sealed_copy_of(self.ledger, self.devices, delivery.slot, delivery.share)


def _raise_first(outcomes: Sequence[EntryOutcome]) -> None:
    """Raise the first failure; a recipient who wants no more copies is none."""
    for outcome in outcomes:
        if isinstance(outcome, LiberateError) and not isinstance(outcome, CopyDeclined):
            raise FederationError(f"sharing could not be arranged: {outcome}") from outcome

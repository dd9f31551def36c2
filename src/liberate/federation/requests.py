"""Participants' requests wait on their devices until whoever owns the ledger processes them.

A training owns the ledger for long; a participant's command only queues the request, and the training processes it
between rounds. Before an entry is signed, its sequence number is stored with the request and signs nothing else: after
a crash it is known whether the entry was recorded, and nothing is done twice, or taken for done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

from liberate.data.rating_scale import RatingScale
from liberate.errors import FederationError, LedgerError, LiberateError
from liberate.federation.erasure import DataController, erase_participant, resume_erasures, withdraw_all
from liberate.federation.sharing.acceptance import accept_copy
from liberate.federation.sharing.consents import ConsentTerms, give_consent, withdraw
from liberate.federation.sharing.handover import hand_over, sealed_copy_of
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.requests import (
    ConsentRequest,
    ErasureRequest,
    QueuedRequest,
    ShareCopyRequest,
    WithdrawalRequest,
)
from liberate.federation.wire.copies import SealedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.sharing_records import Consent
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entry_at
from liberate.randomness import Randomness

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestProcessor:
    """Processes the requests that wait on a host's devices.

    Attributes:
        ledger: The ledger, owned by this process.
        devices: The store with the requests; no entry is pending in it.
        controller: The coordinator, and what it can destroy.
        n_items: Size of the catalogue.
        scale: Returns the scale of the ratings.
        take: Lets the coordinator take a copy for its pool.
        randomness: Source of salts, another one at each state of the ledger.
    """

    ledger: Ledger
    devices: DeviceStore
    controller: DataController
    n_items: int
    scale: Callable[[], RatingScale]
    take: Callable[[SealedCopy], object]
    randomness: Randomness

    def process_pending(self) -> int:
        """Process what can be processed; return how many requests are closed now, refused and resumed ones included.

        A request waits while an answer of its device is on its way to the ledger. Withdrawing everything does not wait:
        then the answer counts as not given.
        """
        n_closed = len(resume_erasures(self.ledger, self.devices, self.controller))
        for queued in self.devices.requests():
            try:
                outcome: int | str | None = self._process(queued)
            except LiberateError as error:
                outcome = f"{error.message} ({error.hint})" if error.hint else error.message
            except ValueError as error:  # the terms of a consent are impossible
                outcome = str(error)

            if outcome is not None:
                self.devices.close_request(queued.id, outcome)
                n_closed += 1
                _logger.info("a request of device %d is closed: %s", queued.slot, type(queued.request).__name__)
        return n_closed

    def _process(self, queued: QueuedRequest) -> int | None:
        """Process a request; return the position of its entry, None if it has to wait."""
        ledger, devices, request = self.ledger, self.devices, queued.request
        device = next(device for device in devices.devices() if device.slot == queued.slot)

        if isinstance(request, ErasureRequest):
            erasure = erase_participant(ledger, devices, device, self.controller)
            return None if erasure is None else erasure.request
        if isinstance(request, WithdrawalRequest) and request.consent is None:
            return withdraw_all(ledger, devices, device)

        position = _recorded_position(ledger, device.enrolled_number, queued.seq)
        if position is None:
            if device.is_awaited(ledger.state.open_round):
                return None
            devices.reserve_sequence(queued.id, device.next_sequence(ledger.state))
            position = self._append(device, request)

        if isinstance(request, ShareCopyRequest) and not self._deliver(device, position):
            return None
        return position

    def _append(self, device: Device, request: ConsentRequest | ShareCopyRequest | WithdrawalRequest) -> int:
        """Append the entry that a request asks for; return its position."""
        ledger, devices, number = self.ledger, self.devices, device.enrolled_number

        match request:
            case ConsentRequest():
                terms = ConsentTerms(
                    recipients=request.recipients,
                    expiry=ledger.height + request.blocks,
                    max_shares=request.max_shares,
                    epsilon=request.epsilon,
                    rating_fraction=request.rating_fraction,
                    items=request.items,
                    purpose=request.purpose,
                )
                return give_consent(ledger, devices, device, terms, self.randomness)
            case ShareCopyRequest():
                consent = _consent_at(ledger, number, request.consent)
                scale = self.scale()
                return hand_over(ledger, devices, device, consent, request.recipient, scale, self.randomness)[0]
            case WithdrawalRequest():
                return withdraw(ledger, devices, device, _consent_at(ledger, number, request.consent))
            case _:
                assert_never(request)

    def _deliver(self, device: Device, position: int) -> bool:
        """Let the recipient of a share take the copy, unless it has or never will; False: it cannot act now."""
        hash = entry_at(self.ledger, position, RecordBase).leaf_hash
        share = self.ledger.state.sharing.shares.get(hash)
        if share is None or share.is_received:
            return True

        number = share.record.recipient
        recipient = self.devices.find(number=number)
        if recipient is not None and recipient.is_awaited(self.ledger.state.open_round):
            return False

        sealed_copy = sealed_copy_of(self.ledger, self.devices, device.slot, hash)
        try:
            if number == self.controller.writer.number:
                self.take(sealed_copy)
            elif recipient is not None and not recipient.is_erased:
                accept_copy(self.ledger, self.devices, recipient, sealed_copy, self.n_items)
        except LiberateError as error:
            _logger.warning("participant %d does not take a copy: %s", number, error)
        return True


def _consent_at(ledger: Ledger, number: int, position: int | None) -> Digest:
    """Return the leaf hash of a participant's consent by the position of its entry."""
    if position is not None:
        with suppress(LedgerError):
            consent = entry_at(ledger, position, Consent)
            if consent.record.author == number:
                return consent.leaf_hash
    raise FederationError(
        f"entry {position} is no consent of participant {number}",
        hint="ledger show --kind consent lists the consents that were given",
    )


def _recorded_position(ledger: Ledger, author: int, seq: int) -> int | None:
    """Return the position of the entry with an author's sequence number, None if it is not in the ledger."""
    if 0 < seq <= ledger.state.principals[author].sequence:
        for position in reversed(ledger.positions(author=author)):
            latest = entry_at(ledger, position, RecordBase).record.seq
            if latest <= seq:
                return position if latest == seq else None
    return None

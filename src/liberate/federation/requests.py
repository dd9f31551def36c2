"""What people want to be done is kept on their devices until whoever owns the ledger carries it out.

A training owns the ledger for long; a person's command only queues the request, and the training processes it between
rounds. Before an entry is signed, its sequence number is stored with the request and signs nothing else: after a crash
it is known whether the entry stands, and nothing is done twice, or taken for done.
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
    """Where requests are carried out.

    Attributes:
        ledger: The ledger, owned by this process.
        devices: The store with the requests; no act is under way on it.
        controller: The coordinator, and what it can destroy.
        n_items: Size of the catalogue.
        scale: Gives the scale of the ratings.
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


def carry_out(processor: RequestProcessor) -> int:
    """Carry out what can be; give how many requests were dealt with, refused ones and broken-off departures included.

    A request waits while an answer of the device is on its way to the ledger. Withdrawing everything is done at once:
    then the answer counts as not given.
    """
    done = len(resume_erasures(processor.ledger, processor.devices, processor.controller))
    for waiting in processor.devices.requests():
        try:
            outcome: int | str | None = _carry_out(processor, waiting)
        except LiberateError as error:
            outcome = f"{error.message} ({error.hint})" if error.hint else error.message
        except ValueError as error:  # its terms are none
            outcome = str(error)
        if outcome is not None:
            processor.devices.close_request(waiting.id, outcome)
            done += 1
            _logger.info("a request of device %d is dealt with: %s", waiting.slot, type(waiting.request).__name__)
    return done


def _carry_out(processor: RequestProcessor, waiting: QueuedRequest) -> int | None:
    """Carry a request out; give the position of its entry, None if it has to wait."""
    ledger, devices, request = processor.ledger, processor.devices, waiting.request
    device = next(device for device in devices.devices() if device.slot == waiting.slot)
    if isinstance(request, ErasureRequest):
        departure = erase_participant(ledger, devices, device, processor.controller)
        return None if departure is None else departure.request
    number = device.enrolled_number
    if isinstance(request, WithdrawalRequest) and request.consent is None:
        return withdraw_all(ledger, devices, device)
    stands = _position(ledger, number, waiting.seq)
    if stands is None:
        if device.is_awaited(ledger.state.open_round):
            return None
        devices.reserve_sequence(waiting.id, 1 + max(ledger.state.principals[number].sequence, device.last_seq))
        stands = _act(processor, device, number, request)
    if isinstance(request, ShareCopyRequest) and not _is_delivered(processor, device, stands):
        return None
    return stands


def _act(
    processor: RequestProcessor,
    device: Device,
    number: int,
    request: ConsentRequest | ShareCopyRequest | WithdrawalRequest,
) -> int:
    """Do what somebody wants; give the position of the entry."""
    ledger, devices = processor.ledger, processor.devices
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
            return give_consent(ledger, devices, device, terms, processor.randomness)
        case ShareCopyRequest():
            consent = _consent(ledger, number, request.consent)
            return hand_over(
                ledger, devices, device, consent, request.recipient, processor.scale(), processor.randomness
            )[0]
        case WithdrawalRequest():
            return withdraw(ledger, devices, device, _consent(ledger, number, request.consent))
        case _:
            assert_never(request)


def _is_delivered(processor: RequestProcessor, device: Device, position: int) -> bool:
    """Let the recipient of a share take the copy, unless it has or never will; False: it cannot act now."""
    ledger, devices = processor.ledger, processor.devices
    entry = entry_at(ledger, position, RecordBase)
    share = ledger.state.sharing.shares.get(entry.leaf_hash)
    recipient = None if share is None else devices.find(number=share.record.recipient)
    if share is None or share.is_received:
        return True
    if recipient is not None and recipient.is_awaited(ledger.state.open_round):
        return False
    sealed_copy = sealed_copy_of(ledger, devices, device.slot, entry.leaf_hash)
    try:
        if share.record.recipient == processor.controller.writer.number:
            processor.take(sealed_copy)
        elif recipient is not None and not recipient.is_erased:
            accept_copy(ledger, devices, recipient, sealed_copy, processor.n_items)
    except LiberateError as error:
        _logger.warning("participant %d does not take a copy: %s", share.record.recipient, error)
    return True


def _consent(ledger: Ledger, number: int, position: int | None) -> Digest:
    """Give the leaf hash of a consent of somebody by the position of its entry."""
    if position is not None:
        with suppress(LedgerError):
            consent = entry_at(ledger, position, Consent)
            if consent.record.author == number:
                return consent.leaf_hash
    raise FederationError(
        f"entry {position} is no consent of participant {number}",
        hint="ledger show --kind consent lists the consents that were given",
    )


def _position(ledger: Ledger, author: int, seq: int) -> int | None:
    """Give where the entry of an author's sequence number stands, None if nowhere."""
    if 0 < seq <= ledger.state.principals[author].sequence:
        for position in reversed(ledger.positions(author=author)):
            latest = entry_at(ledger, position, RecordBase).record.seq
            if latest <= seq:
                return position if latest == seq else None
    return None

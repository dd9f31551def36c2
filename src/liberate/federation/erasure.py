"""A participant is erased: everything is withdrawn, destroyed wherever it is stored, and recorded in the ledger.

    withdraw -> request -> destroy -> notify -> report

Each step shows in the ledger or on the devices, so whoever owns the ledger next continues where a crash interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from liberate.crypto.canonical_json import Hash, Natural, encode
from liberate.crypto.dsse import dsse_pae
from liberate.crypto.signing import verify_signature
from liberate.errors import FederationError, LiberateError
from liberate.federation.entry_writer import EntryWriter, accepted_position
from liberate.federation.sharing.consents import RECOVER_HINT, withdraw
from liberate.federation.sharing.outbox import EntryOutbox
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import PendingEntry, ReceivedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, signed_bytes
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import Origin
from liberate.ledger.format.sharing_records import Erasure, ErasureReport, Share, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.ledger.trace.participant import trace_participant

ERASURE_ACK_TYPE = "application/vnd.liberate.forgotten+json"
"""DSSE payload type of a recipient's acknowledgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataController:
    """A coordinator, and what it can destroy.

    Attributes:
        writer: Writes its entries.
        stores: What it stores of participants beside the ledger: by code, how one participant's part is destroyed,
            as often as it is called.
    """

    writer: EntryWriter
    stores: Mapping[str, Callable[[int], object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedErasure:
    """What the ledger says of an erased participant.

    Attributes:
        number: The participant.
        request: Position of the participant's request.
        record: Position of the coordinator's record.
        report: What that record reports.
    """

    number: int
    request: int
    record: int
    report: ErasureReport


class _Acknowledgement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipient signs once its copies are destroyed.

    Attributes:
        origin: The ledger.
        number: The recipient.
        request: Leaf hash of the request.
    """

    origin: Origin
    number: Natural
    request: Hash


def erase_participant(
    ledger: Ledger, devices: DeviceStore, device: Device, controller: DataController
) -> CompletedErasure | None:
    """Erase a participant, or continue doing so; repeated, it changes nothing more.

    While a round is open nothing is destroyed: the device may still be asked to remove others' masks, and recipients of
    the participant's copies may have to repeat an answer that used them.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device, and those of recipients; no entry is pending in it.
        device: The participant's.
        controller: The coordinator.

    Returns:
        What was done; None: withdrawn, and to be continued once the open round is closed.

    Raises:
        FederationError: The ledger refuses the withdrawal or the request, of a revoked key for example.
    """
    number = device.enrolled_number
    withdraw_all(ledger, devices, device)
    if ledger.state.open_round is not None:
        return None

    if not ledger.state.principals[number].is_to_be_forgotten:
        _request_erasure(ledger, devices, device)

    return completed_erasure(ledger, number) or _destroy_and_report(ledger, devices, number, controller)


def resume_erasures(ledger: Ledger, devices: DeviceStore, controller: DataController) -> list[CompletedErasure]:
    """Continue the erasures that were requested and not yet reported, and return those that are now complete."""
    requested = {entry.record.author for entry in entries(ledger, Erasure)} - {controller.writer.number}
    interrupted = [number for number in sorted(requested) if completed_erasure(ledger, number) is None]

    resumed = [
        erase_participant(ledger, devices, device, controller)
        for number in interrupted
        if (device := devices.find(number=number)) is not None
    ]
    return [erasure for erasure in resumed if erasure is not None]


def withdraw_all(ledger: Ledger, devices: DeviceStore, device: Device) -> int:
    """Withdraw a participant from everything, permanently, unless that was done; return the position of the entry.

    An answer that the ledger has accepted may still enter a model; one that it has not counts as not given.

    Raises:
        FederationError: The ledger refuses.
    """
    for withdrawal in entries(ledger, Withdrawal, author=device.enrolled_number):
        if withdrawal.record.consent is None:
            return withdrawal.position
    return withdraw(ledger, devices, device, None)


def completed_erasure(ledger: Ledger, number: int) -> CompletedErasure | None:
    """Return what the ledger says of an erased participant; None until the coordinator has reported the erasure."""
    request = None
    for erasure in entries(ledger, Erasure, about=number):
        report = erasure.record.report
        if erasure.record.number != number:
            continue

        if report is None:
            request = erasure.position
        elif request is not None:
            return CompletedErasure(number=number, request=request, record=erasure.position, report=report)
    return None


def answer_request(devices: DeviceStore, device: Device, request: Entry, requester: bytes) -> bytes:
    """Destroy a recipient's copies of the requester's ratings, and return the signed acknowledgement.

    Args:
        devices: The store that holds the recipient's device.
        device: The recipient's.
        request: The entry of the request.
        requester: Public key of the participant who is to be erased.

    Raises:
        LiberateError: The entry is no request, the requester has not signed it, or the recipient has no key any more.
    """
    record = request.record
    if not isinstance(record, Erasure) or record.report is not None:
        raise FederationError("a request for erasure was wanted")
    verify_signature(requester, signed_bytes(request.body), request.signature)

    key = devices.signing_key(device.slot, "person")
    copies = devices.sharing_rows(ReceivedCopy, device.slot)
    devices.delete_sharing_rows([(slot, row) for slot, row, copy in copies if copy.sender == record.author])

    return key.sign(_acknowledgement(record.origin, device.enrolled_number, request.leaf_hash))


def _destroy_and_report(
    ledger: Ledger, devices: DeviceStore, number: int, controller: DataController
) -> CompletedErasure:
    """Destroy what is stored of a participant who has requested it, notify recipients, and report to the ledger."""
    destroyed = list(controller.stores)
    device = devices.find(number=number)
    if device is not None:
        devices.erase(device.slot)
        destroyed.append("device")
    for destroy in controller.stores.values():
        destroy(number)

    request = next(entries(ledger, Erasure, author=number))
    recipients = sorted({share.record.recipient for share in entries(ledger, Share, author=number)})
    confirmed = [
        recipient for recipient in recipients if _has_destroyed_copies(ledger, devices, recipient, request, controller)
    ]

    # Last: the record says what was done, and its absence lets the next owner of the ledger continue.
    report = ErasureReport(
        destroyed=tuple(sorted(destroyed)),
        notified=to_ranges(recipients),
        confirmed=to_ranges(confirmed),
        models=to_ranges(_models_shaped_by(ledger, number)),
    )
    record = controller.writer.append(Erasure(**controller.writer.header(), number=number, report=report))
    return CompletedErasure(number=number, request=request.position, record=record, report=report)


def _has_destroyed_copies(
    ledger: Ledger,
    devices: DeviceStore,
    recipient: int,
    request: RecordedEntry[Erasure],
    controller: DataController,
) -> bool:
    """Ask a recipient to destroy its copies; return whether its signed acknowledgement says that it did."""
    device = devices.find(number=recipient)
    if device is None:
        return recipient == controller.writer.number

    requester = ledger.state.key_at(request.record.author, request.position)
    try:
        signature = answer_request(devices, device, request.entry, requester)
        acknowledgement = _acknowledgement(ledger.origin, recipient, request.leaf_hash)
        verify_signature(ledger.state.principals[recipient].key, acknowledgement, signature)
    except LiberateError:
        return False  # an observer cannot tell this from silence
    return True


def _models_shaped_by(ledger: Ledger, number: int) -> set[int]:
    """Return the versions of the models that used an answer or a copy of a participant."""
    trace = trace_participant(ledger, number, with_memberships=False)
    contributions = [*trace.contributions, *(use.contribution for use in trace.uses)]
    return {contribution.model.record.version for contribution in contributions if contribution.model is not None}


def _acknowledgement(origin: str, number: int, request: Digest) -> bytes:
    return dsse_pae(ERASURE_ACK_TYPE, encode(_Acknowledgement(origin=origin, number=number, request=request)))


def _request_erasure(ledger: Ledger, devices: DeviceStore, device: Device) -> int:
    """Sign the request and append it; return its position."""
    outbox = EntryOutbox(ledger, devices)
    request = Erasure(**outbox.header(device, overtakes_answer=True), number=device.enrolled_number, report=None)
    outbox.add(device, PendingEntry(entry=outbox.sign(device, request)))
    (outcome,) = outbox.send()
    return accepted_position(outcome, "the erasure", hint=RECOVER_HINT)

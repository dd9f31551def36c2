"""A participant leaves for good: everything withdrawn, forgotten by whoever held it, and said on the ledger.

    withdraw -> request -> destroy -> ask -> record

What was done shows on the ledger or on the devices, so whoever owns the ledger next goes on where a crash broke off:
nothing here is kept to remember it. The two entries of the person hold no secret, and made again are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from liberate.crypto.canonical_json import Hash, Natural, encode
from liberate.crypto.dsse import dsse_pae
from liberate.crypto.signing import SigningKey, verify_signature
from liberate.errors import FederationError, LiberateError
from liberate.federation.entry_writer import EntryWriter, accepted_position
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, sign, signed_bytes
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import Origin
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.format.sharing_records import Erasure, ErasureReport, Share, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entries
from liberate.ledger.trace.contributions import Contribution
from liberate.ledger.trace.participant import trace_participant

ERASURE_ACK_TYPE = "application/vnd.liberate.forgotten+json"


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
    """Somebody who was forgotten.

    Attributes:
        number: Who.
        request: Position of the request.
        record: Position of the coordinator's record.
        report: What the record says.
    """

    number: int
    request: int
    record: int
    report: ErasureReport


class _Forgotten(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipient signs who has destroyed its copies.

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
    """Forget a participant, or go on with it; the same again is the same.

    While a round is open nothing is destroyed: the device may be asked to undo others' masks, and who has answered with
    the person's copies may have to make the same answer again.

    Args:
        ledger: The ledger, owned by this process; no act is under way on the devices.
        devices: The store that holds the device, and those of recipients.
        device: The participant's.
        controller: The coordinator.

    Returns:
        What became of it; None: withdrawn, and to be gone on with when the open round is closed.

    Raises:
        FederationError: The ledger refuses the withdrawal or the request, of a revoked key for example.
    """
    number = device.enrolled_number
    withdraw_all(ledger, devices, device)
    if ledger.state.open_round is not None:
        return None
    if not ledger.state.principals[number].is_to_be_forgotten:
        _say(ledger, devices, device, Erasure(origin=ledger.origin, author=number, seq=_next(ledger, device),
                                              number=number, report=None))  # fmt: skip
    return _forget(ledger, devices, number, controller)


def resume_erasures(ledger: Ledger, devices: DeviceStore, controller: DataController) -> list[CompletedErasure]:
    """Go on with what was broken off: people who have asked to be forgotten, of whom no record says that they were."""
    requests = {entry.record.author for entry in entries(ledger, Erasure)}
    waiting = [
        device
        for number in sorted(requests - {controller.writer.number})
        if completed_erasure(ledger, number) is None and (device := devices.find(number=number)) is not None
    ]
    done = [erase_participant(ledger, devices, device, controller) for device in waiting]
    return [each for each in done if each is not None]


def withdraw_all(ledger: Ledger, devices: DeviceStore, device: Device) -> int:
    """Withdraw from everything, for good, unless that was done; give the position of the entry.

    An answer that the ledger has accepted may still enter a model, one that it has not counts as not given.

    Raises:
        FederationError: The ledger refuses.
    """
    number = device.enrolled_number
    for withdrawal in entries(ledger, Withdrawal, author=number):
        if withdrawal.record.consent is None:
            return withdrawal.position
    record = Withdrawal(origin=ledger.origin, author=number, seq=_next(ledger, device), consent=None)
    return _say(ledger, devices, device, record)


def completed_erasure(ledger: Ledger, number: int) -> CompletedErasure | None:
    """Give what the ledger says of somebody who was forgotten; None before a coordinator's record says so."""
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
    """Destroy a recipient's copies of whoever asks for it, and sign that this was done.

    Args:
        devices: The store that holds the recipient's device.
        device: The recipient's.
        request: The entry of the request.
        requester: The public key of the one who asks.

    Raises:
        LiberateError: The request is none or not signed by who asks, or the recipient has no key any more.
    """
    record = request.record
    if not isinstance(record, Erasure) or record.report is not None:
        raise FederationError("a request to be forgotten was wanted")
    verify_signature(requester, signed_bytes(request.body), request.signature)
    key = SigningKey.from_seed(devices.data_of(device.slot).signing_seed)
    copies = devices.sharing_rows(ReceivedCopy, device.slot)
    devices.delete_sharing_rows([(slot, key) for slot, key, copy in copies if copy.sender == record.author])
    return key.sign(_forgotten(record.origin, device.enrolled_number, request.leaf_hash))


def _forget(ledger: Ledger, devices: DeviceStore, number: int, controller: DataController) -> CompletedErasure:
    """Destroy what is known of somebody who has asked for it, and say so, unless that was said."""
    said = completed_erasure(ledger, number)
    if said is not None:
        return said
    device = devices.find(number=number)
    destroyed = list(controller.stores)
    if device is not None:
        devices.erase(device.slot)
        destroyed.append("device")
    for forget in controller.stores.values():
        forget(number)
    told = _recipients(ledger, number)
    removal = ErasureReport(
        destroyed=tuple(sorted(destroyed)),
        notified=to_ranges(told),
        confirmed=to_ranges(_answered(ledger, devices, number, told, controller)),
        models=to_ranges(_models(ledger, number)),
    )
    controller.writer.append(Erasure(**controller.writer.header(), number=number, report=removal))
    done = completed_erasure(ledger, number)
    assert done is not None, "both entries stand on the ledger"
    return done


def _recipients(ledger: Ledger, number: int) -> list[int]:
    """Give whom somebody has handed a copy to."""
    return sorted({share.record.recipient for share in entries(ledger, Share, author=number)})


def _answered(
    ledger: Ledger, devices: DeviceStore, number: int, told: list[int], controller: DataController
) -> list[int]:
    """Ask recipients to destroy their copies; give those whose signed answer says that they did."""
    principals = ledger.state.principals
    request = next(entries(ledger, Erasure, author=number))
    answered = []
    for recipient in told:
        device = devices.find(number=recipient)
        try:
            if device is not None:
                answer = answer_request(devices, device, request.entry, ledger.state.key_at(number, request.position))
                verify_signature(
                    principals[recipient].key, _forgotten(ledger.origin, recipient, request.leaf_hash), answer
                )
                answered.append(recipient)
            elif recipient == controller.writer.number:
                answered.append(recipient)
        except LiberateError:
            continue  # silence, as far as anybody can tell
    return answered


def _models(ledger: Ledger, number: int) -> list[int]:
    """Give the versions of the models that used an answer or a share of somebody."""
    found = trace_participant(ledger, number, with_memberships=False)
    uses: list[Contribution] = [*found.contributions, *(use.contribution for use in found.uses)]
    models = (each.model.entry.record for each in uses if each.model is not None)
    return sorted({model.version for model in models if isinstance(model, ModelRecord)})


def _forgotten(origin: str, number: int, request: Digest) -> bytes:
    return dsse_pae(ERASURE_ACK_TYPE, encode(_Forgotten(origin=origin, number=number, request=request)))


def _next(ledger: Ledger, device: Device) -> int:
    return 1 + max(ledger.state.principals[device.enrolled_number].sequence, device.last_seq)


def _say(ledger: Ledger, devices: DeviceStore, device: Device, record: Withdrawal | Erasure) -> int:
    """Sign with a device's key, and append."""
    key = SigningKey.from_seed(devices.data_of(device.slot).signing_seed)
    return _append(ledger, sign(record, key))


def _append(ledger: Ledger, entry: bytes) -> int:
    (outcome,) = ledger.append([entry])
    return accepted_position(outcome, "it", hint="keys recover replaces a revoked key")

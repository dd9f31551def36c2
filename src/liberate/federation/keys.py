"""A participant's keys are rotated, revoked or recovered, each alone: kept, then appended, then taken into use.

    prepare -> append -> settle

The change, with the next key, is durable on the device before the ledger sees it, and the present key is given up
only when the change stands there. A crash leaves a change under way: whoever owns the ledger next sends the same bytes
again, which the ledger takes once, and ends it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, RefusedEntry
from liberate.federation.acts import ActProver
from liberate.federation.registrars import FOUNDER, ApprovalsMissing, Registrar
from liberate.federation.store.device_rows import Device, PendingKeyChange
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.format.entries import decode_record, new_key, sign
from liberate.ledger.format.parts import KeyName
from liberate.ledger.format.records import KeyRecord
from liberate.ledger.interface import Ledger

_logger = logging.getLogger(__name__)

KeyChangeKind = Literal["rotation", "revocation", "recovery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A change of key that stands on the ledger.

    Attributes:
        act: What it is.
        number: Whose key.
        which: Which key.
        position: Position of its entry.
    """

    act: KeyChangeKind
    number: int
    which: KeyName
    position: int


def kind_of_key_change(record: KeyRecord) -> KeyChangeKind:
    """Say what a `key` record is: the author says who acts, the key what happens."""
    if record.key is None:
        return "revocation"
    return "rotation" if record.author == record.number else "recovery"


def rotate_key(ledger: Ledger, devices: DeviceStore, device: Device, which: KeyName, seed: bytes) -> KeyChange:
    """Replace one of a participant's keys, signed with the person's present one.

    Args:
        ledger: The ledger, owned by this process; nothing is under way on the devices.
        devices: The store that holds the device.
        device: The participant's.
        which: Which key.
        seed: Of the next key, 32 bytes.

    Raises:
        FederationError: An answer signed before waits to be sent again, or the ledger refuses.
    """
    number = device.enrolled_number
    if device.is_awaited(ledger.state.open_round):
        raise FederationError(
            f"participant {number} has answered round {device.last_round}, and the ledger has not got the answer yet",
            hint="run `liberate train` again to finish the round, then retry",
        )
    return _change(ledger, devices, device, which, _own_key(devices, device), author=number, seed=seed)


def revoke_key(ledger: Ledger, devices: DeviceStore, device: Device, which: KeyName) -> KeyChange:
    """Take the force of one of a participant's keys away, signed with the person's; an answer not yet recorded is lost.

    Raises:
        FederationError: The ledger refuses.
    """
    author = device.enrolled_number
    return _change(ledger, devices, device, which, _own_key(devices, device), author=author, seed=None)


def recover_key(registrar: Registrar, devices: DeviceStore, device: Device, which: KeyName, seed: bytes) -> KeyChange:
    """Replace a participant's lost or revoked key with another one, signed by registrars.

    Number, accounts and history stay; an answer not yet recorded is lost.

    The seed is kept on the device while other registrars are asked to approve; the one that is kept is used first.

    Raises:
        ApprovalsMissing: Other registrars must approve first.
        FederationError: The ledger refuses.
    """
    seed = devices.awaited_seed(device.slot, which) or seed
    state, number = registrar.ledger.state, device.enrolled_number
    key = new_key(SigningKey.from_seed(seed), state.origin, number, which)
    seq = 1 + state.principals[FOUNDER].sequence
    record = KeyRecord(origin=state.origin, author=FOUNDER, seq=seq, number=number, which=which, key=key, approvals=())

    purpose = f"recovery-{number}-{which}"
    try:
        (entry,) = registrar.sign([record], purpose)
    except ApprovalsMissing:
        devices.put_awaited_seed(device.slot, which, seed)
        raise
    change = _carry_out(registrar.ledger, devices, device, record, entry, seed)
    registrar.forget(purpose)
    return change


def resume_key_changes(ledger: Ledger, devices: DeviceStore) -> list[KeyChange]:
    """End the changes of keys that a crash left under way.

    Returns:
        Those that are in the ledger; one that the ledger refuses is forgotten.
    """
    finished = []
    for slot, pending in devices.pending_key_changes():
        outcome = _finish(ledger, devices, slot, pending)
        if isinstance(outcome, KeyChange):
            finished.append(outcome)
        else:
            _logger.warning("the ledger refuses the change of key that was under way for device %d: %s", slot, outcome)
    return finished


def _change(
    ledger: Ledger,
    devices: DeviceStore,
    device: Device,
    which: KeyName,
    signer: SigningKey,
    *,
    author: int,
    seed: bytes | None,
) -> KeyChange:
    number, origin = device.enrolled_number, ledger.origin
    used = ledger.state.principals[author].sequence
    seq = 1 + (max(used, device.last_seq) if author == number else used)
    key = None if seed is None else new_key(SigningKey.from_seed(seed), origin, number, which)
    record = KeyRecord(origin=origin, author=author, seq=seq, number=number, which=which, key=key, approvals=())

    return _carry_out(ledger, devices, device, record, sign(record, signer), seed)


def _carry_out(
    ledger: Ledger, devices: DeviceStore, device: Device, record: KeyRecord, entry: bytes, seed: bytes | None
) -> KeyChange:
    pending = PendingKeyChange(entry=entry, which=record.which, seed=seed)
    is_own = record.author == record.number
    devices.put_key_change(device.slot, pending, seq=record.seq if is_own else device.last_seq)
    outcome = _finish(ledger, devices, device.slot, pending)
    if isinstance(outcome, RefusedEntry):
        raise FederationError(
            f"the ledger refuses the {kind_of_key_change(record)}: {outcome}",
            hint="keys recover replaces a lost or revoked key",
        ) from outcome
    return outcome


def _finish(ledger: Ledger, devices: DeviceStore, slot: int, pending: PendingKeyChange) -> KeyChange | RefusedEntry:
    """Append a change, or find it where it stands, and take it into use; forget it when it is refused."""
    record = decode_record(pending.entry, KeyRecord)
    (outcome,) = ledger.append([pending.entry])
    if isinstance(outcome, RefusedEntry):
        devices.drop_key_change(slot)
        return outcome
    (act,) = ActProver.at(ledger, devices).prove([outcome])
    seq = ledger.state.principals[record.number].sequence
    devices.complete_key_change(slot, pending, seq=seq, act=act)
    return KeyChange(act=kind_of_key_change(record), number=record.number, which=record.which, position=outcome)


def _own_key(devices: DeviceStore, device: Device) -> SigningKey:
    return devices.signing_key(device.slot, "person")

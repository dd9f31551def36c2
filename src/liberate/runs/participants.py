"""The participants of a run, found by number, key id or user id."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from liberate.crypto.signing import key_id
from liberate.errors import LiberateError
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.runs.folder import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A participant by all three names.

    Attributes:
        number: On the ledger.
        key_id: Of the signing key.
        user_id: In the data set; None of somebody who was forgotten.
    """

    number: int
    key_id: str
    user_id: str | None


def find_person(run: Run, name: str) -> Person:
    """Find a participant by number, id of the present or a former key, or the data set's own user id.

    A plain number is a ledger number; `user:NAME` is always the data set's id.

    Raises:
        LiberateError: Nobody has that name.
    """
    with DeviceStore(run.devices_folder) as devices, closing(run.open_ledger()) as ledger:
        principals = ledger.state.principals
        device: Device | None = None
        if not name.startswith("user:"):
            if name.isdecimal():
                device = devices.find(number=int(name))
            else:
                by_key = {str(key_id(key)): number for key, number in ledger.state.keys().items()}
                device = devices.find(number=by_key[name]) if name in by_key else None
        if device is None:
            device = devices.find(user_id=name.removeprefix("user:"))
        if device is None or device.number is None:
            raise LiberateError(
                f"no participant {name!r}", hint="give a participant number, a key id, or user:ID of the data set"
            )
        user_id = None if device.is_erased else device.user_id
        return Person(number=device.number, key_id=key_id(principals[device.number].key), user_id=user_id)


def device_of(devices: DeviceStore, number: int) -> Device:
    """Give a participant's device.

    Raises:
        LiberateError: It is not here, or the person was forgotten.
    """
    device = devices.find(number=number)
    if device is None:
        raise LiberateError(f"participant {number} has no device here")
    if device.is_erased:
        raise LiberateError(f"participant {number} was forgotten: nothing is kept of the person any more")
    return device

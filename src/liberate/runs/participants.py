"""The participants of a federation, found by number, key id or user id."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.crypto.signing import key_id
from liberate.errors import LiberateError
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.identifiers import KeyId
from liberate.ledger.interface import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A participant by all three names.

    Attributes:
        number: On the ledger.
        key_id: Of the present signing key.
        user_id: In the data set; None of somebody who was erased.
    """

    number: int
    key_id: str
    user_id: str | None


def find_participant(ledger: Ledger, devices: DeviceStore, name: str) -> Participant:
    """Return the participant whom a name means.

    Args:
        ledger: The federation's ledger.
        devices: The devices of its host.
        name: A ledger number, the id of the present or a former key, or a user id of the data set; `user:NAME` is
            always the user id.

    Raises:
        LiberateError: Nobody has that name.
    """
    device: Device | None = None
    if not name.startswith("user:"):
        by_key = {} if name.isdecimal() else {key_id(key): number for key, number in ledger.state.keys().items()}
        number = int(name) if name.isdecimal() else by_key.get(KeyId(name))
        device = None if number is None else devices.find(number=number)

    if device is None:
        device = devices.find(user_id=name.removeprefix("user:"))
    if device is None or device.number is None:
        raise LiberateError(
            f"no participant {name!r}", hint="give a participant number, a key id, or user:ID of the data set"
        )

    return Participant(
        number=device.number,
        key_id=key_id(ledger.state.principals[device.number].key),
        user_id=None if device.is_erased else device.user_id,
    )


def device_of(devices: DeviceStore, number: int) -> Device:
    """Return a participant's device.

    Raises:
        LiberateError: It is not here, or the participant was erased.
    """
    device = devices.find(number=number)
    if device is None:
        raise LiberateError(f"participant {number} has no device here")
    if device.is_erased:
        raise LiberateError(f"participant {number} was erased: no data about them is stored any more")
    return device

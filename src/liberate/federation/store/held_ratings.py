"""The ratings that devices store."""

from __future__ import annotations

from collections.abc import Sequence

from liberate.data.ratings import Ratings
from liberate.federation.store.device_rows import EMPTY_RATINGS, DeviceData
from liberate.federation.store.devices import DeviceStore

_LARGEST_CATALOGUE = 2**31 - 1


def held_ratings(devices: DeviceStore, participants: Sequence[str], n_items: int) -> Ratings:
    """Return the ratings on the devices of participants, in their order; none for who has no device or was erased.

    Args:
        devices: The store.
        participants: Ids in the data set.
        n_items: Size of the catalogue; ratings of items beyond it are left out.
    """
    return _decoded([data.ratings if data else EMPTY_RATINGS for data in _data_of(devices, participants)], n_items)


def held_out_ratings(devices: DeviceStore, participants: Sequence[str], n_items: int) -> Ratings:
    """Return the ratings that devices hold out and nothing learns from; arguments as of `held_ratings`."""
    return _decoded([data.held_out if data else EMPTY_RATINGS for data in _data_of(devices, participants)], n_items)


def _data_of(devices: DeviceStore, participants: Sequence[str]) -> list[DeviceData | None]:
    slots = {device.user_id: device.slot for device in devices.devices() if not device.is_erased}
    return [devices.data_of(slots[person]) if person in slots else None for person in participants]


def _decoded(encoded: Sequence[bytes], n_items: int) -> Ratings:
    return Ratings.from_user_bytes(encoded, _LARGEST_CATALOGUE).within(n_items)

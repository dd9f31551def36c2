"""The ratings that devices hold."""

from __future__ import annotations

from collections.abc import Sequence

from liberate.data.ratings import Ratings
from liberate.federation.store.devices import DeviceStore

_LARGEST_CATALOGUE = 2**31 - 1
EMPTY_RATINGS = bytes(4)
"""What a device without ratings holds, as `Ratings.user_bytes` writes it."""


def held_ratings(devices: DeviceStore, participants: Sequence[str], n_items: int) -> Ratings:
    """Give what the devices of some people hold, in their order; nothing for people who have none or were erased.

    Args:
        devices: The store.
        people: Original ids.
        n_items: Size of the catalogue; what is held of items beyond it is left out.
    """
    slots = {device.user_id: device.slot for device in devices.devices() if not device.is_erased}
    held = [devices.data_of(slots[person]).ratings if person in slots else EMPTY_RATINGS for person in participants]
    return Ratings.from_user_bytes(held, _LARGEST_CATALOGUE).within(n_items)

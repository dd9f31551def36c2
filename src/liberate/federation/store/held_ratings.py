"""The ratings that devices store."""

from __future__ import annotations

from collections.abc import Sequence

from liberate.data.ratings import Ratings
from liberate.federation.store.devices import DeviceStore

_LARGEST_CATALOGUE = 2**31 - 1
EMPTY_RATINGS = bytes(4)
"""What a device without ratings stores, in the encoding of `Ratings.user_bytes`."""


def held_ratings(devices: DeviceStore, participants: Sequence[str], n_items: int) -> Ratings:
    """Return the ratings on the devices of participants, in their order; none for who has no device or was erased.

    Args:
        devices: The store.
        participants: Ids in the data set.
        n_items: Size of the catalogue; ratings of items beyond it are left out.
    """
    slots = {device.user_id: device.slot for device in devices.devices() if not device.is_erased}
    held = [devices.data_of(slots[person]).ratings if person in slots else EMPTY_RATINGS for person in participants]
    return Ratings.from_user_bytes(held, _LARGEST_CATALOGUE).within(n_items)

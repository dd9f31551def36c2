"""Participants accept copies of other participants' ratings, and acknowledge them with receipts."""

from __future__ import annotations

from collections.abc import Sequence

from liberate.errors import CopyDeclined, LiberateError
from liberate.federation.entry_writer import accepted_position
from liberate.federation.sharing.copies import open_copy
from liberate.federation.sharing.outbox import EntryOutbox, EntryOutcome
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import PendingEntry, ReceivedCopy
from liberate.federation.wire.copies import SealedCopy
from liberate.ledger.format.sharing_records import Receipt
from liberate.ledger.interface import Ledger


def accept_copy(ledger: Ledger, devices: DeviceStore, device: Device, sealed_copy: SealedCopy, n_items: int) -> int:
    """Accept a copy, and return the position of the receipt.

    Args:
        ledger: The ledger, owned by this process.
        devices: The store that holds the device.
        device: The recipient's device.
        sealed_copy: The copy.
        n_items: Size of the catalogue.

    Raises:
        SealBroken: The copy is sealed to another key.
        FederationError: An answer of the device is on its way, the copy does not match its entries or is not wanted, or
            the ledger refuses the receipt.
    """
    (outcome,) = accept_copies(ledger, devices, [(device, sealed_copy)], n_items)
    return accepted_position(outcome, "the receipt")


def accept_copies(
    ledger: Ledger, devices: DeviceStore, sealed_copies: Sequence[tuple[Device, SealedCopy]], n_items: int
) -> list[EntryOutcome]:
    """Let several participants accept copies, a block at a time; see `accept_copy`.

    A copy that does not match its entries, or is not wanted, is left out: `CopyDeclined` says that it is not wanted.
    """
    outbox = EntryOutbox(ledger, devices)
    limits = _AcceptanceLimits(devices)
    declined: list[LiberateError | None] = []
    for device, sealed_copy in sealed_copies:
        try:
            opened = open_copy(sealed_copy, outbox.key(device), device.enrolled_number, n_items)
            limits.count(device)
        except LiberateError as error:
            declined.append(error)
            continue

        share = opened.share
        record = Receipt(**outbox.header(device), sender=share.author, share=opened.hash, copy=share.copy)
        entry = outbox.sign(device, record)
        outbox.add(device, PendingEntry(entry=entry, digest=opened.hash, row=opened.received))
        declined.append(None)

    sent = iter(outbox.send())
    return [next(sent) if error is None else error for error in declined]


class _AcceptanceLimits:
    """How many more copies participants want."""

    def __init__(self, devices: DeviceStore) -> None:
        self._devices = devices
        self._left: dict[int, int | None] = {}

    def count(self, device: Device) -> None:
        """Count one more copy.

        Raises:
            CopyDeclined: It is one too many.
        """
        if device.slot not in self._left:
            self._left[device.slot] = self._copies_left(device.slot)

        left = self._left[device.slot]
        if left == 0:
            raise CopyDeclined(f"participant {device.number} accepts no more copies")
        if left is not None:
            self._left[device.slot] = left - 1

    def _copies_left(self, slot: int) -> int | None:
        """Return how many more copies a device accepts; None: as many as there are."""
        limit = self._devices.copy_quota(slot)
        return None if limit is None else max(0, limit - sum(1 for _ in self._devices.sharing_rows(ReceivedCopy, slot)))

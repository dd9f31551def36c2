"""Entries of participants about sharing: signed in turn, stored on the device, sent to the ledger, and then in effect.

    sign -> store -> append -> settle

An entry is durable on its device, with all that the device keeps once the entry is recorded, before the ledger sees it.
A crash leaves stored entries behind: whoever owns the ledger next sends the same bytes again, and the ledger records
them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, LiberateError, RefusedEntry
from liberate.federation.acts import ActProver
from liberate.federation.entry_writer import RecordHeader
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import BaseCopy, PendingEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import Record
from liberate.ledger.interface import Ledger

_ENTRIES_PER_BLOCK = 1000

EntryOutcome = int | LiberateError
"""The position of an entry, or why there is none."""


@dataclass(slots=True)
class EntryOutbox:
    """Entries of several participants, each with the next sequence number of its author, until they are sent.

    Attributes:
        ledger: The ledger, owned by this process.
        devices: The store that holds the participants' devices.
    """

    ledger: Ledger
    devices: DeviceStore
    _pending: list[tuple[int, int, PendingEntry]] = field(default_factory=list)
    _bases: dict[tuple[int, Digest], BaseCopy] = field(default_factory=dict)
    _keys: dict[int, SigningKey] = field(default_factory=dict)
    _sequences: dict[int, int] = field(default_factory=dict)
    _withdrawn: list[int] = field(default_factory=list)

    def header(self, device: Device, *, overtakes_answer: bool = False) -> RecordHeader:
        """Return the fields of the participant's next record.

        Args:
            device: The participant's.
            overtakes_answer: Whether the record may be signed while an answer is on its way, which then does not count.

        Raises:
            FederationError: The device has answered the open round, and the ledger has not received the answer.
        """
        number = device.enrolled_number
        if device.slot not in self._sequences:
            if not overtakes_answer:
                self._check_no_answer_waits(device)
            self._sequences[device.slot] = device.next_sequence(self.ledger.state) - 1
        return {"origin": self.ledger.origin, "author": number, "seq": self._sequences[device.slot] + 1}

    def key(self, device: Device) -> SigningKey:
        """Return the participant's own signing key."""
        if device.slot not in self._keys:
            self._keys[device.slot] = self.devices.signing_key(device.slot, "person")
        return self._keys[device.slot]

    def sign(self, device: Device, record: Record) -> bytes:
        """Return the entry of a record that begins with the present `header`."""
        return sign(record, self.key(device))

    def add(
        self, device: Device, pending: PendingEntry, base: BaseCopy | None = None, *, is_last_answer: bool = False
    ) -> None:
        """Add an entry, and the base copy that it is about; uses the sequence number of `header` up.

        Args:
            device: The author's.
            pending: The entry.
            base: The base copy.
            is_last_answer: Whether the device answers no round any more once this is stored.
        """
        if is_last_answer:
            self._withdrawn.append(device.slot)
        self._sequences[device.slot] += 1
        self._pending.append((device.slot, self._sequences[device.slot], pending))
        if base is not None:
            self._bases[device.slot, base.commitment] = base

    def send(self) -> list[EntryOutcome]:
        """Store all entries, then append them a block at a time; return the outcome of each, in the order of `add`."""
        bases = [(slot, base) for (slot, _), base in self._bases.items()]
        self.devices.put_pending_entries(self._pending, bases, withdrawn=self._withdrawn)
        return _append_and_settle(self.ledger, self.devices, self._pending)

    def _check_no_answer_waits(self, device: Device) -> None:
        if device.is_awaited(self.ledger.state.open_round):
            raise FederationError(
                f"participant {device.number} has answered round {device.last_round}, but the answer is not in the"
                " ledger yet",
                hint="run `liberate train` again to finish the round, then retry",
            )


def resume_pending_entries(ledger: Ledger, devices: DeviceStore) -> None:
    """Send the entries that a crash left behind: the ledger has or records them, or it refuses them."""
    _append_and_settle(ledger, devices, devices.pending_entries())


def _append_and_settle(
    ledger: Ledger, devices: DeviceStore, pending: Sequence[tuple[int, int, PendingEntry]]
) -> list[EntryOutcome]:
    outcomes: list[EntryOutcome] = []
    for begin in range(0, len(pending), _ENTRIES_PER_BLOCK):
        block = pending[begin : begin + _ENTRIES_PER_BLOCK]
        appended = ledger.append([act.entry for _, _, act in block])
        recorded = [
            (each, position)
            for each, position in zip(block, appended, strict=True)
            if not isinstance(position, RefusedEntry)
        ]
        refused = [
            (slot, seq)
            for (slot, seq, _), outcome in zip(block, appended, strict=True)
            if isinstance(outcome, RefusedEntry)
        ]

        # Entry, outcome and checkpoint in one transaction: from here on the log cannot lack an act unnoticed.
        prover = ActProver.at(ledger, devices) if recorded else None
        acts = [] if prover is None else prover.prove([position for _, position in recorded])
        devices.settle_pending_entries(
            [each for each, _ in recorded],
            refused,
            acts=[(slot, act) for ((slot, _, _), _), act in zip(recorded, acts, strict=True)],
            note=None if prover is None else prover.note,
        )
        outcomes += appended
    return outcomes

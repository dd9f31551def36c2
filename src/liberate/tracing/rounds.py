"""Rounds of a run that ended in a model, as the ledger tells them, and the uploads that were kept of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import ModelRecord, Round, Update
from liberate.ledger.interface import Ledger
from liberate.privacy.mechanism_base import Mechanism
from liberate.privacy.mechanisms import mechanism_from


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedRound:
    """A round that ended in a model.

    Attributes:
        position: Of its entry.
        entry: The entry.
        record: What it says.
        model_position: Of the model's entry.
        model: What that says.
    """

    position: int
    entry: bytes
    record: Round
    model_position: int
    model: ModelRecord

    @property
    def mechanism(self) -> Mechanism:
        """What protected its uploads."""
        return mechanism_from(self.record.mechanism.name, self.record.fraction_bits, self.record.mechanism.parameters)

    def used(self, ledger: Ledger) -> dict[int, tuple[int, bytes]]:
        """Give the updates that the model used by position, each with its author."""
        unused = set(self.model.unused)
        return {
            position: (record.author, data)
            for position, data in ledger.entries(self.position, self.model_position)
            if position not in unused and isinstance(record := decode_entry(data).record, Update)
        }


def completed_rounds(ledger: Ledger, run: int) -> Iterator[CompletedRound]:
    """Give the rounds of a run that ended in a model, in their order."""
    opened = ledger.positions(kind="round")
    for position in ledger.positions(kind="model"):
        at = opened[bisect_left(opened, position) - 1]
        entry = ledger.entry(at)
        record, model = decode_entry(entry).record, decode_entry(ledger.entry(position)).record
        if isinstance(record, Round) and isinstance(model, ModelRecord) and record.run == run:
            yield CompletedRound(position=at, entry=entry, record=record, model_position=position, model=model)

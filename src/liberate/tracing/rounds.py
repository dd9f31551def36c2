"""Rounds of a run that ended in a model, as the ledger tells them, and the uploads that were kept of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from liberate.ledger.format.records import ModelRecord, Round, Update
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries, entries_between, entry_at
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

    def used(self, ledger: Ledger) -> dict[int, RecordedEntry[Update]]:
        """Return the updates that the model used, by position."""
        unused = set(self.model.unused)
        updates = entries_between(ledger, self.position, self.model_position, Update)
        return {update.position: update for update in updates if update.position not in unused}


def completed_rounds(ledger: Ledger, run: int) -> Iterator[CompletedRound]:
    """Yield the rounds of a run that ended in a model, in their order."""
    opened = ledger.positions(kind="round")
    for model in entries(ledger, ModelRecord):
        opening = entry_at(ledger, opened[bisect_left(opened, model.position) - 1], Round)
        if opening.record.run == run:
            yield CompletedRound(
                position=opening.position,
                entry=opening.entry.data,
                record=opening.record,
                model_position=model.position,
                model=model.record,
            )

"""What became of updates and pools: the models that used them, and the models built on these."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from liberate.crypto.merkle import Node, inclusion_proof, leaf_hash, node_hash, verify_inclusion
from liberate.errors import LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import ModelRecord, Round, Update
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.trace.prover import ProvedEntry, Prover

ContributionStatus = Literal["used", "unused", "aborted", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Proof that an update is leaf `index` of the `size` updates under a model's `updates_root`."""

    index: int
    size: int
    proof: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What became of an update, or of a pool that was named for a round.

    Attributes:
        update: The update or pool.
        round: The round it is for.
        outcome: Used for a model, left out of it, round aborted, or round still open.
        model: The model that used it, or None.
        membership: Proof that this model used the update; None if none did, for a pool, and where it was not asked for.
        descendants: Models built on this model, directly or not, in ledger order.
    """

    update: ProvedEntry
    round: ProvedEntry
    outcome: ContributionStatus
    model: ProvedEntry | None = None
    membership: Membership | None = None
    descendants: tuple[ProvedEntry, ...] = ()


class ContributionTracer:
    """Follows updates and pools into models, and models into later ones."""

    def __init__(self, ledger: Ledger, prover: Prover, with_memberships: bool) -> None:
        self.membership_count = 0
        self._ledger = ledger
        self._prover = prover
        self._with_memberships = with_memberships
        self._rounds = ledger.positions(kind="round")
        self._models = ledger.positions(kind="model")
        self._closings = sorted([*self._models, *ledger.positions(kind="aborted")])
        self._used: dict[int, dict[int, Digest]] = {}
        self._later: dict[int, tuple[ProvedEntry, ...]] = {}

    def prepare(self, rounds: Iterable[int]) -> None:
        """Prove at once what will be asked for of rounds, by their numbers."""
        numbers = sorted(set(rounds))
        closings = [self._closings[number - 1] for number in numbers if number <= len(self._closings)]
        self._prover.prove_all([*(self._rounds[number - 1] for number in numbers), *closings])

    def round(self, number: int) -> tuple[ProvedEntry, Round]:
        """Give a round by its number."""
        proved = self._prover.prove(self._rounds[number - 1])
        if not isinstance(proved.entry.record, Round):
            raise LedgerError(f"entry {proved.position} is no round")
        return proved, proved.entry.record

    def contribution(self, update: ProvedEntry, record: Update | PoolRecord) -> Contribution:
        """Follow an update, or a pool, into the model that used it."""
        opening, _ = self.round(record.round)
        if record.round > len(self._closings):
            return Contribution(update=update, round=opening, outcome="open")
        closing = self._prover.prove(self._closings[record.round - 1])
        model = closing.entry.record
        if not isinstance(model, ModelRecord):
            return Contribution(update=update, round=opening, outcome="aborted")
        if update.position in model.unused:
            return Contribution(update=update, round=opening, outcome="unused")
        is_proved = self._with_memberships and isinstance(record, Update)
        return Contribution(
            update=update,
            round=opening,
            outcome="used",
            model=closing,
            membership=self._membership(update, opening.position, closing.position, model) if is_proved else None,
            descendants=self._descendants(closing.position, model),
        )

    def _membership(self, update: ProvedEntry, opening: int, closing: int, model: ModelRecord) -> Membership:
        if closing not in self._used:
            self._used[closing] = used_updates(self._ledger, opening, closing, model)
        used = self._used[closing]
        leaves = list(used.values())
        index = bisect_left(list(used), update.position)
        proof = inclusion_proof(index, len(leaves), _perfect_subtrees(leaves))
        verify_inclusion(update.entry.leaf_hash, index, len(leaves), proof, model.updates_root)
        self.membership_count += 1
        return Membership(index=index, size=len(leaves), proof=tuple(proof))

    def _descendants(self, position: int, model: ModelRecord) -> tuple[ProvedEntry, ...]:
        if position not in self._later:
            lineage, later = {model.digest}, []
            for at, record in self._all_models[bisect_left(self._models, position) + 1 :]:
                if record.parent in lineage:
                    lineage.add(record.digest)
                    later.append(at)
            self._later[position] = tuple(self._prover.prove_all(later))
        return self._later[position]

    @cached_property
    def _all_models(self) -> list[tuple[int, ModelRecord]]:
        records = ((position, decode_entry(self._ledger.entry(position)).record) for position in self._models)
        return [(position, record) for position, record in records if isinstance(record, ModelRecord)]


def used_updates(ledger: Ledger, opening: int, closing: int, model: ModelRecord) -> dict[int, Digest]:
    """Give the leaf hashes of the updates that a model used, by position, in ledger order.

    Args:
        ledger: The ledger.
        opening: Position of the model's round.
        closing: Position of the model.
        model: The model.
    """
    unused = set(model.unused)
    return {
        position: leaf_hash(data)
        for position, data in ledger.entries(opening + 1, closing)
        if position not in unused and isinstance(decode_entry(data).record, Update)
    }


def _perfect_subtrees(leaves: list[Digest]) -> Node:
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=False)])
    return lambda level, index: levels[level][index]

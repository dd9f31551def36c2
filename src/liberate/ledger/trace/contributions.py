"""What became of updates and pools: the models that used them, and the models built on those."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from liberate.crypto.merkle import Node, inclusion_proof, node_hash, verify_inclusion
from liberate.identifiers import Digest
from liberate.ledger.format.records import ModelRecord, Record, Round, Update
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries, entries_between
from liberate.ledger.trace.prover import ProvedEntry, Prover, is_kind, of_kind

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

    update: ProvedEntry[Update | PoolRecord]
    round: ProvedEntry[Round]
    outcome: ContributionStatus
    model: ProvedEntry[ModelRecord] | None = None
    membership: Membership | None = None
    descendants: tuple[ProvedEntry[ModelRecord], ...] = ()


class ContributionTracer:
    """Follows the updates and pools of a history into models, and models into later ones.

    Args:
        ledger: The ledger.
        prover: Proves its entries.
        history: The history; what opened and closed its rounds is proved in one go.
        with_memberships: Whether to prove of each update that it is under its model's root.
    """

    def __init__(
        self, ledger: Ledger, prover: Prover, history: Iterable[ProvedEntry[Record]], with_memberships: bool
    ) -> None:
        self.membership_count = 0
        self._ledger = ledger
        self._prover = prover
        self._with_memberships = with_memberships
        self._rounds = ledger.positions(kind="round")
        self._models = ledger.positions(kind="model")
        self._closings = sorted([*self._models, *ledger.positions(kind="aborted")])
        self._used: dict[int, dict[int, Digest]] = {}
        self._descendants: dict[int, tuple[ProvedEntry[ModelRecord], ...]] = {}

        numbers = sorted({entry.record.round for entry in history if isinstance(entry.record, Update | PoolRecord)})
        closings = [self._closings[number - 1] for number in numbers if number <= len(self._closings)]
        prover.prove_all([*(self._rounds[number - 1] for number in numbers), *closings])

    def round(self, number: int) -> ProvedEntry[Round]:
        """Return a round by its number."""
        return self._prover.prove(self._rounds[number - 1], Round)

    def contribution(self, update: ProvedEntry[Update | PoolRecord]) -> Contribution:
        """Follow an update, or a pool, into the model that used it."""
        number = update.record.round
        opening = self.round(number)
        if number > len(self._closings):
            return Contribution(update=update, round=opening, outcome="open")

        (closing,) = self._prover.prove_all([self._closings[number - 1]])
        if not is_kind(closing, ModelRecord):
            return Contribution(update=update, round=opening, outcome="aborted")
        if update.position in closing.record.unused:
            return Contribution(update=update, round=opening, outcome="unused")

        is_proved = self._with_memberships and isinstance(update.record, Update)
        return Contribution(
            update=update,
            round=opening,
            outcome="used",
            model=closing,
            membership=self._membership(update, opening.position, closing) if is_proved else None,
            descendants=self._descendants_of(closing),
        )

    def _membership(
        self, update: RecordedEntry[Update | PoolRecord], opening: int, model: ProvedEntry[ModelRecord]
    ) -> Membership:
        if model.position not in self._used:
            self._used[model.position] = used_updates(self._ledger, opening, model)
        used = self._used[model.position]

        leaves = list(used.values())
        index = bisect_left(list(used), update.position)
        proof = inclusion_proof(index, len(leaves), _perfect_subtrees(leaves))
        verify_inclusion(update.leaf_hash, index, len(leaves), proof, model.record.updates_root)
        self.membership_count += 1
        return Membership(index=index, size=len(leaves), proof=tuple(proof))

    def _descendants_of(self, model: ProvedEntry[ModelRecord]) -> tuple[ProvedEntry[ModelRecord], ...]:
        if model.position not in self._descendants:
            lineage, positions = {model.record.digest}, []
            for later in self._all_models[bisect_left(self._models, model.position) + 1 :]:
                if later.record.parent in lineage:
                    lineage.add(later.record.digest)
                    positions.append(later.position)
            proved = self._prover.prove_all(positions)
            self._descendants[model.position] = tuple(of_kind(proved, ModelRecord))
        return self._descendants[model.position]

    @cached_property
    def _all_models(self) -> list[RecordedEntry[ModelRecord]]:
        return list(entries(self._ledger, ModelRecord))


def used_updates(ledger: Ledger, opening: int, model: RecordedEntry[ModelRecord]) -> dict[int, Digest]:
    """Return the leaf hashes of the updates that a model used, by position, in ledger order.

    Args:
        ledger: The ledger.
        opening: Position of the model's round.
        model: The model.
    """
    unused = set(model.record.unused)
    return {
        update.position: update.leaf_hash
        for update in entries_between(ledger, opening + 1, model.position, Update)
        if update.position not in unused
    }


def _perfect_subtrees(leaves: list[Digest]) -> Node:
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=False)])
    return lambda level, index: levels[level][index]

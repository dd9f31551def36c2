"""The open round and the run as the rules remember them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Round
from liberate.ledger.rules.round_sets import RoundSets


@dataclass(frozen=True, slots=True)
class AcceptedUpdate:
    """An accepted update of the open round: its leaf hash, and for how many participants it answers."""

    leaf_hash: Digest
    participants: int


@dataclass(slots=True)
class OpenRound:
    """The round that has not been closed, with its accepted updates and, if it is masked, with whom it goes on.

    Attributes:
        record: The round.
        hash: Leaf hash of its entry.
        position: Position of its entry.
        n_principals: Number of principals when it was opened.
        updates: Accepted updates by position, in ledger order.
        answered: Participants whose answer was accepted, each with its position.
        pool: Participants whose shares the coordinator uses.
        sets: With whom it goes on, if it is masked.
    """

    record: Round
    hash: Digest
    position: int
    n_principals: int
    sets: RoundSets
    updates: dict[int, AcceptedUpdate] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)
    pool: set[int] = field(default_factory=set)
    _cohort: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._cohort = frozenset(numbers_in(self.record.cohort))

    def admits(self, number: int) -> bool:
        """Whether a participant belongs to the cohort."""
        return number in self._cohort if self._cohort else number < self.n_principals

    def accept(self, participants: Sequence[int], hash: Digest, position: int) -> None:
        """Add an accepted update: for whom it answers, its leaf hash and position."""
        self.updates[position] = AcceptedUpdate(hash, len(participants))
        self.answered.update(dict.fromkeys(participants, position))

    @property
    def survivors(self) -> frozenset[int]:
        """The participants whose uploads are in a masked round's sum, as far as they were named."""
        return self.sets.named("survivors")

    @property
    def has_survivors(self) -> bool:
        """Whether the whole survivor set was named."""
        return self.sets.whole("survivors") is not None

    def surviving_updates(self) -> set[int]:
        """Return the positions of the survivors' updates."""
        return {self.answered[number] for number in self.survivors}

    def pooled(self) -> int:
        """Return how many participants are in a model by their shares alone.

        Where answers carry noise or masks, shares count nothing: the minimum of such a round is about whose noise or
        masks the sum has.
        """
        is_open = self.record.account == "none" and not self.record.is_masked
        return len(self.pool.difference(self.answered)) if is_open else 0


@dataclass(frozen=True, slots=True)
class RunState:
    """The rounds that have been opened for one training run.

    Attributes:
        number: The run's number.
        rounds: How many rounds it announced, or None.
        opened: How many were opened.
    """

    number: int
    rounds: int | None
    opened: int


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model by version and digest."""

    version: int
    digest: Digest

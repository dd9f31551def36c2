"""The sets of people with whom a masked round goes on, one after the other, and what each must satisfy.

The rules apply this to what a coordinator records, and a device applies it again to what it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from liberate.ledger.format.number_sets import checked_participants, numbers_in
from liberate.ledger.format.parts import Terms
from liberate.ledger.format.records import ZERO, Round, RoundSet, SetPhase
from liberate.ledger.format.refusals import refuse_if, refused

PHASES: tuple[SetPhase, ...] = get_args(SetPhase)
"""In their order."""

_ROOTED: frozenset[SetPhase] = frozenset({"advertised", "graph"})


@dataclass(slots=True)
class RoundSets:
    """The sets of one masked round, as far as they are recorded.

    Attributes:
        record: The round.
        max_late: Most people who may be missing in a later set of those who advertised keys, >= 0.
    """

    record: Round
    max_late: int
    _cohort: frozenset[int] = field(init=False)
    _whole: dict[SetPhase, frozenset[int]] = field(default_factory=dict)
    _roots: dict[SetPhase, bytes] = field(default_factory=dict)
    _begun: list[int] = field(default_factory=list)  # of the set whose last part is to come
    _parts: tuple[int, int] = (0, 0)  # of it: recorded, and in all

    def __post_init__(self) -> None:
        self._cohort = frozenset(numbers_in(self.record.cohort))

    @classmethod
    def of(cls, record: Round, terms: Terms) -> RoundSets:
        """Return the sets of a round before the first, under the terms that are in force."""
        return cls(record, terms.late_dropouts(len(set(numbers_in(record.cohort)))))

    def whole(self, phase: SetPhase) -> frozenset[int] | None:
        """Return the set of a phase, or None before its last part."""
        return self._whole.get(phase)

    def root(self, phase: SetPhase) -> bytes:
        """Return the root of a phase whose set is whole."""
        return self._roots[phase]

    def has_begun(self, phase: SetPhase) -> bool:
        """Whether a part of the set of a phase is recorded."""
        return phase in self._roots

    @property
    def next_phase(self) -> SetPhase | None:
        """The phase whose set is to be recorded next, or whose next part is; None after the last."""
        return PHASES[len(self._whole)] if len(self._whole) < len(PHASES) else None

    @property
    def least(self) -> int:
        """How many people the next set must have."""
        advertised = self._whole.get("advertised")
        minimum = self.record.minimum
        return minimum if advertised is None else max(minimum, len(advertised) - self.max_late)

    def check(self, record: RoundSet) -> tuple[int, ...]:
        """Return the people of one more part, after checking that it is the next one.

        Raises:
            RefusedEntry: second_set, wrong_phase, wrong_part, wrong_root, wrong_participants, too_many_participants,
                not_in_set or too_few_participants.
        """
        phase = record.phase
        is_past = phase in self._whole
        refuse_if(is_past, "second_set", f"round {record.round} has its set {phase}")
        is_next = phase == self.next_phase
        refuse_if(not is_next, "wrong_phase", f"set {phase}, the next one is {self.next_phase}")

        part, parts = self._parts[0] + 1, self._parts[1] or record.parts
        is_next = (record.part, record.parts) == (part, parts) and part <= parts
        refuse_if(not is_next, "wrong_part", f"part {record.part} of {record.parts}, wanted part {part} of {parts}")
        is_rooted = phase in _ROOTED
        is_other = (record.root != ZERO) != is_rooted or record.root != self._roots.get(phase, record.root)
        refuse_if(is_other, "wrong_root", f"root {record.root.hex()} of set {phase}, part {part}")

        participants = checked_participants(record.participants, "wrong_participants")
        if not participants or participants[0] <= max(self._begun, default=-1):
            raise refused("wrong_participants", "a part names participants, with larger numbers than the part before")
        self._check_members(phase, participants)

        count = len(self._begun) + len(participants)
        is_short = part == parts and count < self.least
        refuse_if(
            is_short, "too_few_participants", f"{count} participants in {phase}, at least {self.least} are wanted"
        )
        return tuple(participants)

    def add(self, record: RoundSet) -> None:
        """Record one more part, which was checked."""
        self._begun += numbers_in(record.participants)
        self._parts = (record.part, record.parts)
        self._roots[record.phase] = record.root
        if record.part == record.parts:
            self._whole[record.phase] = frozenset(self._begun)
            self._begun, self._parts = [], (0, 0)

    def named(self, phase: SetPhase) -> frozenset[int]:
        """Return the people of a phase as far as they are recorded."""
        begun = self._begun if phase == self.next_phase else ()
        return self._whole.get(phase, frozenset(begun))

    def _check_members(self, phase: SetPhase, participants: tuple[int, ...]) -> None:
        before = PHASES[PHASES.index(phase) - 1] if phase != PHASES[0] else None
        members = self._cohort if before is None else self._whole[before]
        for number in participants:
            if number not in members:
                raise refused("not_in_set", f"principal {number} is not in {before or 'the cohort'}")

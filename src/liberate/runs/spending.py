"""What the people of a federation have spent, in one run or in all, read from the ledger's rounds and updates.

An aborted round counts: what left a device stays spent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.parts import Terms
from liberate.ledger.format.records import Enrol, Genesis, Round, TermsRecord, Update
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entries, entry_at
from liberate.privacy.accounting import PrivacyLoss, privacy_loss
from liberate.privacy.events import Event
from liberate.privacy.mechanisms import mechanism_from

Events = frozenset[tuple[Event, int]]
"""What was done to a person's data, and how often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedRound:
    """A round that stands on the ledger.

    Attributes:
        run: The run it belongs to.
        mechanism: Name of what protected the answers.
        event: What an answer released.
        epsilon_nano: What an answer spent from the epsilon account, in 1e-9.
        rho_nano: What it spent from the rho account, likewise.
        cohort: Who could answer.
        terms: What it rested on.
    """

    run: int
    mechanism: str
    event: Event
    epsilon_nano: int
    rho_nano: int
    cohort: frozenset[int]
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Who has answered which rounds of a federation.

    Attributes:
        rounds: All rounds by number.
        answered: The rounds that a participant has answered, by participant; nobody is missing.
    """

    rounds: Mapping[int, PricedRound]
    answered: Mapping[int, tuple[int, ...]]

    @property
    def runs(self) -> list[int]:
        """Numbers of the runs that have held a round."""
        return sorted({held.run for held in self.rounds.values()})

    def of_run(self, run: int) -> Spending:
        """Return one run's rounds, and the people who could answer one."""
        rounds = {number: held for number, held in self.rounds.items() if held.run == run}
        participants = frozenset[int]().union(*(held.cohort for held in rounds.values()))
        return Spending(
            rounds=rounds,
            answered={
                person: tuple(number for number in answered if number in rounds)
                for person, answered in self.answered.items()
                if person in participants
            },
        )

    def of_person(self, person: int) -> Spending:
        """Return what one participant has answered."""
        return Spending(rounds=self.rounds, answered={person: self.answered[person]})

    def spent(self, delta: float, *, colluding: int = 0) -> PrivacyLoss:
        """Price all that was done to the data of the person to whom most was done, at a delta.

        `colluding` participants give the noise that a distributed release counts on to whoever reads the sum.
        """
        done = {self._events(answered) for answered in self.answered.values()} or {frozenset()}
        most = [events for events in done if not any(_is_less(events, other) for other in done)]
        return max((_price(events, delta, colluding) for events in most), key=_order)

    def joined(self) -> tuple[int, int]:
        """Return the fewest and the most rounds that anybody has answered."""
        counts = [len(answered) for answered in self.answered.values()] or [0]
        return min(counts), max(counts)

    def charged(self) -> tuple[int, int]:
        """Return the most that anybody has spent from the epsilon and from the rho account, in 1e-9."""
        rounds = [[self.rounds[number] for number in answered] for answered in self.answered.values()]
        epsilon = max((sum(held.epsilon_nano for held in own) for own in rounds), default=0)
        return epsilon, max((sum(held.rho_nano for held in own) for own in rounds), default=0)

    def _events(self, answered: Iterable[int]) -> Events:
        return frozenset(Counter(self.rounds[number].event for number in answered).items())


def read_spending(ledger: Ledger) -> Spending:
    """Read who has answered which rounds."""
    enrolled = [
        (entry.position, entry.record.number) for entry in entries(ledger, Enrol) if entry.record.role == "participant"
    ]
    founding = entry_at(ledger, 0, Genesis)
    terms = {founding.leaf_hash: founding.record.terms}
    terms |= {changed.leaf_hash: changed.record.terms for changed in entries(ledger, TermsRecord)}

    rounds: dict[int, PricedRound] = {}
    for opening in entries(ledger, Round):
        record = opening.record
        everybody = (number for at, number in enrolled if at < opening.position)
        cohort = frozenset(numbers_in(record.cohort) if record.cohort else everybody)
        rounds[record.number] = _held(record, cohort, terms[record.terms])

    answered: dict[int, list[int]] = {number: [] for _, number in enrolled}
    for update in entries(ledger, Update):
        for person in update.record.answers_for():
            answered[person].append(update.record.round)
    return Spending(rounds=rounds, answered={person: tuple(own) for person, own in answered.items()})


def _held(record: Round, cohort: frozenset[int], terms: Terms) -> PricedRound:
    mechanism = record.mechanism
    return PricedRound(
        run=record.run,
        mechanism=mechanism.name,
        event=mechanism_from(mechanism.name, record.fraction_bits, mechanism.parameters).event(),
        epsilon_nano=record.spend_nano if record.account == "epsilon" else 0,
        rho_nano=record.spend_nano if record.account == "rho" else 0,
        cohort=cohort,
        terms=terms,
    )


@cache
def _price(events: Events, delta: float, colluding: int) -> PrivacyLoss:
    return privacy_loss(sorted(events, key=repr), delta, colluding)


def _is_less(events: Events, other: Events) -> bool:
    """Whether all that was done to one person was done to another too, and more."""
    counts = dict(other)
    return events != other and all(count <= counts.get(event, 0) for event, count in events)


def _order(spent: PrivacyLoss) -> tuple[float, float]:
    tight, basic = spent.epsilon_pld, spent.epsilon_basic
    return (math.inf if tight is None else tight, math.inf if basic is None else basic)

"""How rounds are run, and what happens in one."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.model.solvers import Solver
from liberate.model.statistics import Statistic
from liberate.privacy.mechanism_base import Mechanism


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundConfig:
    """How rounds are run.

    Attributes:
        rounds: Rounds at most without noise, exactly so many with it, > 0; unset = 15 with normal equations, 80 with
            the gradient, 10 with noise. Popularity and Gram take one, for no round changes what devices compute;
            `distributed` plans its own.
        batch_size: Participants asked at a time, copies that they learn from counting as participants; their updates
            make one block. 1 <= batch_size <= 10,000.
        min_participation: Share of the cohort whose updates a model needs, 0 < min_participation <= 1.
        max_participants: Most people ever enrolled, > 0; unset = the people of the data set that founds the federation.
        min_cohort: Fewest people of a round of `distributed`, > 0; unset = 80 % of the people expected, rounded up.
        trimmed_fraction: Part of the uploads left out of every number's sum at either end, 0 <= trimmed_fraction < 0.5:
            a mean that a minority
            of hostile people cannot carry away. For explicit ratings in `plain`, which then learns by the gradient, and
            in `local`; the other modes show the coordinator no single upload.
        deadline_blocks: Blocks after which a round takes no more updates, > 0.
    """

    rounds: int | None = None
    batch_size: int = 1000
    min_participation: float = 0.5
    max_participants: int | None = None
    min_cohort: int | None = None
    trimmed_fraction: float = 0.0
    deadline_blocks: int = 10_000

    def __post_init__(self) -> None:
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, wanted rounds >= 1")
        if not 1 <= self.batch_size <= 10_000:
            raise ValueError(f"batch_size is {self.batch_size}, wanted 1 <= batch_size <= 10,000")
        if not 0 < self.min_participation <= 1:
            raise ValueError(f"min_participation is {self.min_participation}, wanted 0 < min_participation <= 1")
        for name, count in (("max_participants", self.max_participants), ("min_cohort", self.min_cohort)):
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}, wanted {name} >= 1")
        if not 0 <= self.trimmed_fraction < 0.5:
            raise ValueError(f"trimmed_fraction is {self.trimmed_fraction}, wanted 0 <= trimmed_fraction < 0.5")
        if self.deadline_blocks < 1:
            raise ValueError(f"deadline_blocks is {self.deadline_blocks}, wanted deadline_blocks >= 1")


@dataclass(frozen=True, slots=True)
class RoundMethod:
    """What happens in a round.

    Attributes:
        statistic: What devices compute.
        mechanism: What protects it.
        solver: What the sum becomes.
    """

    statistic: Statistic
    mechanism: Mechanism
    solver: Solver

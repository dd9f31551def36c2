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
        chunk: Participants asked at a time, copies that they learn from counting as people; their updates make one
            block. 1 <= chunk <= 10,000.
        min_fraction: Share of the cohort whose updates a model needs, 0 < min_fraction <= 1.
        trim: Part of the uploads left out of every number's sum at either end, 0 <= trim < 0.5: a mean that a minority
            of hostile people cannot carry away. For explicit ratings in `plain`, which then learns by the gradient, and
            in `local`; the other modes show the coordinator no single upload.
        deadline_blocks: Blocks after which a round takes no more updates, > 0.
        timeout_s: Seconds to wait for the replies of a chunk, > 0.
    """

    rounds: int | None = None
    chunk: int = 1000
    min_fraction: float = 0.5
    trim: float = 0.0
    deadline_blocks: int = 10_000
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, wanted rounds >= 1")
        if not 1 <= self.chunk <= 10_000:
            raise ValueError(f"chunk is {self.chunk}, wanted 1 <= chunk <= 10,000")
        if not 0 < self.min_fraction <= 1:
            raise ValueError(f"min_fraction is {self.min_fraction}, wanted 0 < min_fraction <= 1")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim is {self.trim}, wanted 0 <= trim < 0.5")
        if self.deadline_blocks < 1:
            raise ValueError(f"deadline_blocks is {self.deadline_blocks}, wanted deadline_blocks >= 1")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, wanted timeout_s > 0")


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

"""Settings of what is promised to each person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from liberate.privacy.mechanism_base import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """What is promised to each person.

    Attributes:
        mode: Who may see what: `device` (nothing leaves), `plain` (trusted coordinator), `local` (nobody is trusted),
            `distributed` (the coordinator sees sums; noise of all participants together protects them).
        mechanism: Noise of `local`: `laplace` (the paper's, pure epsilon) or `gaussian`; the other modes make no use
            of it.
        epsilon: Bound for the whole run, 0 < epsilon <= 1e6: under basic composition with `laplace`, tight at `delta`
            with Gaussian noise. `local` and `distributed` need it, the other modes make no use of it.
        delta: Probability at which Gaussian noise keeps `epsilon` and the tight accounts are read, 0 < delta < 1.
        clip_norm: Largest norm of what one person sends in a round of `local`, in the statistic's unit,
            1e-6 <= clip_norm <= 1e6: L1 with `laplace`, L2 with `gaussian`.
        max_colluders: Most people, of all who are ever enrolled, who may give away what they know, >= 0; the noise of
            `distributed` does without theirs. Unset = 10 % of the people expected, rounded up.
        max_dropouts: Most of a round's people who may be missing from its sum, 0 <= max_dropouts < 1, in steps of
            0.001; the noise of `distributed` does without theirs too. Unset = 0.05.
        secure_aggregation: Whether uploads of `distributed` are masked; unset = outside a simulation only. Outside they
            always are; in a simulation they change no bit of a sum, and true carries the protocol out all the same.
        evaluation: Whether a run of `distributed` ends with a release of how well it predicts what people hold out: one
            noised sum over people, paid for from epsilon like the others, and the only figure of the kind that a run of
            real people has. It needs explicit ratings, and some that are held out.
    """

    mode: Mode = "plain"
    mechanism: Literal["laplace", "gaussian"] = "laplace"
    epsilon: float | None = None
    delta: float = 1e-5
    clip_norm: float = 1.0
    max_colluders: int | None = None
    max_dropouts: float | None = None
    secure_aggregation: bool | None = None
    evaluation: bool = False

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0 < self.epsilon <= 1e6:
            raise ValueError(f"epsilon is {self.epsilon}, wanted 0 < epsilon <= 1e6")
        if self.mode in ("local", "distributed") and self.epsilon is None:
            raise ValueError(f"mode {self.mode} needs an epsilon for the whole run, such as privacy.epsilon=8")
        if self.evaluation and self.mode != "distributed":
            raise ValueError(
                f"evaluation is for mode distributed: in {self.mode} no noise would protect a sum of errors"
            )
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}, wanted 0 < delta < 1")
        if not 1e-6 <= self.clip_norm <= 1e6:
            raise ValueError(f"clip_norm is {self.clip_norm}, wanted 1e-6 <= clip_norm <= 1e6")
        if self.max_colluders is not None and self.max_colluders < 0:
            raise ValueError(f"max_colluders is {self.max_colluders}, wanted max_colluders >= 0")
        if self.max_dropouts is not None and not 0 <= self.max_dropouts < 1:
            raise ValueError(f"max_dropouts is {self.max_dropouts}, wanted 0 <= max_dropouts < 1")

"""The stages of a run: what devices compute in each, what protects it, and what its sum becomes."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.federation.coordinator.config import RoundMethod
from liberate.model.cooccurrence import Gram, Popularity
from liberate.model.item_solvers import Ease, MostPopular
from liberate.model.private.evaluation import EVALUATION, EVALUATION_NORM, ErrorRelease, OwnErrors
from liberate.model.private.solvers import Embeddings, ItemBiases, ItemResiduals, LearnedPrior
from liberate.model.private.statistics import (
    BIAS_NORM,
    GRAM_NORM,
    MOMENTS_CLIP,
    N_EMBEDDINGS,
    RESIDUALS_NORM,
    BiasSums,
    Moments,
    Residuals,
)
from liberate.model.registry import build_method
from liberate.model.solvers import Solver
from liberate.model.statistics import Statistic
from liberate.privacy.gaussian_calibration import distributed
from liberate.privacy.mechanism_base import Plain
from liberate.privacy.mechanisms import calibrated_mechanism
from liberate.runs.budget import BudgetAllocation
from liberate.settings import Settings
from liberate.units import NANO, to_nano

_PRIVATE_ROUNDS = 10
_PLAIN_ROUNDS = {"normal": 15, "gradient": 80}
_UNCHANGING = ("popularity", "gram")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage, and how many rounds it takes.

    Attributes:
        stage: What happens in each of its rounds.
        rounds: How many: exactly so many where noise is added, else at most.
    """

    stage: RoundMethod
    rounds: int

    @property
    def spend_nano(self) -> int:
        """What all its rounds cost a person, in billionths of the account's unit."""
        return self.rounds * self.stage.mechanism.spend_nano


def visible_stage(settings: Settings, n_items: int) -> PlannedStage:
    """Return the only stage where a coordinator sees every upload: as it is, or noised on the device."""
    is_noisy = settings.privacy.mode == "local"
    statistic, solver = build_method(settings.model, n_items, noisy=is_noisy)
    rounds = _rounds(settings, statistic, _PRIVATE_ROUNDS if is_noisy else _PLAIN_ROUNDS.get(statistic.name, 1))
    trimmed_nano = min(to_nano(settings.federation.trimmed_fraction), NANO // 2 - 1)
    mechanism = (
        calibrated_mechanism(settings.privacy, rounds=rounds, trimmed_nano=trimmed_nano)
        if is_noisy
        else Plain(trimmed_nano=trimmed_nano)
    )
    return PlannedStage(stage=RoundMethod(statistic, mechanism, solver), rounds=rounds)


def distributed_stages(
    settings: Settings, chosen: BudgetAllocation, n_participants: int, n_items: int, n_features: int, honest: int
) -> tuple[PlannedStage, ...]:
    """Return the releases of an allocation, each with its mechanism and its solver."""
    stages = []
    for name, share in chosen.shares.items():
        statistic, clip_norm = _release(name, chosen, n_items, n_features)
        rounds = chosen.moments_rounds if name == "moments" else 1

        mechanism = distributed(
            clip_norm=clip_norm,
            share_of_budget=share / rounds,
            epsilon=epsilon_of_run(settings),
            delta=settings.privacy.delta,
            n_participants=n_participants,
            honest=honest,
            n_coordinates=max(1, statistic.shape[0] * statistic.shape[1]),
            masked=settings.is_masked,
        )

        solver = _solver(name, settings, chosen, to_nano(mechanism.client_noise))
        stages.append(PlannedStage(stage=RoundMethod(statistic, mechanism, solver), rounds=rounds))
    return tuple(stages)


def _release(name: str, chosen: BudgetAllocation, n_items: int, n_features: int) -> tuple[Statistic, float]:
    """Return a statistic of an allocation, and the norm that one person's part is clipped to."""
    match name:
        case "bias":
            return BiasSums(n_items), BIAS_NORM
        case "residuals":
            return Residuals(n_items, chosen.n_directions), RESIDUALS_NORM
        case "popularity":
            return Popularity(n_items), GRAM_NORM
        case "gram":
            return Gram(chosen.gram_items), GRAM_NORM
        case "evaluation":
            return OwnErrors(), EVALUATION_NORM
        case _:
            n_factors = n_features + N_EMBEDDINGS if chosen.gram_items else n_features - 1
            return Moments(n_factors), MOMENTS_CLIP


def _solver(name: str, settings: Settings, chosen: BudgetAllocation, client_noise_nano: int) -> Solver:
    match name, settings.model.objective:
        case "bias", _:
            return ItemBiases(client_noise_nano, chosen.gram_items)
        case "residuals", _:
            return ItemResiduals(client_noise_nano, int(EVALUATION in chosen.shares))
        case "popularity", _:
            return MostPopular(chosen.gram_items)
        case "gram", "implicit":
            return Ease(client_noise_nano=client_noise_nano)
        case "gram", _:
            return Embeddings(client_noise_nano, chosen.moments_rounds, chosen.n_directions)
        case "evaluation", _:
            return ErrorRelease(client_noise_nano)
        case _:
            return LearnedPrior(chosen.n_directions)


def epsilon_of_run(settings: Settings) -> float:
    """Return the epsilon that the mode cannot do without: settings have seen to it."""
    assert settings.privacy.epsilon is not None
    return settings.privacy.epsilon


def _rounds(settings: Settings, statistic: Statistic, usual: int) -> int:
    """Return the rounds of a stage: one where devices compute what no round before it changes."""
    return 1 if statistic.name in _UNCHANGING else settings.federation.rounds or usual

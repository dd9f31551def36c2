"""Which releases a `distributed` run makes, and what part of its budget each takes: from public numbers alone.

A release helps where what people have in common stands out of the noise. How much that is cannot be looked up in the
ratings, for looking is a release of its own; what is taken for granted here was seen on public data sets of films.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from liberate.errors import PrivacyError
from liberate.model.private.evaluation import EVALUATION, EVALUATION_NORM, expected_deviation
from liberate.model.private.statistics import MOMENTS_CLIP, N_EMBEDDINGS
from liberate.privacy.gaussian_tradeoff import gaussian_calibration

Objective = Literal["explicit", "implicit"]

_GRAM_SIZES = (1200, 600, 300, 150)
"""How many items a Gram may be over: a larger one costs an upload of its square."""
_EDGE = 2.02
_LARGEST_EDGE = 0.036
"""Part of what people send up to which a Gram's noise lets their common tastes stand out."""
_IMPLICIT_SIZE = 0.009
_IMPLICIT_SIZE_POWER = -0.35
"""The best Gram for lists is over `0.009 · noise ** -0.35` of all items, noise being that of a pair and a person."""
_LEAST_IMPLICIT = 100
_POPULARITY_STANDS_OUT = 0.12
_LARGEST_PRIOR_EDGE = 0.5
_MOMENTS_ROUNDS = 5
_EXPLICIT_SHARES = {"bias": 0.2, "gram": 0.35, "moments": 0.05, "residuals": 0.4}
_NOISY_SHARES = {"bias": 0.35, "gram": 0.25, "moments": 0.05, "residuals": 0.35}
_NOISY = 3e-4
"""Noise a person and coordinate beyond which an item's bias repays the budget better than whom it suits."""
_DIRECTIONS = 4
_POOL_STANDS_OUT = 5.3e-6
"""People of a pool times squared noise beyond which what is learned from their copies beats noisy sums over all."""
_POOLED_SHARES = {"moments": 0.05, "residuals": 0.95}
_BIAS_SHARES = {"bias": 0.5, "residuals": 0.5}
_IMPLICIT_SHARES = {"popularity": 0.1, "gram": 0.9}
_EVALUATION_WITHIN = 0.01
"""Standard units within which 95 % of evaluations shall lie: about what 943 people differ by from other 943."""
_LARGEST_EVALUATION = 0.1
"""Part of 1 / sigma² that an evaluation takes at most."""
_LARGEST_DEVIATION = 0.15
"""Standard units by which an evaluation may deviate and still say something."""
_NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAllocation:
    """The releases of a run.

    Attributes:
        gram_items: Items that the Gram is over, 0 without one.
        shares: For each statistic, in the order of the releases, its part of 1 / sigma² over all its rounds; the sum
            is 1.
        moments_rounds: Rounds of `moments`; every other statistic has one.
        n_directions: Directions of taste in which residuals correct items; 0 corrects their biases alone.
        reasons: Why, a sentence each.
    """

    gram_items: int
    shares: Mapping[str, float]
    moments_rounds: int = 0
    n_directions: int = 0
    reasons: tuple[str, ...]


def allocate_budget(
    objective: Objective,
    *,
    n_participants: int,
    n_items: int,
    n_features: int,
    epsilon: float,
    delta: float,
    honest: int,
    n_senders: int = 0,
    evaluated: bool = False,
) -> BudgetAllocation:
    """Choose the releases of a run.

    Args:
        objective: What is asked of the model.
        n_participants: People who take part, > 0.
        n_items: Size of the catalogue, > 0.
        n_features: Public features of an item, what a pool has learned of it included.
        epsilon: For the whole run, > 0.
        delta: Likewise, 0 < delta < 1.
        honest: Participants whose noise is counted on, > 0.
        n_senders: People whose copies a pool has, from whose model the rounds start.
        evaluated: Whether the last release is of people's own errors.

    Raises:
        PrivacyError: So few people's errors would be drowned in their noise.
    """
    noise = 1 / (gaussian_calibration(epsilon, delta) * math.sqrt(honest * n_participants))
    if evaluated:
        share, reason = _evaluation(noise, n_participants)
        chosen = _learning(objective, noise / math.sqrt(1 - share), n_items, n_features, n_senders)
        shares = {name: part * (1 - share) for name, part in chosen.shares.items()} | {EVALUATION: share}
        return replace(chosen, shares=shares, reasons=(*chosen.reasons, reason))
    return _learning(objective, noise, n_items, n_features, n_senders)


def _evaluation(noise: float, n_participants: int) -> tuple[float, str]:
    """Return the part of the budget that an evaluation takes, and what it will be worth."""
    alone = expected_deviation(EVALUATION_NORM * noise * n_participants, n_participants)
    share = min((_NORMAL_95 * alone / _EVALUATION_WITHIN) ** 2, _LARGEST_EVALUATION)

    deviation = alone / math.sqrt(share)
    if deviation > _LARGEST_DEVIATION:
        raise PrivacyError(
            f"an evaluation by {n_participants:,} people would deviate by {deviation:.2f} of a quarter of the scale",
            hint="leave privacy.evaluation out, or raise epsilon",
        )
    reason = f"an evaluation: {share:.1%} of the budget; its noise moves the RMSE over people by at most "
    return share, f"{reason}{_NORMAL_95 * deviation:.3f} of a quarter of the scale in 95 of 100 runs"


def _learning(objective: Objective, noise: float, n_items: int, n_features: int, n_senders: int) -> BudgetAllocation:
    """Choose the releases that are learned from, by the noise a person if one of norm 1 had the whole budget."""
    match objective:
        case "explicit" if n_senders * noise**2 > _POOL_STANDS_OUT:
            return _pooled(noise, n_senders, n_features)
        case "explicit":
            return _explicit(noise, n_items, n_features)
        case "implicit":
            return _implicit(noise, n_items)
        case other:
            assert_never(other)


def _explicit(noise: float, n_items: int, n_features: int) -> BudgetAllocation:
    shares: Mapping[str, float] = _NOISY_SHARES if noise > _NOISY else _EXPLICIT_SHARES
    gram_noise = noise / math.sqrt(shares["gram"])
    sizes = sorted({min(size, n_items) for size in _GRAM_SIZES}, reverse=True)
    n_chosen = next((size for size in sizes if _gram_edge(gram_noise, size) <= _LARGEST_EDGE), 0)

    limit = f"the {_LARGEST_EDGE:.1%} up to which common tastes stand out"
    if not n_chosen:
        edge = _gram_edge(gram_noise, sizes[-1])
        reason = (
            f"no Gram: over {sizes[-1]:,} items its noise would be {edge:.1%} of what people send, above {limit}; "
            "item biases get the whole budget"
        )
        return BudgetAllocation(gram_items=0, shares=_BIAS_SHARES, reasons=(reason,))

    edge = _gram_edge(gram_noise, n_chosen)
    reasons = [
        f"a Gram over the {n_chosen:,} most popular items: its noise is {edge:.1%} of what people send, below {limit}",
        "residuals correct item biases alone: with so much noise that repays the budget best"
        if noise > _NOISY
        else f"residuals correct items in {_DIRECTIONS} directions of taste besides their biases",
    ]
    shares, rounds, reason = _with_moments(noise, shares, n_features + N_EMBEDDINGS + 1)
    reasons.append(reason)

    return BudgetAllocation(
        gram_items=n_chosen,
        shares=shares,
        moments_rounds=rounds,
        n_directions=0 if noise > _NOISY else _DIRECTIONS,
        reasons=tuple(reasons),
    )


def _pooled(noise: float, n_senders: int, n_features: int) -> BudgetAllocation:
    """Choose what corrects a pool's model."""
    shares, rounds, reason = _with_moments(noise, _POOLED_SHARES, n_features)
    return BudgetAllocation(
        gram_items=0,
        shares=shares,
        moments_rounds=rounds,
        n_directions=0 if noise > _NOISY else _DIRECTIONS,
        reasons=(
            f"no bias sums and no Gram: the pool's copies, of {n_senders:,} people, say more of items than sums with so"
            " much noise; residuals correct what was learned from them",
            reason,
        ),
    )


def _with_moments(noise: float, shares: Mapping[str, float], k: int) -> tuple[Mapping[str, float], int, str]:
    """Return the shares of the budget, the rounds of moments and why: none if their noise would drown them.

    Args:
        noise: Standard deviation of the noise in a coordinate, a person.
        shares: The shares with moments.
        k: Numbers on a person's side.
    """
    edge = MOMENTS_CLIP * noise * math.sqrt(_MOMENTS_ROUNDS / shares["moments"]) * math.sqrt(2 * k)
    if edge <= _LARGEST_PRIOR_EDGE:
        reason = f"{_MOMENTS_ROUNDS} rounds of moments: their noise moves the variances of the prior by at most "
        return shares, _MOMENTS_ROUNDS, f"{reason}{edge:.0%}"
    rest = {name: share / (1 - shares["moments"]) for name, share in shares.items() if name != "moments"}
    reason = f"no moments: their noise would move the variances of the prior by {edge:.0%}; the prior stays as it was"
    return rest, 0, reason


def _implicit(noise: float, n_items: int) -> BudgetAllocation:
    gram_noise = noise / math.sqrt(_IMPLICIT_SHARES["gram"])
    best = round(_IMPLICIT_SIZE * n_items * (gram_noise / math.sqrt(2)) ** _IMPLICIT_SIZE_POWER)
    n_chosen = min(max(best, _LEAST_IMPLICIT), n_items, _GRAM_SIZES[0])
    edge = _gram_edge(gram_noise, n_chosen)
    if edge > _POPULARITY_STANDS_OUT:
        reason = (
            f"no Gram: over {n_chosen:,} items its noise would be {edge:.0%} of what people send, and not even how "
            "popular items are would stand out; popularity gets the whole budget"
        )
        return BudgetAllocation(gram_items=0, shares={"popularity": 1.0}, reasons=(reason,))
    reason = f"a Gram over the {n_chosen:,} most popular items: its noise is {edge:.1%} of what people send"
    return BudgetAllocation(gram_items=n_chosen, shares=_IMPLICIT_SHARES, reasons=(reason,))


def _gram_edge(noise: float, n_chosen: int) -> float:
    """Return the largest eigenvalue that noise alone gives a mean Gram, `noise` being that of a coordinate a person."""
    return _EDGE * noise * math.sqrt(n_chosen / 2)

"""From what was done to a person's data to what that may tell.

Events are descriptions; this module alone interprets them, and refuses those it does not know. Three readings are
taken: basic composition (epsilons add up), Rényi DP and the privacy loss distribution (PLD), both at a delta.
Each is an upper bound, so none is reported above a coarser one.

A vector of L1 sensitivity s with discrete Laplace noise tells at most what one number shifted by s tells. Let f_d be
the trade-off function of a shift by d. Changing coordinates one at a time, shifts d_1, d_2, ... of the vector have a
trade-off function of at least f_d1 o (1 - f_d2) o ... (group privacy: Dong, Roth, Su 2022, "Gaussian Differential
Privacy", section 2.5). The noise is log-concave, so the best tests of a number are thresholds and this chain is
exactly f_(d1 + d2 + ...), corner by corner.

The discrete mechanism is accounted as what it is, because the continuous one does not dominate it: it is the other way
round. Continuous noise is discrete noise plus an independent remainder (as a geometric variable is m times a coarser
one plus a remainder), hence a post-processing of it, and at sensitivity 1 the discrete mechanism is randomised
response, the worst of all pure ones. On grids as fine as `calibrated_laplace` takes the two agree to six digits.

With discrete Gaussian noise it is enough to account for the continuous one, in any number of coordinates. Let x be
normal of variance s**2 - r, and y an integer drawn with a probability proportional to exp(-(y - x)**2 / (2 r)):
rounding that knows only x, and that moves by v when x moves by an integer v. Then y is at every integer, up to a factor
of (1 + c) / (1 - c), c = 2 exp(-2 pi**2 r) + ..., a discrete Gaussian of variance s**2 (Poisson summation; Peikert
2010, "An Efficient and Parallel Gaussian Sampler for Lattices", Theorem 3.1). So discrete noise tells what
post-processing of slightly smaller continuous noise does: r = 4 units come off the variance, and the factors of all
coordinates and releases, with those between a sum of discrete Gaussians and one (`tau`), come as a slack a in the
logarithm of any probability: if (epsilon, delta) holds without, (epsilon + 2 a, delta exp(a)) holds with it. From
deviations of 3 units on, a stays below 1e-20 for 2**32 coordinates.

Basic composition adds up what single releases tell: pure epsilons, and for Gaussian releases, which have none, their
tight epsilons at equal parts of delta. A run is calibrated by the tight reading, so its basic one is larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

import numpy as np

from liberate.arrays import Float64Array
from liberate.errors import UnaccountableEvent
from liberate.privacy.events import (
    LARGEST_COORDINATES,
    ROUNDING_VARIANCE,
    DiscreteLaplaceRelease,
    DistributedGaussianRelease,
    Event,
    GaussianRelease,
    NonPrivateRelease,
)
from liberate.privacy.gaussian_tradeoff import epsilon_of

ReleaseT = TypeVar("ReleaseT")
Counted = Sequence[tuple[ReleaseT, int]]
"""Releases, each with how often it happened."""

_PLD_POINTS = 2**16
"""Grid points of the privacy loss between 0 and the basic epsilon; more change epsilon_pld by less than 0.02 %."""

_TIGHT_UP_TO = 700.0
"""Beyond this basic epsilon, where exp overflows, nothing is private by any reading and only the basic one is taken."""

_ROUNDING_SLACK = 4 * math.exp(-2 * math.pi**2 * ROUNDING_VARIANCE)

_RDP_ORDERS = np.concatenate(
    [np.geomspace(1e-3, 0.049, 50) + 1, np.linspace(1.05, 12, 220), np.geomspace(12.5, 1e5, 200)]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyLoss:
    """What all releases together may tell about one person; None means that there is no bound.

    Attributes:
        epsilon_basic: By basic composition: pure epsilons, and those of Gaussian releases at equal parts of `delta`.
        epsilon_rdp: Epsilon at `delta` by Rényi DP.
        epsilon_pld: Epsilon at `delta` by the privacy loss distribution: the tight one.
        rho: What was charged to the account of Gaussian-like mechanisms; None also where all mechanisms are pure.
        delta: The delta of `epsilon_rdp` and `epsilon_pld`.
    """

    epsilon_basic: float | None
    epsilon_rdp: float | None
    epsilon_pld: float | None
    rho: float | None
    delta: float

    @property
    def epsilon(self) -> float | None:
        """The epsilon that was promised: the pure one where all mechanisms are pure, else the tight one at `delta`."""
        return self.epsilon_basic if self.rho is None else self.epsilon_pld


def privacy_loss(events: Counted[Event], delta: float, colluding: int = 0) -> PrivacyLoss:
    """Add up what a person's releases may tell.

    Args:
        events: What was done, and how often (>= 0); rounds that were aborted after the upload count.
        delta: Where the tight readings are taken, 0 < delta < 1.
        colluding: Participants, among those whose noise a distributed release counts on, who give their noise to
            whoever reads the sum.

    Raises:
        UnaccountableEvent: An event is of a kind unknown here.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, wanted 0 < delta < 1")
    if colluding < 0:
        raise ValueError(f"colluding is {colluding}, wanted colluding >= 0")
    for event, count in events:
        if count < 0:
            raise ValueError(f"an event happened {count} times, wanted count >= 0")
        if not isinstance(event, Event):
            raise UnaccountableEvent(f"no accountant here knows the event {event!r}")

    seen = [(_seen_by(event, colluding), count) for event, count in events if count > 0]
    if any(isinstance(event, NonPrivateRelease) for event, _ in seen):
        return PrivacyLoss(epsilon_basic=None, epsilon_rdp=None, epsilon_pld=None, rho=None, delta=delta)
    if not seen:
        return PrivacyLoss(epsilon_basic=0.0, epsilon_rdp=0.0, epsilon_pld=0.0, rho=0.0, delta=delta)
    return _loss_of_noisy(
        [(event, count) for event, count in seen if isinstance(event, DiscreteLaplaceRelease)],
        [(event, count) for event, count in seen if isinstance(event, GaussianRelease)],
        delta,
    )


def _loss_of_noisy(
    pure: Counted[DiscreteLaplaceRelease], gaussian: Counted[GaussianRelease], delta: float
) -> PrivacyLoss:
    """Add up releases that all have noise, one at least, by the three readings."""
    pure_epsilon = float(sum((event.epsilon * count for event, count in pure), Fraction(0)))
    basic = pure_epsilon + _basic_of_gaussian(gaussian, delta)
    by_rdp = basic
    by_pld = min(basic, pure_epsilon + _epsilon_of_gaussian(gaussian, delta))
    if pure_epsilon <= _TIGHT_UP_TO:
        by_rdp = min(basic, _epsilon_rdp(pure, gaussian, delta))
        by_pld = min(by_pld, by_rdp, _epsilon_pld(pure, gaussian, delta))

    return PrivacyLoss(
        epsilon_basic=basic,
        epsilon_rdp=by_rdp,
        epsilon_pld=by_pld,
        rho=float(sum(event.charge * count for event, count in gaussian)) if gaussian else None,
        delta=delta,
    )


def _seen_by(event: Event, colluding: int) -> Event:
    """Return the release as it is for whoever knows the noise of some participants."""
    if not isinstance(event, DistributedGaussianRelease):
        return event
    return replace(event, honest=event.honest - colluding) if colluding < event.honest else NonPrivateRelease()


def _basic_of_gaussian(events: Counted[GaussianRelease], delta: float) -> float:
    """Add up the epsilons of single releases, each at an equal part of delta."""
    n_releases = sum(count for _, count in events)
    return sum(count * _epsilon_of_gaussian([(event, 1)], delta / n_releases) for event, count in events)


def _epsilon_of_gaussian(events: Counted[GaussianRelease], delta: float) -> float:
    """Return the tight epsilon of discrete Gaussian releases from the curve of continuous ones."""
    slack = _slack(events)
    return epsilon_of(math.sqrt(_squared_shift(events)), delta * math.exp(-slack)) + 2 * slack


def _squared_shift(events: Counted[GaussianRelease]) -> float:
    """Add up the squared shifts, in deviations, of the continuous releases that the discrete ones come from."""
    return float(2 * sum(event.charge * count for event, count in events))


def _slack(events: Counted[GaussianRelease]) -> float:
    """Bound how far the logarithm of any probability of all releases is from what continuous ones give."""
    return sum(count * LARGEST_COORDINATES * (event.tau / 2 + _ROUNDING_SLACK) for event, count in events)


def _epsilon_rdp(pure: Counted[DiscreteLaplaceRelease], gaussian: Counted[GaussianRelease], delta: float) -> float:
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon  # 2 s, only where it is needed

    divergence = sum((count * rdp(event, _RDP_ORDERS) for event, count in pure), np.zeros_like(_RDP_ORDERS))
    divergence += _RDP_ORDERS * float(sum(event.rho * count for event, count in gaussian))
    epsilon, _ = compute_epsilon(_RDP_ORDERS, divergence, delta)
    return float(epsilon)


def _epsilon_pld(pure: Counted[DiscreteLaplaceRelease], gaussian: Counted[GaussianRelease], delta: float) -> float:
    """Compose privacy loss distributions on a grid that never understates delta; it meets the greatest loss exactly.

    Source: Doroshenko et al. 2022, "Connect the Dots: Tighter Discrete Approximations of Privacy Loss Distributions".
    """
    if not pure:
        return _epsilon_of_gaussian(gaussian, delta)
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots_fixed_gap
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism, identity

    squared_shift, slack = _squared_shift(gaussian), _slack(gaussian)
    shift = math.sqrt(squared_shift)
    span = sum(float(event.epsilon) * count for event, count in pure) + squared_shift / 2 + 6 * shift
    largest = max(float(event.epsilon) for event, _ in pure)
    interval = largest / math.ceil(_PLD_POINTS * largest / span)
    total = identity(interval)
    for event, count in pure:
        end = math.ceil(float(event.epsilon) / interval - 1e-9)
        deltas = hockey_stick(event, interval * np.arange(-end, end + 1, dtype=np.float64))
        pmf = create_pmf_pessimistic_connect_dots_fixed_gap(interval, -end, end, deltas)
        total = total.compose(PrivacyLossDistribution(pmf).self_compose(count))
    if gaussian:
        total = total.compose(from_gaussian_mechanism(1 / shift, value_discretization_interval=interval))
    return float(total.get_epsilon_for_delta(delta * math.exp(-slack))) + 2 * slack


def hockey_stick(event: DiscreteLaplaceRelease, epsilons: Float64Array) -> Float64Array:
    """Return the smallest delta for which one release is (epsilon, delta)-differentially private, for each epsilon.

    With s the sensitivity, t the scale and q = exp(-1 / t), the loss at x in [0, s] is (s - 2 x) / t. The losses above
    epsilon are those of {x <= k}, k = ceil((s - epsilon t) / 2) - 1, of probability 1 - q**(k + 1) / (1 + q), and
    q**(s - k) / (1 + q) after the shift; below -s / t they are everything.
    """
    s, t = event.sensitivity, event.scale
    normalizer = 1.0 + math.exp(-1.0 / t)
    k = np.clip(np.ceil((s - epsilons * t) / 2.0) - 1.0, -1.0, s - 1.0)
    some = 1.0 - np.exp(-(k + 1.0) / t) / normalizer - np.exp(epsilons - (s - k) / t) / normalizer
    return np.asarray(np.clip(np.maximum(some, -np.expm1(np.minimum(epsilons, 0.0))), 0.0, 1.0))


def rdp(event: DiscreteLaplaceRelease, orders: Float64Array) -> Float64Array:
    """Return the Rényi divergence of one release, for each order > 1.

    The sum over x of P(x)**a * P(x - s)**(1 - a), split at 0 and at s: three geometric series, with
    q = exp(-1 / t), r = q**(2 a - 1) and epsilon = s / t:
    exp((a - 1) epsilon) * (1 + r**s + (1 - q) (r - r**s) / (1 - r)) / (1 + q). Rounding is allowed for, upwards.
    """
    s, t = event.sensitivity, event.scale
    exponents = (2.0 * orders - 1.0) / t
    middle = (np.exp(-exponents) - np.exp(-exponents * s)) * math.expm1(-1.0 / t) / np.expm1(-exponents)
    series = (1.0 + np.exp(-exponents * s) + middle) / (1.0 + math.exp(-1.0 / t))
    return np.asarray(float(event.epsilon) + (np.log(series) + 1e-15) / (orders - 1.0))

"""The tight curve of Gaussian noise: which (epsilon, delta) a shift by mu deviations is worth, both ways.

Releases with continuous Gaussian noise compose to one such shift, mu**2 being the sum of their squares, so this curve
is that of a whole run. How it covers discrete noise is shown in `accounting`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from liberate.units import NANO

_MARGIN = 1e-9
"""Part of epsilon that a calibration leaves for rounding and for what makes discrete noise differ."""

_LARGEST_MU = 1e4


def log_delta(epsilon: float, mu: float) -> float:
    """Return the logarithm of the smallest delta at an epsilon >= 0, for mu > 0.

    Source: Balle, Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy", Theorem 8:
    delta = F(mu / 2 - epsilon / mu) - exp(epsilon) F(-mu / 2 - epsilon / mu), F the normal distribution function.
    """
    from scipy.special import log_ndtr  # 0.1 s, only where it is needed

    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return first + math.log(-math.expm1(second - first)) if second < first else -math.inf


def epsilon_of(mu: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 at which a shift by mu >= 0 deviations keeps to a delta, rounded up."""
    goal = math.log(delta)
    if mu == 0 or log_delta(0.0, mu) <= goal:
        return 0.0
    largest = 1.0
    while log_delta(largest, mu) > goal:
        largest *= 2
    return _boundary(lambda epsilon: log_delta(epsilon, mu) <= goal, 0.0, largest)


def gaussian_calibration(epsilon: float, delta: float) -> float:
    """Return the largest mu that keeps a run within (epsilon, delta), a billionth of epsilon being left.

    A run whose releases have noise deviations s_i and L2 sensitivities D_i keeps the promise if the sum of
    (D_i / s_i)**2 is at most mu**2.

    Args:
        epsilon: For the whole run, > 0.
        delta: Likewise, 0 < delta < 1.
    """
    if not epsilon > 0 or not 0 < delta < 1:
        raise ValueError(f"epsilon {epsilon} and delta {delta} promise nothing, wanted epsilon > 0 and 0 < delta < 1")
    goal = math.log(delta)
    return _boundary(lambda mu: log_delta(epsilon * (1 - _MARGIN), mu) > goal, 0.0, _LARGEST_MU, upper=False)


def rho_nano_limit(epsilon: float, delta: float) -> int:
    """Return the limit of a rho account that any runs within (epsilon, delta) together may use up, in billionths."""
    return math.floor(gaussian_calibration(epsilon, delta) ** 2 / 2 * NANO)


def _boundary(is_beyond: Callable[[float], bool], low: float, high: float, *, upper: bool = True) -> float:
    """Halve [low, high] until its ends are neighbours or as good as.

    Returns:
        The upper end, at which it holds, or else the lower one.
    """
    for _ in range(200):
        middle = (low + high) / 2
        if high - low <= 1e-14 * high or not low < middle < high:
            break
        if is_beyond(middle):
            high = middle
        else:
            low = middle
    return high if upper else low

"""How much Gaussian noise keeps a run to (epsilon, delta), on the finest integer grid that it fits.

Every round takes a share of 1 / sigma**2. Rounds whose shares add up to at most 1 keep together to (epsilon, delta) by
the tight curve, and their spends to `rho_nano_limit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

from liberate.errors import PrivacyError
from liberate.privacy.events import ROUNDING_VARIANCE, SMALLEST_SIGMA
from liberate.privacy.gaussian import LARGEST_COHORT, LARGEST_SIGMA_UNITS, DistributedGaussian, Gaussian
from liberate.privacy.gaussian_tradeoff import gaussian_calibration, rho_nano_limit
from liberate.privacy.grid import LARGEST_CLIP_UNITS, LARGEST_FRACTION_BITS
from liberate.privacy.integers import floor_log2, root_above
from liberate.units import NANO


def calibrated_gaussian(epsilon: float, delta: float, rounds: int, clip_norm: float) -> Gaussian:
    """Return the finest grid on which all rounds together keep to (epsilon, delta) by the tight curve.

    Every round gets the same part of 1 / sigma**2. The clip in force is clip_norm rounded down to the grid.

    Args:
        epsilon: For all rounds together, > 0.
        delta: Likewise, 0 < delta < 1.
        rounds: How many, > 0.
        clip_norm: Largest L2 norm, in the statistic's unit, > 0.

    Raises:
        PrivacyError: Epsilon is too small for so many rounds and so large a clip norm.
    """
    variance_of = _calibration(epsilon, delta, Fraction(1, rounds))
    for fraction_bits, clip_units in _grids(clip_norm):
        sigma = root_above(variance_of(2 * clip_units))
        if sigma <= LARGEST_SIGMA_UNITS:
            return Gaussian(fraction_bits=fraction_bits, clip_units=clip_units, sigma_units=max(sigma, SMALLEST_SIGMA))

    raise PrivacyError(
        f"epsilon {epsilon} over {rounds} rounds is too little for a clip norm of {clip_norm}: "
        "the noise does not fit the integer grid",
        hint="raise epsilon, take fewer rounds or lower the clip norm",
    )


def distributed(
    *,
    clip_norm: float,
    share_of_budget: float,
    epsilon: float,
    delta: float,
    n_participants: int,
    honest: int,
    n_coordinates: int,
    masked: bool = False,
) -> DistributedGaussian:
    """Return one round's mechanism on the finest grid on which sums of all participants fit the modulus 2**32.

    Args:
        clip_norm: Largest L2 norm of what one person sends, in the statistic's unit, > 0.
        share_of_budget: Part of 1 / sigma**2 that this round takes, 0 < share_of_budget <= 1.
        epsilon, delta: For the whole run, epsilon > 0 and 0 < delta < 1.
        n_participants: Most participants of a sum, 0 < n_participants <= 2**24.
        honest: Participants whose noise is counted, 0 < honest <= n_participants.
        n_coordinates: Numbers in an upload, > 0.
        masked: Whether masks hide the uploads.

    Raises:
        ValueError: There are too many participants, or none.
        PrivacyError: Clip and noise do not fit the integer grid.
    """
    if not 0 < honest <= n_participants <= LARGEST_COHORT:
        raise ValueError(f"{honest} of {n_participants} participants, wanted 0 < honest <= n_participants <= 2**24")
    for mechanism in _candidates(clip_norm, _calibration(epsilon, delta, Fraction(share_of_budget)), honest, masked):
        if mechanism.sums_fit(n_participants, n_coordinates):
            return mechanism

    raise PrivacyError(
        f"sums of {n_participants} participants with a clip norm of {clip_norm} and their noise do not fit 32 bits",
        hint="raise epsilon, lower the clip norm or take fewer participants in a round",
    )


def _grids(clip_norm: float) -> Iterator[tuple[int, int]]:
    """Yield fraction bits and the clip norm rounded down to whole units, > 0, from the finest grid to the coarsest."""
    norm = Fraction(clip_norm)
    finest = min(LARGEST_FRACTION_BITS, floor_log2(LARGEST_CLIP_UNITS / norm))
    for fraction_bits in range(finest, -1, -1):
        if clip_units := math.floor(norm * 2**fraction_bits):
            yield fraction_bits, clip_units


def _candidates(
    clip_norm: float, variance_of: Callable[[int], int], honest: int, masked: bool
) -> Iterator[DistributedGaussian]:
    """Yield the mechanism on each grid on which one share of the noise can be drawn, from the finest.

    Where the budget asks for less than the least deviation, everybody adds that.
    """
    for fraction_bits, clip_units in _grids(clip_norm):
        share = max(root_above(-(-variance_of(clip_units) // honest)), SMALLEST_SIGMA)
        if share <= LARGEST_SIGMA_UNITS:
            yield DistributedGaussian(
                fraction_bits=fraction_bits, clip_units=clip_units, share_units=share, honest=honest, masked=int(masked)
            )


def _calibration(epsilon: float, delta: float, share: Fraction) -> Callable[[int], int]:
    """Return the function from an L2 sensitivity to the variance that keeps a release to its share of a budget.

    Both the tight curve and the spend in whole billionths are kept to. `ROUNDING_VARIANCE` is what covering discrete
    noise by continuous noise takes off its variance.
    """
    squared_mu = Fraction(gaussian_calibration(epsilon, delta)) ** 2 * share
    nano = math.floor(rho_nano_limit(epsilon, delta) * share)
    if nano < 1:
        raise PrivacyError(
            f"epsilon {epsilon} at delta {delta} is too small: {float(share):g} of it is less than a billionth of rho",
            hint="raise epsilon or take fewer rounds",
        )

    def variance_of(sensitivity: int) -> int:
        by_curve = sensitivity**2 / squared_mu
        by_spend = Fraction(sensitivity**2 * NANO, 2 * nano)
        return math.ceil(max(by_curve, by_spend)) + ROUNDING_VARIANCE

    return variance_of

"""Discrete Gaussian noise after an L2 clip: on each upload, or in shares that protect a sum."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np

from liberate.arrays import FixedPointStatistics, Int32Array, Int64Array, RealStatistics
from liberate.errors import PrivacyError
from liberate.identifiers import Account
from liberate.privacy.dense_release import AddNoise, release_dense, tail_key
from liberate.privacy.events import (
    ROUNDING_VARIANCE,
    SMALLEST_SIGMA,
    DiscreteGaussianRelease,
    DistributedGaussianRelease,
)
from liberate.privacy.gaussian_tradeoff import gaussian_calibration, rho_nano_limit
from liberate.privacy.grid import LARGEST_CLIP_UNITS, check_clip, check_trimmed, floor_log2, trimmed_parameters
from liberate.privacy.upload_bounds import NoiseBound, clipped_ceiling, gaussian_ceiling
from liberate.units import NANO

LARGEST_SIGMA_UNITS = 2**24
LARGEST_SUM = 2**31 - 1
"""Sums are read modulo 2**32, as signed numbers."""

LARGEST_SUM_SIGMA = 2**27
"""Most that the noise of a sum may deviate, in units: what one draw can."""

LARGEST_COHORT = 2**24
_WRAP_BITS = 40
"""A sum leaves its modulus with a probability of at most 2**-40 in a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """Clips to an L2 norm and adds discrete Gaussian noise to every coordinate of an upload.

    Any two people's clipped integers differ by at most 2 * clip_units in L2: the replace relation, of the upload as a
    whole. Sums are clamped to int32, which is post-processing and a matter of exp(-4000) per number.

    Attributes:
        fraction_bits: A unit is 2**-fraction_bits, 0 <= fraction_bits <= 64.
        clip_units: Largest L2 norm in units, 0 < clip_units <= 2**29.
        sigma_units: Deviation of the noise in units, 3 <= sigma_units <= 2**24.
        trimmed_nano: Part of the uploads that the sum leaves out at either end of each number, in billionths.
    """

    fraction_bits: int
    clip_units: int
    sigma_units: int
    trimmed_nano: int = 0

    def __post_init__(self) -> None:
        check_clip(self.fraction_bits, self.clip_units)
        _check_sigma("sigma_units", self.sigma_units)
        check_trimmed(self.trimmed_nano)

    name: ClassVar[str] = "gaussian"
    account: ClassVar[Account] = "rho"
    is_dense: ClassVar[bool] = True

    @property
    def spend_nano(self) -> int:
        return math.ceil(self.event().charge * NANO)

    @property
    def parameters(self) -> dict[str, int]:
        return {"clip_units": self.clip_units, "sigma_units": self.sigma_units} | trimmed_parameters(self.trimmed_nano)

    @property
    def client_noise(self) -> float:
        return math.ldexp(self.sigma_units, -self.fraction_bits)

    def release(
        self, batch: RealStatistics, n_rows: int, noise_keys: Sequence[bytes], exact: bool
    ) -> FixedPointStatistics:
        """Clip a batch, lay it out for every row and add noise."""
        return _release(self, self.sigma_units, batch, n_rows, noise_keys, exact)

    def ceiling(self, n_numbers: int, *, noised: bool) -> NoiseBound:
        return gaussian_ceiling(self.clip_units, self.sigma_units, n_numbers)

    def event(self) -> DiscreteGaussianRelease:
        return DiscreteGaussianRelease(sensitivity=2 * self.clip_units, sigma=self.sigma_units)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedGaussian:
    """Clips to an L2 norm and adds to each upload a share of discrete Gaussian noise: their sum is what is protected.

    A single upload is hardly noised: masks must hide it. Under the zero-out relation one person moves the sum by at
    most clip_units in L2, and the noise of `honest` participants is what nobody else knows.

    Attributes:
        fraction_bits: A unit is 2**-fraction_bits, 0 <= fraction_bits <= 64.
        clip_units: Largest L2 norm in units, 0 < clip_units <= 2**29.
        share_units: Deviation of one participant's noise in units, 3 <= share_units <= 2**24.
        honest: Participants whose noise is counted, 0 < honest <= 2**24; a sum of fewer uploads is not to be read.
        masked: 1 where masks hide the uploads, 0 in simulations that leave out masks that would cancel.
    """

    fraction_bits: int
    clip_units: int
    share_units: int
    honest: int
    masked: int

    def __post_init__(self) -> None:
        check_clip(self.fraction_bits, self.clip_units)
        _check_sigma("share_units", self.share_units)
        if not 0 < self.honest <= LARGEST_COHORT:
            raise ValueError(f"honest is {self.honest}, wanted 0 < honest <= 2**24")
        if self.masked not in (0, 1):
            raise ValueError(f"masked is {self.masked}, wanted 0 or 1")

    name: ClassVar[str] = "distributed_gaussian"
    account: ClassVar[Account] = "rho"
    is_dense: ClassVar[bool] = True

    @property
    def spend_nano(self) -> int:
        return math.ceil(self.event().charge * NANO)

    @property
    def parameters(self) -> dict[str, int]:
        return {
            "clip_units": self.clip_units,
            "share_units": self.share_units,
            "honest": self.honest,
            "masked": int(self.masked),
        }

    @property
    def client_noise(self) -> float:
        return math.ldexp(self.share_units, -self.fraction_bits)

    def held_by(self, honest: int) -> DistributedGaussian:
        """Return the mechanism for fewer participants whose noise is counted: each adds more, so no answer costs more.

        Args:
            honest: How many, > 0; from `self.honest` on nothing changes.

        Raises:
            ValueError: They are too few: one's noise would not fit the grid.
        """
        if honest >= self.honest:
            return self
        share = _root_above(-(-(self.share_units**2 * self.honest) // honest))
        return replace(self, share_units=share, honest=honest)

    def release(
        self, batch: RealStatistics, n_rows: int, noise_keys: Sequence[bytes], exact: bool
    ) -> FixedPointStatistics:
        """Clip a batch, lay it out for every row and add each device's own share of the noise."""
        return _release(self, self.share_units, batch, n_rows, noise_keys, exact)

    def clip(self, batch: RealStatistics) -> FixedPointStatistics:
        """Return the clipped statistics of a batch without noise: for a simulation that adds noise to the sum."""
        rows, tails = _clipped(self, batch)
        return FixedPointStatistics(indptr=batch.indptr, indices=batch.indices, rows=rows, tails=tails)

    def add_to_sum(self, rows: Int64Array, tail: Int64Array, n_devices: int, key: bytes, exact: bool) -> None:
        """Add to a sum of clipped statistics, in place, as much noise as the shares of all its devices have together.

        n = a**2 + b**2 + c**2 + d**2 (Lagrange), so at most four discrete Gaussians, of deviations a * share_units and
        so on, have the variance of n shares, and their sum is at least as near to one discrete Gaussian.

        Args:
            rows: Sum in grid units, shape (n_rows, width); changed.
            tail: Sum of the tails, shape (n_tail,); changed.
            n_devices: Devices in the sum, > 0.
            key: 32 bytes, used for nothing else.
            exact: Whether to draw from the exact sampler; the fast one draws once, of deviation sqrt(n) * share_units.
        """
        from liberate.privacy import noise

        for numbers, own_key in ((rows, key), (tail, tail_key(key))):
            drawn = np.zeros((1, numbers.size), np.int32)
            if exact:
                for i, root in enumerate(four_squares(n_devices)):
                    part_key = hmac.digest(own_key, b"part %d" % i, "sha256")
                    noise.add_exact_gaussian(drawn, root * self.share_units, [part_key])
            else:
                noise.add_fast_gaussian(drawn, math.sqrt(n_devices) * self.share_units, [own_key])
            numbers += drawn.reshape(numbers.shape)

    def ceiling(self, n_numbers: int, *, noised: bool) -> NoiseBound:
        if noised:
            return gaussian_ceiling(self.clip_units, self.share_units, n_numbers)
        return clipped_ceiling(self.clip_units)

    def event(self) -> DistributedGaussianRelease:
        return DistributedGaussianRelease(sensitivity=self.clip_units, share=self.share_units, honest=self.honest)


def _check_sigma(name: str, sigma: int) -> None:
    if not SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA_UNITS:
        raise ValueError(f"{name} is {sigma}, wanted {SMALLEST_SIGMA} <= {name} <= 2**24")


def _clipped(mechanism: Gaussian | DistributedGaussian, batch: RealStatistics) -> tuple[Int32Array, Int64Array]:
    from liberate.privacy.clipping import clip_to_grid  # numba: only where a statistic is

    return clip_to_grid(batch, mechanism.clip_units, mechanism.fraction_bits, "l2")


def _release(
    mechanism: Gaussian | DistributedGaussian,
    sigma: int,
    batch: RealStatistics,
    n_rows: int,
    noise_keys: Sequence[bytes],
    exact: bool,
) -> FixedPointStatistics:
    return release_dense(batch, *_clipped(mechanism, batch), n_rows, noise_keys, _noise(sigma, exact))


def _noise(sigma: int, exact: bool) -> AddNoise:
    from liberate.privacy import noise  # numba: only where there is noise

    def add_noise(values: Int32Array, keys: Sequence[bytes]) -> None:
        if exact:
            noise.add_exact_gaussian(values, sigma, keys)
        else:
            noise.add_fast_gaussian(values, sigma, keys)

    return add_noise


def four_squares(n: int) -> tuple[int, ...]:
    """Return at most four positive integers whose squares add up to n >= 0, the fewest there are (Lagrange, 1770)."""
    for count in range(5):
        found = _squares(n, count)
        if found is not None:
            return found
    raise AssertionError(f"{n} is no sum of four squares")


def _squares(n: int, count: int) -> tuple[int, ...] | None:
    if count == 0 or n == 0:
        return () if n == count == 0 else None
    if count == 3 and n // (n & -n) % 8 == 7 and (n & -n).bit_length() % 2 == 1:
        return None  # 4**a * (8 b + 7): never a sum of three squares (Legendre, 1797); spares a long search
    root = math.isqrt(n)
    if count == 1:
        return (root,) if root * root == n else None
    while count * root * root >= n and root > 0:  # the largest of `count` roots
        rest = _squares(n - root * root, count - 1)
        if rest is not None:
            return root, *rest
        root -= 1
    return None


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
    norm = Fraction(clip_norm)
    variance_of = _calibration(epsilon, delta, Fraction(1, rounds))
    fraction_bits = min(64, floor_log2(LARGEST_CLIP_UNITS / norm))
    while fraction_bits >= 0:
        clip_units = math.floor(norm * 2**fraction_bits)
        sigma = _root_above(variance_of(2 * clip_units))
        if clip_units > 0 and sigma <= LARGEST_SIGMA_UNITS:
            return Gaussian(fraction_bits=fraction_bits, clip_units=clip_units, sigma_units=max(sigma, SMALLEST_SIGMA))
        fraction_bits -= 1
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
    honest_fraction: float,
    n_coordinates: int,
    largest_entry: float | None = None,
    masked: bool = False,
) -> DistributedGaussian:
    """Return one round's mechanism on the finest grid on which sums of all participants fit the modulus 2**32.

    Rounds whose shares of the budget add up to at most 1 keep together to (epsilon, delta) by the tight curve, and
    their spends to `rho_nano_limit`. A sum leaves the modulus with a probability of at most 2**-40 in a round: its
    noise is sub-Gaussian, so n coordinates all stay within sqrt(2 ln(2 n 2**40)) deviations. Where that leaves no
    room for a deviation of 3 units per participant, everybody adds more noise than the budget asks for.

    Args:
        clip_norm: Largest L2 norm of what one person sends, in the statistic's unit, > 0.
        share_of_budget: Part of 1 / sigma**2 that this round takes, 0 < share_of_budget <= 1.
        epsilon: For the whole run, > 0.
        delta: Likewise, 0 < delta < 1.
        n_participants: Most participants of a sum, 0 < n_participants <= 2**24.
        honest_fraction: Part of them whose noise is counted, 0 < honest_fraction <= 1.
        n_coordinates: Numbers in an upload, > 0.
        largest_entry: Most that one number of an upload can be; unset = clip_norm.
        masked: Whether masks hide the uploads.

    Raises:
        ValueError: There are too many participants, or none.
        PrivacyError: Clip and noise do not fit the integer grid.
    """
    if not 0 < n_participants <= LARGEST_COHORT:
        raise ValueError(f"n_participants is {n_participants}, wanted 0 < n_participants <= 2**24")
    norm = Fraction(clip_norm)
    entry = norm if largest_entry is None else min(norm, Fraction(largest_entry))
    honest = math.ceil(Fraction(str(honest_fraction)) * n_participants)
    variance_of = _calibration(epsilon, delta, Fraction(share_of_budget))
    deviations = math.sqrt(2 * n_participants * math.log(2.0 ** (_WRAP_BITS + 1) * n_coordinates))
    fraction_bits = min(64, floor_log2(LARGEST_CLIP_UNITS / norm))
    while fraction_bits >= 0:
        clip_units = math.floor(norm * 2**fraction_bits)
        share = max(_root_above(-(-variance_of(clip_units) // honest)), SMALLEST_SIGMA)
        fits = n_participants * math.ceil(entry * 2**fraction_bits) + deviations * share <= LARGEST_SUM
        is_drawn = share <= LARGEST_SIGMA_UNITS and n_participants * share**2 <= LARGEST_SUM_SIGMA**2
        if clip_units > 0 and fits and is_drawn:
            return DistributedGaussian(
                fraction_bits=fraction_bits, clip_units=clip_units, share_units=share, honest=honest, masked=int(masked)
            )
        fraction_bits -= 1
    raise PrivacyError(
        f"sums of {n_participants} participants with a clip norm of {clip_norm} and their noise do not fit 32 bits",
        hint="raise epsilon, lower the clip norm or take fewer participants in a round",
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


def _root_above(x: int) -> int:
    """Return the smallest integer whose square is at least x >= 1."""
    return math.isqrt(x - 1) + 1

"""Discrete Gaussian noise after an L2 clip: on each upload, or in shares that protect a sum."""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from liberate.arrays import FixedPointStatistics, Int32Array, Int64Array, RealStatistics
from liberate.errors import PrivacyError
from liberate.identifiers import Account
from liberate.privacy.dense_release import release_dense, tail_key
from liberate.privacy.events import (
    SMALLEST_SIGMA,
    DiscreteGaussianRelease,
    DistributedGaussianRelease,
)
from liberate.privacy.grid import check_clip, check_trimmed, trimmed_parameters
from liberate.privacy.integers import four_squares, root_above
from liberate.privacy.mask_parameters import MaskParameters
from liberate.privacy.upload_bounds import NoiseBound, clipped_ceiling, gaussian_ceiling
from liberate.units import NANO

LARGEST_SIGMA_UNITS = 2**24
LARGEST_COHORT = 2**24

LARGEST_SUM = 2**31 - 1
"""Sums are read modulo 2**32, as signed numbers."""

LARGEST_SUM_SIGMA = 2**27
"""Most that the noise of a sum may deviate, in units: what one draw can."""

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

    name: ClassVar[str] = "gaussian"
    account: ClassVar[Account] = "rho"
    is_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_clip(self.fraction_bits, self.clip_units)
        _check_sigma("sigma_units", self.sigma_units)
        check_trimmed(self.trimmed_nano)

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
        degree: Neighbours that each participant chooses to mask with; 0 before it is known who takes part.
        threshold: How many of them together undo its masks, 0 <= threshold <= degree.
    """

    fraction_bits: int
    clip_units: int
    share_units: int
    honest: int
    masked: int
    degree: int = 0
    threshold: int = 0

    name: ClassVar[str] = "distributed_gaussian"
    account: ClassVar[Account] = "rho"
    is_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_clip(self.fraction_bits, self.clip_units)
        _check_sigma("share_units", self.share_units)
        if not 0 < self.honest <= LARGEST_COHORT:
            raise ValueError(f"honest is {self.honest}, wanted 0 < honest <= 2**24")
        if self.masked not in (0, 1):
            raise ValueError(f"masked is {self.masked}, wanted 0 or 1")
        if not 0 <= self.threshold <= self.degree * self.masked <= LARGEST_COHORT:
            raise ValueError(f"degree is {self.degree} and threshold {self.threshold}, wanted threshold <= degree")

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
            "degree": self.degree,
            "threshold": self.threshold,
        }

    @property
    def client_noise(self) -> float:
        return math.ldexp(self.share_units, -self.fraction_bits)

    def masked_with(self, masks: MaskParameters) -> DistributedGaussian:
        """Return the mechanism of a round whose masks have a degree and a threshold."""
        return replace(self, degree=masks.degree, threshold=masks.threshold)

    def held_by(self, honest: int, n_participants: int, n_coordinates: int) -> DistributedGaussian:
        """Return the mechanism for fewer participants whose noise is counted: each adds more, so no answer costs more.

        Args:
            honest: How many, > 0; from `self.honest` on nothing changes.
            n_participants: Most participants of a sum, > 0.
            n_coordinates: Numbers in an upload, > 0.

        Raises:
            PrivacyError: They are too few: so much noise does not fit the grid.
        """
        if honest >= self.honest:
            return self
        share = root_above(-(-(self.share_units**2 * self.honest) // honest))
        if share <= LARGEST_SIGMA_UNITS:
            held = replace(self, share_units=share, honest=honest)
            if held.sums_fit(n_participants, n_coordinates):
                return held
        raise PrivacyError(
            f"the noise of {honest} participants, where {self.honest} were planned, does not fit the integer grid",
            hint="start another run, which is planned for those who are left",
        )

    def sums_fit(self, n_participants: int, n_coordinates: int) -> bool:
        """Whether sums of clipped numbers and of everybody's share of the noise stay within the modulus.

        The noise is sub-Gaussian, so n coordinates all stay within sqrt(2 ln(2 n 2**40)) deviations, but for a
        probability of 2**-40.

        Args:
            n_participants: Most participants of a sum, > 0.
            n_coordinates: Numbers in an upload, > 0.
        """
        deviations = math.sqrt(2 * n_participants * math.log(2.0 ** (_WRAP_BITS + 1) * n_coordinates))
        is_drawn = n_participants * self.share_units**2 <= LARGEST_SUM_SIGMA**2
        return is_drawn and n_participants * self.clip_units + deviations * self.share_units <= LARGEST_SUM

    def release(
        self, batch: RealStatistics, n_rows: int, noise_keys: Sequence[bytes], exact: bool
    ) -> FixedPointStatistics:
        """Clip a batch, lay it out for every row and add each device's share of the noise."""
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

        for numbers, noise_key in ((rows, key), (tail, tail_key(key))):
            drawn = np.zeros((1, numbers.size), np.int32)
            if exact:
                for i, root in enumerate(four_squares(n_devices)):
                    part_key = hmac.digest(noise_key, b"part %d" % i, "sha256")
                    noise.add_exact_gaussian(drawn, root * self.share_units, [part_key])
            else:
                noise.add_fast_gaussian(drawn, math.sqrt(n_devices) * self.share_units, [noise_key])
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
    from liberate.privacy import noise  # numba: only where there is noise

    add = noise.add_exact_gaussian if exact else noise.add_fast_gaussian
    units = _clipped(mechanism, batch)
    return release_dense(batch, *units, n_rows, noise_keys, lambda values, keys: add(values, sigma, keys))

"""How large an upload of a mechanism that clips can be: a norm and a largest number that the honest never exceed.

With noise they do so with a probability of at most 2**-64 an upload, whatever was rated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from liberate.arrays import FixedPointStatistics
from liberate.errors import BadUpload

_TAIL = 65 * math.log(2)
"""Both bounds fail with a probability of at most exp(-this)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseBound:
    """The most that an upload can be, in grid units, rows and tail together.

    Attributes:
        norm: Sum of absolute values, or root of the sum of squares.
        total: Largest norm.
        each: Largest absolute value.
    """

    norm: Literal["l1", "l2"]
    total: float
    each: float

    def check(self, upload: FixedPointStatistics) -> None:
        """Refuse an upload that is larger.

        Raises:
            BadUpload: It is.
        """
        numbers = np.concatenate([upload.rows.reshape(-1), upload.tails[0]], dtype=np.float64)
        np.abs(numbers, out=numbers)
        norm = float(numbers.sum()) if self.norm == "l1" else math.sqrt(float(numbers @ numbers))
        largest = float(numbers.max(initial=0.0))
        if norm > self.total or largest > self.each:
            raise BadUpload(
                "oversized",
                f"norm {norm:.6g} and largest number {largest:.6g} in grid units, "
                f"at most {self.total:.6g} and {self.each:.6g} are wanted",
            )


def clipped_ceiling(clip_units: int) -> NoiseBound:
    """Return the ceiling of what was clipped to an L2 norm, without noise."""
    return NoiseBound(norm="l2", total=clip_units, each=clip_units)


def laplace_ceiling(clip_units: int, scale_units: int, n_numbers: int) -> NoiseBound:
    """Return the ceiling of an L1 clip and discrete Laplace noise on each of n_numbers.

    The size of a draw is below that of an exponential plus one; a sum of n of these is a Gamma variable.

    Source: Boucheron, Lugosi and Massart 2013, "Concentration inequalities", p. 29, for the sum.
    """
    total = n_numbers + math.sqrt(2 * n_numbers * _TAIL) + _TAIL
    largest = math.log(max(n_numbers, 1)) + _TAIL
    return NoiseBound(
        norm="l1", total=clip_units + n_numbers + scale_units * total, each=clip_units + 1 + scale_units * largest
    )


def gaussian_ceiling(clip_units: int, sigma_units: int, n_numbers: int) -> NoiseBound:
    """Return the ceiling of an L2 clip and discrete Gaussian noise on each of n_numbers.

    Discrete Gaussian noise is sub-Gaussian with its own sigma.

    Source: Hsu, Kakade and Zhang 2012, "A tail inequality for quadratic forms of subgaussian random vectors"; Canonne,
    Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Corollary 17.
    """
    total = n_numbers + 2 * math.sqrt(n_numbers * _TAIL) + 2 * _TAIL
    largest = 2 * (math.log(2 * max(n_numbers, 1)) + _TAIL)
    return NoiseBound(
        norm="l2",
        total=clip_units + sigma_units * math.sqrt(total),
        each=clip_units + sigma_units * math.sqrt(largest),
    )

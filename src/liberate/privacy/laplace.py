"""The paper's mechanism: an L1 clip, and discrete Laplace noise on every coordinate of every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from liberate.arrays import FixedPointStatistics, RealStatistics
from liberate.errors import PrivacyError
from liberate.identifiers import Account
from liberate.privacy.dense_release import release_dense
from liberate.privacy.events import DiscreteLaplaceRelease
from liberate.privacy.grid import LARGEST_CLIP_UNITS, check_clip, check_trimmed, trimmed_parameters
from liberate.privacy.integers import floor_log2
from liberate.privacy.upload_bounds import NoiseBound, laplace_ceiling
from liberate.units import NANO

LARGEST_SCALE_UNITS = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace:
    """Clips to an L1 norm and adds discrete Laplace noise to every coordinate of every row.

    Any two people's clipped integers differ by at most 2 * clip_units in L1, so one release is
    (2 * clip_units / scale_units)-differentially private under the replace relation, of the upload as a whole:
    rows and tail are clipped together, and a row is sent for every item whether rated or not.

    Sums are clamped to int32, which is post-processing; the ranges below make it a matter of exp(-96) per number.

    Attributes:
        fraction_bits: A unit is 2**-fraction_bits, 0 <= fraction_bits <= 64.
        clip_units: Largest L1 norm in units, 0 < clip_units <= 2**29.
        scale_units: Scale of the noise in units, 0 < scale_units <= 2**24.
        trimmed_nano: Part of the uploads that the sum leaves out at either end of each number, in billionths.
    """

    fraction_bits: int
    clip_units: int
    scale_units: int
    trimmed_nano: int = 0

    name: ClassVar[str] = "laplace"
    account: ClassVar[Account] = "epsilon"
    is_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_clip(self.fraction_bits, self.clip_units)
        if not 0 < self.scale_units <= LARGEST_SCALE_UNITS:
            raise ValueError(f"scale_units is {self.scale_units}, wanted 0 < scale_units <= 2**24")
        check_trimmed(self.trimmed_nano)

    @property
    def spend_nano(self) -> int:
        return math.ceil(self.event().epsilon * NANO)

    @property
    def parameters(self) -> dict[str, int]:
        return {"clip_units": self.clip_units, "scale_units": self.scale_units} | trimmed_parameters(self.trimmed_nano)

    @property
    def client_noise(self) -> float:
        return math.ldexp(math.sqrt(0.5) / math.sinh(0.5 / self.scale_units), -self.fraction_bits)

    def release(
        self, batch: RealStatistics, n_rows: int, noise_keys: Sequence[bytes], exact: bool
    ) -> FixedPointStatistics:
        """Clip a batch, lay it out for every row and add noise."""
        from liberate.privacy import noise  # numba: only where there is noise
        from liberate.privacy.clipping import clip_to_grid

        add, scale = noise.add_exact_laplace if exact else noise.add_fast_laplace, self.scale_units
        units = clip_to_grid(batch, self.clip_units, self.fraction_bits, "l1")
        return release_dense(batch, *units, n_rows, noise_keys, lambda values, keys: add(values, scale, keys))

    def ceiling(self, n_numbers: int, *, noised: bool) -> NoiseBound:
        return laplace_ceiling(self.clip_units, self.scale_units, n_numbers)

    def event(self) -> DiscreteLaplaceRelease:
        return DiscreteLaplaceRelease(sensitivity=2 * self.clip_units, scale=self.scale_units)


def calibrated_laplace(epsilon: Fraction, rounds: int, clip_norm: Fraction) -> Laplace:
    """Return the finest grid whose clip and scale stay in range while 2 * clip / scale * rounds <= epsilon.

    Each round gets the same whole number of billionths of epsilon. The noise's scale is at most 2**24 units, so what
    truncation takes from a coordinate (less than a unit) is about 2**-24 of the noise that is added to it, and summed
    over N people sqrt(N / 2) * 2**-24 of the noise of their sum. The clip in force is clip_norm rounded down.

    Args:
        epsilon: For all rounds together, > 0.
        rounds: How many, > 0.
        clip_norm: Largest L1 norm, in the statistic's unit, > 0.

    Raises:
        PrivacyError: Epsilon is too small for so many rounds and so large a clip norm.
    """
    round_nano = math.floor(epsilon * NANO) // rounds
    largest_clip = min(LARGEST_CLIP_UNITS, LARGEST_SCALE_UNITS * round_nano // (2 * NANO))
    if largest_clip > 0:
        fraction_bits = floor_log2(largest_clip / clip_norm)
        clip_units = math.floor(clip_norm * Fraction(2) ** fraction_bits)
        if fraction_bits >= 0 and clip_units > 0:
            return Laplace(
                fraction_bits=fraction_bits, clip_units=clip_units, scale_units=-(-2 * clip_units * NANO // round_nano)
            )
    raise PrivacyError(
        f"epsilon {float(epsilon)} over {rounds} rounds is too little for a clip norm of {float(clip_norm)}: "
        "the noise does not fit the integer grid",
        hint="raise epsilon, take fewer rounds or lower the clip norm",
    )

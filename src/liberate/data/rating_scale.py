"""The scale of ratings: the levels that a rating can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liberate.arrays import Float32Array, Int32Array
from liberate.errors import DataError, FederationError

_LARGEST_SCALE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingScale:
    """The levels that ratings have: low, low + step, and so on. It is public.

    Attributes:
        low: The lowest.
        step: Between two neighbours, > 0.
        n_levels: How many, 2 <= n_levels <= 100.
    """

    low: float
    step: float
    n_levels: int

    @classmethod
    def of(cls, values: Float32Array, low: float, high: float) -> RatingScale:
        """Find the widest scale from low to high that has all ratings.

        Raises:
            DataError: There is none of 100 levels or fewer.
        """
        distinct = np.unique(np.append(values, [low, high]).astype(np.float64)) - low
        for n_steps in range(1, _LARGEST_SCALE):
            step = (high - low) / n_steps
            if step > 0 and np.allclose(distinct / step, np.rint(distinct / step), atol=1e-4):
                return cls(low=low, step=step, n_levels=n_steps + 1)
        raise DataError(
            f"ratings from {low:g} to {high:g} are not on a scale of {_LARGEST_SCALE} levels or fewer",
            hint="copies are marked by the levels of ratings: round the ratings to share them",
        )

    def places(self, values: Float32Array) -> Int32Array:
        """Return each rating's level, shape (n,).

        Raises:
            FederationError: A rating is not on the scale.
        """
        exact = (values.astype(np.float64) - self.low) / self.step
        places = np.rint(exact).astype(np.int32)
        is_inside = (places >= 0) & (places < self.n_levels)
        if not (is_inside & (np.abs(exact - places) < 1e-3)).all():
            raise FederationError("a rating is not on the scale that copies have")
        return places

    def values(self, places: Int32Array) -> Float32Array:
        """Return each level's rating, shape (n,)."""
        return (self.low + self.step * places).astype(np.float32)

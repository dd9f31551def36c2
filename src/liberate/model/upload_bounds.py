"""The most that ratings can lead to: what bounds a person's part where no mechanism clips it.

A device that follows the model cannot exceed these limits, whatever its person rated on the scale; whoever does has
uploaded what no ratings lead to. They follow from the model and from which items were rated.

Letters as in `kernels`. Let C be the covariance of the users' prior, and S the sum over the rated items of the largest
E[(y - b_i - x·z)²] at the prior's mean, y on the scale. A posterior mean x minimises the expected squared error times
tau plus the squared distance to the prior's mean in units of C, so that

    the squared error at x is at most S, and at most S + K / tau with the posterior's own spread;
    x is at most r = sqrt(tau S) / 2 of these units from the prior's mean, for s / (1 + s²) <= 1/2;
    a rating's error at x is at most the largest at the prior's mean, and r times the root of zᵀ C z;
    the posterior's covariance is at most C;
    the squared error is no smaller than what a person sends of each item allows (`kernels.least_error`).

Of several people's sum, as of somebody who learns from others' copies too, each number is at most so many times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from liberate.arrays import FixedPointStatistics, Float32Array, Float64Array, Int64Array
from liberate.errors import BadUpload
from liberate.model.kernels import linear_algebra, server
from liberate.model.model import Model
from liberate.model.profiles import item_moments_of

_SLACK = 1.01
"""Devices compute in float32, and another machine adds up in another order."""

_LEAST_ERROR = 1e-3
"""Of a rating: what rounding may take from a squared error."""


class RatingBounds(Protocol):
    """What one upload to a round can be at most."""

    def check(self, upload: FixedPointStatistics, fraction_bits: int, n_participants: float) -> None:
        """Refuse an upload that no ratings lead to.

        Args:
            upload: A batch of one upload.
            fraction_bits: A unit is 2**-fraction_bits.
            n_participants: Weight of the ratings in it, in participants: one, and that of copies of others', >= 1.

        Raises:
            BadUpload: Something in it is too large, or moments are none.
        """


def rating_bounds(model: Model) -> RatingBounds:
    """Return the limits of the round that starts from a model, where no noise is added.

    Raises:
        ValueError: The model's statistic has no limit but the clip of its mechanism.
    """
    match model.statistic:
        case "normal" | "gradient":
            return _FactorLimits.of(model)
        case "gram" | "popularity":
            return _NormLimit()
        case other:
            raise ValueError(f"without a clip {other!r} has no limit")


@dataclass(frozen=True, slots=True)
class _NormLimit:
    """Statistics of norm one, whatever and however much was rated."""

    def check(self, upload: FixedPointStatistics, fraction_bits: int, n_participants: float) -> None:
        _require_norms(upload, fraction_bits, np.full(upload.rows.shape[1], n_participants))


@dataclass(frozen=True, slots=True, kw_only=True)
class _FactorLimits:
    """Gradient and normal equations.

    Attributes:
        is_normal: Which of the two.
        errors: The largest root of E[(y - b_i - x·z)²] of each item at the prior's mean, shape (n_items,).
        reaches: The root of zᵀ C z of each item, shape (n_items,).
        mean: Size of the prior's mean, shape (K,).
        spread: Its standard deviations, shape (K,).
        tau: Precision of a rating's noise.
        largest: Size of a target.
        item_means: E[w] of each item, shape (n_items, K).
        item_moments: E[w wᵀ] of each item, packed, shape (n_items, P).
    """

    is_normal: bool
    errors: Float64Array
    reaches: Float64Array
    mean: Float64Array
    spread: Float64Array
    tau: float
    largest: float
    item_means: Float32Array
    item_moments: Float32Array

    @classmethod
    def of(cls, model: Model) -> _FactorLimits:
        mean, ends = model.float64("user_mean"), _targets(model)
        scores, variances = _scores(model, mean)
        covariance = linear_algebra.invert(model.float64("user_precision"))

        sides = model.float64("item_means").copy()
        sides[:, -1] = 1.0
        errors = np.maximum(np.abs(ends[0] - scores), np.abs(ends[1] - scores))

        return cls(
            is_normal=model.statistic == "normal",
            errors=np.sqrt(errors**2 + variances),
            reaches=np.sqrt(((sides @ covariance) * sides).sum(axis=1)),
            mean=np.abs(mean),
            spread=np.sqrt(np.diag(covariance)),
            tau=float(model.float64("noise_precision")[0]),
            largest=max(abs(ends[0]), abs(ends[1])),
            item_means=model.item_means,
            item_moments=item_moments_of(model),
        )

    def check(self, upload: FixedPointStatistics, fraction_bits: int, n_participants: float) -> None:
        rated = upload.indices
        error = float((self.errors[rated] ** 2).sum())
        reach = math.sqrt(self.tau * error) / 2
        side = self.mean + self.spread * reach
        tail = np.abs(upload.tails[0].astype(np.float64)) * math.ldexp(1.0, -fraction_bits)

        if self.is_normal:
            columns, tails = self._normal(side, error)
            scales = np.ones(len(rated))
        else:
            columns, tails = np.append(side[:-1], 1.0), np.array([error])
            scales = self.errors[rated] + self.reaches[rated] * reach
            _require_norms(upload, fraction_bits, n_participants * (math.sqrt(error) * columns))
        _require(tail, n_participants * tails, math.ldexp(1.0, -fraction_bits))

        units = np.ldexp(n_participants * _SLACK * columns, fraction_bits)
        ratio = server.largest_ratio(upload.rows, scales, units)
        if ratio > 1:
            raise BadUpload("oversized", f"a number is {ratio:.4g} times as large as ratings can make it")
        if self.is_normal:
            self._require_moments(upload, fraction_bits, n_participants)

    def _require_moments(self, upload: FixedPointStatistics, fraction_bits: int, n_participants: float) -> None:
        """Refuse moments that no vectors have, and an error that is too small for them: no model might follow.

        Raises:
            BadUpload: A matrix is not positive semidefinite, or the error is below the least there can be.
        """
        unit = math.ldexp(1.0, -fraction_bits)
        k = len(self.mean)
        # second moments of (x, 1)
        together = np.append(upload.tails[0, :-1], math.ceil(math.ldexp(n_participants, fraction_bits)))
        least = server.least_error(upload.indices, upload.rows, unit, self.item_means, self.item_moments)
        error = float(upload.tails[0, -1]) * unit
        if least > error * _SLACK + _LEAST_ERROR * len(upload.rows) or not server.is_moment(together, k + 1):
            raise BadUpload("no_moments", f"no person has these moments with a squared error of {error:.4g}")

    def _normal(self, side: Float64Array, error: float) -> tuple[Float64Array, Float64Array]:
        """Return the sizes of a row and of the tail at most, `side` being the size of x at most."""
        k = len(side)
        lower = _lower(k)
        moments = np.outer(side, side) + np.outer(self.spread, self.spread)
        rated = moments.copy()
        rated[-1, :-1], rated[-1, -1] = side[:-1], 1.0
        targets = self.largest * side + moments[-1]
        targets[-1] = self.largest + side[-1]
        return np.concatenate([rated[lower], targets]), np.concatenate([moments[lower], side, [error + k / self.tau]])


@cache
def _lower(k: int) -> tuple[Int64Array, Int64Array]:
    """Return rows and columns of a lower triangle, row by row."""
    return np.tril_indices(k)


def _targets(model: Model) -> tuple[float, float]:
    """Return the smallest and the largest target of a rating on the scale."""
    if "level_targets" in model.arrays:
        levels = model.float64("level_targets")
        return float(levels.min()), float(levels.max())
    return (model.low - model.centre) / model.unit, (model.high - model.centre) / model.unit


def _scores(model: Model, mean: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return mean and variance of each item's score by somebody at the prior's mean, shapes (n_items,)."""
    means = model.float64("item_means")
    sides = np.append(mean[:-1], 1.0)
    scores = means @ sides
    rows, columns = _lower(len(mean))
    weights = sides[rows] * sides[columns] * np.where(rows == columns, 1.0, 2.0)
    return scores + mean[-1], np.maximum(item_moments_of(model).astype(np.float64) @ weights - scores**2, 0.0)


def _require_norms(upload: FixedPointStatistics, fraction_bits: int, wanted: Float64Array) -> None:
    """Refuse an upload whose columns have larger L2 norms, in standard units, than they can have.

    Raises:
        BadUpload: One has.
    """
    unit = math.ldexp(1.0, -fraction_bits)
    _require(np.sqrt(server.column_squares(upload.rows)) * unit, wanted, math.sqrt(len(upload.rows)) * unit)


def _require(numbers: Float64Array, wanted: Float64Array, rounding: float) -> None:
    """Refuse what is larger than it can be.

    Raises:
        BadUpload: Something is.
    """
    limits = wanted * _SLACK + rounding
    if (numbers > limits).any():
        place = int((numbers - limits).argmax())
        limit = limits[place]
        raise BadUpload("oversized", f"number {place} is {numbers[place]:.4g}, ratings lead to {limit:.4g} at most")

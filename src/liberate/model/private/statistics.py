"""Learning to predict ratings under noise: four statistics of bounded norm, and what becomes of their sums.

    bias       what each item is rated above a person's mean, and how often  ->  item biases, and the popular items
    gram       which of the popular items people rated together              ->  embeddings of items
    moments    how people's tastes spread over features and embeddings       ->  the people's prior
    residuals  how far ratings are from what people's own tastes predict     ->  biases and features, corrected

Each is summed over people with noise on the sum. What follows from a noisy sum and public numbers needs no further
protection. Constants here are public: none was taken from the ratings that a run learns from.

The solvers need LAPACK: whoever has the same exact sum repeats the model within `REPEATS_WITHIN`, not to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from liberate.arrays import Float32Array, Float64Array, RealStatistics
from liberate.data.ratings import Ratings
from liberate.model.kernels import device, ranking
from liberate.model.model import Array, Model, packed_size
from liberate.model.profiles import fit_profiles
from liberate.model.statistics import require

BIAS_NORM = 1.0
"""L2 norm of what a person adds to the bias sums, whatever was rated; the sensitivity under zero-out."""
GRAM_NORM = 1.0
"""Likewise of the Gram."""
RESIDUALS_NORM = 1.0
"""Likewise of the residuals: what a person adds has at most this norm."""
MOMENTS_CLIP = 6.0
"""L2 norm that a person's moments are clipped to: the sensitivity under zero-out."""

N_EMBEDDINGS = 16
"""Columns for the Gram's embeddings; those that do not stand out of the noise stay zero."""
EXPOSURE = (0.2, 0.3, 0.5, 0.8, 1.0)
"""What a rating weighs in the Gram at each quarter of the scale: that somebody rated an item says most."""

_NOISE_VARIANCE = 0.8  # of a rating about its prediction, squared standard units, as all variances here
_FEATURE_VARIANCE = 0.1  # of a person's taste in a feature, before any prior is learned

_BIAS_VARIANCE = 0.27  # of a person's bias

_PSEUDO_RATINGS = 3.0  # ratings at zero in a person's mean
_LARGEST_RESIDUAL = 2.0
COUNT_WEIGHT = 0.35  # of having rated an item, beside half a residual

_RESIDUAL_FLOOR = 0.05  # a rating, so that nobody is scaled up without end

TASTE_WEIGHT = 0.7  # of a residual times a taste, beside the residual


def initial_features(features: Float32Array, low: float, high: float, *, statistic: str) -> Model:
    """Return the model before the first round: public features, no item bias, and priors from public constants alone.

    A device that fits itself to this model and nothing else learns its user's bias and taste in features.

    Args:
        features: Public features of the items, shape (n_items, n_features).
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
        statistic: What the first round computes.
    """
    n_items, n_features = features.shape
    variances = np.array([_FEATURE_VARIANCE] * n_features + [_BIAS_VARIANCE])
    arrays: dict[str, Array] = {
        "item_means": np.concatenate([features, np.zeros((n_items, 1), np.float32)], axis=1),
        "user_mean": np.zeros(n_features + 1),
        "user_precision": np.diag(1 / variances),
        "noise_precision": np.array([1 / _NOISE_VARIANCE]),
    }
    return Model.of(0, statistic, low, high, arrays)


@dataclass(frozen=True, slots=True)
class BiasSums:
    """How far a person rated each item above the person's mean, and that it was rated.

    A row is w·(e / 2, 0.35): e is the rating in standard units less the person's mean (three more ratings at zero
    counted in), clipped to 2; w makes the person's L2 norm `BIAS_NORM` (0 without a rating).

    Attributes:
        n_items: Size of the catalogue, >= 0.
    """

    n_items: int

    name: ClassVar[str] = "bias"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n_items, 2, 0

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        require(model, self.name)
        owners, n = ratings.users(), ratings.n_users
        targets = model.targets(ratings).astype(np.float64)
        # bincount adds in the order of the ratings, so that a device's bits do not depend on its batch
        means = np.bincount(owners, targets, n) / (np.diff(ratings.indptr) + _PSEUDO_RATINGS)
        residuals = np.clip(targets - means[owners], -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL) / 2
        norms = np.sqrt(np.bincount(owners, residuals**2 + COUNT_WEIGHT**2, n))
        rows = np.stack([residuals, np.full_like(residuals, COUNT_WEIGHT)], axis=1) * BIAS_NORM / norms[owners, None]
        return RealStatistics(
            indptr=ratings.indptr, indices=ratings.items, rows=rows.astype(np.float32), tails=np.zeros((n, 0))
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """How a person's side differs from what the prior expects: E[v vᵀ] - I, packed as `spectral.packed` says.

    v is the person's side (p_u, b_u) in coordinates where the prior's covariance is the identity. The norm of what is
    sent is the Frobenius norm, clipped to `MOMENTS_CLIP`; of somebody without ratings it is 0.

    Attributes:
        n_factors: Factors of the model, >= 0.
    """

    n_factors: int

    name: ClassVar[str] = "moments"

    @property
    def shape(self) -> tuple[int, int, int]:
        return packed_size(self.n_factors + 1), 1, 0

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        require(model, self.name, self.n_factors)
        sides = fit_profiles(model, ratings, model.targets(ratings))

        n, n_packed = ratings.n_users, self.shape[0]
        rows = np.empty((n * n_packed, 1), np.float32)
        whitener = np.ascontiguousarray(precision_factor(model).T).astype(np.float32)
        device.moment_rows(sides.moments, whitener, rows.reshape(n, n_packed))
        return RealStatistics(
            indptr=np.arange(n + 1, dtype=np.int64) * n_packed,
            indices=np.tile(np.arange(n_packed, dtype=np.int32), n),
            rows=rows,
            tails=np.zeros((n, 0)),
        )


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far each rating is from what the model and the person's side predict, and what the person likes.

    A row is w·e·(1, 0.7 v): e is the rating less the prediction, in standard units, clipped to 2; v, of norm at most
    sqrt(2 D), is the person's taste in the D directions that the model names (`directions`, shape (n_factors, D)); and
    w = 1 / sqrt(sum over the person's ratings of the squared numbers and 0.05) keeps the L2 norm below
    `RESIDUALS_NORM`.

    Attributes:
        n_items: Size of the catalogue, >= 0.
        n_directions: D, >= 0.
    """

    n_items: int
    n_directions: int

    name: ClassVar[str] = "residuals"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n_items, 1 + self.n_directions, 0

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        require(model, self.name)
        if n_directions(model) != self.n_directions:
            raise ValueError(f"the model names {n_directions(model)} directions, not {self.n_directions}")
        owners, n = ratings.users(), ratings.n_users
        targets = model.targets(ratings)
        sides = fit_profiles(model, ratings, targets).means

        errors = (targets - ranking.predict_pairs(sides, model.item_means, owners, ratings.items)).astype(np.float64)
        errors = np.clip(errors, -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
        factors = np.concatenate([np.ones((n, 1)), TASTE_WEIGHT * self._tastes(model, sides)], axis=1)
        squares = (factors**2).cumsum(axis=1)[:, -1]
        norms = np.sqrt(np.bincount(owners, errors**2 * squares[owners] + _RESIDUAL_FLOOR, n))
        rows = (errors / norms[owners] * RESIDUALS_NORM)[:, None] * factors[owners]
        return RealStatistics(
            indptr=ratings.indptr, indices=ratings.items, rows=rows.astype(np.float32), tails=np.zeros((n, 0))
        )

    def _tastes(self, model: Model, sides: Float32Array) -> Float64Array:
        """Return v of each device, added up in one order, so that a device's bits do not depend on its batch."""
        tastes = np.zeros((len(sides), self.n_directions))
        if not self.n_directions:
            return tastes
        for factor, direction in zip(sides.T[:-1], model.float64("directions"), strict=True):
            tastes += factor[:, None] * direction
        norms = np.sqrt((tastes**2).cumsum(axis=1)[:, -1:])
        largest = math.sqrt(2 * self.n_directions)
        tastes *= largest / np.maximum(norms, largest)
        return tastes


def n_directions(model: Model) -> int:
    """Return the number of directions of taste in which a model asks for residuals."""
    return int(model.arrays["directions"].shape[1]) if "directions" in model.arrays else 0


def precision_factor(model: Model) -> Float64Array:
    """Return R, lower triangular, with R Rᵀ the prior's precision: v = Rᵀ x has covariance I."""
    try:
        return np.linalg.cholesky(model.float64("user_precision")).astype(np.float64, copy=False)
    except np.linalg.LinAlgError as error:
        raise ValueError("the users' prior has no positive definite precision") from error

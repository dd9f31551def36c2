"""Factor models for good lists: every item a person has not rated counts a little, as not liked.

This is weighted alternating least squares (implicit feedback) by the devices' normal equations. A rated item's score
p_u·q_i is fitted to the target of its rating's level, with weight 1, and every item's score to 0, with a small weight.
The second part needs no rating: to a device it is a quadratic form of all items, which the server puts into the users'
prior, and to the server the sum of all people's moments, which their uploads carry beside their ratings.
The model grows with the catalogue, not with its square, so this serves catalogues too large for a Gram.

Source: Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets", with low ratings as weak
positives and the posterior covariances of the variational factorisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from liberate.arrays import Float32Array, Float64Array
from liberate.model.kernels import linear_algebra, server
from liberate.model.model import Array, Model, packed_size
from liberate.model.solvers import AggregatedStatistics, IntegerSolver, solve_items
from liberate.model.statistics import require
from liberate.randomness import generator
from liberate.units import from_nano, to_nano

_TARGETS = (0.5, 0.5, 0.5, 1.0, 1.0)
_BACKGROUND = 0.3
_RIDGE = 2.0
_PRECISION = 10.0
_NO_BIAS = 1e6
_INITIAL_DEVIATION = 0.1


def initial_weighted(n_factors: int, n_items: int, low: float, high: float, secret: bytes) -> Model:
    """Return the model before the first round: small random item factors.

    Args:
        n_factors: Factors of the model, >= 0.
        n_items: Size of the catalogue, >= 0.
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
        secret: 32 bytes that fix the random factors.
    """
    factors = generator(secret).standard_normal((n_items, n_factors), dtype=np.float32)
    return model_of_features(factors * np.float32(_INITIAL_DEVIATION), low, high)


def model_of_features(features: Float32Array, low: float, high: float) -> Model:
    """Return a model whose item factors are public features: a device finds its taste in them, and nothing leaves it.

    Args:
        features: Of the items, shape (n_items, n_features).
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
    """
    means = np.concatenate([features, np.zeros((len(features), 1), np.float32)], axis=1)
    return Model.of(0, "normal", low, high, _arrays(means, linear_algebra.outer(means), _BACKGROUND, _RIDGE))


@dataclass(frozen=True, slots=True)
class WeightedBayes(IntegerSolver):
    """Solves each item's normal equations with the background's part, and tells devices theirs.

    Attributes:
        n_factors: Factors of the model, >= 0.
        background_nano: Weight of every item as not liked, in billionths of a rating's, > 0.
        ridge_nano: Ridge of users' and items' factors, in billionths of a rating, > 0.
    """

    n_factors: int
    background_nano: int = to_nano(_BACKGROUND)
    ridge_nano: int = to_nano(_RIDGE)

    name: ClassVar[str] = "weighted/1"

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "normal", self.n_factors)
        background, ridge = from_nano(self.background_nano), from_nano(self.ridge_nano)
        k = self.n_factors + 1
        n_packed = packed_size(k)

        # Every item is a little disliked by everybody, whether rated or not.
        rows = total.rows.copy()
        rows[:, :n_packed] += background * _with_one(
            total.tail[:n_packed], total.tail[n_packed:-1], total.n_participants
        )
        means, moments = solve_items(rows, _PRECISION, _PRECISION * _ridge(ridge, k), np.zeros(k))

        error = (float(total.tail[-1]) + 1) / (math.fsum(total.rows[:, n_packed - 1]) + 1)
        arrays = _arrays(means.astype(np.float32), moments.astype(np.float32), background, ridge)
        return model.next_version("normal", arrays | {"training_error": np.array([error])})


def _arrays(means: Float32Array, moments: Float32Array, background: float, ridge: float) -> dict[str, Array]:
    """Return a model's arrays; the users' prior holds what every item says as not liked."""
    n_items, k = means.shape
    moment_sum = server.column_sums(moments.astype(np.float64))
    mean_sum = server.column_sums(means.astype(np.float64))
    catalogue = np.zeros((k, k))
    catalogue[np.tril_indices(k)] = _with_one(moment_sum, mean_sum, n_items)
    catalogue += np.tril(catalogue, -1).T
    return {
        "item_means": means,
        "item_moments": moments,
        "user_mean": np.zeros(k),
        "user_precision": _PRECISION * (_ridge(ridge, k) + background * catalogue),
        "noise_precision": np.array([_PRECISION]),
        "level_targets": np.array(_TARGETS),
    }


def _ridge(ridge: float, k: int) -> Float64Array:
    """Return the ridge of (p_u, b_u) or (q_i, b_i): biases are held at zero, for they order nothing."""
    return np.diag([ridge] * (k - 1) + [_NO_BIAS])


def _with_one(moment_sum: Float64Array, mean_sum: Float64Array, n: float) -> Float64Array:
    """Return the sum of E[z zᵀ], z = (p, 1), packed, from the sums of E[x xᵀ] and E[x], x = (p, bias), of n of them."""
    k = len(mean_sum)
    result = moment_sum.copy()
    result[-k:-1] = mean_sum[:-1]
    result[-1] = n
    return result

"""Variational Bayes over the copies of a pool: what is known of items and people, and one turn between the two."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from liberate.arrays import Float32Array, Float64Array
from liberate.data.ratings import Ratings
from liberate.model.kernels import linear_algebra, server
from liberate.model.model import INITIAL_NOISE_PRECISION, Array, Model, initial_precision, packed_size
from liberate.model.solvers import AggregatedStatistics, solve_items
from liberate.model.statistics import NormalEquations
from liberate.randomness import generator

_SECRET = b"liberate pool: first factors   1"
_FIRST_DEVIATION = 0.1
_RESTART_DEVIATION = 0.3
_FACTOR_VARIANCE = 0.1
_ITEM_BIAS_VARIANCE = 0.2
_PSEUDO_COUNT = 10.0
_RIDGE = 10.0
_INTERCEPT_RIDGE = 0.01
_WEIGHT = 0.32
"""A person's n ratings weigh 1 / sqrt(0.32 n) each in popularity, as among bias sums."""

_UNSEEN = 0.3
"""Popularity that every item has beside what the pool shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedItems:
    """What is known after a round. L = n_factors + 1 numbers of an item are learned, K numbers has a person's side.

    Attributes:
        means: (f_i, q_i, b_i) of each item, shape (n_items, K).
        covariances: Of (q_i, b_i), shape (n_items, L, L).
        regression: What an item's known columns say of (q_i, b_i), shape (n_columns, L).
        item_precision: Precision matrix of items about that, shape (L, L).
        user_mean: Of people's sides, shape (K,).
        user_covariance: Likewise, shape (K, K).
        precision: Of the noise of a rating, or of the number taken in its place.
    """

    means: Float64Array
    covariances: Float64Array
    regression: Float64Array
    item_precision: Float64Array
    user_mean: Float64Array
    user_covariance: Float64Array
    precision: float

    def moments(self) -> Float64Array:
        """Return second moments of the items, packed, shape (n_items, P)."""
        n_known = self.means.shape[1] - self.covariances.shape[1]
        full = self.means[:, :, None] * self.means[:, None, :]
        full[:, n_known:, n_known:] += self.covariances
        rows, columns = np.tril_indices(self.means.shape[1])
        return np.ascontiguousarray(full[:, rows, columns])


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWorld:
    """What stays while a pool is learned from.

    Attributes:
        features: Public features of the items, shape (n_items, n_features).
        known: Columns that say what to expect of an item: 1, its features, and how often the pool has it, logarithm
            and square, shape (n_items, n_features + 3).
        counts: Ratings of each item in the pool, shape (n_items,).
        popularity: Weighted number of ratings of each item by one person, shape (n_items,).
        variances: Of people's sides before any prior is learned, shape (K,).
        low: Lowest rating of the scale.
        high: Highest rating of the scale.
        n_factors: Factors besides the features.
    """

    features: Float64Array
    known: Float64Array
    counts: Float64Array
    popularity: Float64Array
    variances: Float64Array
    low: float
    high: float
    n_factors: int

    @classmethod
    def of(cls, base: Model, copies: Ratings, n_factors: int) -> PoolWorld:
        n = copies.n_items
        features = base.float64("item_means")[:, :-1]
        variances = 1 / np.diag(base.float64("user_precision"))

        counts = np.bincount(copies.items, minlength=n).astype(np.float64)
        logs = np.log1p(counts)
        logs -= logs.mean() if n else 0.0
        per_person = 1 / np.sqrt(_WEIGHT * np.maximum(1, np.diff(copies.indptr)))
        weights = np.bincount(copies.items, per_person[copies.users()], n)

        return cls(
            features=features,
            known=np.concatenate([np.ones((n, 1)), features, logs[:, None], logs[:, None] ** 2], axis=1),
            counts=counts,
            popularity=(weights + _UNSEEN) / max(1, copies.n_users),
            variances=np.concatenate([variances[:-1], np.full(n_factors, _FACTOR_VARIANCE), variances[-1:]]),
            low=base.low,
            high=base.high,
            n_factors=n_factors,
        )

    @property
    def n_known(self) -> int:
        return int(self.features.shape[1])

    @property
    def statistic(self) -> NormalEquations:
        return NormalEquations(len(self.features), self.n_known + self.n_factors)

    @property
    def item_variances(self) -> Float64Array:
        """Variances of (q_i, b_i) about what is expected, before any prior is learned, shape (L,)."""
        return np.array([_FACTOR_VARIANCE] * self.n_factors + [_ITEM_BIAS_VARIANCE])

    def first(self) -> LearnedItems:
        """Return what is known before any copy: random factors, fixed for all pools, and public priors."""
        n, size = len(self.features), self.n_factors + 1
        factors = generator(_SECRET).standard_normal((n, self.n_factors)) * _FIRST_DEVIATION
        return LearnedItems(
            means=np.concatenate([self.features, factors, np.zeros((n, 1))], axis=1),
            covariances=np.zeros((n, size, size)),
            regression=np.zeros((self.known.shape[1], size)),
            item_precision=np.diag(1 / self.item_variances),
            user_mean=np.zeros(len(self.variances)),
            user_covariance=np.diag(self.variances),
            precision=INITIAL_NOISE_PRECISION,
        )

    def model(self, learned: LearnedItems) -> Model:
        """Return the model that people fit themselves to."""
        arrays = self.people(learned) | {
            "item_means": learned.means.astype(np.float32),
            "item_moments": learned.moments().astype(np.float32),
        }
        return Model.of(0, self.statistic.name, self.low, self.high, arrays)

    def people(self, learned: LearnedItems) -> dict[str, Array]:
        """Return the arrays of the users' prior and of the noise of a rating."""
        return {
            "user_mean": learned.user_mean.copy(),
            "user_precision": np.linalg.inv(learned.user_covariance),
            "noise_precision": np.array([learned.precision]),
        }

    def columns(self, learned: LearnedItems) -> Float32Array:
        """Return features, factors and biases as columns in which people's tastes have the variance of features."""
        deviations = np.sqrt(np.diag(learned.user_covariance)[self.n_known : -1] / _FACTOR_VARIANCE)
        factors = learned.means[:, self.n_known : -1] * deviations
        return np.concatenate([self.features, factors, learned.means[:, -1:]], axis=1).astype(np.float32)

    def step(self, learned: LearnedItems, total: AggregatedStatistics, *, learns_priors: bool) -> LearnedItems:
        """Solve every item's normal equations, its features given, and then learn the priors."""
        if not learns_priors:
            return self._with_solved(learned, total.rows)
        learned = self._with_participants(learned, total.tail, total.n_devices)
        solved = self._with_solved(learned, total.rows)

        # By the items as the people were fitted to them: their model is in float32.
        change = server.error_change(
            total.rows,
            solved.means,
            solved.moments(),
            learned.means.astype(np.float32).astype(np.float64),
            learned.moments().astype(np.float32).astype(np.float64),
        )
        error = float(total.tail[-1]) + change
        precision = (self.counts.sum() + 1) / (error + 1 / INITIAL_NOISE_PRECISION)
        return replace(self._with_items(solved), precision=float(precision))

    def _with_solved(self, learned: LearnedItems, sums: Float64Array) -> LearnedItems:
        """Solve every item's normal equations, shape (n_items, P + K), for what its features and prior leave over."""
        k, size, n = len(self.variances), self.n_factors + 1, self.n_known
        n_packed = packed_size(k)
        normal = unpacked_all(sums[:, :n_packed], k)[:, n:]
        expected = self.known @ learned.regression
        target = sums[:, n_packed + n :] - np.einsum("ijk,ik->ij", normal[:, :, :n], self.features)
        target -= np.einsum("ijk,ik->ij", normal[:, :, n:], expected)

        lower = np.tril_indices(size)
        rows = np.concatenate([normal[:, :, n:][:, lower[0], lower[1]], target], axis=1)
        moved, moments = solve_items(rows, learned.precision, learned.item_precision, np.zeros(size))

        return replace(
            learned,
            means=np.concatenate([self.features, expected + moved], axis=1),
            covariances=unpacked_all(moments, size) - moved[:, :, None] * moved[:, None, :],
        )

    def _with_participants(self, learned: LearnedItems, tail: Float64Array, n_participants: int) -> LearnedItems:
        """Learn mean and covariance of people's sides, as if ten more of the initial prior had been seen."""
        k, n = len(self.variances), n_participants + _PSEUDO_COUNT
        mean = tail[packed_size(k) : -1] / n
        second = unpacked_all(tail[None, : packed_size(k)], k)[0] + _PSEUDO_COUNT * np.diag(self.variances)
        return replace(learned, user_mean=mean, user_covariance=second / n - np.outer(mean, mean))

    def _with_items(self, learned: LearnedItems) -> LearnedItems:
        """Learn what known columns say of items, and how items spread about that; those in the pool count."""
        seen = self.counts > 0
        known, items = self.known[seen], learned.means[seen, self.n_known :]
        ridge = np.full(known.shape[1], _RIDGE)
        ridge[0] = _INTERCEPT_RIDGE
        regression = np.linalg.solve(known.T @ known + np.diag(ridge), known.T @ items).astype(np.float64, copy=False)
        rest = items - known @ regression
        spread = learned.covariances[seen].sum(axis=0) + rest.T @ rest + _PSEUDO_COUNT * np.diag(self.item_variances)
        precision = np.linalg.inv(spread / (len(items) + _PSEUDO_COUNT))
        return replace(learned, regression=regression, item_precision=precision)


def restarted(learned: LearnedItems, n_factors: int) -> dict[str, Array]:
    """Return the arrays that normal equations start from: what was learned, and chance where nothing was.

    From few people few directions of taste are learned, and the others vanish for good: a model that starts without
    them never finds them. So each factor is filled up with chance to the deviation that factors start with elsewhere,
    and priors are the initial ones.
    """
    size = n_factors + 1
    factors, biases = learned.means[:, :-1], learned.means[:, -1:]
    root = np.linalg.cholesky(learned.user_covariance[:-1, :-1]) / math.sqrt(_FACTOR_VARIANCE)
    axes = factors @ root @ np.linalg.eigh(root.T @ factors.T @ factors @ root)[1][:, ::-1]

    lacking = np.sqrt(np.maximum(0.0, _RESTART_DEVIATION**2 - (axes**2).mean(axis=0)))
    axes += generator(_SECRET).standard_normal(axes.shape) * lacking

    # What the people's mean says of an item is the same for all.
    biases = biases + factors @ learned.user_mean[:-1, None]
    means = np.concatenate([axes, biases], axis=1).astype(np.float32)

    return {
        "item_means": means,
        "item_moments": linear_algebra.outer(means),
        "item_mean": np.zeros(size),
        "item_precision": initial_precision(size),
        "user_mean": np.zeros(size),
        "user_precision": initial_precision(size),
        "noise_precision": np.array([INITIAL_NOISE_PRECISION]),
    }


def unpacked_all(packed: Float64Array, k: int) -> Float64Array:
    """Return symmetric matrices from their lower triangles, row by row: shape (n, P) becomes (n, K, K)."""
    result = np.empty((len(packed), k, k))
    rows, columns = np.tril_indices(k)
    result[:, rows, columns] = packed
    result[:, columns, rows] = packed
    return result

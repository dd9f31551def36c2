"""Learning from copies that people have shared with the pool: all of them in one place, before or instead of rounds.

A rating is c + w_u·f_i + p_u·q_i + b_u + b_i: f_i are the item's public features, known beforehand, and (q_i, b_i) is
learned by variational Bayes. Its prior mean is a regression on the features and on how often the pool has the item, so
that items the pool hardly knows start from what others like them are. People's sides have one prior with a full
covariance, learned from the senders; it serves those who share nothing.

Copies of perturbed ratings are answers over a known channel. Each round puts in a rating's place what its answer says
of it beside the prediction (expectation maximisation over the levels), so that the noise is undone where the model can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never, get_args

import numpy as np

from liberate.arrays import Float32Array, Float64Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.model.kernels import linear_algebra, ranking, server
from liberate.model.model import INITIAL_NOISE_PRECISION, Array, Model, initial_precision, packed_size
from liberate.model.private.solvers import after_moments
from liberate.model.private.statistics import initial_features
from liberate.model.profiles import fit_profiles
from liberate.model.registry import aggregate_statistics
from liberate.model.solvers import FIRST_VERSION, AggregatedStatistics
from liberate.model.statistics import NormalEquations
from liberate.randomness import generator
from liberate.units import from_nano, to_nano

FollowingStage = Literal["nothing", "normal", "gradient", "bias", "moments"]
"""The statistic that devices compute from the pool's model, if any."""

POOL_FACTORS = 8
"""Factors besides public features, where nothing else asks for a number of them."""

REPEATS_WITHIN = 1e-2
"""Largest difference of an array of the model when the same copies are learned from elsewhere."""

_ROUNDS = 25
POOL_STATISTIC = "pool"
"""Of a round that no device answers: its model is learned from copies."""

_SECRET = b"liberate pool: first factors   1"
_FIRST_DEVIATION = 0.1
_RESTART_DEVIATION = 0.3
_FACTOR_VARIANCE = 0.1
_ITEM_BIAS_VARIANCE = 0.2
_PSEUDO_COUNT = 10.0
_RIDGE = 10.0
_INTERCEPT_RIDGE = 0.01
_FIRST_UNDONE = 2
_GRID = 401
_LOWEST = -2.5  # the lowest rating in standard units, whatever the scale
_LEAST_SHARE = 0.05
"""Answers that tell less of levels stand for numbers nearer to what is predicted: no number is 6 units away from it."""
_RATING_PRECISION = 1.4
"""Of a rating about its prediction, where only answers tell of ratings: a public constant."""
_WEIGHT = 0.32
"""A person's n ratings weigh 1 / sqrt(0.32 n) each in popularity, as among bias sums."""
_UNSEEN = 0.3
"""Popularity that every item has beside what the pool shows."""


def initial_pool(features: Float32Array, low: float, high: float) -> Model:
    """Return the model before the pool's round: public features and public constants alone.

    Args:
        features: Public features of the items, shape (n_items, n_features); no column where none are used.
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
    """
    return initial_features(features, low, high, statistic=POOL_STATISTIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLearner:
    """Turns the copies of a pool into a model.

    Attributes:
        follows: What devices compute next; after `nothing` the model is final.
        n_factors: Factors to learn besides the public features, >= 0.
        n_levels: Levels of the scale, evenly spaced, >= 2.
        n_participants: Before `bias` and `moments`: people of the rounds that follow, >= 0, to scale popularity.
        moments_rounds: Before `moments`: how many rounds of them, >= 0; with 0 residuals come at once.
        n_directions: Likewise: directions of taste in which residuals will be asked for, >= 0.
    """

    follows: FollowingStage
    n_factors: int
    n_levels: int
    n_participants: int = 0
    moments_rounds: int = 0
    n_directions: int = 0

    @property
    def name(self) -> str:
        return f"pool_for_{self.follows}/1"

    def parameters(self) -> dict[str, int]:
        """Return all that the result depends on besides the first model and the copies."""
        return {
            "n_factors": self.n_factors,
            "n_levels": self.n_levels,
            "n_participants": self.n_participants,
            "moments_rounds": self.moments_rounds,
            "n_directions": self.n_directions,
            "repeats_within_nano": to_nano(REPEATS_WITHIN),
        }

    def learn(self, base: Model, copies: Ratings, epsilons: Sequence[int] | None = None) -> Model:
        """Return the next version, learned from copies.

        Args:
            base: The model before, see `initial_pool`.
            copies: Copies as received, a user per sender, of items of the model's catalogue. Whatever a sender has put
                in them, ratings beyond the scale count as its ends.
            epsilons: At which each sender's ratings were perturbed, in billionths, shape (n_senders,); 0 where they are
                open; None: all are.

        Raises:
            ValueError: The model is no first model of a pool, or the copies are of another catalogue.
            FederationError: No finite model follows from the copies.
        """
        if base.statistic != POOL_STATISTIC or base.n_items != copies.n_items:
            raise ValueError(f"wanted a first model of a pool over {copies.n_items} items")
        copies = replace(copies, values=copies.values.clip(base.low, base.high))
        world = _World.of(base, copies, self.n_factors)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the model that results is checked
                return self._follower(base, world, self._learned(world, copies, epsilons))
        except (ValueError, np.linalg.LinAlgError) as error:
            raise FederationError(f"no model follows from the pool's copies: {error}") from error

    def _learned(self, world: _World, copies: Ratings, epsilons: Sequence[int] | None) -> _Learned:
        """Take turns between people and items."""
        channels = _Channels.of(self.n_levels, copies, epsilons or [0] * copies.n_users)
        learned, taken = world.first(), copies
        for count in range(_ROUNDS):
            model = world.model(learned)
            if channels.by_answers and count >= _FIRST_UNDONE:
                taken = channels.undone(model, copies, taken)
            learned = world.step(learned, aggregate_statistics(world.statistic, model, taken), learns_priors=count > 0)
        return replace(learned, precision=_RATING_PRECISION) if channels.by_answers else learned

    def _follower(self, base: Model, world: _World, learned: _Learned) -> Model:
        """Put what was learned in the form that comes next."""
        arrays: dict[str, Array] = {
            "item_means": learned.means.astype(np.float32),
            "user_mean": learned.user_mean,
            "user_precision": np.linalg.inv(learned.user_covariance),
            "noise_precision": np.array([learned.precision]),
        }
        begin = {FIRST_VERSION: base.float64(FIRST_VERSION)} if FIRST_VERSION in base.arrays else {}
        popularity = world.popularity * self.n_participants
        match self.follows:
            case "normal":
                arrays = _restarted(learned, self.n_factors)
            case "bias":
                first = initial_features(world.columns(learned), base.low, base.high, statistic="bias")
                arrays = dict(first.arrays)
            case "moments":
                known = {"bias_variance": learned.covariances[:, -1, -1], "popularity": popularity}
                return after_moments(base, arrays | begin | known, self.moments_rounds, self.n_directions)
            case "nothing" | "gradient":
                pass
            case other:
                assert_never(other)
        statistic = POOL_STATISTIC if self.follows == "nothing" else self.follows
        return Model.of(base.version + 1, statistic, base.low, base.high, arrays | begin)


def learner_from(name: str, parameters: Mapping[str, int]) -> PoolLearner:
    """Rebuild the learner that a model entry names.

    Raises:
        ValueError: No learner has this name, or this one does not have exactly these parameters.
    """
    for follows in get_args(FollowingStage):
        own = {key: value for key, value in parameters.items() if key != "repeats_within_nano"}
        try:
            learner = PoolLearner(follows=follows, **own)
        except TypeError as error:
            raise ValueError(f"a pool's learner does not take {dict(parameters)}") from error
        if (learner.name, learner.parameters()) == (name, dict(parameters)):
            return learner
    raise ValueError(f"no learner of a pool is called {name!r} with {dict(parameters)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What is known after a round. L = n_factors + 1 numbers of an item are learned, K numbers has a person's side.

    Attributes:
        means: (f_i, q_i, b_i) of each item, shape (n_items, K).
        covariances: Of (q_i, b_i), shape (n_items, L, L).
        regression: What an item's known columns say of (q_i, b_i), shape (n_columns, L).
        item_precision: Precision matrix of items about that, shape (L, L).
        user_mean: Of people's sides, shape (K,).
        user_covariance: Likewise, shape (K, K).
        precision: Of the noise of a rating, or of what stands for it.
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
        result: Float64Array = np.ascontiguousarray(full[:, rows, columns])
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
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
    def of(cls, base: Model, copies: Ratings, n_factors: int) -> _World:
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

    def first(self) -> _Learned:
        """Return what is known before any copy: random factors, fixed for all pools, and public priors."""
        n, size = len(self.features), self.n_factors + 1
        factors = generator(_SECRET).standard_normal((n, self.n_factors)) * _FIRST_DEVIATION
        return _Learned(
            means=np.concatenate([self.features, factors, np.zeros((n, 1))], axis=1),
            covariances=np.zeros((n, size, size)),
            regression=np.zeros((self.known.shape[1], size)),
            item_precision=np.diag(1 / self.item_variances),
            user_mean=np.zeros(len(self.variances)),
            user_covariance=np.diag(self.variances),
            precision=INITIAL_NOISE_PRECISION,
        )

    def model(self, learned: _Learned) -> Model:
        """Return the model that people fit themselves to."""
        arrays: dict[str, Array] = {
            "item_means": learned.means.astype(np.float32),
            "item_moments": learned.moments().astype(np.float32),
            "user_mean": learned.user_mean.copy(),
            "user_precision": np.linalg.inv(learned.user_covariance),
            "noise_precision": np.array([learned.precision]),
        }
        return Model.of(0, self.statistic.name, self.low, self.high, arrays)

    def columns(self, learned: _Learned) -> Float32Array:
        """Return features, factors and biases as columns in which people's tastes have the variance of features."""
        deviations = np.sqrt(np.diag(learned.user_covariance)[self.n_known : -1] / _FACTOR_VARIANCE)
        factors = learned.means[:, self.n_known : -1] * deviations
        return np.concatenate([self.features, factors, learned.means[:, -1:]], axis=1).astype(np.float32)

    def step(self, learned: _Learned, total: AggregatedStatistics, *, learns_priors: bool) -> _Learned:
        """Solve every item's normal equations, its features given, and then learn the priors."""
        k, size, n = len(self.variances), self.n_factors + 1, self.n_known
        n_packed = packed_size(k)
        if learns_priors:
            learned = self._with_participants(learned, total.tail, total.n_devices)
        normal, target = unpacked_all(total.rows[:, :n_packed], k)[:, n:], total.rows[:, n_packed + n :]
        expected = self.known @ learned.regression
        # what is left after features and what the regression expects; its prior mean is zero
        target = target - np.einsum("ijk,ik->ij", normal[:, :, :n], self.features)
        target -= np.einsum("ijk,ik->ij", normal[:, :, n:], expected)
        lower = np.tril_indices(size)
        rows = np.concatenate([normal[:, :, n:][:, lower[0], lower[1]], target], axis=1)
        moved, moments = np.empty((len(rows), size)), np.empty((len(rows), packed_size(size)))
        server.solve_items(rows, learned.precision, learned.item_precision, np.zeros(size), moved, moments)
        solved = replace(
            learned,
            means=np.concatenate([self.features, expected + moved], axis=1),
            covariances=unpacked_all(moments, size) - moved[:, :, None] * moved[:, None, :],
        )
        if not learns_priors:
            return solved
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

    def _with_participants(self, learned: _Learned, tail: Float64Array, n_participants: int) -> _Learned:
        """Learn mean and covariance of people's sides, as if ten more of the initial prior had been seen."""
        k, n = len(self.variances), n_participants + _PSEUDO_COUNT
        mean = tail[packed_size(k) : -1] / n
        second = unpacked_all(tail[None, : packed_size(k)], k)[0] + _PSEUDO_COUNT * np.diag(self.variances)
        return replace(learned, user_mean=mean, user_covariance=second / n - np.outer(mean, mean))

    def _with_items(self, learned: _Learned) -> _Learned:
        """Learn what known columns say of items, and how items spread about that; those in the pool count."""
        seen = self.counts > 0
        known, found = self.known[seen], learned.means[seen, self.n_known :]
        ridge = np.full(known.shape[1], _RIDGE)
        ridge[0] = _INTERCEPT_RIDGE
        regression = np.linalg.solve(known.T @ known + np.diag(ridge), known.T @ found).astype(np.float64, copy=False)
        rest = found - known @ regression
        spread = learned.covariances[seen].sum(axis=0) + rest.T @ rest + _PSEUDO_COUNT * np.diag(self.item_variances)
        precision = np.linalg.inv(spread / (len(found) + _PSEUDO_COUNT))
        return replace(learned, regression=regression, item_precision=precision)


def _restarted(learned: _Learned, n_factors: int) -> dict[str, Array]:
    """Return normal equations a start: what was learned, along principal axes, and chance where nothing was.

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
    # what the people's mean says of an item is the same for all
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


@dataclass(frozen=True, slots=True)
class _Channel:
    """How answers come about: a level is kept, or one of the others given, each as likely.

    Attributes:
        levels: The scale in standard units, shape (n_levels,).
        chances: Of each answer (column) to each level (row), shape (n_levels, n_levels).
    """

    levels: Float64Array
    chances: Float64Array

    @classmethod
    def of(cls, n_levels: int, epsilon: float) -> _Channel:
        weights = np.full((n_levels, n_levels), math.exp(-epsilon))
        np.fill_diagonal(weights, 1.0)
        return cls(_LOWEST + 4 * np.linspace(0, 1, n_levels), weights / weights[0].sum())

    def undone(self, predicted: Float64Array, answers: Int64Array) -> Float64Array:
        """Return numbers that tell what answers tell, in standard units.

        Let m be what the model predicts, the levels' chances a normal curve about it, and s what an answer says of the
        level beside that. The number is m + (s - E[s | m]) / w: unbiased about m, where w is the part of the levels'
        variance that answers tell, mean over all ratings.

        Args:
            predicted: What the model predicts of each rating, in standard units, shape (n,).
            answers: The levels that were answered, shape (n,).
        """
        grid = np.linspace(self.levels[0], self.levels[-1], _GRID)
        places = np.rint((np.clip(predicted, grid[0], grid[-1]) - grid[0]) / (grid[-1] - grid[0]) * (_GRID - 1))
        at = places.astype(np.int64)
        expected, told, shares = self._tables(grid)
        share = max(float(shares[at].mean()) if len(at) else 1.0, _LEAST_SHARE)
        numbers: Float64Array = grid[at] + (told[at, answers] - expected[at]) / share
        return numbers

    def _tables(self, grid: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Return, for each prediction, the level to expect, that after each answer, and the part that answers tell."""
        prior = np.exp(-_RATING_PRECISION / 2 * (grid[:, None] - self.levels) ** 2)
        prior /= prior.sum(axis=1, keepdims=True)
        expected = prior @ self.levels
        answered = prior @ self.chances
        told = (prior * self.levels) @ self.chances / answered
        variance = (prior * (self.levels - expected[:, None]) ** 2).sum(axis=1)
        shares = (answered * (told - expected[:, None]) ** 2).sum(axis=1) / variance
        return expected, told, shares


@dataclass(frozen=True, slots=True)
class _Channels:
    """The channels that copies came through.

    Attributes:
        by_answers: Each channel with the answers that came through it, as rows of the copies; open ones are in none.
    """

    by_answers: list[tuple[_Channel, Int64Array]]

    @classmethod
    def of(cls, n_levels: int, copies: Ratings, epsilons: Sequence[int]) -> _Channels:
        """Find the channels of copies, by the epsilon of each sender, in billionths; 0: open."""
        of_rows = np.asarray(epsilons, np.int64)[copies.users()]
        return cls(
            [
                (_Channel.of(n_levels, from_nano(int(nano))), np.flatnonzero(of_rows == nano))
                for nano in np.unique(of_rows)
                if nano
            ]
        )

    def undone(self, model: Model, copies: Ratings, taken: Ratings) -> Ratings:
        """Put in each answer's place a number that tells what it tells.

        Args:
            model: What predicts.
            copies: The answers.
            taken: What stands for them now, which people's sides are fitted to.
        """
        owners, values = copies.users(), copies.values.copy()
        sides = fit_profiles(model, taken, model.targets(taken)).means
        predicted = ranking.predict_pairs(sides, model.item_means, owners, copies.items).astype(np.float64)
        for channel, rows in self.by_answers:
            answers = np.rint((values[rows] - model.low) / (model.high - model.low) * (len(channel.levels) - 1))
            numbers = channel.undone(predicted[rows], answers.astype(np.int64))
            values[rows] = (numbers * model.unit + model.centre).astype(np.float32)
        return replace(copies, values=values)

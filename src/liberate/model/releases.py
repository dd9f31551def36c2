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
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from liberate.arrays import Float32Array, Float64Array, RealRows
from liberate.errors import FederationError
from liberate.model import kernels
from liberate.model.factors import Array, Model, fit_profiles, packed_size
from liberate.model.ratings import Ratings
from liberate.model.solvers import Total
from liberate.model.spectral import shrunk, signed, unpacked

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
REPEATS_WITHIN = 1e-4
"""Largest difference of an array of the model when the same sum is solved elsewhere."""

_NANO = 10**9
_NOISE_VARIANCE = 0.8  # of a rating about its prediction, squared standard units, as all variances here
_FEATURE_VARIANCE = 0.1  # of a person's taste in a feature, before any prior is learned
_EMBEDDING_VARIANCE = 0.08  # likewise in an embedding
_BIAS_VARIANCE = 0.27  # of a person's bias

_PSEUDO_RATINGS = 3.0  # ratings at zero in a person's mean
_LARGEST_RESIDUAL = 2.0
_COUNT_WEIGHT = 0.35  # of having rated an item, beside half a residual
_RESIDUAL_VARIANCE = 0.9  # of a rating about its person's mean and item's bias
_ITEM_VARIANCE = 0.2  # of an item bias about what popularity and features predict
_RESIDUAL_FLOOR = 0.05  # a rating, so that nobody is scaled up without end
_RESIDUAL_SCALE = 0.65  # what a rating weighs among residuals, against the bias sums
_TASTE_WEIGHT = 0.7  # of a residual times a taste, beside the residual
_TASTE_SQUARE = 0.6  # mean square of a fitted taste, of which the true one has 1
_CORRECTION_VARIANCE = 0.02  # of what items lack in a direction of taste
_FITTED_VARIANCE = 0.75  # of a residual
_REGRESSION_RIDGE = 10.0
_LARGEST_PRIOR_BIAS = 1.5
_LARGEST_BIAS = 2.5
_LEAST_SHARE = 0.02  # least popularity, against the mean
_RELAXATION = 2.0  # steps that one round of moments stands for
_EIGENVALUES = (0.05, 4.0)


def initial_features(features: Float32Array, low: float, high: float, *, statistic: str) -> Model:
    """Give the model before the first round: public features, no item bias, and priors from public constants alone.

    A device that fits itself to this model and nothing else learns its own bias and its taste in features.

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


# --- statistics -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BiasSums:
    """How far a person rated each item above the own mean, and that it was rated.

    A row is w·(e / 2, 0.35): e is the rating in standard units less the person's mean (three more ratings at zero
    counted in), clipped to 2; w makes the person's L2 norm `BIAS_NORM` (0 without a rating).

    Attributes:
        n_items: Size of the catalogue, >= 0.
    """

    n_items: int

    @property
    def name(self) -> str:
        return "bias"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n_items, 2, 0

    def compute(self, model: Model, ratings: Ratings) -> RealRows:
        _require(model, self.name)
        owners, n = ratings.users(), ratings.n_users
        targets = model.targets(ratings).astype(np.float64)
        # bincount adds in the order of the ratings, so that a device's bits do not depend on its batch
        means = np.bincount(owners, targets, n) / (np.diff(ratings.indptr) + _PSEUDO_RATINGS)
        residuals = np.clip(targets - means[owners], -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL) / 2
        norms = np.sqrt(np.bincount(owners, residuals**2 + _COUNT_WEIGHT**2, n))
        rows = np.stack([residuals, np.full_like(residuals, _COUNT_WEIGHT)], axis=1) * BIAS_NORM / norms[owners, None]
        return RealRows(
            indptr=ratings.indptr, indices=ratings.items, rows=rows.astype(np.float32), tails=np.zeros((n, 0))
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """How a person's side differs from what the prior expects: E[v vᵀ] - I, packed as `spectral.packed` says.

    v is the own side (p_u, b_u) in coordinates where the prior's covariance is the identity. The norm of what is sent
    is the Frobenius norm, clipped to `MOMENTS_CLIP`; of somebody without ratings it is 0.

    Attributes:
        n_factors: Factors of the model, >= 0.
    """

    n_factors: int

    @property
    def name(self) -> str:
        return "moments"

    @property
    def shape(self) -> tuple[int, int, int]:
        return packed_size(self.n_factors + 1), 1, 0

    def compute(self, model: Model, ratings: Ratings) -> RealRows:
        _require(model, self.name)
        if model.n_factors != self.n_factors:
            raise ValueError(f"the model has {model.n_factors} factors, not {self.n_factors}")
        own = fit_profiles(model, ratings, model.targets(ratings))
        n, n_packed = ratings.n_users, self.shape[0]
        rows = np.empty((n * n_packed, 1), np.float32)
        whitener = np.ascontiguousarray(_precision_factor(model).T).astype(np.float32)
        kernels.moment_rows(own.moments, whitener, rows.reshape(n, n_packed))
        return RealRows(
            indptr=np.arange(n + 1, dtype=np.int64) * n_packed,
            indices=np.tile(np.arange(n_packed, dtype=np.int32), n),
            rows=rows,
            tails=np.zeros((n, 0)),
        )


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far each rating is from what the model and the own side predict, and what the person likes.

    A row is w·e·(1, 0.7 v): e is the rating less the prediction, in standard units, clipped to 2; v, of norm at most
    sqrt(2 D), is the own taste in the D directions that the model names (`directions`, shape (n_factors, D)); and
    w = 1 / sqrt(sum over the person's ratings of the squared numbers and 0.05) keeps the L2 norm below
    `RESIDUALS_NORM`.

    Attributes:
        n_items: Size of the catalogue, >= 0.
        n_directions: D, >= 0.
    """

    n_items: int
    n_directions: int

    @property
    def name(self) -> str:
        return "residuals"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n_items, 1 + self.n_directions, 0

    def compute(self, model: Model, ratings: Ratings) -> RealRows:
        _require(model, self.name)
        if n_directions(model) != self.n_directions:
            raise ValueError(f"the model names {n_directions(model)} directions, not {self.n_directions}")
        owners, n = ratings.users(), ratings.n_users
        targets = model.targets(ratings)
        own = fit_profiles(model, ratings, targets).means
        errors = (targets - kernels.predict_pairs(own, model.item_means, owners, ratings.items)).astype(np.float64)
        errors = np.clip(errors, -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
        factors = np.concatenate([np.ones((n, 1)), _TASTE_WEIGHT * self._tastes(model, own)], axis=1)
        squares = (factors**2).cumsum(axis=1)[:, -1]
        norms = np.sqrt(np.bincount(owners, errors**2 * squares[owners] + _RESIDUAL_FLOOR, n))
        rows = (errors / norms[owners] * RESIDUALS_NORM)[:, None] * factors[owners]
        return RealRows(
            indptr=ratings.indptr, indices=ratings.items, rows=rows.astype(np.float32), tails=np.zeros((n, 0))
        )

    def _tastes(self, model: Model, own: Float32Array) -> Float64Array:
        """Give v of each device, added up in one order, so that a device's bits do not depend on its batch."""
        tastes = np.zeros((len(own), self.n_directions))
        if not self.n_directions:
            return tastes
        for factor, direction in zip(own.T[:-1], model.float64("directions"), strict=True):
            tastes += factor[:, None] * direction
        norms = np.sqrt((tastes**2).cumsum(axis=1)[:, -1:])
        largest = math.sqrt(2 * self.n_directions)
        tastes *= largest / np.maximum(norms, largest)
        return tastes


def n_directions(model: Model) -> int:
    """Give the number of directions of taste in which a model asks for residuals."""
    return int(model.arrays["directions"].shape[1]) if "directions" in model.arrays else 0


def _precision_factor(model: Model) -> Float64Array:
    """Give R, lower triangular, with R Rᵀ the prior's precision: v = Rᵀ x has covariance I."""
    try:
        factor = np.linalg.cholesky(model.float64("user_precision")).astype(np.float64, copy=False)
    except np.linalg.LinAlgError as error:
        raise ValueError("the users' prior has no positive definite precision") from error
    return factor


def _require(model: Model, statistic: str) -> None:
    if model.statistic != statistic:
        raise ValueError(f"the model is of {model.statistic}, not of {statistic}")


# --- solvers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemBiases:
    """Learns item biases from bias sums, shrunk towards what popularity and features of an item predict.

    Popularity is shrunk towards its mean as far as the noise says (James and Stein). The prediction is a regression of
    the biases on log popularity, its square and the features; where popularity does not stand out of the noise, it is
    one number for all items. What an item's own sum adds to it weighs as its rating and privacy noise allow.

    Attributes:
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
        n_chosen: Most popular items to choose for the Gram that comes next; with 0 residuals come next.
    """

    client_noise_nano: int
    n_chosen: int

    @property
    def name(self) -> str:
        return "item_biases/1"

    def parameters(self) -> dict[str, int]:
        return {
            "client_noise_nano": self.client_noise_nano,
            "n_chosen": self.n_chosen,
            "repeats_within_nano": round(REPEATS_WITHIN * _NANO),
        }

    def solve(self, model: Model, total: Total) -> Model:
        _require(model, "bias")
        deviation = _deviation(self.client_noise_nano, total.n_devices)
        features = model.float64("item_means")[:, :-1]
        popularity = shrunk_popularity(total.rows[:, 1] / _COUNT_WEIGHT, deviation / _COUNT_WEIGHT)
        biases, variances = item_biases(2 * total.rows[:, 0], popularity, features, total.n_devices, 2 * deviation)
        arrays = dict(model.arrays) | {
            "item_means": np.concatenate([features, biases[:, None]], axis=1).astype(np.float32),
            "bias_variance": variances,
            "popularity": popularity,
        }
        if self.n_chosen:
            best_first = np.lexsort((np.arange(len(popularity)), -popularity))
            arrays["gram_items"] = np.sort(best_first[: self.n_chosen]).astype(np.float64)
            arrays["gram_weights"] = np.array(EXPOSURE)
        return _next(model, "gram" if self.n_chosen else "residuals", arrays)


def shrunk_popularity(counts: Float64Array, deviation: float) -> Float64Array:
    """Shrink noisy counts towards their mean so far as their spread is noise; none falls below 2 % of the mean.

    Args:
        counts: Weighted number of people who rated each item, shape (n_items,).
        deviation: Standard deviation of the noise in each, >= 0.
    """
    mean = max(float(counts.mean()), 1e-9) if len(counts) else 1.0
    spread = float(counts.var()) if len(counts) else 0.0
    kept = max(0.0, 1 - deviation**2 / spread) if spread > 0 else 0.0
    return np.maximum(mean + kept * (counts - mean), _LEAST_SHARE * mean)


def item_biases(
    sums: Float64Array, popularity: Float64Array, features: Float64Array, n_devices: int, deviation: float
) -> tuple[Float64Array, Float64Array]:
    """Give each item's bias in standard units, and how uncertain it is as a variance, shapes (n_items,).

    Args:
        sums: Weighted sum of residuals of each item, with noise, shape (n_items,).
        popularity: Weighted number of its ratings, > 0, shape (n_items,).
        features: Public features, shape (n_items, n_features).
        n_devices: People in the sums.
        deviation: Standard deviation of the noise in each sum, >= 0.
    """
    n = len(sums)
    logs = np.log(popularity)
    logs -= logs.mean() if n else 0.0
    columns = np.ones((n, 1))
    if popularity.std() > deviation / (2 * _COUNT_WEIGHT) if n else False:
        columns = np.concatenate([columns, logs[:, None], logs[:, None] ** 2, features], axis=1)
    weight = _rating_weight(popularity, n_devices)
    variance = popularity**2 * _ITEM_VARIANCE + popularity * weight * _RESIDUAL_VARIANCE + deviation**2
    scaled = columns * popularity[:, None]
    normal = (scaled / variance[:, None]).T @ scaled + _REGRESSION_RIDGE * np.eye(columns.shape[1])
    predicted = columns @ np.linalg.solve(normal, scaled.T @ (sums / variance))
    predicted = np.clip(predicted, -_LARGEST_PRIOR_BIAS, _LARGEST_PRIOR_BIAS)
    gain = _ITEM_VARIANCE * popularity / variance
    biases = np.clip(predicted + gain * (sums - popularity * predicted), -_LARGEST_BIAS, _LARGEST_BIAS)
    return biases, _ITEM_VARIANCE * (1 - gain * popularity)


def _rating_weight(popularity: Float64Array, n_devices: int) -> float:
    """Give what one rating weighs in the bias sums.

    A person's squared weights add up to 1 / 0.32 or so, so the weights of n ratings are 1 / sqrt(0.32 n) and add up to
    sqrt(n / 0.32): n_devices / (0.32 · sum of popularity). Those who rate much rate most items, and weigh less.
    """
    return 2 * n_devices / float(popularity.sum()) if len(popularity) else 0.0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Appends to every item its place in what people rate together: the Gram's eigenvectors that stand out of noise.

    An eigenvector counts by the square root of its eigenvalue; together they have mean square 1 an item of the Gram.
    Items outside the Gram are at zero.

    Attributes:
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
        moments_rounds: Rounds of moments that come next; with 0 residuals come next.
        n_directions: Directions of taste in which residuals will be asked for.
    """

    client_noise_nano: int
    moments_rounds: int
    n_directions: int

    @property
    def name(self) -> str:
        return "embeddings/1"

    def parameters(self) -> dict[str, int]:
        return {
            "client_noise_nano": self.client_noise_nano,
            "moments_rounds": self.moments_rounds,
            "n_directions": self.n_directions,
            "repeats_within_nano": round(REPEATS_WITHIN * _NANO),
        }

    def solve(self, model: Model, total: Total) -> Model:
        _require(model, "gram")
        deviation = _deviation(self.client_noise_nano, total.n_devices)
        chosen = model.arrays["gram_items"].astype(np.int64)
        spectrum = shrunk(unpacked(total.rows[:, 0]), deviation / math.sqrt(2), N_EMBEDDINGS)
        places = spectrum.vectors * np.sqrt(spectrum.values)
        scale = math.sqrt(len(chosen) / spectrum.values.sum()) if len(spectrum.values) else 0.0
        embeddings = np.zeros((model.n_items, N_EMBEDDINGS))
        embeddings[chosen, : places.shape[1]] = places * scale

        means, precision = model.float64("item_means"), model.float64("user_precision")
        k = len(precision) - 1
        grown = np.zeros((k + N_EMBEDDINGS + 1,) * 2)
        kept = np.r_[:k, k + N_EMBEDDINGS]
        grown[np.ix_(kept, kept)] = precision
        added = np.arange(k, k + N_EMBEDDINGS)
        grown[added, added] = 1 / _EMBEDDING_VARIANCE
        arrays: dict[str, Array] = {
            "item_means": np.concatenate([means[:, :-1], embeddings, means[:, -1:]], axis=1).astype(np.float32),
            "user_mean": np.zeros(len(grown)),
            "user_precision": grown,
            **{name: model.arrays[name] for name in ("noise_precision", "bias_variance", "popularity")},
        }
        return after_moments(model, arrays, self.moments_rounds, self.n_directions)


def after_moments(model: Model, arrays: dict[str, Array], rounds_left: int, n_directions: int) -> Model:
    """Give the model that asks for moments so many times more, and then for residuals in the strongest directions."""
    if rounds_left:
        return _next(model, "moments", arrays | {"moments_left": np.array([float(rounds_left)])})
    arrays.pop("moments_left", None)
    return _next(model, "residuals", arrays | {"directions": directions(arrays, n_directions)})


def directions(arrays: Mapping[str, Array], n_directions: int) -> Float64Array:
    """Give the D directions of taste that predictions of popular items differ by most, shape (n_factors, D).

    Under the prior a person's numbers p·directions are independent and of variance 1.
    """
    precision = arrays["user_precision"].astype(np.float64)
    covariance = np.linalg.inv(precision)[:-1, :-1]
    factor = np.linalg.cholesky(covariance)
    popularity = arrays["popularity"].astype(np.float64)
    predicted = arrays["item_means"].astype(np.float64)[:, :-1] @ factor
    _, vectors = np.linalg.eigh((predicted * popularity[:, None]).T @ predicted)
    strongest = signed(vectors[:, ::-1][:, :n_directions])
    return np.linalg.solve(factor.T, strongest).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """Learns the covariance of people's sides from their moments: a step of expectation maximisation, taken twice.

    With D the sum over N people, the covariance in the coordinates of the moments becomes (I + D / N)²: a step
    over-relaxed, for few rounds are to be had under noise. Eigenvalues of I + D / N are kept within 0.05 and 4, so that
    noise cannot carry the prior away.

    Attributes:
        n_directions: Directions of taste in which residuals will be asked for.
    """

    n_directions: int

    @property
    def name(self) -> str:
        return "learned_prior/1"

    def parameters(self) -> dict[str, int]:
        return {"n_directions": self.n_directions, "repeats_within_nano": round(REPEATS_WITHIN * _NANO)}

    def solve(self, model: Model, total: Total) -> Model:
        _require(model, "moments")
        factor = _precision_factor(model)
        moved = np.eye(len(factor)) + unpacked(total.rows[:, 0]) / max(1, total.n_devices)
        values, vectors = np.linalg.eigh(moved)
        values = np.clip(values, *_EIGENVALUES)
        turned = factor @ vectors
        precision = (turned * values**-_RELAXATION) @ turned.T
        arrays = dict(model.arrays) | {"user_precision": (precision + precision.T) / 2}
        return after_moments(model, arrays, round(float(model.arrays["moments_left"][0])) - 1, self.n_directions)


@dataclass(frozen=True, slots=True)
class ItemResiduals:
    """Corrects items by residuals, each as far as its ratings and the noise allow: the bias, and the features.

    Residuals know what the bias sums could not: which people rated an item, and what they like anyway. That they go
    with a taste says that the item suits it better than its features and embedding tell.

    Attributes:
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
    """

    client_noise_nano: int

    @property
    def name(self) -> str:
        return "item_residuals/1"

    def parameters(self) -> dict[str, int]:
        return {
            "client_noise_nano": self.client_noise_nano,
            "repeats_within_nano": round(REPEATS_WITHIN * _NANO),
        }

    def solve(self, model: Model, total: Total) -> Model:
        _require(model, "residuals")
        deviation = _deviation(self.client_noise_nano, total.n_devices)
        popularity = model.float64("popularity")
        # every direction takes its part of a person's norm
        scale = _RESIDUAL_SCALE / math.sqrt(1 + n_directions(model) * _TASTE_WEIGHT**2 / 2)
        weights = scale * popularity
        spread = weights * (scale * _rating_weight(popularity, total.n_devices) * _FITTED_VARIANCE)
        prior = model.float64("bias_variance")
        means = model.float64("item_means").copy()
        means[:, -1] += _gain(weights, prior, spread + deviation**2) * total.rows[:, 0]
        means[:, -1] = np.clip(means[:, -1], -_LARGEST_BIAS, _LARGEST_BIAS)
        if n_directions(model):
            slopes = _TASTE_WEIGHT * _TASTE_SQUARE * weights
            spread = _TASTE_WEIGHT**2 * _TASTE_SQUARE * spread
            gains = _gain(slopes, _CORRECTION_VARIANCE, spread + deviation**2)
            means[:, :-1] += gains[:, None] * total.rows[:, 1:] @ model.float64("directions").T
        kept = {name: model.arrays[name] for name in ("user_mean", "user_precision", "noise_precision")}
        return _next(model, "residuals", kept | {"item_means": means.astype(np.float32)})


def _gain(weights: Float64Array, prior: Float64Array | float, variance: Float64Array) -> Float64Array:
    """Give what to multiply a noisy sum of `weights` times a number by to have the number, of variance `prior`."""
    gain: Float64Array = weights * prior / (weights**2 * prior + variance)
    return gain


def _deviation(client_noise_nano: int, n_devices: int) -> float:
    """Give the standard deviation of the noise in each coordinate of a sum over devices."""
    return client_noise_nano / _NANO * math.sqrt(n_devices)


def _next(model: Model, statistic: str, arrays: Mapping[str, Array]) -> Model:
    try:
        return Model.of(model.version + 1, statistic, model.low, model.high, arrays)
    except ValueError as error:
        raise FederationError(f"no model follows from the round's sum: {error}") from error

"""From noisy sums to a model: shrunk popularity and biases, embeddings, the learned prior, residual corrections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from liberate.arrays import Float64Array
from liberate.model.item_solvers import most_popular
from liberate.model.model import Array, Model
from liberate.model.private.evaluation import EVALUATION
from liberate.model.private.statistics import (
    COUNT_WEIGHT,
    EXPOSURE,
    N_EMBEDDINGS,
    TASTE_WEIGHT,
    n_directions,
    precision_factor,
)
from liberate.model.solvers import AggregatedStatistics, IntegerSolver
from liberate.model.spectral import shrunk, signed, unpacked
from liberate.model.statistics import require
from liberate.units import from_nano

REPEATS_WITHIN = 1e-4
"""Largest difference of an array of the model when the same sum is solved elsewhere."""


_EMBEDDING_VARIANCE = 0.08  # likewise in an embedding

_RESIDUAL_VARIANCE = 0.9  # of a rating about its person's mean and item's bias
_ITEM_VARIANCE = 0.2  # of an item bias about what popularity and features predict

_RESIDUAL_SCALE = 0.65  # what a rating weighs among residuals, against the bias sums

_TASTE_SQUARE = 0.6  # mean square of a fitted taste, of which the true one has 1
_CORRECTION_VARIANCE = 0.02  # of what items lack in a direction of taste
_FITTED_VARIANCE = 0.75  # of a residual
_REGRESSION_RIDGE = 10.0
_LARGEST_PRIOR_BIAS = 1.5
_LARGEST_BIAS = 2.5
_LEAST_SHARE = 0.02  # least popularity, against the mean
_RELAXATION = 2.0  # steps that one round of moments counts as
_EIGENVALUES = (0.05, 4.0)


@dataclass(frozen=True, slots=True)
class ItemBiases(IntegerSolver):
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

    name: ClassVar[str] = "item_biases/1"
    repeats_within: ClassVar[float] = REPEATS_WITHIN

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "bias")
        deviation = _deviation(self.client_noise_nano, total.n_devices)
        features = model.float64("item_means")[:, :-1]
        popularity = shrunk_popularity(total.rows[:, 1] / COUNT_WEIGHT, deviation / COUNT_WEIGHT)
        biases, variances = item_biases(2 * total.rows[:, 0], popularity, features, total.n_devices, 2 * deviation)
        arrays = dict(model.arrays) | {
            "item_means": np.concatenate([features, biases[:, None]], axis=1).astype(np.float32),
            "bias_variance": variances,
            "popularity": popularity,
        }
        if self.n_chosen:
            arrays |= {"gram_items": most_popular(popularity, self.n_chosen), "gram_weights": np.array(EXPOSURE)}
        return model.next_version("gram" if self.n_chosen else "residuals", arrays)


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
    """Return each item's bias in standard units, and how uncertain it is as a variance, shapes (n_items,).

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

    # One number for all items where popularity does not stand out of the noise.
    columns = np.ones((n, 1))
    if popularity.std() > deviation / (2 * COUNT_WEIGHT) if n else False:
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
    """Return what one rating weighs in the bias sums.

    A person's squared weights add up to 1 / 0.32 or so, so the weights of n ratings are 1 / sqrt(0.32 n) and add up to
    sqrt(n / 0.32): n_devices / (0.32 · sum of popularity). Those who rate much rate most items, and weigh less.
    """
    return 2 * n_devices / float(popularity.sum()) if len(popularity) else 0.0


@dataclass(frozen=True, slots=True)
class Embeddings(IntegerSolver):
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

    name: ClassVar[str] = "embeddings/1"
    repeats_within: ClassVar[float] = REPEATS_WITHIN

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "gram")
        deviation = _deviation(self.client_noise_nano, total.n_devices)
        chosen = model.arrays["gram_items"].astype(np.int64)
        spectrum = shrunk(unpacked(total.rows[:, 0]), deviation / math.sqrt(2), N_EMBEDDINGS)
        places = spectrum.vectors * np.sqrt(spectrum.values)
        scale = math.sqrt(len(chosen) / spectrum.values.sum()) if len(spectrum.values) else 0.0
        embeddings = np.zeros((model.n_items, N_EMBEDDINGS))
        embeddings[chosen, : places.shape[1]] = places * scale

        # Embeddings come between the known factors and the bias; nothing ties them to other numbers before the moments.
        means, precision = model.float64("item_means"), model.float64("user_precision")
        k = len(precision) - 1
        grown = np.diag(np.full(k + N_EMBEDDINGS + 1, 1 / _EMBEDDING_VARIANCE))
        kept = np.r_[:k, k + N_EMBEDDINGS]
        grown[np.ix_(kept, kept)] = precision
        arrays: dict[str, Array] = {
            "item_means": np.concatenate([means[:, :-1], embeddings, means[:, -1:]], axis=1).astype(np.float32),
            "user_mean": np.zeros(len(grown)),
            "user_precision": grown,
            **{name: model.arrays[name] for name in ("noise_precision", "bias_variance", "popularity")},
        }
        return after_moments(model, arrays, self.moments_rounds, self.n_directions)


def after_moments(model: Model, arrays: dict[str, Array], rounds_left: int, n_directions: int) -> Model:
    """Return the model that asks for moments so many times more, and then for residuals in the strongest directions."""
    if rounds_left:
        return model.next_version("moments", arrays | {"moments_left": np.array([float(rounds_left)])})
    arrays.pop("moments_left", None)
    return model.next_version("residuals", arrays | {"directions": directions(arrays, n_directions)})


def directions(arrays: Mapping[str, Array], n_directions: int) -> Float64Array:
    """Return the D directions of taste that predictions of popular items differ by most, shape (n_factors, D).

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
class LearnedPrior(IntegerSolver):
    """Learns the covariance of people's sides from their moments: a step of expectation maximisation, taken twice.

    With D the sum over N people, the covariance in the coordinates of the moments becomes (I + D / N)²: a step
    over-relaxed, for few rounds are to be had under noise. Eigenvalues of I + D / N are kept within 0.05 and 4, so that
    noise cannot carry the prior away.

    Attributes:
        n_directions: Directions of taste in which residuals will be asked for.
    """

    n_directions: int

    name: ClassVar[str] = "learned_prior/1"
    repeats_within: ClassVar[float] = REPEATS_WITHIN

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "moments")
        factor = precision_factor(model)
        moved = np.eye(len(factor)) + unpacked(total.rows[:, 0]) / max(1, total.n_devices)
        values, vectors = np.linalg.eigh(moved)

        turned = factor @ vectors
        precision = (turned * np.clip(values, *_EIGENVALUES) ** -_RELAXATION) @ turned.T
        arrays = dict(model.arrays) | {"user_precision": (precision + precision.T) / 2}
        return after_moments(model, arrays, round(float(model.arrays["moments_left"][0])) - 1, self.n_directions)


@dataclass(frozen=True, slots=True)
class ItemResiduals(IntegerSolver):
    """Corrects items by residuals, each as far as its ratings and the noise allow: the bias, and the features.

    Residuals know what the bias sums could not: which people rated an item, and what they like anyway. That they go
    with a taste says that the item suits it better than its features and embedding tell.

    Attributes:
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
        evaluated: 1 where people's own errors are asked for next, else 0.
    """

    client_noise_nano: int
    evaluated: int = 0

    name: ClassVar[str] = "item_residuals/1"
    repeats_within: ClassVar[float] = REPEATS_WITHIN

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "residuals")
        deviation = _deviation(self.client_noise_nano, total.n_devices)
        popularity = model.float64("popularity")

        # Every direction takes its part of a person's norm.
        scale = _RESIDUAL_SCALE / math.sqrt(1 + n_directions(model) * TASTE_WEIGHT**2 / 2)
        weights = scale * popularity
        spread = weights * (scale * _rating_weight(popularity, total.n_devices) * _FITTED_VARIANCE)

        means = model.float64("item_means").copy()
        means[:, -1] += _gain(weights, model.float64("bias_variance"), spread + deviation**2) * total.rows[:, 0]
        means[:, -1] = np.clip(means[:, -1], -_LARGEST_BIAS, _LARGEST_BIAS)
        if n_directions(model):
            slopes = TASTE_WEIGHT * _TASTE_SQUARE * weights
            spread = TASTE_WEIGHT**2 * _TASTE_SQUARE * spread
            gains = _gain(slopes, _CORRECTION_VARIANCE, spread + deviation**2)
            means[:, :-1] += gains[:, None] * total.rows[:, 1:] @ model.float64("directions").T

        kept = {name: model.arrays[name] for name in ("user_mean", "user_precision", "noise_precision")}
        statistic = EVALUATION if self.evaluated else "residuals"
        return model.next_version(statistic, kept | {"item_means": means.astype(np.float32)})


def _gain(weights: Float64Array, prior: Float64Array | float, variance: Float64Array) -> Float64Array:
    """Return what to multiply a noisy sum of `weights` times a number by to have the number, of variance `prior`."""
    return np.asarray(weights * prior / (weights**2 * prior + variance))


def _deviation(client_noise_nano: int, n_devices: int) -> float:
    """Return the standard deviation of the noise in each coordinate of a sum over devices."""
    return from_nano(client_noise_nano) * math.sqrt(n_devices)

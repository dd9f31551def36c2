"""Solvers of item models: which items are popular, and what each item says for the others.

The inverse of a large matrix needs LAPACK, whose order of operations is not fixed: whoever has the same exact sum
repeats the model within `REPEATS_WITHIN`, not to the bit. The model entry names that tolerance beside the solver.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from liberate.arrays import Float32Array, Float64Array
from liberate.errors import FederationError
from liberate.model.model import Array, Model
from liberate.model.solvers import AggregatedStatistics, IntegerSolver
from liberate.model.spectral import shrunk, unpacked
from liberate.units import from_nano, to_nano

_RIDGE = 5.0
_NOISY_RIDGE = 25.0
_RIDGE_POWER = 0.5
_LEAST_SHARE = 0.02

REPEATS_WITHIN = 1e-4
"""Largest difference of an item weight (most are below 1) when the same sum is solved elsewhere."""


@dataclass(frozen=True, slots=True)
class MostPopular(IntegerSolver):
    """Takes the sum of popularities as it is and chooses the most popular items for the Gram that comes next.

    Attributes:
        n_chosen: How many to choose, >= 0; with 0 no Gram follows, and the model ranks by popularity.
    """

    n_chosen: int

    name: ClassVar[str] = "popular/1"

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        popularity = total.rows[:, 0].copy()
        arrays: dict[str, Array] = {"popularity": popularity} | _kept(model, "gram_weights", "item_features")
        if self.n_chosen:
            arrays["gram_items"] = most_popular(popularity, self.n_chosen)
        return model.next_version("gram" if self.n_chosen else model.statistic, arrays)


def most_popular(popularity: Float64Array, n: int) -> Float64Array:
    """Return the n most popular items, increasing, as an array of a model; of equal ones those of lower index."""
    best_first = np.lexsort((np.arange(len(popularity)), -popularity))
    return np.sort(best_first[:n]).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Ease:
    """Learns what each chosen item says for the others: the ridge regression of every item on all others, at once.

    With G the sum of the people's x xᵀ / |x|² and P = (G + ridge)⁻¹, B = I - P / diag(P): each column is divided by its
    diagonal entry, so that no item speaks for itself. The ridge of item i is `ridge · sqrt(G_ii / mean G_jj)`; ridge is
    in people, for every person's part has norm 1: 5 without noise and 25 with it.

    A sum with noise is cleaned first: see `cleaned`. It needs the popularity that an earlier release found.

    Source: Steck 2019, "Embarrassingly shallow autoencoders for sparse data", eq. 8.

    Attributes:
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
    """

    client_noise_nano: int = 0

    @property
    def ridge(self) -> float:
        return _NOISY_RIDGE if self.client_noise_nano else _RIDGE

    name: ClassVar[str] = "ease/1"

    def parameters(self) -> dict[str, int]:
        return {
            "ridge_nano": to_nano(self.ridge),
            "client_noise_nano": self.client_noise_nano,
            "repeats_within_nano": to_nano(REPEATS_WITHIN),
        }

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        gram = unpacked(total.rows[:, 0])
        chosen = model.arrays["gram_items"].astype(np.int64)
        popularity = model.float64("popularity")
        if self.client_noise_nano:
            deviation = from_nano(self.client_noise_nano) * math.sqrt(total.n_devices)
            features = model.arrays.get("item_features")
            known = None if features is None else features[chosen].astype(np.float32, copy=False)
            gram = cleaned(gram, deviation, popularity[chosen], known)
        else:
            popularity = np.zeros(model.n_items)
            popularity[chosen] = np.diag(gram)
        arrays = _kept(model, "gram_weights", "gram_items", "item_features")
        arrays |= {"popularity": popularity, "item_weights": item_weights(gram, self.ridge).astype(np.float32)}
        return model.next_version(model.statistic, arrays)


def cleaned(
    gram: Float64Array, deviation: float, popularity: Float64Array, features: Float32Array | None = None
) -> Float64Array:
    """Take the noise out of a Gram matrix as far as it can be told from the signal.

    Where the signal is likely to lie is known before: what people rate together goes by how popular items are, and by
    their genres. The matrix is taken apart along the subspace of sqrt(popularity) times (1, features), which is small,
    so that little noise falls into it: what lies inside, what lies across and what lies outside. Of each part only what
    exceeds its noise stays.

    Args:
        gram: Sum of x xᵀ / |x|² with noise, shape (M, M).
        deviation: Standard deviation of the noise on the diagonal; off the diagonal it is that by sqrt 2.
        popularity: Sum of x / |x| over the same items with noise of its own, shape (M,).
        features: What is publicly known of the same items, shape (M, p); None for nothing.

    Returns:
        A positive semidefinite matrix. Its diagonal, which holds more noise than signal, is the popularity, scaled to
        the trace of the sum.
    """
    s = deviation / math.sqrt(2)
    seen = np.maximum(popularity, _LEAST_SHARE * max(float(popularity.max(initial=0)), 1.0))
    basis = _likely(seen, features)

    inside = basis.T @ gram @ basis
    across = gram @ basis - basis @ inside
    outside = gram - basis @ (across + basis @ inside).T - across @ basis.T

    crossing = shrunk_table(across, s) @ basis.T
    kept = basis @ shrunk(inside, s).matrix() @ basis.T + crossing + crossing.T + shrunk(outside, s).matrix()

    result = shrunk(kept, 0.0).matrix()
    diagonal = seen * (max(float(np.trace(gram)), 1.0) / seen.sum())
    np.fill_diagonal(result, np.maximum(diagonal, np.diag(result)))
    return result


def _likely(popularity: Float64Array, features: Float32Array | None) -> Float64Array:
    """Return an orthonormal basis of where the signal is likely to lie, shape (M, at most 1 + p)."""
    n = len(popularity)
    known = np.ones((n, 1)) if features is None else np.concatenate([np.ones((n, 1)), features], axis=1)
    vectors, lengths, _ = np.linalg.svd(np.sqrt(popularity)[:, None] * known, full_matrices=False)
    return np.asarray(vectors[:, lengths > 1e-6 * lengths.max(initial=0)])


def shrunk_table(table: Float64Array, deviation: float) -> Float64Array:
    """Keep what stands out of the noise in a table, shrunk as `spectral.shrunk` does with a symmetric matrix.

    Args:
        table: With independent noise of the same deviation in each entry, shape (m, n).
        deviation: s, >= 0. Noise alone has singular values up to s (sqrt m + sqrt n).

    Source: Gavish and Donoho 2017, "Optimal shrinkage of singular values", eq. 7.
    """
    left, values, right = np.linalg.svd(table, full_matrices=False)
    m, n = table.shape
    kept = values > deviation * (math.sqrt(m) + math.sqrt(n))
    y = values[kept]
    inner = (y**2 - deviation**2 * (m + n)) ** 2 - 4 * deviation**4 * m * n
    return np.asarray((left[:, kept] * (np.sqrt(inner) / y)) @ right[kept])


def item_weights(gram: Float64Array, ridge: float) -> Float64Array:
    """Return B, what each item says for each other, shape (M, M), its diagonal zero.

    Raises:
        FederationError: No people's ratings lead to such a matrix.
    """
    diagonal = np.diag(gram)
    mean = float(diagonal.mean()) if len(diagonal) else 0.0
    ridged = gram.copy()
    floor = np.maximum(diagonal / mean if mean > 0 else 1.0, _LEAST_SHARE)
    ridged[np.diag_indices_from(ridged)] += ridge * floor**_RIDGE_POWER
    try:
        np.linalg.cholesky(ridged)
        precision = np.linalg.inv(ridged)
    except np.linalg.LinAlgError as error:
        raise FederationError(f"no model follows from the round's sum: {error}") from error
    weights: Float64Array = precision / -np.diag(precision)
    np.fill_diagonal(weights, 0)
    return weights


def _kept(model: Model, *names: str) -> dict[str, Array]:
    """Return those of the arrays that a model has."""
    return {name: model.arrays[name] for name in names if name in model.arrays}

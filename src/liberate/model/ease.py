"""Solvers of item models: which items are popular, and what each item says for the others.

The inverse of a large matrix needs LAPACK, whose order of operations is not fixed: whoever has the same exact sum
repeats the model within `REPEATS_WITHIN`, not to the bit. The model entry names that tolerance beside the solver.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from liberate.arrays import Float64Array
from liberate.errors import FederationError
from liberate.model.factors import Array, Model
from liberate.model.solvers import Total
from liberate.model.spectral import shrunk, unpacked

_NANO = 10**9
_RIDGE = 5.0
_RIDGE_POWER = 0.5
_LEAST_SHARE = 0.02

REPEATS_WITHIN = 1e-4
"""Largest difference of an item weight (most are below 1) when the same sum is solved elsewhere."""


@dataclass(frozen=True, slots=True)
class MostPopular:
    """Takes the sum of popularities as it is and chooses the most popular items for the Gram that comes next.

    Attributes:
        n_chosen: How many to choose, >= 0; with 0 no Gram follows, and the model ranks by popularity.
    """

    n_chosen: int

    @property
    def name(self) -> str:
        return "popular/1"

    def parameters(self) -> dict[str, int]:
        return {"n_chosen": self.n_chosen}

    def solve(self, model: Model, total: Total) -> Model:
        popularity = total.rows[:, 0].copy()
        best_first = np.lexsort((np.arange(len(popularity)), -popularity))
        chosen = np.sort(best_first[: self.n_chosen]).astype(np.float64)
        arrays: dict[str, Array] = {"popularity": popularity, "gram_weights": model.float64("gram_weights")}
        if self.n_chosen:
            arrays["gram_items"] = chosen
        return _next(model, "gram" if self.n_chosen else model.statistic, arrays)


@dataclass(frozen=True, slots=True)
class Ease:
    """Learns what each chosen item says for the others: the ridge regression of every item on all others, at once.

    With G the sum of the people's x xᵀ / |x|² and P = (G + ridge)⁻¹, B = I - P / diag(P): each column is divided by its
    diagonal entry, so that no item speaks for itself. The ridge of item i is `ridge · sqrt(G_ii / mean G_jj)`, in
    people, for every person's part has norm 1.

    A sum with noise is cleaned first: only what stands out of the noise stays, and the diagonal, which holds as many
    coordinates as items, comes from the popularity that an earlier release found.

    Source: Steck 2019, "Embarrassingly shallow autoencoders for sparse data", eq. 8.

    Attributes:
        ridge_nano: Ridge of an item of mean popularity, in billionths of a person, > 0.
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
    """

    ridge_nano: int = round(_RIDGE * _NANO)
    client_noise_nano: int = 0

    @property
    def name(self) -> str:
        return "ease/1"

    def parameters(self) -> dict[str, int]:
        return {
            "ridge_nano": self.ridge_nano,
            "client_noise_nano": self.client_noise_nano,
            "repeats_within_nano": round(REPEATS_WITHIN * _NANO),
        }

    def solve(self, model: Model, total: Total) -> Model:
        gram = unpacked(total.rows[:, 0])
        chosen = model.arrays["gram_items"].astype(np.int64)
        popularity = model.float64("popularity")
        if self.client_noise_nano:
            deviation = self.client_noise_nano / _NANO * math.sqrt(total.n_devices)
            gram = cleaned(gram, deviation, popularity[chosen])
        else:
            popularity = np.zeros(model.n_items)
            popularity[chosen] = np.diag(gram)
        return _next(
            model,
            model.statistic,
            {
                "popularity": popularity,
                "gram_weights": model.float64("gram_weights"),
                "gram_items": model.float64("gram_items"),
                "item_weights": item_weights(gram, self.ridge_nano / _NANO).astype(np.float32),
            },
        )


def cleaned(gram: Float64Array, deviation: float, popularity: Float64Array) -> Float64Array:
    """Take the noise out of a Gram matrix as far as it can be told from the signal.

    Args:
        gram: Sum of x xᵀ / |x|² with noise, shape (M, M).
        deviation: Standard deviation of the noise on the diagonal; off the diagonal it is that by sqrt 2.
        popularity: Sum of x / |x| over the same items with noise of its own, shape (M,).
    """
    result = shrunk(gram, deviation / math.sqrt(2)).matrix()
    seen = np.maximum(popularity, _LEAST_SHARE * popularity.max())
    diagonal = seen * (max(float(np.trace(gram)), 1.0) / seen.sum())
    np.fill_diagonal(result, np.maximum(diagonal, np.diag(result)))
    return result


def item_weights(gram: Float64Array, ridge: float) -> Float64Array:
    """Give B, what each item says for each other, shape (M, M), its diagonal zero.

    Raises:
        FederationError: No people's ratings give such a matrix.
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


def _next(model: Model, statistic: str, arrays: Mapping[str, Array]) -> Model:
    try:
        return Model.of(model.version + 1, statistic, model.low, model.high, arrays)
    except ValueError as error:
        raise FederationError(f"no model follows from the round's sum: {error}") from error

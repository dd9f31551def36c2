"""What people rated, and what they rated together: statistics of norm one, whatever and however much was rated.

Both read x, a weight for each item a person rated and 0 for the others, from the model's `gram_weights`: what a rating
weighs at the lowest rating, at one, two and three quarters of the scale and at the highest, linear in between, >= 0,
shape (5,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from liberate.arrays import Int32Array, RealStatistics
from liberate.data.ratings import Ratings
from liberate.model.kernels import device
from liberate.model.model import Model, level_weights, packed_size
from liberate.model.statistics import require

MOST_GRAM_ITEMS = 65_535
"""So that the index of a pair fits in 31 bits."""


@dataclass(frozen=True, slots=True)
class Gram:
    """A person's x xᵀ / |x|² over the items that the model has chosen (`gram_items`, increasing, shape (M,)).

    The matrix travels as `spectral.packed` says: the pair of the i-th and the j-th chosen item, i >= j, has row
    i(i + 1)/2 + j, and the L2 norm of what is sent is the Frobenius norm. Only pairs of rated items have a row.

    Whatever a person rated, the norm is 1 (0 without a chosen item): the sensitivity under zero-out.

    Attributes:
        n_chosen: M, 0 <= M <= `MOST_GRAM_ITEMS`.
    """

    n_chosen: int

    name: ClassVar[str] = "gram"

    @property
    def shape(self) -> tuple[int, int, int]:
        return packed_size(self.n_chosen), 1, 0

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        if model.statistic != self.name or len(model.arrays["gram_items"]) != self.n_chosen:
            raise ValueError(f"the model is not of a Gram over {self.n_chosen} items")

        places = selected_item_indices(model)
        rated = ratings.where(places[ratings.items] >= 0)
        weights = level_weights(model.float64("gram_weights"), rated.values, model.low, model.high)
        counts = np.diff(rated.indptr)
        indptr = np.zeros(len(rated.indptr), np.int64)
        np.cumsum(counts * (counts + 1) // 2, out=indptr[1:])
        indices = np.empty(indptr[-1], np.int32)
        rows = np.empty((indptr[-1], 1), np.float32)
        device.gram_rows(rated.indptr, places[rated.items], weights, indptr, indices, rows)
        return RealStatistics(indptr=indptr, indices=indices, rows=rows, tails=np.zeros((ratings.n_users, 0)))


@dataclass(frozen=True, slots=True)
class Popularity:
    """A person's x / |x|: how often each item was rated, with every person's part of norm 1 (0 without a rating).

    Attributes:
        n_items: Size of the catalogue, >= 0.
    """

    n_items: int

    name: ClassVar[str] = "popularity"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n_items, 1, 0

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        require(model, self.name)
        weights = level_weights(model.float64("gram_weights"), ratings.values, model.low, model.high)
        rows = np.empty((ratings.n_ratings, 1), np.float32)
        device.popularity_rows(ratings.indptr, weights, rows)
        tails = np.zeros((ratings.n_users, 0))
        return RealStatistics(indptr=ratings.indptr, indices=ratings.items, rows=rows, tails=tails)


def selected_item_indices(model: Model) -> Int32Array:
    """Return each item's place among the chosen ones, -1 for the others, shape (n_items,)."""
    chosen = model.arrays["gram_items"].astype(np.int64)
    places = np.full(model.n_items, -1, np.int32)
    places[chosen] = np.arange(len(chosen))
    return places

"""What to recommend: each user's best items."""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float32Array, Int32Array
from liberate.model import kernels
from liberate.model.factors import Model
from liberate.model.ratings import Ratings


def top_n(model: Model, profiles: Float32Array, exclude: Ratings, n: int) -> tuple[Int32Array, Float32Array]:
    """Give each user's n items of highest predicted rating among those not excluded, best first.

    Args:
        model: The public model.
        profiles: From `fit_devices`, shape (n_users, n_factors + 1).
        exclude: What not to recommend, usually the user's own ratings; one user per row of `profiles`.
        n: How many items, >= 1.

    Returns:
        Items, shape (n_users, n), -1 where fewer are left; and their scores in rating points, not clipped to the scale
        (-inf beside -1). Items of equal score come in the order of their index.
    """
    items, scores = rank(profiles, model.item_means, exclude, n)
    return items, scores * np.float32(model.unit) + np.float32(model.centre)


def rank(profiles: Float32Array, items: Float32Array, exclude: Ratings, n: int) -> tuple[Int32Array, Float32Array]:
    """Do the same for any profiles and items, both bias last; scores are b_u + b_i + p_u·q_i."""
    best = np.empty((len(profiles), n), np.int32)
    scores = np.empty((len(profiles), n), np.float32)
    kernels.rank(profiles, np.ascontiguousarray(items.T), exclude.indptr, exclude.items, best, scores)
    return best, scores

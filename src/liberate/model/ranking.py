"""What to recommend: each user's best items."""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float32Array, Int32Array
from liberate.data.ratings import Ratings
from liberate.model.item_model import rank_by_items
from liberate.model.kernels import ranking
from liberate.model.model import Model


def top_n(model: Model, profiles: Float32Array, exclude: Ratings, n: int) -> tuple[Int32Array, Float32Array]:
    """Return each user's n items of highest score among those not excluded, best first.

    Args:
        model: The public model.
        profiles: From `fit_devices`, shape (n_users, n_factors + 1).
        exclude: What the users have rated, which is not recommended again; one user per row of `profiles`.
        n: How many items, >= 1.

    Returns:
        Items, shape (n_users, n), -1 where fewer are left; and their scores (-inf beside -1): in rating points, not
        clipped to the scale, where the model predicts ratings. Items of equal score come in the order of their index.
    """
    if model.is_item_model:
        return rank_by_items(model, exclude, n)
    items, scores = rank(profiles, model.item_means, exclude, n)
    if not model.predicts_ratings:
        return items, scores
    return items, scores * np.float32(model.unit) + np.float32(model.centre)


def rank(profiles: Float32Array, items: Float32Array, exclude: Ratings, n: int) -> tuple[Int32Array, Float32Array]:
    """Do the same for any profiles and items, both bias last; scores are b_u + b_i + p_u·q_i."""
    best = np.empty((len(profiles), n), np.int32)
    scores = np.empty((len(profiles), n), np.float32)
    ranking.rank(profiles, np.ascontiguousarray(items.T), exclude.indptr, exclude.items, best, scores)
    return best, scores

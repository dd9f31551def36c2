"""Item models: an item is scored by what the person's other items say for it.

With x the weights of a person's ratings, B the model's item weights, F the items' public features and c what an item
scores by its popularity, the scores are x·B + x·F Fᵀ + c. x stays on the device, and is not noised: only the device
computes its list. An item that is not among the chosen ones scores by features and popularity alone, and so does every
item before B is learned.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from liberate.arrays import Float32Array, Int32Array
from liberate.data.ratings import Ratings
from liberate.model.cooccurrence import selected_item_indices
from liberate.model.kernels import ranking
from liberate.model.model import Array, Model, level_weights

LIKED = (0.3, 0.3, 0.3, 1.0, 1.0)
"""What a rating counts at each quarter of the scale where the aim is a good list: a low rating is a weak positive."""

LIKED_UNDER_NOISE = (0.5, 0.5, 0.5, 1.0, 1.0)
"""The same where noise is added: what was rated then says more than how."""

_FEATURE_WEIGHT = 0.8
_FEATURE_RIDGE = 10.0
_POPULARITY_SHARE = 0.001
"""What the most popular item scores by popularity; similar items score 0.1 to 1."""


def initial_items(
    n_items: int,
    low: float,
    high: float,
    *,
    statistic: Literal["popularity", "gram"],
    noisy: bool,
    features: Float32Array | None = None,
) -> Model:
    """Return the item model before the first round: it knows nothing of any item.

    Args:
        n_items: Size of the catalogue, >= 0.
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
        statistic: What the first round computes: how popular items are, or at once a Gram over the whole catalogue.
        noisy: Whether noise will be added to it.
        features: What is publicly known of items, shape (n_items, p); None for nothing.
    """
    weights = np.array(LIKED_UNDER_NOISE if noisy else LIKED)
    arrays: dict[str, Array] = {"popularity": np.zeros(n_items), "gram_weights": weights}
    if statistic == "gram":
        arrays["gram_items"] = np.arange(n_items, dtype=np.float64)
    if features is not None and features.size:
        arrays["item_features"] = preference_weights(features)
    return Model.of(0, statistic, low, high, arrays)


def preference_weights(features: Float32Array) -> Float32Array:
    """Return features F such that x·F Fᵀ is, up to a factor, the ridge regression of x on the features.

    Features that many items share, or that go together, then count no more than others.

    Args:
        features: What is publicly known of items, shape (n_items, p).
    """
    wide = features.astype(np.float64)
    covariance = wide.T @ wide + _FEATURE_RIDGE * np.eye(features.shape[1])
    whitener = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return (math.sqrt(_FEATURE_WEIGHT) * (wide @ whitener)).astype(np.float32)


def rank_by_items(model: Model, exclude: Ratings, n: int) -> tuple[Int32Array, Float32Array]:
    """Return each person's n items of highest score among those not rated, best first.

    Args:
        model: An item model.
        exclude: What the people have rated: it speaks for other items, and is itself not recommended.
        n: How many items, >= 1.

    Returns:
        Items, shape (n_users, n), -1 where fewer are left; and their scores (-inf beside -1). Items of equal score come
        in the order of their index.
    """
    popularity = np.maximum(model.arrays["popularity"], 0)
    highest = popularity.max(initial=0)
    scores_of_items = popularity * (_POPULARITY_SHARE / highest if highest > 0 else 0)

    item_weights = model.arrays.get("item_weights", np.zeros((0, 0))).astype(np.float32, copy=False)
    features = model.arrays.get("item_features", np.zeros((model.n_items, 0))).astype(np.float32, copy=False)
    for table in (item_weights, features):
        # As a model's arrays are: for each kind of array kernels are compiled once.
        table.setflags(write=False)

    is_learned = len(item_weights) > 0
    best = np.empty((exclude.n_users, n), np.int32)
    scores = np.empty((exclude.n_users, n), np.float32)
    ranking.rank_by_items(
        scores_of_items.astype(np.float32),
        item_weights,
        model.arrays["gram_items"].astype(np.int32) if is_learned else np.zeros(0, np.int32),
        selected_item_indices(model) if is_learned else np.full(model.n_items, -1, np.int32),
        features,
        exclude.indptr,
        exclude.items,
        level_weights(model.float64("gram_weights"), exclude.values, model.low, model.high),
        best,
        scores,
    )
    return best, scores

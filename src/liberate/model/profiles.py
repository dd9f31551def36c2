"""User profiles: what a device fits to its own ratings under a model, and what it predicts from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liberate.arrays import Float32Array, Float64Array, Int32Array
from liberate.data.ratings import Ratings
from liberate.model.kernels import device, linear_algebra, ranking
from liberate.model.model import Model


@dataclass(frozen=True, slots=True)
class Profiles:
    """What devices know about themselves, in standard units.

    Attributes:
        means: E[(p_u, b_u)], shape (n_devices, K).
        moments: Second moments of the same, packed, shape (n_devices, K * (K + 1) / 2).
        errors: Expected squared error over the device's ratings, shape (n_devices,).
    """

    means: Float32Array
    moments: Float32Array
    errors: Float64Array


def item_moments_of(model: Model) -> Float32Array:
    """Return E[w wᵀ] of each item, packed, shape (n_items, P): of points where the model says no more."""
    moments = model.arrays.get("item_moments")
    return linear_algebra.outer(model.item_means) if moments is None else moments.astype(np.float32, copy=False)


def fit_profiles(model: Model, ratings: Ratings, targets: Float32Array) -> Profiles:
    """Fit each device's own side with its uncertainty. `targets` are `model.targets(ratings)`.

    Raises:
        ValueError: The ratings are of another catalogue.
    """
    if ratings.n_items != model.n_items:
        raise ValueError(f"ratings of {ratings.n_items} items, but a model of {model.n_items}")

    item_means, item_moments = model.item_means, item_moments_of(model)
    precision = model.float64("user_precision")
    # As a model's arrays are: for each kind of array kernels are compiled once.
    item_moments.setflags(write=False)
    n, k = ratings.n_users, item_means.shape[1]
    profiles = Profiles(
        np.empty((n, k), np.float32), np.empty((n, item_moments.shape[1]), np.float32), np.empty(n, np.float64)
    )

    device.fit_profiles(
        ratings.indptr,
        ratings.items,
        targets,
        item_means,
        item_moments,
        np.float32(model.float64("noise_precision")[0]),
        precision.astype(np.float32),
        linear_algebra.multiply(precision, model.float64("user_mean")).astype(np.float32),
        profiles.means,
        profiles.moments,
        profiles.errors,
    )
    return profiles


def fit_devices(model: Model, ratings: Ratings) -> Float32Array:
    """Fit each device's own side (p_u, b_u), exactly, given the model and the device's own ratings.

    Returns:
        Profiles in standard units, bias last, shape (n_users, n_factors + 1). A user's row depends on nobody else's.
        An item model has nothing to fit: shape (n_users, 0).
    """
    if model.is_item_model:
        return np.zeros((ratings.n_users, 0), np.float32)
    return fit_profiles(model, ratings, model.targets(ratings)).means


def predict(model: Model, profiles: Float32Array, users: Int32Array, items: Int32Array) -> Float32Array:
    """Predict the rating of each (user, item) pair, clipped to the scale; `users` are rows of `profiles`.

    Raises:
        ValueError: The model orders items and predicts no ratings.
        IndexError: A user or an item is out of range.
    """
    if not model.predicts_ratings:
        raise ValueError("the model orders items and predicts no ratings")
    for index, size in ((users, len(profiles)), (items, model.n_items)):
        if len(index) and not 0 <= index.min() <= index.max() < size:
            raise IndexError(f"an index outside 0 <= index < {size}")
    scores = ranking.predict_pairs(profiles, model.item_means, users, items)
    scores = scores * np.float32(model.unit) + np.float32(model.centre)
    return np.clip(scores, np.float32(model.low), np.float32(model.high), out=scores)

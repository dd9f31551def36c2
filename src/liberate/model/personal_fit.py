"""A person's own fit, on their device, to their ratings and to copies of others' that they were given.

Nothing of it leaves the device. A copy tells something of its recipient as far as both have like taste: its ratings
count as the recipient's own do, times its weight, times the part of the recipient's ratings that the sender's profile
explains. Who has another taste explains nothing, and counts nothing.
"""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float32Array, Float64Array, Int32Array
from liberate.data.ratings import Ratings
from liberate.model.kernels.ranking import predict_pairs
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, item_moments_of


def fit_with_copies(model: Model, own: Ratings, copies: Ratings, weights: Float64Array) -> Float32Array:
    """Fit one person's side (p_u, b_u) to their own ratings and to copies, in standard units.

    Args:
        model: The public model.
        own: The person's ratings, of one user.
        copies: The copies' ratings, of a user for each copy.
        weights: What a rating of each copy counts at most, where one of the person's counts 1, shape (n_copies,).

    Returns:
        Shape (1, n_factors + 1); without copies that count it is `fit_devices` of the person's ratings.
    """
    profile = fit_devices(model, own)
    if model.is_item_model or not copies.n_ratings:
        return profile

    counted = weights * _likeness(model, own, fit_devices(model, copies))
    if not counted.any():
        return profile
    items = np.concatenate([own.items, copies.items])
    targets = np.concatenate([model.targets(own), model.targets(copies)]).astype(np.float64)
    each = np.concatenate([np.ones(own.n_ratings), counted[copies.users()]])
    return _weighted_profile(model, items, targets, each).astype(np.float32)[None]


def _likeness(model: Model, own: Ratings, senders: Float32Array) -> Float64Array:
    """Return the part of a person's ratings that each sender's profile explains beyond the mean one, from 0 to 1.

    Args:
        model: The public model.
        own: The person's ratings, of one user.
        senders: Profiles of the senders, shape (n_copies, n_factors + 1).

    Returns:
        Shape (n_copies,): 1 - squared error by the profile / squared error by the users' mean, at least 0.
    """
    profiles = np.vstack([model.float64("user_mean").astype(np.float32), senders])
    rows = np.repeat(np.arange(len(profiles), dtype=np.int32), own.n_ratings)
    predicted = predict_pairs(profiles, model.item_means, rows, np.tile(own.items, len(profiles)))

    errors = ((predicted.reshape(len(profiles), -1) - model.targets(own)) ** 2).sum(axis=1, dtype=np.float64)
    by_mean = errors[0]
    return np.maximum(0.0, 1 - errors[1:] / by_mean) if by_mean > 0 else np.zeros(len(senders))


def _weighted_profile(model: Model, items: Int32Array, targets: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the posterior mean of (p_u, b_u), each rating as if it had been given `weights` times.

    As `kernels.device.fit_profiles`, where every weight is 1.

    Args:
        model: The public model.
        items: Item of each rating, shape (n_ratings,).
        targets: What its score is fitted to, shape (n_ratings,).
        weights: What it counts, >= 0, shape (n_ratings,).
    """
    means = model.item_means[items].astype(np.float64)
    k = means.shape[1]
    packed = item_moments_of(model)[items].astype(np.float64)
    moments = np.zeros((len(items), k, k))
    lower = np.tril_indices(k)
    moments[:, lower[0], lower[1]] = moments[:, lower[1], lower[0]] = packed

    # z = (q_i, 1): the item's side with its bias replaced by one; its bias is taken from the target instead.
    squares, sides = moments.copy(), means.copy()
    squares[:, -1, :-1] = squares[:, :-1, -1] = means[:, :-1]
    squares[:, -1, -1] = 1
    sides[:, -1] = 1
    wanted = targets[:, None] * sides
    wanted[:, :-1] -= moments[:, -1, :-1]
    wanted[:, -1] -= means[:, -1]

    tau, prior = model.float64("noise_precision")[0], model.float64("user_precision")
    precision = prior + tau * np.einsum("r,rij->ij", weights, squares)
    return np.linalg.solve(precision, prior @ model.float64("user_mean") + tau * (weights @ wanted))

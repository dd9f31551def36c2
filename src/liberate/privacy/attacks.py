"""What an adversary makes of what leaves the devices, and whether a claimed epsilon survives a test of it.

Recovery attacks take uploads without noise apart. An audit plays a game with canaries, people made up for the purpose:
a coin decides each one's world, the mechanism runs once, the auditor guesses the coins from what it released, and
too many right guesses refute the claim. Both see arrays and numbers only, as whoever holds the uploads would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from liberate.arrays import BoolArray, Float32Array, Float64Array, Int64Array

Reals = Float32Array | Float64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientView:
    """One device's gradient without noise, and what everybody knows of the round it answers.

    Attributes:
        rows: e·(p_u, 1) of each rated item, shape (n_rated, K), standard units.
        item_means: (q_i, b_i) of the same items, shape (n_rated, K).
        user_mean: Mean of the users' prior, shape (K,).
        user_precision: Its precision matrix, shape (K, K).
        noise_precision: Precision of a rating's noise, > 0.
    """

    rows: Reals
    item_means: Reals
    user_mean: Float64Array
    user_precision: Float64Array
    noise_precision: float


def ratings_from_gradients(views: Sequence[GradientView]) -> Float64Array:
    """Recover one device's ratings from its gradients to one or more rounds, each without noise.

    The last number of a row is the error e_i = y_i - b_i - b_u - p_u·q_i. The device's side solves a ridge
    regression whose prior is public: (p_u, b_u) = mean + precision⁻¹ · tau · sum of e_i (q_i, 1). So the errors alone
    determine that side, and with it y_i. Several rounds give several estimates, whose mean is taken.

    Args:
        views: Gradients of the same device, rows in the same order, one or more.

    Returns:
        Ratings in standard units, shape (n_rated,).

    Source: Chai et al. 2021, "Secure Federated Matrix Factorization" (arXiv 1906.05108): gradients of two consecutive
    rounds give the ratings away where the device takes gradient steps. Here it fits its side exactly, and one does.
    """
    return np.asarray(np.mean([_from_gradient(view) for view in views], axis=0))


def _from_gradient(view: GradientView) -> Float64Array:
    errors = view.rows[:, -1].astype(np.float64)
    others = view.item_means.astype(np.float64)
    sides = others.copy()
    sides[:, -1] = 1.0
    side = view.user_mean + np.linalg.solve(view.user_precision, view.noise_precision * (errors @ sides))
    return np.asarray(errors + others[:, -1] + sides @ side)


def ratings_from_normal_equations(rows: Reals, tail: Reals) -> Float64Array:
    """Recover one device's ratings from its part in the items' normal equations without noise: they lie open.

    Args:
        rows: Ends with E[y - b_u] of each rated item, shape (n_rated, width).
        tail: Ends with E[b_u] and the squared error, shape (n_tail,).

    Returns:
        Ratings in standard units, shape (n_rated,).
    """
    return np.asarray(rows[:, -1].astype(np.float64) + float(tail[-2]))


def weights_from_gram(diagonal: Reals, largest: float) -> Float64Array:
    """Recover what each rating of one device weighs from its part of a Gram matrix, x xᵀ / |x|², without noise.

    Args:
        diagonal: x_i² / |x|² of each rated item, shape (n_rated,): the items that have an entry are the rated ones.
        largest: Weight of the highest rating, which most people have given.

    Returns:
        x, shape (n_rated,).
    """
    return np.asarray(np.sqrt(diagonal.astype(np.float64) / diagonal.max(initial=0.0)) * largest)


def nearest(values: Reals, levels: Sequence[float]) -> Float64Array:
    """Return the level that is nearest to each value, shape as `values`."""
    known = np.asarray(levels, np.float64)
    return np.asarray(known[np.abs(values[:, None] - known).argmin(axis=1)])


def auc(scores: npt.NDArray[np.generic], is_in: BoolArray) -> float:
    """Return the chance that something inside scores higher than something outside; ties count half.

    Args:
        scores: What an adversary thinks of each, shape (n,); higher means inside.
        is_in: Which truly are inside, shape (n,).

    Returns:
        1 = told apart without a mistake, 0.5 = as good as a coin; NaN where one of the sides is empty.

    Source: Mann and Whitney 1947.
    """
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    n_in, n_out = int(is_in.sum()), int((~is_in).sum())
    if n_in == 0 or n_out == 0:
        return math.nan
    return float((ranks[places][is_in].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))


def averaging_errors(uploads: Int64Array | Float64Array, truth: Int64Array | Float64Array) -> Float64Array:
    """Return the root mean square error of the mean of the first 1, 2, ... uploads of a statistic that does not change.

    Independent noise averages out, so the error falls with the square root of the number of rounds. That is no fault
    of a mechanism: it is why each round is paid for.

    Args:
        uploads: Shape (n_rounds, size).
        truth: What they would be without noise, shape (size,).

    Returns:
        Shape (n_rounds,).
    """
    n_rounds = len(uploads)
    means = np.cumsum(uploads, axis=0, dtype=np.float64) / np.arange(1, n_rounds + 1)[:, None]
    return np.asarray(np.sqrt(np.mean((means - truth) ** 2, axis=1)))

"""Forgetting people without learning everything again: what a model would be, had it been learned without them.

A round's sum is over people, so taking one person's part out of it is a subtraction: exact where one round is all there
is. With several rounds the others answered later ones with what the person had left in the model. `unlearn_rounds`
follows that through: each round is solved from its own sum less the person's part, and moved by what the others would
have answered otherwise, to first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from liberate.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.model.kernels import device, linear_algebra
from liberate.model.model import Model, packed_size
from liberate.model.profiles import fit_devices, fit_profiles, item_moments_of, predict
from liberate.model.ranking import top_n
from liberate.model.registry import aggregate_statistics
from liberate.model.solvers import AggregatedStatistics, Solver, noise_precision_of
from liberate.model.statistics import NormalEquations, Statistic

_LIST = 10
_ByItem = tuple[Int64Array, Int32Array, Int64Array]


def subtract_leavers(
    total: AggregatedStatistics, statistic: Statistic, base: Model, leavers: Ratings
) -> AggregatedStatistics:
    """Take the part of some people out of a round's sum: exactly, but for the rounding of the sum itself.

    Args:
        total: The sum over everybody.
        statistic: What was summed.
        base: The model from which it was computed.
        leavers: What these people had rated then.
    """
    part = aggregate_statistics(statistic, base, leavers)
    return AggregatedStatistics(total.rows - part.rows, total.tail - part.tail, total.n_devices - part.n_devices)


def unlearn_rounds(
    solver: Solver,
    bases: Sequence[Model],
    totals: Sequence[AggregatedStatistics],
    sides: Sequence[Float32Array],
    stayers: Ratings,
    leavers: Ratings,
) -> Model:
    """Return nearly the model that rounds of normal equations would have come to without some people.

    Each round takes the leavers' part out of its sum, which is exact, and lets the others fit themselves to the model
    as it would have been. What they would then have answered enters the items by a Newton step with the covariances as
    they are: a pass over the ratings of width K in place of one of width K². The model that results depends on the
    leavers only as far as first order goes wrong.

    Args:
        solver: Of the rounds.
        bases: The model each round started from; the first had learned nothing from the leavers.
        totals: The sum of each round over everybody.
        sides: What each of those who stay had fitted in each round, as `fit_devices`, shape (n_stayers, K).
        stayers: What these have rated.
        leavers: What those to be forgotten had rated.
    """
    model = bases[0]
    statistic = NormalEquations(model.n_items, model.n_factors)
    targets = model.targets(stayers)
    by_item = _by_item(stayers)

    for base, total, side in zip(bases, totals, sides, strict=True):
        fitted = fit_profiles(model, stayers, targets)
        tail = np.concatenate(
            [fitted.moments.sum(0, dtype=np.float64), fitted.means.sum(0, dtype=np.float64), [fitted.errors.sum()]]
        )
        rows = subtract_leavers(total, statistic, base, leavers).rows
        solved = solver.solve(model, AggregatedStatistics(rows, tail, stayers.n_users))

        count = float(rows[:, packed_size(model.n_factors + 1) - 1].sum())
        tau = np.float32(noise_precision_of(count, float(tail[-1])))
        model = _adapted(solved, by_item, targets, side, fitted.means, tau)
    return model


def _adapted(
    model: Model, by_item: _ByItem, targets: Float32Array, before: Float32Array, after: Float32Array, tau: np.float32
) -> Model:
    """Return a model whose items follow people who have moved; arguments as of `kernels.device.adapt`."""
    indptr, users, order = by_item
    means, moments = model.item_means, item_moments_of(model)
    adapted = np.empty_like(means)
    device.adapt(indptr, users, targets[order], means, moments, before, after, tau, adapted)

    arrays = dict(model.arrays) | {
        "item_means": adapted,
        "item_moments": moments + linear_algebra.outer(adapted) - linear_algebra.outer(means),
    }
    return Model.of(model.version, model.statistic, model.low, model.high, arrays)


def _by_item(ratings: Ratings) -> _ByItem:
    """Group ratings by item: ranges of the items, user of each rating, and its place among those grouped by user."""
    order = np.argsort(ratings.items, kind="stable")
    indptr = np.zeros(ratings.n_items + 1, np.int64)
    np.cumsum(np.bincount(ratings.items, minlength=ratings.n_items), out=indptr[1:])
    return indptr, ratings.users()[order], order


def distance(one: Model, other: Model, rated: Ratings, pairs: Ratings, counted: BoolArray) -> float:
    """Tell how far apart two models are by what people would see: turning factors without effect changes nothing.

    Args:
        one: A model.
        other: Another, of the same kind.
        rated: What people have rated, to which both are fitted on the devices.
        pairs: Whose prediction of which item is compared, of the same people.
        counted: Whose predictions are compared, shape (n_users,).

    Returns:
        Root mean square difference of the predictions, in rating points; of models that predict no ratings, the share
        of places in people's lists of ten that hold an item the other list lacks.
    """
    if not one.predicts_ratings:
        return _list_distance(one, other, rated, counted)
    users = pairs.users()
    first, second = (predict(model, fit_devices(model, rated), users, pairs.items) for model in (one, other))
    apart = (first.astype(np.float64) - second)[counted[users]]
    return math.sqrt(float(np.mean(apart**2))) if len(apart) else 0.0


def _list_distance(one: Model, other: Model, rated: Ratings, counted: BoolArray) -> float:
    first, second = (top_n(model, fit_devices(model, rated), rated, _LIST)[0][counted] for model in (one, other))
    lacking = (first[:, :, None] != second[:, None, :]).all(axis=2) & (first >= 0)
    return float(lacking.sum() / max(1, (first >= 0).sum()))

"""What one person's part in a sum does to everybody else: the items are solved without it, and the others asked.

Only the items that the person rated are solved again, the noise precision and the number of people staying as they are:
what a single person changes in these is the same for all. The others' own sides stay those that they sent their parts
with: fitted to what a bad part made of the items, they would speak for it.

    fit        the others' expected squared error, as their own parts state it: of normal equations a quadratic form of
               their sum; of the gradient the first order of the step
    held out   the squared error on ratings that nobody learned from: known in simulations only
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from liberate.arrays import Float32Array, Float64Array, Int32Array
from liberate.data.ratings import Ratings
from liberate.model.kernels import linear_algebra, server
from liberate.model.model import Model, packed_size
from liberate.model.solvers import AggregatedStatistics, Descent, Solver, VariationalBayes, noise_precision_of

SolveItems = Callable[[Int32Array, Float64Array], tuple[Float64Array, Float64Array]]
"""From items and their sums to their means and second moments, packed."""

_BATCH = 20_000
_OF_ITEMS = ("item_means", "velocity", "gradient_mean", "gradient_square")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Ratings that nobody learned from: the sum of their squared errors as a quadratic form of the items.

    Attributes:
        rows: With z = (p_u, 1) and y a rating in standard units, the sum over each item of z zᵀ, packed, and of
            (y - b_u) z, shape (n_items, K(K + 1)/2 + K).
        squares: The sum of (y - b_u)².
        count: How many ratings, > 0.
    """

    rows: Float64Array
    squares: float
    count: int

    @classmethod
    def of(cls, base: Model, profiles: Float32Array, ratings: Ratings) -> HeldOut:
        """Add up ratings.

        Args:
            base: The model that a round starts from.
            profiles: The people's sides under it, shape (n_users, K): those that they send their parts with.
            ratings: What was held out.

        Raises:
            ValueError: There is no rating.
        """
        if not ratings.n_ratings:
            raise ValueError("no rating was held out")
        k = base.n_factors + 1
        sums = np.zeros((base.n_items, packed_size(k) + k))
        users = ratings.users()
        targets = base.targets(ratings) - profiles[users, -1]

        for begin in range(0, ratings.n_ratings, _BATCH):
            batch = slice(begin, begin + _BATCH)
            z = profiles[users[batch]]
            z[:, -1] = 1.0
            rows = np.concatenate([linear_algebra.outer(z), targets[batch, None] * z], axis=1)
            server.add_rows(sums, ratings.items[batch], rows)

        return cls(sums, float((targets.astype(np.float64) ** 2).sum()), ratings.n_ratings)

    def error(self, means: Float64Array) -> float:
        """Return the sum of squared errors with some items, shape (n_items, K); predictions are not clipped."""
        nothing = np.zeros_like(means)
        return self.squares + server.error_change(self.rows, means, _packed(means), nothing, _packed(nothing))


@dataclass(frozen=True, slots=True)
class Effect:
    """By how much the others' root mean squared error is larger because of one person's part, in rating points.

    Attributes:
        fit: On the others' own ratings, as their parts state it.
        held_out: On held-out ratings; None where none are known.
    """

    fit: float
    held_out: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """Solves a round's items without somebody.

    Attributes:
        base: The model the round started from.
        total: The sum of everybody's part, not trimmed.
        n_ratings: Ratings in the sum, > 0.
        solve: From items and their sums to their means and second moments, packed, all else being as in the total.
        means: The items with everybody's part, shape (n_items, K).
        moments: Their second moments, packed, likewise.
        held_out: Ratings to judge by; None where none are known.
        held_out_error: The sum of their squared errors with everybody's part.
    """

    base: Model
    total: AggregatedStatistics
    n_ratings: int
    solve: SolveItems
    means: Float64Array
    moments: Float64Array
    held_out: HeldOut | None
    held_out_error: float

    @classmethod
    def of(
        cls, solver: Solver, base: Model, total: AggregatedStatistics, n_ratings: int, held_out: HeldOut | None
    ) -> LeaveOneOut | None:
        """Prepare to leave people out; None where the solver does not solve item by item."""
        solve = _item_solver(solver, base, total)
        if solve is None:
            return None
        means, moments = solve(np.arange(base.n_items, dtype=np.int32), total.rows)
        return cls(
            base=base,
            total=total,
            n_ratings=n_ratings,
            solve=solve,
            means=means,
            moments=moments,
            held_out=held_out,
            held_out_error=0.0 if held_out is None else held_out.error(means),
        )

    def effect(self, items: Int32Array, rows: Float64Array) -> Effect:
        """Say what somebody's part does to the others.

        Args:
            items: The items it touches, shape (n,).
            rows: Its rows, in the statistic's unit, shape (n, width).
        """
        others = self.total.rows[items] - rows
        means, moments = self.solve(items, others)

        if self.base.statistic == "normal":
            error = float(self.total.tail[-1])
            change = server.error_change(others, means, moments, self.means[items], self.moments[items])
        else:
            error = float(self.total.tail[0])
            change = -2 * float((others * (means - self.means[items])).sum())
        fit = self._gain(error, change, self.n_ratings)

        if self.held_out is None:
            return Effect(fit, None)
        before = self.means[items]
        moved = server.error_change(self.held_out.rows[items], means, _packed(means), before, _packed(before))
        return Effect(fit, self._gain(self.held_out_error, moved, self.held_out.count))

    def _gain(self, error: float, change: float, count: int) -> float:
        """Return by how much a root mean squared error falls when squared errors change, in rating points."""
        return self.base.unit * (math.sqrt(error / count) - math.sqrt(max(0.0, error + change) / count))


def _item_solver(solver: Solver, base: Model, total: AggregatedStatistics) -> SolveItems | None:
    """Return what solves some items by their sums, all else being as in the total; None where items hang together."""
    match solver:
        case VariationalBayes() as bayes:
            count = math.fsum(total.rows[:, packed_size(bayes.n_factors + 1) - 1])
            noise_precision = noise_precision_of(count, float(total.tail[-1]))
            return lambda _, rows: bayes.items(base, noise_precision, rows)
        case Descent():
            return partial(_by_descent, solver, base, total)
        case _:
            return None


def _by_descent(
    solver: Descent, base: Model, total: AggregatedStatistics, items: Int32Array, rows: Float64Array
) -> tuple[Float64Array, Float64Array]:
    selected = {name: base.arrays[name][items] for name in _OF_ITEMS if name in base.arrays}
    part = Model.of(base.version, base.statistic, base.low, base.high, {**base.arrays, **selected})
    means = solver.solve(part, AggregatedStatistics(rows, total.tail, total.n_devices)).float64("item_means")
    return means, _packed(means)


def _packed(means: Float64Array) -> Float64Array:
    """Return w wᵀ of each row, packed."""
    rows, columns = np.tril_indices(means.shape[1])
    return means[:, rows] * means[:, columns]

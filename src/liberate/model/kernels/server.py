"""Kernels of the coordinator's step. An auditor repeats them to the bit: loops in a fixed order, no reassociation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liberate.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from liberate.compilation import N_PARTS, parallel_kernel, prange, serial_kernel
from liberate.model.kernels.linear_algebra import server_posterior
from liberate.units import NANO


@parallel_kernel
def solve_items(
    total: Float64Array,
    tau: float,
    prior_precision: Float64Array,
    prior_target: Float64Array,
    means: Float64Array,
    moments: Float64Array,
) -> None:
    """Solve each item's normal equations: the exact Gaussian posterior of w = (q_i, b_i) given the users.

    Args:
        total: Sums of `normal_rows`, shape (n_items, P + K).
        tau: Precision of the noise, > 0.
        prior_precision: Precision matrix of the items' prior, shape (K, K).
        prior_target: That matrix times the prior's mean, shape (K,).
        means: Written: E[w], shape (n_items, K).
        moments: Written: E[w wᵀ], packed, shape (n_items, P).
    """
    k = means.shape[1]
    n_packed = moments.shape[1]
    n_items = len(total)
    for part in prange(N_PARTS):
        a = np.empty((k, k), np.float64)
        h = np.empty(k, np.float64)
        inverse = np.empty((k, k), np.float64)
        for item in range(part, n_items, N_PARTS):
            place = 0
            for i in range(k):
                for j in range(i + 1):
                    a[i, j] = prior_precision[i, j] + tau * total[item, place]
                    place += 1
                h[i] = prior_target[i] + tau * total[item, n_packed + i]

            server_posterior(a, h, inverse, moments[item])
            for i in range(k):
                means[item, i] = h[i]


@serial_kernel
def error_change(
    total: Float64Array,
    means: Float64Array,
    moments: Float64Array,
    old_means: Float64Array,
    old_moments: Float64Array,
) -> float:
    """Return by how much the expected squared error over all ratings changes when the items move.

    The error is a constant plus, per item, tr(E[w wᵀ] A) - 2 E[w]·h, where A and h are the item's normal equations.

    Args:
        total: Sums of `normal_rows`, shape (n_items, P + K).
        means: E[w] of each item after the move, shape (n_items, K).
        moments: E[w wᵀ] of each item after the move, packed, shape (n_items, P).
        old_means: E[w] before.
        old_moments: E[w wᵀ] before.
    """
    k = means.shape[1]
    n_packed = moments.shape[1]
    change = 0.0
    for item in range(len(total)):
        place = 0
        for i in range(k):
            for _ in range(i):
                change += 2 * total[item, place] * (moments[item, place] - old_moments[item, place])
                place += 1
            change += total[item, place] * (moments[item, place] - old_moments[item, place])
            place += 1
            change -= 2 * total[item, n_packed + i] * (means[item, i] - old_means[item, i])
    return change


@serial_kernel
def add_rows(total: npt.NDArray[np.generic], items: Int32Array, rows: npt.NDArray[np.generic]) -> None:
    """Add each row to its item's total, in place: int32 rows to int64 totals, or float32 rows to float64 totals."""
    width = rows.shape[1]
    for row in range(len(items)):
        item = items[row]
        for t in range(width):
            total[item, t] += rows[row, t]


@serial_kernel
def column_squares(rows: npt.NDArray[np.integer]) -> Float64Array:
    """Add up the squares of each column of integers, shape (width,)."""
    n, width = rows.shape
    total = np.zeros(width)
    for row in range(n):
        for t in range(width):
            number = np.float64(rows[row, t])
            total[t] += number * number
    return total


@serial_kernel
def largest_ratio(rows: npt.NDArray[np.integer], scales: Float64Array, columns: Float64Array) -> float:
    """Return the largest ratio of an integer to its limit: its row's scale times its column's, and one for rounding.

    Args:
        rows: Integers, shape (n, width).
        scales: Of each row, >= 0, shape (n,).
        columns: Of each column, >= 0, shape (width,).
    """
    n, width = rows.shape
    largest = 0.0
    for row in range(n):
        for t in range(width):
            largest = max(largest, abs(np.float64(rows[row, t])) / (scales[row] * columns[t] + 1.0))
    return largest


@serial_kernel
def _factor(row: npt.NDArray[np.integer], a: Float64Array) -> bool:
    """Write the Cholesky factor of the packed matrix that a row begins with; false if it has none.

    Rounding to whole units moves the eigenvalues by less than k units, float32 by less than 2**-18 of the trace.
    """
    k = len(a)
    place = 0
    trace = 0.0
    for i in range(k):
        for j in range(i + 1):
            a[i, j] = row[place]
            place += 1
        trace += a[i, i]

    for j in range(k):
        for i in range(j, k):
            s = a[i, j] + (k + trace * 2.0**-18 if i == j else 0.0)
            for t in range(j):
                s -= a[i, t] * a[j, t]
            a[i, j] = s
        if not a[j, j] > 0:
            return False
        a[j, j] = np.sqrt(a[j, j])
        for i in range(j + 1, k):
            a[i, j] /= a[j, j]
    return True


@serial_kernel
def is_moment(row: npt.NDArray[np.integer], k: int) -> bool:
    """Tell whether a row begins with a packed positive semidefinite matrix, shape (k, k), but for rounding."""
    return _factor(row, np.empty((k, k)))


@serial_kernel
def least_error(
    items: Int32Array,
    rows: npt.NDArray[np.integer],
    unit: float,
    item_means: Float32Array,
    item_moments: Float32Array,
) -> float:
    """Return the least expected squared error that somebody can have whose part in the normal equations this is.

    With A = E[z zᵀ] and h = E[(y - b_u) z] of an item, E[(y - b_u)²] is at least hᵀ A⁻¹ h, so the item's part of the
    error is at least (h - A E[w])ᵀ A⁻¹ (h - A E[w]) + tr(Cov[w] A). Of several people's sums this is a lower bound too.

    Args:
        items: Of the rows, shape (n,).
        rows: As `normal_rows` writes them, in whole units, shape (n, P + K).
        unit: How much a whole unit is.
        item_means: E[w] of each item, shape (n_items, K).
        item_moments: E[w wᵀ] of each item, packed, shape (n_items, P).

    Returns:
        The error; infinite where a matrix is not positive semidefinite.
    """
    k = item_means.shape[1]
    n_packed = item_moments.shape[1]
    a = np.empty((k, k))
    v = np.empty(k)
    total = 0.0
    for row in range(len(items)):
        is_new = row == 0
        for t in range(n_packed):
            if not is_new:
                is_new = rows[row, t] != rows[row - 1, t]
        if is_new and not _factor(rows[row], a):
            return np.inf

        w = item_means[items[row]]
        moment = item_moments[items[row]]
        for i in range(k):
            v[i] = rows[row, n_packed + i]
        place = 0
        for i in range(k):
            for j in range(i):
                v[i] -= rows[row, place] * w[j]
                v[j] -= rows[row, place] * w[i]
                total += 2 * unit * rows[row, place] * (moment[place] - w[i] * w[j])
                place += 1
            v[i] -= rows[row, place] * w[i]
            total += unit * rows[row, place] * (moment[place] - w[i] * w[i])
            place += 1

        for i in range(k):
            for t in range(i):
                v[i] -= a[i, t] * v[t]
            v[i] /= a[i, i]
            total += unit * v[i] * v[i]
    return total


@parallel_kernel
def trimmed_sums(
    order: Int64Array,
    indptr: Int64Array,
    rows: npt.NDArray[np.integer],
    trimmed_nano: int,
    total: Int64Array,
) -> None:
    """Add up each column of each group of rows without its smallest and largest numbers, scaled to the whole group.

    Of m numbers, m * trimmed_nano // 10**9 are left out at either end; the sum of the rest, times m, is divided by how
    many they are, and rounded down: integers throughout, so any order of the rows gives the same bits.

    Args:
        order: Rows, group by group, shape (n,).
        indptr: Range of each group in it, shape (n_groups + 1,).
        rows: Integers, shape (n, width).
        trimmed_nano: Part left out at either end, in billionths, 0 <= trimmed_nano < 500,000,000.
        total: Written, shape (n_groups, width).
    """
    n_groups, width = total.shape
    for part in prange(N_PARTS):
        for group in range(part, n_groups, N_PARTS):
            begin = indptr[group]
            m = indptr[group + 1] - begin
            out = m * trimmed_nano // NANO
            kept = m - 2 * out
            numbers = np.empty(m, np.int64)

            for t in range(width):
                for place in range(m):
                    numbers[place] = rows[order[begin + place], t]
                numbers.sort()
                s = np.int64(0)
                for place in range(out, m - out):
                    s += numbers[place]
                total[group, t] = s // kept * m + s % kept * m // kept if m > 0 else 0


@serial_kernel
def column_sums(rows: Float64Array) -> Float64Array:
    """Add up the rows, first to last."""
    n, width = rows.shape
    total = np.zeros(width)
    for row in range(n):
        for t in range(width):
            total[t] += rows[row, t]
    return total

"""The numerical loops, compiled by numba; each has a plain twin in tests/reference.

Devices' kernels work in float32 and may reassociate sums, for they end in signed bytes; yet what a device gets depends
on its own ratings and the model only: every device is computed alone, in one order, whatever its batch and the number
of cores. The server's kernels work in float64, loop in one order and never reassociate: an auditor repeats their bits.

Letters, all in standard units (`factors.Model.unit`):

    K    n_factors + 1
    x    a user's side (p_u, b_u), shape (K,)
    w    an item's side (q_i, b_i), shape (K,)
    z    the other side with its bias replaced by one: (p_u, 1) or (q_i, 1), shape (K,)
    tau  precision of the noise of a rating
    P    K * (K + 1) / 2, the size of a packed symmetric matrix: its lower triangle, row by row
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from liberate.arrays import Float32Array, Float64Array, Int32Array, Int64Array

# A thread that waits in a spin takes the core its fellow needs: on a busy machine rounds became ten times slower.
# The OpenMP runtime reads this when the first parallel kernel starts it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_F = TypeVar("_F", bound=Callable[..., object])
_prange: type[range] = numba.prange
_N_PARTS = 16
_REASSOCIATE = {"contract", "reassoc", "nsz", "arcp", "afn"}


def _device(function: _F) -> _F:
    """Compile for devices: two or more cores, float32, sums may be reassociated."""
    return cast(_F, numba.njit(parallel=True, cache=True, error_model="numpy", fastmath=_REASSOCIATE)(function))


def _server(function: _F) -> _F:
    """Compile for the server: IEEE arithmetic exactly as written."""
    return cast(_F, numba.njit(parallel=True, cache=True, error_model="numpy")(function))


def _serial(function: _F) -> _F:
    """Compile for one core, IEEE arithmetic exactly as written."""
    return cast(_F, numba.njit(cache=True, error_model="numpy")(function))


def _posterior(
    a: npt.NDArray[np.floating],
    h: npt.NDArray[np.floating],
    inverse: npt.NDArray[np.floating],
    moment: npt.NDArray[np.floating],
) -> None:
    """Turn a precision matrix and a right-hand side into mean and second moment, by a Cholesky factorisation.

    Args:
        a: Precision matrix, lower triangle, shape (K, K). Becomes its Cholesky factor, inverse diagonal.
        h: Right-hand side, shape (K,). Becomes the mean.
        inverse: Scratch, shape (K, K). Becomes the inverse of the factor.
        moment: Second moment, packed, shape (P,): covariance plus outer product of the mean.

    A matrix that is not positive definite gives numbers that are not finite.
    """
    k = len(h)
    for j in range(k):
        for i in range(j, k):
            s = a[i, j]
            for t in range(j):
                s -= a[i, t] * a[j, t]
            a[i, j] = s
        a[j, j] = 1 / np.sqrt(a[j, j])
        for i in range(j + 1, k):
            a[i, j] *= a[j, j]
    for i in range(k):
        for j in range(i):
            s = a[i, j] * inverse[j, j]
            for t in range(j + 1, i):
                s += a[i, t] * inverse[t, j]
            inverse[i, j] = -s * a[i, i]
        inverse[i, i] = a[i, i]
    for i in range(k):
        s = inverse[i, 0] * h[0]
        for t in range(1, i + 1):
            s += inverse[i, t] * h[t]
        a[i, i] = s
    for i in range(k):
        s = inverse[i, i] * a[i, i]
        for t in range(i + 1, k):
            s += inverse[t, i] * a[t, t]
        h[i] = s
    place = 0
    for i in range(k):
        for j in range(i + 1):
            s = h[i] * h[j]
            for t in range(i, k):
                s += inverse[t, i] * inverse[t, j]
            moment[place] = s
            place += 1


_device_posterior = numba.njit(error_model="numpy", fastmath=_REASSOCIATE)(_posterior)
_server_posterior = numba.njit(error_model="numpy")(_posterior)


@_device
def fit_profiles(
    indptr: Int64Array,
    items: Int32Array,
    targets: Float32Array,
    item_means: Float32Array,
    item_moments: Float32Array,
    tau: np.float32,
    prior_precision: Float32Array,
    prior_target: Float32Array,
    means: Float32Array,
    moments: Float32Array,
    errors: Float64Array,
) -> None:
    """Fit each device's own side: the exact Gaussian posterior of x = (p_u, b_u) given the items.

    Args:
        indptr: Range of each device's ratings, shape (n_devices + 1,).
        items: Item of each rating, shape (n_ratings,).
        targets: Rating minus centre, shape (n_ratings,).
        item_means: E[w] of each item, shape (n_items, K).
        item_moments: E[w wᵀ] of each item, packed, shape (n_items, P).
        tau: Precision of the noise, > 0.
        prior_precision: Precision matrix of the users' prior, shape (K, K).
        prior_target: That matrix times the prior's mean, shape (K,).
        means: Written: E[x], shape (n_devices, K).
        moments: Written: E[x xᵀ], packed, shape (n_devices, P).
        errors: Written: expected squared error over the device's ratings, shape (n_devices,).

    Source: Lim and Teh 2007, "Variational Bayesian approach to movie rating prediction", with a bias on each side.
    """
    k = item_means.shape[1]
    n_packed = item_moments.shape[1]
    n_square = n_packed - k  # the packed part of q qᵀ; then come E[b q] and E[b²]
    n_devices = len(indptr) - 1
    for part in _prange(_N_PARTS):
        moment_sum = np.empty(n_packed, np.float32)
        mean_sum = np.empty(k, np.float32)
        target_sum = np.empty(k, np.float32)
        a = np.empty((k, k), np.float32)
        h = np.empty(k, np.float32)
        inverse = np.empty((k, k), np.float32)
        for device in range(part, n_devices, _N_PARTS):
            moment_sum[:] = 0
            mean_sum[:] = 0
            target_sum[:] = 0
            total = np.float32(0)
            squares = np.float32(0)
            for rating in range(indptr[device], indptr[device + 1]):
                y = targets[rating]
                w = item_means[items[rating]]
                m = item_moments[items[rating]]
                for t in range(n_packed):
                    moment_sum[t] += m[t]
                for t in range(k):
                    mean_sum[t] += w[t]
                    target_sum[t] += y * w[t]
                total += y
                squares += y * y
            count = np.float32(indptr[device + 1] - indptr[device])

            place = 0
            for i in range(k - 1):
                for j in range(i + 1):
                    a[i, j] = prior_precision[i, j] + tau * moment_sum[place]
                    place += 1
                h[i] = prior_target[i] + tau * (target_sum[i] - moment_sum[n_square + i])
                a[k - 1, i] = prior_precision[k - 1, i] + tau * mean_sum[i]
            a[k - 1, k - 1] = prior_precision[k - 1, k - 1] + tau * count
            h[k - 1] = prior_target[k - 1] + tau * (total - mean_sum[k - 1])
            moment = moments[device]
            _device_posterior(a, h, inverse, moment)

            # E[(y - b_i - x·z)²] summed over the ratings, from the same sums
            error = squares - 2 * target_sum[k - 1] + moment_sum[n_packed - 1]
            place = 0
            for i in range(k - 1):
                means[device, i] = h[i]
                error -= 2 * h[i] * (target_sum[i] - moment_sum[n_square + i])
                for _ in range(i):
                    error += 2 * moment[place] * moment_sum[place]
                    place += 1
                error += moment[place] * moment_sum[place]
                place += 1
            for i in range(k - 1):
                error += 2 * moment[place] * mean_sum[i]
                place += 1
            error += moment[place] * count - 2 * h[k - 1] * (total - mean_sum[k - 1])
            means[device, k - 1] = h[k - 1]
            errors[device] = error


@_device
def normal_rows(
    indptr: Int64Array, targets: Float32Array, means: Float32Array, moments: Float32Array, rows: Float32Array
) -> None:
    """Write each device's part of the items' normal equations: E[z zᵀ], packed, then E[(y - b_u) z], z = (p_u, 1).

    Args:
        indptr: Range of each device's ratings, shape (n_devices + 1,).
        targets: Rating minus centre, shape (n_ratings,).
        means: E[x] of each device, shape (n_devices, K).
        moments: E[x xᵀ] of each device, packed, shape (n_devices, P).
        rows: Written, shape (n_ratings, P + K). Column P - 1 is one: its sum counts ratings.
    """
    k = means.shape[1]
    n_packed = moments.shape[1]
    n_square = n_packed - k
    for part in _prange(_N_PARTS):
        for device in range(part, len(indptr) - 1, _N_PARTS):
            x = means[device]
            m = moments[device]
            for rating in range(indptr[device], indptr[device + 1]):
                y = targets[rating]
                row = rows[rating]
                for t in range(n_square):
                    row[t] = m[t]
                for t in range(k - 1):
                    row[n_square + t] = x[t]
                    row[n_packed + t] = y * x[t] - m[n_square + t]
                row[n_packed - 1] = 1
                row[n_packed + k - 1] = y - x[k - 1]


@_device
def gradient_rows(
    indptr: Int64Array,
    items: Int32Array,
    targets: Float32Array,
    means: Float32Array,
    item_means: Float32Array,
    rows: Float32Array,
    errors: Float64Array,
) -> None:
    """Write each device's negative gradient of half its squared error by (q_i, b_i): e z, z = (p_u, 1).

    Args:
        indptr: Range of each device's ratings, shape (n_devices + 1,).
        items: Item of each rating, shape (n_ratings,).
        targets: Rating minus centre, shape (n_ratings,).
        means: (p_u, b_u) of each device, shape (n_devices, K).
        item_means: (q_i, b_i) of each item, shape (n_items, K).
        rows: Written, shape (n_ratings, K). The last column is the error e itself.
        errors: Written: squared error over the device's ratings, shape (n_devices,).
    """
    k = means.shape[1]
    for part in _prange(_N_PARTS):
        for device in range(part, len(indptr) - 1, _N_PARTS):
            x = means[device]
            error = 0.0
            for rating in range(indptr[device], indptr[device + 1]):
                w = item_means[items[rating]]
                e = targets[rating] - x[k - 1] - w[k - 1]
                for t in range(k - 1):
                    e -= x[t] * w[t]
                row = rows[rating]
                for t in range(k - 1):
                    row[t] = e * x[t]
                row[k - 1] = e
                error += e * e
            errors[device] = error


@_device
def adapt(
    indptr: Int64Array,
    others: Int32Array,
    targets: Float32Array,
    means: Float32Array,
    moments: Float32Array,
    before: Float32Array,
    after: Float32Array,
    tau: np.float32,
    adapted: Float32Array,
) -> None:
    """Move each side by one Newton step to where it fits others that have moved, its covariance as it was.

    A side v is a user's x or an item's w, fitted to others as they were; z is an other side with its bias replaced by
    one, and e = target - b_v - b_other - p_v·p_other. The step is tau · Cov(v) · sum of (e z after - e z before).

    Args:
        indptr: Range of each side's ratings, shape (n_sides + 1,).
        others: The other side of each rating, shape (n_ratings,).
        targets: Rating minus centre, shape (n_ratings,).
        means: E[v] of each side, shape (n_sides, K).
        moments: E[v vᵀ] of each side, packed, shape (n_sides, P).
        before: The others as v was fitted to them, shape (n_others, K).
        after: The others as they are now, shape (n_others, K).
        tau: Precision of the noise, > 0.
        adapted: Written: E[v] of each side after the step, shape (n_sides, K).
    """
    k = means.shape[1]
    for part in _prange(_N_PARTS):
        pull = np.empty(k, np.float32)
        for side in range(part, len(means), _N_PARTS):
            v = means[side]
            pull[:] = 0
            for rating in range(indptr[side], indptr[side + 1]):
                old = before[others[rating]]
                new = after[others[rating]]
                e_old = targets[rating] - v[k - 1] - old[k - 1]
                e_new = targets[rating] - v[k - 1] - new[k - 1]
                for t in range(k - 1):
                    e_old -= v[t] * old[t]
                    e_new -= v[t] * new[t]
                for t in range(k - 1):
                    pull[t] += e_new * new[t] - e_old * old[t]
                pull[k - 1] += e_new - e_old
            along = np.float32(0)
            for t in range(k):
                along += v[t] * pull[t]
            moment = moments[side]
            place = 0
            for i in range(k):
                step = -v[i] * along
                for j in range(i):
                    step += moment[place] * pull[j]
                    adapted[side, j] += tau * moment[place] * pull[i]
                    place += 1
                adapted[side, i] = v[i] + tau * (step + moment[place] * pull[i])
                place += 1


@_device
def popularity_rows(indptr: Int64Array, weights: Float32Array, rows: Float32Array) -> None:
    """Write each device's weights divided by their L2 norm; zeros where all are zero.

    Args:
        indptr: Range of each device's ratings, shape (n_devices + 1,).
        weights: Weight x of each rating, >= 0, shape (n_ratings,).
        rows: Written, shape (n_ratings, 1).
    """
    for part in _prange(_N_PARTS):
        for device in range(part, len(indptr) - 1, _N_PARTS):
            square = 0.0
            for rating in range(indptr[device], indptr[device + 1]):
                square += weights[rating] * weights[rating]
            scale = np.float32(1 / np.sqrt(square) if square > 0 else 0.0)
            for rating in range(indptr[device], indptr[device + 1]):
                rows[rating, 0] = weights[rating] * scale


@_device
def gram_rows(
    indptr: Int64Array,
    places: Int32Array,
    weights: Float32Array,
    pair_indptr: Int64Array,
    indices: Int32Array,
    rows: Float32Array,
) -> None:
    """Write each device's Gram matrix x xᵀ / |x|², the lower triangle of its rated pairs, sqrt 2 off the diagonal.

    Args:
        indptr: Range of each device's ratings, shape (n_devices + 1,).
        places: Place of each rating's item in the matrix, increasing for each device, shape (n_ratings,).
        weights: Weight x of each rating, >= 0, shape (n_ratings,).
        pair_indptr: Range of each device's pairs: c(c + 1)/2 of them for c ratings, shape (n_devices + 1,).
        indices: Written: i(i + 1)/2 + j for the pair of places i >= j, increasing for each device, shape (n_pairs,).
        rows: Written: the entries, shape (n_pairs, 1).
    """
    off_diagonal = np.float32(np.sqrt(2.0))
    for part in _prange(_N_PARTS):
        for device in range(part, len(indptr) - 1, _N_PARTS):
            begin, end = indptr[device], indptr[device + 1]
            square = 0.0
            for rating in range(begin, end):
                square += weights[rating] * weights[rating]
            scale = np.float32(1 / square if square > 0 else 0.0)
            pair = pair_indptr[device]
            for rating in range(begin, end):
                i = np.int64(places[rating])
                start = i * (i + 1) // 2
                x = weights[rating] * scale
                for other in range(begin, rating):
                    indices[pair] = start + places[other]
                    rows[pair, 0] = off_diagonal * x * weights[other]
                    pair += 1
                indices[pair] = start + i
                rows[pair, 0] = x * weights[rating]
                pair += 1


@_device
def moment_rows(moments: Float32Array, whitener: Float32Array, rows: Float32Array) -> None:
    """Write W E[x xᵀ] Wᵀ - I of each device, its lower triangle row by row, off-diagonals times sqrt(2).

    Args:
        moments: E[x xᵀ] of each device, packed, shape (n_devices, P).
        whitener: W, upper triangular, shape (K, K).
        rows: Written, shape (n_devices, P).
    """
    k = len(whitener)
    for part in _prange(_N_PARTS):
        square = np.empty((k, k), np.float32)
        half = np.empty((k, k), np.float32)
        for device in range(part, len(moments), _N_PARTS):
            place = 0
            for i in range(k):
                for j in range(i + 1):
                    square[i, j] = moments[device, place]
                    square[j, i] = moments[device, place]
                    place += 1
            for i in range(k):
                half[i] = 0
                for t in range(i, k):
                    w = whitener[i, t]
                    for j in range(k):
                        half[i, j] += w * square[t, j]
            place = 0
            for i in range(k):
                for j in range(i + 1):
                    s = np.float32(0)
                    for t in range(j, k):
                        s += half[i, t] * whitener[j, t]
                    rows[device, place] = s - np.float32(1) if i == j else s * np.float32(np.sqrt(2.0))
                    place += 1


@_server
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
    for part in _prange(_N_PARTS):
        a = np.empty((k, k), np.float64)
        h = np.empty(k, np.float64)
        inverse = np.empty((k, k), np.float64)
        for item in range(part, n_items, _N_PARTS):
            place = 0
            for i in range(k):
                for j in range(i + 1):
                    a[i, j] = prior_precision[i, j] + tau * total[item, place]
                    place += 1
                h[i] = prior_target[i] + tau * total[item, n_packed + i]
            _server_posterior(a, h, inverse, moments[item])
            for i in range(k):
                means[item, i] = h[i]


@_serial
def invert(a: Float64Array) -> Float64Array:
    """Invert a symmetric positive definite matrix, shape (K, K), in a fixed order of operations."""
    k = len(a)
    factor = a.copy()
    h = np.zeros(k)
    scratch = np.empty((k, k))
    packed = np.empty(k * (k + 1) // 2)
    _server_posterior(factor, h, scratch, packed)
    result = np.empty((k, k))
    place = 0
    for i in range(k):
        for j in range(i + 1):
            result[i, j] = packed[place]
            result[j, i] = packed[place]
            place += 1
    return result


@_serial
def multiply(a: Float64Array, x: Float64Array) -> Float64Array:
    """Multiply a matrix, shape (K, K), by a vector, shape (K,), in a fixed order of operations."""
    result = np.zeros(len(x))
    for i in range(len(x)):
        for j in range(len(x)):
            result[i] += a[i, j] * x[j]
    return result


@_serial
def error_change(
    total: Float64Array,
    means: Float64Array,
    moments: Float64Array,
    old_means: Float64Array,
    old_moments: Float64Array,
) -> float:
    """Give by how much the expected squared error over all ratings changes when the items move.

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


@_serial
def outer(means: Float32Array) -> Float32Array:
    """Give w wᵀ, packed, of each row: the second moment of a point, shape (n, P)."""
    n, k = means.shape
    result = np.empty((n, k * (k + 1) // 2), np.float32)
    for row in range(n):
        place = 0
        for i in range(k):
            for j in range(i + 1):
                result[row, place] = means[row, i] * means[row, j]
                place += 1
    return result


@_serial
def add_rows(total: npt.NDArray[np.generic], items: Int32Array, rows: npt.NDArray[np.generic]) -> None:
    """Add each row to its item's total, in place: int32 rows to int64 totals, or float32 rows to float64 totals."""
    width = rows.shape[1]
    for row in range(len(items)):
        item = items[row]
        for t in range(width):
            total[item, t] += rows[row, t]


@_serial
def column_squares(rows: npt.NDArray[np.integer]) -> Float64Array:
    """Add up the squares of each column of integers, shape (width,)."""
    n, width = rows.shape
    total = np.zeros(width)
    for row in range(n):
        for t in range(width):
            number = np.float64(rows[row, t])
            total[t] += number * number
    return total


@_serial
def largest_ratio(rows: npt.NDArray[np.integer], scales: Float64Array, columns: Float64Array) -> float:
    """Give the largest size of an integer against its limit: its row's scale times its column's, and one for rounding.

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


@numba.njit(error_model="numpy")
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


@_serial
def is_moment(row: npt.NDArray[np.integer], k: int) -> bool:
    """Tell whether a row begins with a packed positive semidefinite matrix, shape (k, k), but for rounding."""
    return _factor(row, np.empty((k, k)))


@_serial
def least_error(
    items: Int32Array,
    rows: npt.NDArray[np.integer],
    unit: float,
    item_means: Float32Array,
    item_moments: Float32Array,
) -> float:
    """Give the least expected squared error that somebody can have whose part in the normal equations this is.

    With A = E[z zᵀ] and h = E[(y - b_u) z] of an item, E[(y - b_u)²] is at least hᵀ A⁻¹ h, so the item's part of the
    error is at least (h - A E[w])ᵀ A⁻¹ (h - A E[w]) + tr(Cov[w] A). Of several people's sums this is a lower bound too.

    Args:
        items: Of the rows, shape (n,).
        rows: As `normal_rows` writes them, in whole units, shape (n, P + K).
        unit: What a whole unit stands for.
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


@_server
def trimmed_sums(
    order: Int64Array,
    indptr: Int64Array,
    rows: npt.NDArray[np.integer],
    trim_nano: int,
    total: Int64Array,
) -> None:
    """Add up each column of each group of rows without its smallest and largest numbers, scaled to the whole group.

    Of m numbers, m * trim_nano // 10**9 are left out at either end; the sum of the others, times m, is divided by how
    many they are, and rounded down: integers throughout, so any order of the rows gives the same bits.

    Args:
        order: Rows, group by group, shape (n,).
        indptr: Range of each group in it, shape (n_groups + 1,).
        rows: Integers, shape (n, width).
        trim_nano: Part left out at either end, in billionths, 0 <= trim_nano < 500,000,000.
        total: Written, shape (n_groups, width).
    """
    n_groups, width = total.shape
    for part in _prange(_N_PARTS):
        for group in range(part, n_groups, _N_PARTS):
            begin = indptr[group]
            m = indptr[group + 1] - begin
            out = m * trim_nano // 1_000_000_000
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


@_serial
def column_sums(rows: Float64Array) -> Float64Array:
    """Add up the rows, first to last."""
    n, width = rows.shape
    total = np.zeros(width)
    for row in range(n):
        for t in range(width):
            total[t] += rows[row, t]
    return total


@_serial
def predict_pairs(profiles: Float32Array, items: Float32Array, rows: Int32Array, columns: Int32Array) -> Float32Array:
    """Give b_u + b_i + p_u·q_i of each pair.

    Args:
        profiles: (p_u, b_u) of each user, shape (n_users, K).
        items: (q_i, b_i) of each item, shape (n_items, K).
        rows: User of each pair, shape (n_pairs,).
        columns: Item of each pair, shape (n_pairs,).
    """
    k = profiles.shape[1]
    result = np.empty(len(rows), np.float32)
    for pair in range(len(rows)):
        x = profiles[rows[pair]]
        w = items[columns[pair]]
        s = x[k - 1] + w[k - 1]
        for t in range(k - 1):
            s += x[t] * w[t]
        result[pair] = s
    return result


@numba.njit(error_model="numpy")
def _keep_best(score: Float32Array, best: Int32Array, scores: Float32Array) -> None:
    """Write the places of the highest scores, best first, and the scores; of equal ones the first. -1 and -inf else.

    Args:
        score: Score of every item, -inf where excluded, shape (n_items,).
        best: Written, shape (n,).
        scores: Written, shape (n,).
    """
    n = len(best)
    best[:] = -1
    scores[:] = -np.inf
    for item in range(len(score)):
        s = score[item]
        if s > scores[n - 1]:
            place = n - 1
            while place > 0 and s > scores[place - 1]:
                scores[place] = scores[place - 1]
                best[place] = best[place - 1]
                place -= 1
            scores[place] = s
            best[place] = item


@_device
def rank(
    profiles: Float32Array,
    columns: Float32Array,
    exclude_indptr: Int64Array,
    exclude_items: Int32Array,
    best: Int32Array,
    scores: Float32Array,
) -> None:
    """Find each user's items of highest b_i + p_u·q_i (+ b_u) outside an excluded set; ties go to the lower index.

    Args:
        profiles: (p_u, b_u) of each user, shape (n_users, K).
        columns: (q_i, b_i) of all items, transposed, shape (K, n_items).
        exclude_indptr: Range of each user's excluded items, shape (n_users + 1,).
        exclude_items: Excluded items, shape (n_excluded,).
        best: Written: the items, best first, -1 where there are too few, shape (n_users, n).
        scores: Written: their scores, -inf where there are too few, shape (n_users, n).
    """
    k, n_items = columns.shape
    for part in _prange(_N_PARTS):
        score = np.empty(n_items, np.float32)
        for user in range(part, len(profiles), _N_PARTS):
            for item in range(n_items):
                score[item] = profiles[user, k - 1] + columns[k - 1, item]
            for t in range(k - 1):
                x = profiles[user, t]
                for item in range(n_items):
                    score[item] += x * columns[t, item]
            for place in range(exclude_indptr[user], exclude_indptr[user + 1]):
                score[exclude_items[place]] = -np.inf
            _keep_best(score, best[user], scores[user])


@_device
def rank_by_items(
    popularity: Float32Array,
    item_weights: Float32Array,
    chosen: Int32Array,
    places: Int32Array,
    features: Float32Array,
    indptr: Int64Array,
    items: Int32Array,
    weights: Float32Array,
    best: Int32Array,
    scores: Float32Array,
) -> None:
    """Find each user's unrated items of highest x·B + x·F Fᵀ + c; ties go to the lower index.

    Args:
        popularity: c: what each item scores by itself, shape (n_items,).
        item_weights: B: what each chosen item says for each other, shape (M, M).
        chosen: The chosen items, shape (M,).
        places: Place of each item among the chosen, -1 for the others, shape (n_items,).
        features: F: two items are as alike as the product of their rows, shape (n_items, p).
        indptr: Range of each user's ratings, shape (n_users + 1,).
        items: Item of each rating, shape (n_ratings,).
        weights: x: what each rating counts, shape (n_ratings,).
        best: Written: the items, best first, -1 where there are too few, shape (n_users, n).
        scores: Written: their scores, -inf where there are too few, shape (n_users, n).
    """
    n_chosen = len(chosen)
    n_items, n_features = features.shape
    for part in _prange(_N_PARTS):
        score = np.empty(n_items, np.float32)
        said = np.empty(n_chosen, np.float32)
        taste = np.empty(n_features, np.float32)
        for user in range(part, len(best), _N_PARTS):
            said[:] = 0
            taste[:] = 0
            for rating in range(indptr[user], indptr[user + 1]):
                x = weights[rating]
                own = features[items[rating]]
                for t in range(n_features):
                    taste[t] += x * own[t]
                if places[items[rating]] >= 0:
                    row = item_weights[places[items[rating]]]
                    for place in range(n_chosen):
                        said[place] += x * row[place]
            for item in range(n_items):
                s = popularity[item]
                for t in range(n_features):
                    s += taste[t] * features[item, t]
                score[item] = s
            for place in range(n_chosen):
                score[chosen[place]] += said[place]
            for rating in range(indptr[user], indptr[user + 1]):
                score[items[rating]] = -np.inf
            _keep_best(score, best[user], scores[user])

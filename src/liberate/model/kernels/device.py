"""Kernels of what devices compute: profiles, gradients, normal equations, co-occurrence, moments.

Devices' kernels work in float32 and may reassociate sums, for they end in signed bytes; yet what a device gets depends
on its ratings and the model only: every device is computed alone, in one order, whatever its batch and the number
of cores. The server's kernels work in float64, loop in one order and never reassociate: an auditor repeats their bits.

Letters, all in standard units (`model.Model.unit`):

    K    n_factors + 1
    x    a user's side (p_u, b_u), shape (K,)
    w    an item's side (q_i, b_i), shape (K,)
    z    the other side with its bias replaced by one: (p_u, 1) or (q_i, 1), shape (K,)
    tau  precision of the noise of a rating
    P    K * (K + 1) / 2, the size of a packed symmetric matrix: its lower triangle, row by row
"""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from liberate.compilation import N_PARTS, device_kernel, prange
from liberate.model.kernels.linear_algebra import device_posterior


@device_kernel
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
    for part in prange(N_PARTS):
        moment_sum = np.empty(n_packed, np.float32)
        mean_sum = np.empty(k, np.float32)
        target_sum = np.empty(k, np.float32)
        a = np.empty((k, k), np.float32)
        h = np.empty(k, np.float32)
        inverse = np.empty((k, k), np.float32)
        for device in range(part, n_devices, N_PARTS):
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
            device_posterior(a, h, inverse, moment)

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


@device_kernel
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
    for part in prange(N_PARTS):
        for device in range(part, len(indptr) - 1, N_PARTS):
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


@device_kernel
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
    for part in prange(N_PARTS):
        for device in range(part, len(indptr) - 1, N_PARTS):
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


@device_kernel
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
    for part in prange(N_PARTS):
        pull = np.empty(k, np.float32)
        for side in range(part, len(means), N_PARTS):
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


@device_kernel
def popularity_rows(indptr: Int64Array, weights: Float32Array, rows: Float32Array) -> None:
    """Write each device's weights divided by their L2 norm; zeros where all are zero.

    Args:
        indptr: Range of each device's ratings, shape (n_devices + 1,).
        weights: Weight x of each rating, >= 0, shape (n_ratings,).
        rows: Written, shape (n_ratings, 1).
    """
    for part in prange(N_PARTS):
        for device in range(part, len(indptr) - 1, N_PARTS):
            square = 0.0
            for rating in range(indptr[device], indptr[device + 1]):
                square += weights[rating] * weights[rating]
            scale = np.float32(1 / np.sqrt(square) if square > 0 else 0.0)
            for rating in range(indptr[device], indptr[device + 1]):
                rows[rating, 0] = weights[rating] * scale


@device_kernel
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
    for part in prange(N_PARTS):
        for device in range(part, len(indptr) - 1, N_PARTS):
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


@device_kernel
def moment_rows(moments: Float32Array, whitener: Float32Array, rows: Float32Array) -> None:
    """Write W E[x xᵀ] Wᵀ - I of each device, its lower triangle row by row, off-diagonals times sqrt(2).

    Args:
        moments: E[x xᵀ] of each device, packed, shape (n_devices, P).
        whitener: W, upper triangular, shape (K, K).
        rows: Written, shape (n_devices, P).
    """
    k = len(whitener)
    for part in prange(N_PARTS):
        square = np.empty((k, k), np.float32)
        half = np.empty((k, k), np.float32)
        for device in range(part, len(moments), N_PARTS):
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

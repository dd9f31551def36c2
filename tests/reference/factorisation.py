"""Plain twins of `liberate.model.kernels`: the same signatures, whole matrices and float64, one rating at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liberate.arrays import Float32Array, Float64Array, Int32Array, Int64Array


def unpack(packed: npt.NDArray[np.floating], k: int) -> Float64Array:
    """Return the symmetric matrix, shape (k, k), of a packed lower triangle."""
    matrix = np.zeros((k, k))
    matrix[np.tril_indices(k)] = packed
    return matrix + np.tril(matrix, -1).T


def pack(matrix: Float64Array) -> Float64Array:
    """Return the lower triangle of a matrix, row by row."""
    packed: Float64Array = matrix[np.tril_indices(len(matrix))]
    return packed


def with_one(mean: npt.NDArray[np.floating], moment: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return E[z], E[z zᵀ] and E[b z] of z = (v, 1), from mean and second moment of (v, b)."""
    z = np.append(mean[:-1], 1.0)
    zz = moment.copy()
    zz[-1] = zz[:, -1] = z
    bz = np.append(moment[-1, :-1], mean[-1])
    return z, zz, bz


def fit_profiles(
    indptr: Int64Array,
    items: Int32Array,
    targets: Float32Array,
    item_means: Float32Array,
    item_moments: Float32Array,
    tau: float,
    prior_precision: Float32Array,
    prior_target: Float32Array,
    means: npt.NDArray[np.floating],
    moments: npt.NDArray[np.floating],
    errors: Float64Array,
) -> None:
    k = item_means.shape[1]
    for device in range(len(indptr) - 1):
        precision = prior_precision.astype(np.float64)
        target = prior_target.astype(np.float64)
        own = range(indptr[device], indptr[device + 1])
        for rating in own:
            z, zz, bz = with_one(item_means[items[rating]], unpack(item_moments[items[rating]], k))
            precision += tau * zz
            target += tau * (targets[rating] * z - bz)
        covariance = np.linalg.inv(precision)
        x = covariance @ target
        xx = covariance + np.outer(x, x)
        means[device], moments[device] = x, pack(xx)
        errors[device] = sum(
            expected_square(targets[rating], x, xx, item_means[items[rating]], unpack(item_moments[items[rating]], k))
            for rating in own
        )


def expected_square(
    y: float, x: Float64Array, xx: Float64Array, w: npt.NDArray[np.floating], ww: Float64Array
) -> float:
    """Return E[(y - b_i - b_u - p_u·q_i)²] from means and second moments of (p_u, b_u) and (q_i, b_i)."""
    z, zz, bz = with_one(w, ww)
    return float(y * y - 2 * y * (w[-1] + x @ z) + ww[-1, -1] + 2 * x @ bz + np.sum(xx * zz))


def normal_rows(
    indptr: Int64Array,
    targets: Float32Array,
    means: npt.NDArray[np.floating],
    moments: npt.NDArray[np.floating],
    rows: npt.NDArray[np.floating],
) -> None:
    k = means.shape[1]
    for device in range(len(indptr) - 1):
        z, zz, bz = with_one(means[device], unpack(moments[device], k))
        for rating in range(indptr[device], indptr[device + 1]):
            rows[rating] = np.concatenate([pack(zz), targets[rating] * z - bz])


def adapt(
    indptr: Int64Array,
    others: Int32Array,
    targets: Float32Array,
    means: Float32Array,
    moments: Float32Array,
    before: Float32Array,
    after: Float32Array,
    tau: float | np.float32,
    adapted: npt.NDArray[np.floating],
) -> None:
    def pull(v: npt.NDArray[np.floating], other: npt.NDArray[np.floating], target: float) -> Float64Array:
        z = np.append(other[:-1], 1.0)
        e: float = target - v @ z - other[-1]
        return e * z

    for side in range(len(means)):
        v = means[side].astype(np.float64)
        covariance = unpack(moments[side], len(v)) - np.outer(v, v)
        own = range(indptr[side], indptr[side + 1])
        change = sum(
            (pull(v, after[others[r]], targets[r]) - pull(v, before[others[r]], targets[r]) for r in own),
            np.zeros(len(v)),
        )
        adapted[side] = v + tau * covariance @ change


def gradient_rows(
    indptr: Int64Array,
    items: Int32Array,
    targets: Float32Array,
    means: npt.NDArray[np.floating],
    item_means: Float32Array,
    rows: npt.NDArray[np.floating],
    errors: Float64Array,
) -> None:
    for device in range(len(indptr) - 1):
        p, b_u = means[device][:-1].astype(np.float64), float(means[device][-1])
        errors[device] = 0
        for rating in range(indptr[device], indptr[device + 1]):
            q, b_i = item_means[items[rating]][:-1], item_means[items[rating]][-1]
            e = targets[rating] - b_u - b_i - p @ q
            rows[rating] = np.append(e * p, e)
            errors[device] += e * e


def solve_items(
    total: Float64Array,
    tau: float,
    prior_precision: Float64Array,
    prior_target: Float64Array,
    means: Float64Array,
    moments: Float64Array,
) -> None:
    k = means.shape[1]
    for item in range(len(total)):
        precision = prior_precision + tau * unpack(total[item, :-k], k)
        covariance = np.linalg.inv(precision)
        w = covariance @ (prior_target + tau * total[item, -k:])
        means[item], moments[item] = w, pack(covariance + np.outer(w, w))


def invert(a: Float64Array) -> Float64Array:
    return np.linalg.inv(a).astype(np.float64)


def multiply(a: Float64Array, x: Float64Array) -> Float64Array:
    product: Float64Array = a @ x
    return product


def error_change(
    total: Float64Array,
    means: Float64Array,
    moments: Float64Array,
    old_means: Float64Array,
    old_moments: Float64Array,
) -> float:
    k = means.shape[1]
    change = 0.0
    for item in range(len(total)):
        matrix = unpack(total[item, :-k], k)
        change += np.sum(matrix * unpack(moments[item] - old_moments[item], k))
        change -= 2 * total[item, -k:] @ (means[item] - old_means[item])
    return change


def outer(means: Float32Array) -> Float64Array:
    n, k = means.shape
    return np.array([pack(np.outer(w, w)) for w in means]).reshape(n, k * (k + 1) // 2)


def add_rows(total: npt.NDArray[np.generic], items: Int32Array, rows: npt.NDArray[np.generic]) -> None:
    np.add.at(total, items, rows)


def column_sums(rows: Float64Array) -> Float64Array:
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total


def predict_pairs(profiles: Float32Array, items: Float32Array, rows: Int32Array, columns: Int32Array) -> Float64Array:
    scores = profiles[:, :-1].astype(np.float64) @ items[:, :-1].T + profiles[:, -1:] + items[:, -1]
    chosen: Float64Array = scores[rows, columns]
    return chosen


def rank(
    profiles: Float32Array,
    columns: Float32Array,
    exclude_indptr: Int64Array,
    exclude_items: Int32Array,
    best: Int32Array,
    scores: Float32Array,
) -> None:
    for user in range(len(profiles)):
        all_scores = profiles[user, :-1] @ columns[:-1] + profiles[user, -1] + columns[-1]
        all_scores[exclude_items[exclude_indptr[user] : exclude_indptr[user + 1]]] = -np.inf
        order = np.argsort(-all_scores, kind="stable")[: best.shape[1]]
        order = order[all_scores[order] > -np.inf]
        best[user], scores[user] = -1, -np.inf
        best[user, : len(order)], scores[user, : len(order)] = order, all_scores[order]

"""Kernels of linear algebra: posteriors by Cholesky factorisation, inverses, products."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from liberate.arrays import Float32Array, Float64Array
from liberate.compilation import REASSOCIATE, serial_kernel


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

    A matrix that is not positive definite leads to numbers that are not finite.
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


# Not kept on disk by themselves: numba tells functions there by their code, and these two differ in options only.
device_posterior = numba.njit(error_model="numpy", fastmath=REASSOCIATE)(_posterior)
server_posterior = numba.njit(error_model="numpy")(_posterior)


@serial_kernel
def invert(a: Float64Array) -> Float64Array:
    """Invert a symmetric positive definite matrix, shape (K, K), in a fixed order of operations."""
    k = len(a)
    factor = a.copy()
    h = np.zeros(k)
    scratch = np.empty((k, k))
    packed = np.empty(k * (k + 1) // 2)
    server_posterior(factor, h, scratch, packed)
    result = np.empty((k, k))
    place = 0
    for i in range(k):
        for j in range(i + 1):
            result[i, j] = packed[place]
            result[j, i] = packed[place]
            place += 1
    return result


@serial_kernel
def multiply(a: Float64Array, x: Float64Array) -> Float64Array:
    """Multiply a matrix, shape (K, K), by a vector, shape (K,), in a fixed order of operations."""
    result = np.zeros(len(x))
    for i in range(len(x)):
        for j in range(len(x)):
            result[i] += a[i, j] * x[j]
    return result


@serial_kernel
def outer(means: Float32Array) -> Float32Array:
    """Return w wᵀ, packed, of each row: the second moment of a point, shape (n, P)."""
    n, k = means.shape
    result = np.empty((n, k * (k + 1) // 2), np.float32)
    for row in range(n):
        place = 0
        for i in range(k):
            for j in range(i + 1):
                result[row, place] = means[row, i] * means[row, j]
                place += 1
    return result

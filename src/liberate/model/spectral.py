"""What stands out of the noise in a symmetric matrix, and how such a matrix travels as a vector.

The solves here need LAPACK's eigenvectors: whoever has the same exact sum repeats them to a tolerance, not to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from liberate.arrays import Float64Array

_EDGE = 2.02
"""Where eigenvalues count, in s·sqrt(M): those of noise alone end at 2 and, in finite matrices, a little beyond."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvalues and eigenvectors of a symmetric matrix over M items that stood out of its noise.

    Attributes:
        values: Eigenvalues as they would be without noise, largest first, > 0, shape (k,).
        vectors: Their eigenvectors, one per column, of norm 1 and signed as `signed` says, shape (M, k).
    """

    values: Float64Array
    vectors: Float64Array

    def matrix(self) -> Float64Array:
        """Put the matrix together again, shape (M, M)."""
        return np.asarray((self.vectors * self.values) @ self.vectors.T)


def shrunk(matrix: Float64Array, deviation: float, most: int | None = None) -> Spectrum:
    """Keep what stands out of the noise in a positive semidefinite matrix, shrunk to what it would be without.

    Noise of deviation s in every off-diagonal entry (sqrt(2) s on the diagonal) fills the eigenvalues up to
    2 s sqrt(M). One that lies at y beyond is kept as sqrt(y² - 4 s² M): the multiple of its noisy eigenvectors that is
    nearest to the true matrix.

    Args:
        matrix: Symmetric, shape (M, M).
        deviation: s, >= 0; 0 keeps every positive eigenvalue as it is.
        most: Largest number of eigenvalues to keep, >= 0; all if None.

    Source: Gavish and Donoho 2017, "Optimal shrinkage of singular values", eq. 7, for symmetric matrices.
    """
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    edge = deviation * math.sqrt(len(matrix))
    floor = max(_EDGE * edge, 1e-12 * max(float(values[0]), 0.0)) if len(values) else 0.0
    kept = int((values > floor).sum())
    if most is not None:
        kept = min(kept, most)
    return Spectrum(np.sqrt(values[:kept] ** 2 - 4 * edge**2), signed(vectors[:, :kept]))


def signed(vectors: Float64Array) -> Float64Array:
    """Return eigenvectors, one per column, with the largest entry of each positive: LAPACK fixes no sign."""
    if not vectors.size:
        return np.ascontiguousarray(vectors)
    largest = np.abs(vectors).argmax(axis=0)
    return np.asarray(vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0))


def packed(matrix: Float64Array) -> Float64Array:
    """Return a symmetric matrix as a vector of the same norm: lower triangle row by row, off-diagonals times sqrt(2).

    Returns:
        Shape (M (M + 1) / 2,); entry (i, j), i >= j, is at i (i + 1) / 2 + j.
    """
    lower = np.tril(matrix, -1) * math.sqrt(2) + np.diag(np.diag(matrix))
    return np.asarray(lower[np.tril_indices(len(matrix))])


def unpacked(vector: Float64Array) -> Float64Array:
    """Return the symmetric matrix, shape (M, M), of what `packed` returns.

    Noise of deviation s in every number of the vector is noise of s / sqrt(2) in every off-diagonal entry.

    Raises:
        ValueError: No symmetric matrix packs to so many numbers.
    """
    size = (math.isqrt(8 * len(vector) + 1) - 1) // 2
    if size * (size + 1) // 2 != len(vector):
        raise ValueError(f"{len(vector)} numbers do not pack a symmetric matrix")
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = vector
    lower = np.tril(matrix, -1) / math.sqrt(2)
    return lower + lower.T + np.diag(np.diag(matrix))

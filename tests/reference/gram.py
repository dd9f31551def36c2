"""The Gram statistic written as the formula is."""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float32Array, Int32Array, Int64Array


def gram_rows(
    indptr: Int64Array,
    places: Int32Array,
    weights: Float32Array,
    pair_indptr: Int64Array,
    indices: Int32Array,
    rows: Float32Array,
) -> None:
    for device in range(len(indptr) - 1):
        own = slice(indptr[device], indptr[device + 1])
        x = weights[own].astype(np.float64)
        square = x @ x
        matrix = np.outer(x, x) / square if square > 0 else np.zeros((len(x), len(x)))
        pairs = slice(pair_indptr[device], pair_indptr[device + 1])
        lower = np.tril_indices(len(x))
        i, j = places[own].astype(np.int64)[lower[0]], places[own][lower[1]]
        indices[pairs] = i * (i + 1) // 2 + j
        rows[pairs, 0] = np.where(lower[0] == lower[1], 1, np.sqrt(2)) * matrix[lower]

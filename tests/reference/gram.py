"""The statistics of item models and their ranking, written as the formulas are."""

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


def popularity_rows(indptr: Int64Array, weights: Float32Array, rows: Float32Array) -> None:
    for device in range(len(indptr) - 1):
        own = slice(indptr[device], indptr[device + 1])
        norm = np.linalg.norm(weights[own].astype(np.float64))
        rows[own, 0] = weights[own] / norm if norm > 0 else 0


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
    for user in range(len(best)):
        own = slice(indptr[user], indptr[user + 1])
        x = np.zeros(len(popularity))
        x[items[own]] = weights[own]
        score = popularity + x @ features @ features.T
        score[chosen] += x[chosen] @ item_weights
        score[items[own]] = -np.inf
        order = np.argsort(-score, kind="stable")[: best.shape[1]]
        order = order[score[order] > -np.inf]
        best[user], scores[user] = -1, -np.inf
        best[user, : len(order)], scores[user, : len(order)] = order, score[order]

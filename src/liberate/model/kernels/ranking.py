"""Kernels that score and rank items for many people at a time."""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float32Array, Int32Array, Int64Array
from liberate.compilation import N_PARTS, device_kernel, prange, serial_kernel


@serial_kernel
def predict_pairs(profiles: Float32Array, items: Float32Array, rows: Int32Array, columns: Int32Array) -> Float32Array:
    """Return b_u + b_i + p_u·q_i of each pair.

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


@serial_kernel
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


@device_kernel
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
    for part in prange(N_PARTS):
        score = np.empty(n_items, np.float32)
        for user in range(part, len(profiles), N_PARTS):
            for item in range(n_items):
                score[item] = profiles[user, k - 1] + columns[k - 1, item]
            for t in range(k - 1):
                x = profiles[user, t]
                for item in range(n_items):
                    score[item] += x * columns[t, item]
            for place in range(exclude_indptr[user], exclude_indptr[user + 1]):
                score[exclude_items[place]] = -np.inf
            _keep_best(score, best[user], scores[user])


@device_kernel
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
    for part in prange(N_PARTS):
        score = np.empty(n_items, np.float32)
        said = np.empty(n_chosen, np.float32)
        taste = np.empty(n_features, np.float32)
        for user in range(part, len(best), N_PARTS):
            said[:] = 0
            taste[:] = 0
            for rating in range(indptr[user], indptr[user + 1]):
                x = weights[rating]
                feature = features[items[rating]]
                for t in range(n_features):
                    taste[t] += x * feature[t]
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

"""How good predictions and recommendations are, and what costs nothing reaches.

Ranking metrics look at each user's ten best items of the whole catalogue without those in the user's training set.
A held-out rating counts as relevant from three quarters of the scale on: 4 on a scale of 1 to 5.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from liberate.arrays import BoolArray, Float32Array, Float64Array, Int32Array
from liberate.data.dataset import Catalogue
from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.model.model import Model
from liberate.model.profiles import predict
from liberate.model.ranking import rank, top_n

_N = 10
_RELEVANT = 0.75
_DAMPING = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingMetrics:
    """How good lists of ten items are.

    Attributes:
        ndcg_at_10: Normalised discounted cumulative gain, 0 to 1, mean over users with something relevant held out;
            NaN where nobody has.
        recall_at_10: Share of a user's relevant held-out items that are listed, mean over the same users.
        coverage: Share of the catalogue that is listed for anybody.
        gini: Gini coefficient of how often each item of the catalogue is listed: 0 all alike, towards 1 few only.
        ild: Intra-list diversity: mean over pairs of a list of 1 - Jaccard similarity of their genres, mean over users;
            None without genres.
    """

    ndcg_at_10: float
    recall_at_10: float
    coverage: float
    gini: float
    ild: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(RankingMetrics):
    """How good a model is.

    Attributes:
        rmse: Root mean squared error of held-out ratings, predictions clipped to the scale, in rating points; NaN for a
            model that orders items and predicts no ratings.
    """

    rmse: float


def evaluate_model(model: Model, profiles: Float32Array, split: Split, catalogue: Catalogue | None) -> Metrics:
    """Judge a model by held-out ratings.

    Args:
        model: The public model.
        profiles: From `fit_devices` on the training part.
        split: What was learned from, and what was held out.
        catalogue: For the genres, or None.
    """
    error = float("nan")
    if model.predicts_ratings:
        error = rmse(predict(model, profiles, split.test.users(), split.test.items), split.test.values)

    lists, _ = top_n(model, profiles, split.train, _N)
    ranking = judge_lists(lists, split.test, model.low, model.high, catalogue)
    return Metrics(rmse=error, **asdict(ranking))


def baselines(split: Split, low: float, high: float, catalogue: Catalogue | None) -> dict[str, dict[str, float]]:
    """Judge what anybody gets for nothing, by name: metrics by name.

    `global mean` and `user mean` predict just that. `damped biases` adds to the global mean each item's mean deviation,
    then each user's, as if five more ratings deviated by nothing. `most popular` lists the items with most ratings that
    count as relevant.
    """
    train, test = split.train, split.test
    centre = float(train.values.mean(dtype=np.float64)) if train.n_ratings else (low + high) / 2
    train_users, test_users = train.users(), test.users()

    deviations = train.values - centre
    user_means = _damped_means(train_users, deviations, train.n_users, 0)
    item_biases = _damped_means(train.items, deviations, train.n_items, _DAMPING)
    user_biases = _damped_means(train_users, deviations - item_biases[train.items], train.n_users, _DAMPING)
    predictions = {
        "global mean": np.full(test.n_ratings, centre),
        "user mean": centre + user_means[test_users],
        "damped biases": centre + item_biases[test.items] + user_biases[test_users],
    }
    errors = {name: {"rmse": rmse(np.clip(values, low, high), test.values)} for name, values in predictions.items()}

    liked = train.items[train.values >= low + _RELEVANT * (high - low)]
    popularity = np.bincount(liked, minlength=train.n_items).astype(np.float32)
    lists, _ = rank(np.zeros((train.n_users, 1), np.float32), popularity[:, None], train, _N)
    ranking = asdict(judge_lists(lists, test, low, high, catalogue))
    return errors | {"most popular": {name: value for name, value in ranking.items() if value is not None}}


def rmse(predicted: Float32Array | Float64Array, actual: Float32Array) -> float:
    """Return the root mean squared error, shape (n,) each; NaN of nothing."""
    if len(actual) == 0:
        return float("nan")
    return float(np.sqrt(np.mean((predicted.astype(np.float64) - actual) ** 2)))


def judge_lists(
    lists: Int32Array, test: Ratings, low: float, high: float, catalogue: Catalogue | None
) -> RankingMetrics:
    """Judge each user's list of items by held-out ratings.

    Args:
        lists: Items, best first, -1 where a list is shorter, shape (n_users, 10).
        test: Held-out ratings of the same users.
        low: Lowest rating of the scale.
        high: Highest rating of the scale.
        catalogue: For the genres, or None.
    """
    relevant = test.where(test.values >= low + _RELEVANT * (high - low))
    counts = np.diff(relevant.indptr)
    hits = _hits(lists, relevant)
    gains = 1 / np.log2(np.arange(2, _N + 2))
    best = np.concatenate([[0], np.cumsum(gains)])[np.minimum(counts, _N)]
    judged = counts > 0

    exposure = np.bincount(lists[lists >= 0], minlength=test.n_items)
    return RankingMetrics(
        ndcg_at_10=_mean((hits @ gains)[judged] / best[judged]) if judged.any() else math.nan,
        recall_at_10=_mean(hits.sum(axis=1)[judged] / counts[judged]) if judged.any() else math.nan,
        coverage=_mean(exposure > 0),
        gini=gini(exposure.astype(np.float64)),
        ild=None if catalogue is None or not any(catalogue.genres) else _diversity(lists, catalogue),
    )


def gini(values: Float64Array) -> float:
    """Return the Gini coefficient of values >= 0, shape (n,): 0 where all are alike (or all zero)."""
    n, total = len(values), values.sum()
    if total == 0:
        return 0.0
    ranks = np.arange(1, n + 1)
    return float((2 * ranks - n - 1) @ np.sort(values) / (n * total))


def _hits(lists: Int32Array, relevant: Ratings) -> BoolArray:
    """Tell which listed items are relevant to the list's user, shape as `lists`."""
    pairs = relevant.users().astype(np.int64) * relevant.n_items + relevant.items
    asked = np.arange(len(lists))[:, None] * relevant.n_items + lists
    return np.isin(asked, pairs) & (lists >= 0)


def _diversity(lists: Int32Array, catalogue: Catalogue) -> float:
    """Return the mean over users, with two items or more listed, of the mean genre distance between their items."""
    names = sorted({name for genres in catalogue.genres for name in genres})
    has = np.array([[name in genres for name in names] for genres in catalogue.genres], np.float32)
    of = has[lists] * (lists >= 0)[:, :, None]
    common = of @ of.transpose(0, 2, 1)
    sizes = of.sum(axis=2)
    either = sizes[:, :, None] + sizes[:, None, :] - common
    distance = np.where(either > 0, 1 - common / np.maximum(either, 1), 0)

    is_pair = np.triu((lists >= 0)[:, :, None] & (lists >= 0)[:, None, :], 1)
    n_pairs = is_pair.sum(axis=(1, 2))
    judged = n_pairs > 0
    return _mean((distance * is_pair).sum(axis=(1, 2))[judged] / n_pairs[judged])


def _damped_means(index: Int32Array, values: Float64Array | Float32Array, size: int, damping: float) -> Float64Array:
    """Return the mean of the values at each index, shape (size,), as if `damping` more of them were zero."""
    sums = np.bincount(index, values, size).astype(np.float64, copy=False)
    counts = np.bincount(index, minlength=size) + damping
    return np.asarray(np.divide(sums, counts, out=np.zeros(size), where=counts > 0))


def _mean(values: Float64Array | BoolArray) -> float:
    """Return the mean, 0 of nothing."""
    return float(values.mean()) if len(values) else 0.0

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Float32Array, Float64Array
from liberate.data.item_features import item_features
from liberate.data.public_datasets import load
from liberate.data.ratings import Ratings
from liberate.data.splits import random_split
from liberate.errors import FederationError
from liberate.model.config import ModelConfig
from liberate.model.cooccurrence import Gram, Popularity
from liberate.model.item_model import initial_items, preference_weights
from liberate.model.item_solvers import REPEATS_WITHIN, Ease, MostPopular, cleaned, item_weights, shrunk_table
from liberate.model.metrics import evaluate_model
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method
from liberate.model.solvers import AggregatedStatistics
from liberate.model.spectral import packed
from tests.model.worlds import checkerboard, learned, noisy_world

GRAM = ModelConfig(objective="implicit", statistic="gram")


def gram_of(own: Ratings) -> Float64Array:
    """Sum of x xᵀ / |x|², a person at a time."""
    total = np.zeros((own.n_items, own.n_items))
    for user in range(own.n_users):
        mine = slice(own.indptr[user], own.indptr[user + 1])
        x = np.zeros(own.n_items)
        x[own.items[mine]] = np.where(own.values[mine] >= 4, 1, 0.3)
        total += np.outer(x, x) / max(float(x @ x), 1e-9)
    return total


def regressions(gram: Float64Array, ridges: Float64Array) -> Float64Array:
    """The ridge regression of each item on all others, one at a time."""
    n = len(gram)
    weights = np.zeros((n, n))
    for item in range(n):
        others = [other for other in range(n) if other != item]
        left = gram[np.ix_(others, others)] + np.diag(ridges[others])
        weights[others, item] = np.linalg.solve(left, gram[others, item])
    return weights


@given(seed=st.integers(0, 99), ridge=st.floats(0.1, 50))
def test_item_weights_are_the_regressions_of_each_item_on_all_others(seed: int, ridge: float) -> None:
    gram = gram_of(noisy_world(12, 6, seed))
    ridges = ridge * np.sqrt(np.maximum(np.diag(gram) / np.diag(gram).mean(), 0.02))

    np.testing.assert_allclose(item_weights(gram, ridge), regressions(gram, ridges), rtol=1e-6, atol=1e-9)


def test_one_round_over_everything_gives_the_whole_model() -> None:
    own = noisy_world(20, 8)

    model = learned(GRAM, own, 1)

    expected = gram_of(own)
    ridges = 5 * np.sqrt(np.diag(expected) / np.diag(expected).mean())
    np.testing.assert_allclose(model.arrays["popularity"], np.diag(expected), rtol=1e-5)
    np.testing.assert_allclose(model.arrays["item_weights"], regressions(expected, ridges), rtol=1e-3, atol=1e-5)
    assert (model.version, model.statistic) == (1, "gram")
    assert model.arrays["item_weights"].dtype == np.float32
    assert (np.diag(model.arrays["item_weights"]) == 0).all()


def test_an_items_colour_on_a_checkerboard_is_told_by_the_others() -> None:
    """Nobody's list holds an item of the wrong colour as long as one of the right colour is left."""
    split = checkerboard(60, 40)
    model = learned(GRAM, split.train, 1)

    metrics = evaluate_model(model, fit_devices(model, split.train), split, None)

    assert metrics.ndcg_at_10 == pytest.approx(1.0)


def test_the_most_popular_items_are_chosen_for_the_gram() -> None:
    start = initial_items(5, 1.0, 5.0, statistic="popularity", noisy=True)
    total = AggregatedStatistics(np.array([[3.0], [-1.0], [7.0], [3.0], [3.0]]), np.zeros(0), 9)

    model = MostPopular(3).solve(start, total)

    assert model.arrays["gram_items"].tolist() == [0, 2, 3]  # of equally popular ones the first
    assert model.arrays["popularity"].tolist() == [3, -1, 7, 3, 3]
    assert (model.statistic, model.version) == ("gram", 1)


def test_without_a_gram_to_come_the_model_ranks_by_popularity() -> None:
    start = initial_items(3, 1.0, 5.0, statistic="popularity", noisy=True)

    model = MostPopular(0).solve(start, AggregatedStatistics(np.array([[1.0], [3.0], [2.0]]), np.zeros(0), 9))

    assert model.statistic == "popularity"
    assert "gram_items" not in model.arrays


def private(
    own: Ratings,
    n_chosen: int,
    deviations: tuple[float, float],
    seed: int = 0,
    features: Float32Array | None = None,
) -> Model:
    """Learn by the two releases, with Gaussian noise of a deviation on each coordinate of each sum."""
    rng = np.random.default_rng(seed)
    model = initial_items(own.n_items, 1.0, 5.0, statistic="popularity", noisy=True, features=features)
    total = aggregate_statistics(Popularity(own.n_items), model, own)
    total.rows[:] += rng.normal(0, deviations[0], total.rows.shape)
    model = MostPopular(n_chosen).solve(model, total)
    total = aggregate_statistics(Gram(n_chosen), model, own)
    total.rows[:] += rng.normal(0, deviations[1], total.rows.shape)
    client_noise = round(deviations[1] / math.sqrt(own.n_users) * 1e9)
    return Ease(client_noise_nano=client_noise).solve(model, total)


def test_two_noisy_releases_still_tell_the_colours() -> None:
    split = checkerboard(1000, 40)

    model = private(split.train, 40, (4.0, 4.0))

    metrics = evaluate_model(model, fit_devices(model, split.train), split, None)
    assert metrics.ndcg_at_10 > 0.99


def test_cleaning_brings_a_noisy_gram_nearer_to_the_truth() -> None:
    split = checkerboard(1000, 40)
    model = initial_items(40, 1.0, 5.0, statistic="popularity", noisy=False)
    popularity = aggregate_statistics(Popularity(40), model, split.train).rows[:, 0]
    truth = gram_of(split.train)
    noise = np.random.default_rng(0).normal(0, 8.0, (40, 40))
    noisy = truth + np.tril(noise, -1) / math.sqrt(2) + np.tril(noise, -1).T / math.sqrt(2) + np.diag(np.diag(noise))

    clean = cleaned(noisy, 8.0, popularity)

    assert np.linalg.norm(clean - truth) < 0.6 * np.linalg.norm(noisy - truth)
    assert np.diag(clean).sum() == pytest.approx(np.trace(noisy), rel=0.1)
    assert np.linalg.eigvalsh(clean).min() > 0


def test_nothing_but_noise_gives_a_model_all_the_same() -> None:
    nobody = Ratings(np.zeros(11, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 6)

    for seed in range(20):
        model = private(nobody, 4, (30.0, 30.0), seed)
        assert np.isfinite(model.arrays["item_weights"]).all()


def test_a_sum_nobody_joined_gives_a_model_that_says_nothing() -> None:
    statistic, solver = build_method(GRAM, 5, noisy=False)
    model = initial_items(5, 1.0, 5.0, statistic="gram", noisy=False)

    solved = solver.solve(model, AggregatedStatistics(np.zeros((statistic.shape[0], 1)), np.zeros(0), 0))

    assert not solved.arrays["item_weights"].any()


def test_a_sum_that_no_ratings_give_is_refused() -> None:
    own = noisy_world(20, 8)
    _, solver = build_method(GRAM, 8, noisy=False)
    model = initial_items(8, 1.0, 5.0, statistic="gram", noisy=False)
    hostile = packed(gram_of(own) - 50 * np.ones((8, 8)))

    with pytest.raises(FederationError, match="no model follows from the round's sum"):
        solver.solve(model, AggregatedStatistics(hostile[:, None], np.zeros(0), 20))


def test_another_order_of_operations_repeats_a_model_within_what_its_entry_states() -> None:
    """LAPACK on another machine sums in another order: here, by solving with the items in another order."""
    own = noisy_world(200, 60)
    gram = gram_of(own)
    order = np.random.default_rng(0).permutation(60)

    first = item_weights(gram, 5.0)
    again = np.empty_like(first)
    again[np.ix_(order, order)] = item_weights(gram[np.ix_(order, order)], 5.0)

    assert np.abs(first - again).max() < REPEATS_WITHIN / 1000
    assert Ease().parameters() == {"ridge_nano": 5 * 10**9, "client_noise_nano": 0, "repeats_within_nano": 100_000}
    assert (Ease().name, MostPopular(7).name, MostPopular(7).parameters()) == ("ease/1", "popular/1", {"n_chosen": 7})


def test_public_features_help_to_tell_signal_from_noise() -> None:
    """People like one of two genres; the noise hides it, and which item is of which genre is public."""
    rng = np.random.default_rng(0)
    genres = np.eye(2, dtype=np.float32)[np.arange(60) % 2]
    truth = 20 * genres @ genres.T + 5.0
    noise = np.tril(rng.normal(0, 40, (60, 60)), -1)
    noisy = truth + noise + noise.T + np.diag(rng.normal(0, 40 * math.sqrt(2), 60))
    popularity = np.full(60, 50.0)

    blind, seeing = (cleaned(noisy, 40 * math.sqrt(2), popularity, known) for known in (None, genres))

    off = ~np.eye(60, dtype=np.bool_)
    assert np.linalg.norm((seeing - truth)[off]) < 0.7 * np.linalg.norm((blind - truth)[off])
    assert np.linalg.norm((seeing - truth)[off]) < 0.15 * np.linalg.norm((noisy - truth)[off])


def test_cleaning_without_noise_changes_no_entry_but_the_diagonal() -> None:
    """Taking the matrix apart and putting it together loses nothing."""
    gram = gram_of(noisy_world(50, 12))
    features = np.random.default_rng(0).random((12, 3)).astype(np.float32)

    found = cleaned(gram, 0.0, np.diag(gram), features)

    np.testing.assert_allclose(found, gram, atol=1e-6)


def test_a_table_is_shrunk_to_what_stands_out() -> None:
    rng = np.random.default_rng(0)
    truth = 60 * np.outer(np.full(100, 0.1), np.full(25, 0.2))
    noisy = truth + rng.normal(0, 1, truth.shape)

    found = shrunk_table(noisy, 1.0)

    assert np.linalg.matrix_rank(found) == 1
    assert np.linalg.norm(found - truth) < 0.35 * np.linalg.norm(noisy - truth)
    np.testing.assert_allclose(shrunk_table(noisy, 0.0), noisy, atol=1e-9)
    for factor in (0.9, 1.1):  # no other multiple of the singular vectors would be nearer
        assert np.linalg.norm(factor * found - truth) > np.linalg.norm(found - truth)


def test_features_travel_from_the_first_release_to_the_last_model() -> None:
    own = noisy_world(60, 8)
    features = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
    start = initial_items(8, 1.0, 5.0, statistic="popularity", noisy=True, features=features)
    none = initial_items(8, 1.0, 5.0, statistic="popularity", noisy=True, features=np.zeros((8, 0), np.float32))

    chosen = MostPopular(5).solve(start, aggregate_statistics(Popularity(8), start, own))
    last = Ease(client_noise_nano=10**6).solve(chosen, aggregate_statistics(Gram(5), chosen, own))

    for model in (chosen, last):
        np.testing.assert_array_equal(model.arrays["item_features"], preference_weights(features))
    assert "item_features" not in none.arrays


@pytest.mark.parametrize(("name", "least"), [("ml-100k", 0.376), pytest.param("ml-1m", 0.39, marks=pytest.mark.soak)])
def test_defaults_reach_the_published_figures(name: str, least: float, real_data: Callable[[str], Path]) -> None:
    dataset = load(real_data(name))
    split = random_split(dataset)
    model = learned(ModelConfig(objective="implicit"), split.train, 1, dataset.low, dataset.high)

    found = evaluate_model(model, fit_devices(model, split.train), split, None)

    assert found.ndcg_at_10 >= least


def test_two_noisy_releases_reach_the_published_figure(real_data: Callable[[str], Path]) -> None:
    """The noise of epsilon 8, delta 1e-5, for the sums of everybody: 0.60 where one release has all of the budget."""
    dataset = load(real_data("ml-1m"))
    split = random_split(dataset)
    features = item_features(dataset.catalogue, split.train.n_items)

    model = private(split.train, 850, (0.6 / math.sqrt(0.1), 0.6 / math.sqrt(0.9)), features=features)

    found = evaluate_model(model, fit_devices(model, split.train), split, None)
    assert found.ndcg_at_10 >= 0.35

from __future__ import annotations

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.model.config import ModelConfig
from liberate.model.implicit_factors import WeightedBayes, initial_weighted, model_of_features
from liberate.model.item_model import initial_items
from liberate.model.metrics import evaluate_model
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method
from tests.model.worlds import SECRET, checkerboard, learned, noisy_world
from tests.reference import factorisation as plain

WEIGHTED = ModelConfig(objective="implicit", statistic="normal", n_factors=3)


def targets(own: Ratings, user: int) -> tuple[np.ndarray, np.ndarray]:
    """A person's items, and what their scores are fitted to."""
    mine = slice(own.indptr[user], own.indptr[user + 1])
    return own.items[mine], np.where(own.values[mine] >= 4, 1.0, 0.5)


def test_a_device_fits_its_ratings_and_a_little_of_everything_else() -> None:
    """Solved densely: rated items count 1 towards their target, every item 0.3 towards zero, a ridge of 2."""
    own = noisy_world(6, 12)
    model = learned(WEIGHTED, own, 2)
    k = model.n_factors
    items = model.float64("item_means")[:, :k]
    moments = np.array([plain.unpack(m, k + 1)[:k, :k] for m in model.float64("item_moments")])

    profiles = fit_devices(model, own)

    for user in range(own.n_users):
        rated, wanted = targets(own, user)
        left = 2 * np.eye(k) + 0.3 * moments.sum(axis=0) + moments[rated].sum(axis=0)
        np.testing.assert_allclose(profiles[user, :k], np.linalg.solve(left, wanted @ items[rated]), atol=2e-4)
        assert abs(profiles[user, k]) < 1e-4


def test_the_server_fits_items_to_everybody() -> None:
    own = noisy_world(30, 12)
    model = learned(WEIGHTED, own, 2)
    statistic, solver = build_method(WEIGHTED, 12, noisy=False)
    batch = statistic.compute(model, own)
    k = 3
    participants = np.array([plain.unpack(row[:10], 4)[:k, :k] for row in batch.tails])
    means = batch.tails[:, 10 : 10 + k]

    solved = solver.solve(model, aggregate_statistics(statistic, model, own))

    for item in range(12):
        left, right = 2 * np.eye(k) + 0.3 * participants.sum(axis=0), np.zeros(k)
        for user in range(own.n_users):
            rated, wanted = targets(own, user)
            if item in rated:
                left += participants[user]
                right += wanted[rated == item][0] * means[user]
        np.testing.assert_allclose(solved.item_means[item, :k], np.linalg.solve(left, right), rtol=1e-3, atol=1e-5)
    assert solved.arrays["training_error"][0] < model.arrays["training_error"][0]


def test_lists_tell_the_colours_of_a_checkerboard() -> None:
    split = checkerboard(60, 40)
    model = learned(WEIGHTED, split.train, 10)

    found = evaluate_model(model, fit_devices(model, split.train), split, None)

    assert found.ndcg_at_10 > 0.99
    assert np.isnan(found.rmse)
    assert not model.predicts_ratings


def test_a_device_alone_finds_its_taste_in_public_features() -> None:
    """Nothing leaves it: the colour is public, and who likes which is not."""
    split = checkerboard(60, 40)
    colours = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    model = model_of_features(colours, 1.0, 5.0)

    found = evaluate_model(model, fit_devices(model, split.train), split, None)

    assert found.ndcg_at_10 > 0.99


def test_a_catalogue_without_features_gives_lists_all_the_same() -> None:
    split = checkerboard(10, 8)
    model = model_of_features(np.zeros((8, 0), np.float32), 1.0, 5.0)

    assert np.isfinite(evaluate_model(model, fit_devices(model, split.train), split, None).ndcg_at_10)


@pytest.mark.parametrize(
    ("n_items", "noisy", "statistic", "names"),
    [
        (6_000, False, "auto", ("gram", "ease/1")),
        (6_001, False, "auto", ("normal", "weighted/1")),
        (10, False, "normal", ("normal", "weighted/1")),
        (10, True, "auto", ("popularity", "popular/1")),
    ],
)
def test_the_catalogue_decides_how_lists_are_learned(
    n_items: int, noisy: bool, statistic: str, names: tuple[str, str]
) -> None:
    config = ModelConfig(objective="implicit", statistic="normal" if statistic == "normal" else "auto")

    found, solver = build_method(config, n_items, noisy=noisy)

    assert (found.name, solver.name) == names


def test_a_statistic_that_does_not_serve_the_objective_is_refused() -> None:
    with pytest.raises(
        ValueError, match="statistic gradient is not one for the objective implicit, wanted auto, gram, normal"
    ):
        ModelConfig(objective="implicit", statistic="gradient")
    with pytest.raises(
        ValueError, match="statistic gram is not one for the objective explicit, wanted auto, normal, gradient"
    ):
        ModelConfig(statistic="gram")


def test_a_sum_that_no_ratings_give_is_refused() -> None:
    own = noisy_world(20, 8)
    statistic, solver = build_method(WEIGHTED, 8, noisy=False)
    model = initial_weighted(3, 8, 1.0, 5.0, SECRET)
    total = aggregate_statistics(statistic, model, own)
    total.rows[0] *= -1000

    with pytest.raises(FederationError, match="no model follows from the round's sum"):
        solver.solve(model, total)
    with pytest.raises(ValueError, match="the model is of popularity"):
        solver.solve(initial_items(8, 1.0, 5.0, statistic="popularity", noisy=False), total)


def test_parameters_name_all_that_the_result_depends_on() -> None:
    assert WeightedBayes(3).parameters() == {"n_factors": 3, "background_nano": 300_000_000, "ridge_nano": 2 * 10**9}


def test_a_model_of_the_start_is_made_of_public_numbers_and_the_secret() -> None:
    first, again = (initial_weighted(3, 8, 1.0, 5.0, SECRET) for _ in range(2))
    other = initial_weighted(3, 8, 1.0, 5.0, bytes(32))

    assert isinstance(first, Model)
    np.testing.assert_array_equal(first.item_means, again.item_means)
    assert (first.item_means[:, :3] != other.item_means[:, :3]).all()

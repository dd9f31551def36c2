from __future__ import annotations

import numpy as np
import pytest

from liberate.arrays import Int32Array
from liberate.data.dataset import Catalogue
from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.model.config import ModelConfig
from liberate.model.metrics import baselines, evaluate_model, gini, judge_lists, rmse
from liberate.model.profiles import fit_devices, predict
from tests.model.worlds import learned, noisy_world


def ratings_of(triples: list[tuple[int, int, float]], n_users: int, n_items: int) -> Ratings:
    users, items, values = (np.array(column) for column in zip(*triples, strict=True))
    return Ratings.from_triples(users, items, values.astype(np.float32), n_users, n_items)


def lists_of(*lists: list[int]) -> Int32Array:
    return np.array([row + [-1] * (10 - len(row)) for row in lists], np.int32)


def test_ndcg_and_recall_of_lists_by_hand() -> None:
    """User 0 likes 1, 2 and 3 of which two are listed, first and third; user 1 likes 0, not listed; user 2 nothing."""
    test = ratings_of([(0, 1, 4.0), (0, 2, 5.0), (0, 3, 4.5), (0, 0, 3.5), (1, 0, 5.0), (2, 1, 1.0)], 3, 6)

    found = judge_lists(lists_of([2, 0, 1], [1, 2], [1]), test, 1.0, 5.0, None)

    gains = 1 / np.log2([2, 3, 4])
    assert found.ndcg_at_10 == pytest.approx((gains[0] + gains[2]) / gains.sum() / 2)
    assert found.recall_at_10 == pytest.approx(2 / 3 / 2)
    assert found.coverage == pytest.approx(3 / 6)
    assert found.ild is None


def test_what_counts_as_relevant_follows_the_scale() -> None:
    test = ratings_of([(0, 0, 75.0), (0, 1, 74.0)], 1, 2)

    assert judge_lists(lists_of([0]), test, 0.0, 100.0, None).recall_at_10 == 1
    assert judge_lists(lists_of([1]), test, 0.0, 100.0, None).recall_at_10 == 0


def test_gini_is_zero_for_equals_and_nears_one_for_a_monopoly() -> None:
    assert gini(np.full(7, 3.0)) == pytest.approx(0)
    assert gini(np.array([0.0, 0.0, 0.0, 5.0])) == pytest.approx(3 / 4)
    assert gini(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 9)
    assert gini(np.zeros(3)) == 0


def test_diversity_is_the_mean_genre_distance_of_a_list() -> None:
    """Distances: {a} to {a, b} 1/2, {a} to {c} 1, {a, b} to {c} 1; two items without genres are alike."""
    genres = (("a",), ("a", "b"), ("c",), (), ())
    catalogue = Catalogue(("",) * 5, np.zeros(5, np.int32), genres)
    test = ratings_of([(0, 0, 5.0)], 3, 5)

    found = judge_lists(lists_of([0, 1, 2], [3, 4], [0]), test, 1.0, 5.0, catalogue)

    assert found.ild == pytest.approx((2.5 / 3 + 0) / 2)


def test_a_catalogue_without_genres_has_no_diversity() -> None:
    catalogue = Catalogue(("",) * 2, np.zeros(2, np.int32), ((), ()))

    assert judge_lists(lists_of([0, 1]), ratings_of([(0, 0, 5.0)], 1, 2), 1.0, 5.0, catalogue).ild is None


def test_rmse_is_the_root_of_the_mean_square() -> None:
    assert rmse(np.array([1.0, 2.0]), np.array([2.0, 4.0], np.float32)) == pytest.approx(np.sqrt(2.5))
    assert np.isnan(rmse(np.zeros(0), np.zeros(0, np.float32)))


def test_evaluate_judges_clipped_predictions_and_the_best_ten_not_learned_from() -> None:
    whole = noisy_world()
    held_out = np.random.default_rng(1).random(whole.n_ratings) < 0.3
    split = Split(whole.where(~held_out), whole.where(held_out))
    model = learned(ModelConfig(n_factors=2), split.train, 5)
    profiles = fit_devices(model, split.train)

    found = evaluate_model(model, profiles, split, None)

    predicted = predict(model, profiles, split.test.users(), split.test.items)
    assert found.rmse == rmse(predicted, split.test.values)
    assert found.ndcg_at_10 > 0.3  # about a third of what is left was rated, and half of that is relevant
    assert 0 < found.coverage <= 1


def test_baselines_by_hand() -> None:
    train = ratings_of([(0, 0, 5.0), (0, 1, 4.0), (1, 0, 3.0)], 2, 3)
    test = ratings_of([(0, 2, 4.0), (1, 2, 5.0)], 2, 3)

    found = baselines(Split(train, test), 1.0, 5.0, None)

    assert found["global mean"]["rmse"] == pytest.approx(np.sqrt((0 + 1) / 2))
    assert found["user mean"]["rmse"] == pytest.approx(np.sqrt((0.5**2 + 2**2) / 2))
    # items deviate by +1 and -1, 0, and nothing; so all item biases are 0, and users deviate by +1, 0 and by -1
    errors = [4 + 1 / 7 - 4, 4 - 1 / 6 - 5]
    assert found["damped biases"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    # user 0 has only item 2 left; user 1 is shown item 1, which was liked once, before item 2
    assert found["most popular"]["ndcg_at_10"] == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_baselines_of_nothing_to_learn_from_are_finite() -> None:
    nothing = Ratings(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 2)

    found = baselines(Split(nothing, ratings_of([(0, 0, 4.0)], 2, 2)), 1.0, 5.0, None)

    assert found["damped biases"]["rmse"] == 1.0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.data.ratings import Ratings
from liberate.errors import DataError
from liberate.model.codec import decode_model, encode_model
from liberate.model.config import ModelConfig
from liberate.model.item_model import initial_items, preference_weights
from liberate.model.kernels import ranking
from liberate.model.metrics import evaluate_model
from liberate.model.model import Array, Model
from liberate.model.profiles import fit_devices, predict
from liberate.model.ranking import top_n
from tests.model.worlds import checkerboard, learned, noisy_world
from tests.reference import gram as plain
from tests.strategies import ratings

GRAM = ModelConfig(objective="implicit", statistic="gram")


def item_model(**changed: Array) -> Model:
    """Three of five items chosen; item 3 says much for item 0."""
    weights = np.zeros((3, 3), np.float32)
    weights[2, 0] = 0.5
    arrays: dict[str, Array] = {
        "popularity": np.array([0.0, 5.0, 3.0, 1.0, 2.0]),
        "gram_weights": np.array([0.3, 0.3, 0.3, 1.0, 1.0]),
        "gram_items": np.array([0.0, 1.0, 3.0]),
        "item_weights": weights,
    }
    return Model.of(2, "gram", 1.0, 5.0, arrays | changed)


def lists(model: Model, own: Ratings, n: int = 5) -> list[list[int]]:
    found, _ = top_n(model, fit_devices(model, own), own, n)
    return [[int(item) for item in row] for row in found]


def rated(*items: int, value: float = 5.0) -> Ratings:
    """One person's ratings."""
    n = len(items)
    return Ratings.from_triples(np.zeros(n, int), np.array(items, int), np.full(n, value), 1, 5)


def test_a_rated_item_speaks_for_others_and_popularity_orders_the_rest() -> None:
    assert lists(item_model(), rated(3)) == [[0, 1, 2, 4, -1]]
    assert lists(item_model(), rated(2)) == [[1, 4, 3, 0, -1]]  # item 2 is not chosen: it says nothing
    assert lists(item_model(), rated()) == [[1, 2, 4, 3, 0]]


def test_a_low_rating_speaks_less() -> None:
    _, high = top_n(item_model(), np.zeros((1, 0), np.float32), rated(3), 1)
    _, low = top_n(item_model(), np.zeros((1, 0), np.float32), rated(3, value=2.0), 1)

    assert high[0, 0] == pytest.approx(0.5)
    assert low[0, 0] == pytest.approx(0.15)


def test_features_speak_for_every_item_chosen_or_not() -> None:
    alike = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0]], np.float32)
    model = item_model(item_features=alike)

    _, scores = top_n(model, np.zeros((1, 0), np.float32), rated(4), 4)

    assert lists(model, rated(4))[0][:2] == [3, 0]  # 4 is not chosen, and speaks for 0 and 3 by its features
    np.testing.assert_allclose(scores[0], [1, 1, 0.001, 0.0006], atol=0.0003)


def test_weighed_features_regress_on_all_items() -> None:
    """A feature of every item and one of a single item: neither drowns the other."""
    features = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    x = np.zeros(20)
    x[[3, 5]] = 1.0

    found = x @ preference_weights(features) @ preference_weights(features).T

    coefficients = np.linalg.solve(features.T @ features + 10 * np.eye(3), features.T @ x)
    np.testing.assert_allclose(found, 0.8 * features @ coefficients, atol=1e-6)


def test_before_anything_is_learned_items_come_in_their_order() -> None:
    start = initial_items(5, 1.0, 5.0, statistic="popularity", noisy=False)

    assert lists(start, rated(1), 3) == [[0, 2, 3]]


def test_noise_below_zero_is_no_popularity() -> None:
    model = item_model(popularity=np.array([-9.0, -1.0, -2.0, -3.0, -4.0]))

    assert lists(model, rated()) == [[0, 1, 2, 3, 4]]


@given(own=ratings(), seed=st.integers(0, 99), n=st.integers(1, 9), data=st.data())
def test_rank_by_items_equals_its_twin(own: Ratings, seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, own.n_items - 1)))), np.int32)
    places = np.full(own.n_items, -1, np.int32)
    places[chosen] = np.arange(len(chosen))
    given_side = (
        rng.integers(0, 4, own.n_items).astype(np.float32),
        rng.integers(-2, 3, (len(chosen), len(chosen))).astype(np.float32),
        chosen,
        places,
        rng.integers(-2, 3, (own.n_items, data.draw(st.integers(0, 3)))).astype(np.float32),
        own.indptr,
        own.items,
        own.values,
    )
    fast, slow = (np.empty((own.n_users, n), np.int32) for _ in range(2))
    fast_scores, slow_scores = (np.empty((own.n_users, n), np.float32) for _ in range(2))

    ranking.rank_by_items(*given_side, fast, fast_scores)
    plain.rank_by_items(*given_side, slow, slow_scores)

    np.testing.assert_array_equal(fast, slow)
    np.testing.assert_array_equal(fast_scores, slow_scores)


def test_an_item_model_comes_back_from_its_bytes() -> None:
    model = item_model()

    again = decode_model(encode_model(model))

    assert encode_model(again) == encode_model(model)
    assert again.is_item_model
    assert (again.n_items, again.n_factors) == (5, 0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"popularity": np.array([[1.0]])}, "no array popularity"),
        ({"gram_weights": np.ones(4)}, "gram_weights are not five numbers from 0 to 1"),
        ({"gram_weights": np.full(5, 1e300)}, "gram_weights are not five numbers from 0 to 1"),
        ({"gram_weights": np.full(5, -0.5)}, "gram_weights are not five numbers from 0 to 1"),
        ({"item_weights": np.zeros((3, 4), np.float32)}, "no array item_weights"),
        ({"item_weights": np.zeros((4, 4), np.float32)}, "no array gram_items"),
        ({"gram_items": np.array([0.0, 1.0, 5.0])}, "gram_items are not items"),
        ({"gram_items": np.array([-1.0, 1.0, 3.0])}, "gram_items are not items"),
        ({"gram_items": np.array([0.0, 1.0, 1.0])}, "gram_items are not items"),
        ({"gram_items": np.array([0.0, 1.5, 3.0])}, "gram_items are not items"),
        ({"item_features": np.zeros((4, 2), np.float32)}, "no array item_features"),
        ({"popularity": np.array([0, 1, 2, 3, np.nan])}, "popularity holds a number that is not finite"),
    ],
)
def test_impossible_item_models_are_refused(changed: dict[str, Array], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        item_model(**changed)


def test_an_item_model_without_weights_of_ratings_is_refused() -> None:
    with pytest.raises(ValueError, match="no array gram_weights"):
        Model.of(0, "popularity", 1.0, 5.0, {"popularity": np.zeros(5)})


def test_bytes_of_an_impossible_item_model_are_refused() -> None:
    """A device indexes its tables with these numbers: they are checked when a model is read."""
    model = item_model()
    damaged = encode_model(model).replace(np.array([0.0, 1.0, 3.0]).tobytes(), np.array([0.0, 1.0, 7.0]).tobytes())

    with pytest.raises(DataError, match="gram_items are not items"):
        decode_model(damaged)


def test_an_item_model_has_no_profile_and_predicts_no_rating() -> None:
    own = noisy_world(4, 5)
    model = item_model()

    assert fit_devices(model, own).shape == (4, 0)
    assert not model.predicts_ratings
    with pytest.raises(ValueError, match="orders items and predicts no ratings"):
        predict(model, fit_devices(model, own), np.zeros(1, np.int32), np.zeros(1, np.int32))


def test_evaluation_of_an_item_model_has_lists_but_no_error() -> None:
    split = checkerboard()
    model = learned(GRAM, split.train, 1)

    found = evaluate_model(model, fit_devices(model, split.train), split, None)

    assert np.isnan(found.rmse)
    assert found.ndcg_at_10 > 0.99

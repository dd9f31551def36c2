from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Float64Array
from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.cooccurrence import Gram, Popularity
from liberate.model.item_model import initial_items
from liberate.model.kernels import device as kernels
from liberate.model.model import Model, initial, level_weights
from liberate.model.spectral import unpacked
from tests.model.worlds import SECRET, noisy_world
from tests.reference import gram as plain
from tests.strategies import ratings

EXPLICIT = (0.2, 0.3, 0.5, 0.8, 1.0)


def model_of(n_items: int, chosen: Sequence[int], weights: Sequence[float] = EXPLICIT) -> Model:
    """A model that asks for a Gram; what it learned so far does not matter."""
    start = initial(ModelConfig(n_factors=1), n_items, 1.0, 5.0, SECRET)
    asked = {"gram_items": np.array(chosen, np.float64), "gram_weights": np.array(weights)}
    return Model.of(1, "gram", 1.0, 5.0, dict(start.arrays) | asked)


def matrices(model: Model, own: Ratings) -> list[Float64Array]:
    """Each device's matrix, unpacked."""
    statistic = Gram(len(model.arrays["gram_items"]))
    batch = statistic.compute(model, own)
    assert batch.tails.shape == (own.n_users, 0)
    result = []
    for device in range(own.n_users):
        vector = np.zeros(statistic.shape[0])
        begin, end = batch.indptr[device : device + 2]
        assert (np.diff(batch.indices[begin:end]) > 0).all()
        vector[batch.indices[begin:end]] = batch.rows[begin:end, 0]
        result.append(unpacked(vector))
    return result


@given(own=ratings(), seed=st.integers(0, 99))
def test_gram_rows_equal_their_twin(own: Ratings, seed: int) -> None:
    weights = np.random.default_rng(seed).choice([0, 0.3, 1], own.n_ratings).astype(np.float32)
    counts = np.diff(own.indptr)
    indptr = np.concatenate([[0], np.cumsum(counts * (counts + 1) // 2)]).astype(np.int64)
    fast, slow = (np.zeros(indptr[-1], np.int32) for _ in range(2))
    fast_rows, slow_rows = (np.zeros((indptr[-1], 1), np.float32) for _ in range(2))

    kernels.gram_rows(own.indptr, own.items, weights, indptr, fast, fast_rows)
    plain.gram_rows(own.indptr, own.items, weights, indptr, slow, slow_rows)

    np.testing.assert_array_equal(fast, slow)
    np.testing.assert_allclose(fast_rows, slow_rows, rtol=1e-6)


@given(own=ratings(), data=st.data())
def test_a_device_sends_its_normalised_outer_product_over_the_chosen_items(own: Ratings, data: st.DataObject) -> None:
    chosen = sorted(data.draw(st.sets(st.integers(0, own.n_items - 1))))

    found = matrices(model_of(own.n_items, chosen), own)

    for user in range(own.n_users):
        x = np.zeros(own.n_items)
        mine = slice(own.indptr[user], own.indptr[user + 1])
        x[own.items[mine]] = np.array(EXPLICIT)[own.values[mine].astype(int) - 1]
        x = x[chosen]
        expected = np.outer(x, x) / max(float(x @ x), 1e-9)
        np.testing.assert_allclose(found[user], expected, atol=1e-6)


@given(own=ratings())
def test_the_norm_of_an_upload_is_one_whatever_was_rated(own: Ratings) -> None:
    """This is the sensitivity that the privacy of a release rests on; clipping afterwards only guards it."""
    batch = Gram(own.n_items).compute(model_of(own.n_items, range(own.n_items)), own)

    for user in range(own.n_users):
        rows = batch.rows[batch.indptr[user] : batch.indptr[user + 1]].astype(np.float64)
        rated = own.indptr[user] < own.indptr[user + 1]
        assert np.linalg.norm(rows) == pytest.approx(1.0 if rated else 0.0, abs=1e-5)


def test_a_device_computes_the_same_bits_in_any_batch() -> None:
    own = noisy_world()
    model = model_of(own.n_items, range(0, own.n_items, 2))
    statistic = Gram(own.n_items // 2)
    whole = statistic.compute(model, own)

    alone = [statistic.compute(model, own.select(np.array([user]))) for user in range(own.n_users)]

    assert b"".join(batch.rows.tobytes() for batch in alone) == whole.rows.tobytes()
    assert b"".join(batch.indices.tobytes() for batch in alone) == whole.indices.tobytes()


def test_weights_are_linear_between_the_quarters_of_any_scale() -> None:
    values = np.array([0.5, 1.625, 2.75, 3.875, 5.0, 3.3125], np.float32)

    found = level_weights(np.array(EXPLICIT), values, 0.5, 5.0)

    np.testing.assert_allclose(found, [0.2, 0.3, 0.5, 0.8, 1.0, 0.65])


def test_a_rating_that_weighs_nothing_leaves_nothing() -> None:
    own = Ratings.from_triples(np.array([0, 0]), np.array([0, 2]), np.array([1.0, 2.0]), 1, 3)

    (matrix,) = matrices(model_of(3, [0, 2], (0, 0, 0, 1, 1)), own)

    np.testing.assert_array_equal(matrix, np.zeros((2, 2)))


def test_a_model_of_another_statistic_or_size_is_refused() -> None:
    own = noisy_world(4, 6)
    other = initial(ModelConfig(n_factors=1), 6, 1.0, 5.0, SECRET)

    for model in (model_of(6, [1, 2, 3]), other):
        with pytest.raises(ValueError, match="the model is not of a Gram over 2 items"):
            Gram(2).compute(model, own)


@given(own=ratings(), seed=st.integers(0, 99))
def test_popularity_rows_equal_their_twin(own: Ratings, seed: int) -> None:
    weights = np.random.default_rng(seed).choice([0, 0.3, 1], own.n_ratings).astype(np.float32)
    fast, slow = (np.full((own.n_ratings, 1), np.nan, np.float32) for _ in range(2))

    kernels.popularity_rows(own.indptr, weights, fast)
    plain.popularity_rows(own.indptr, weights, slow)

    np.testing.assert_allclose(fast, slow, rtol=1e-6)


@given(own=ratings())
def test_a_person_adds_norm_one_to_popularity_and_no_more(own: Ratings) -> None:
    model = initial_items(own.n_items, 1.0, 5.0, statistic="popularity", noisy=True)

    batch = Popularity(own.n_items).compute(model, own)

    np.testing.assert_array_equal(batch.indices, own.items)
    assert batch.tails.shape == (own.n_users, 0)
    for user in range(own.n_users):
        begin, end = own.indptr[user : user + 2]
        assert np.linalg.norm(batch.rows[begin:end]) == pytest.approx(1.0 if end > begin else 0.0, abs=1e-6)
        liked = own.values[begin:end] >= 4
        if liked.any() and not liked.all():
            assert batch.rows[begin:end][liked].min() == pytest.approx(2 * batch.rows[begin:end][~liked].max())


def test_popularity_refuses_a_model_of_another_statistic() -> None:
    with pytest.raises(ValueError, match="the model is of gram, not of popularity"):
        Popularity(6).compute(model_of(6, [1, 2, 3]), noisy_world(4, 6))

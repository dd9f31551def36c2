from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Float32Array, Float64Array
from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import build_method
from liberate.model.statistics import Gradient, NormalEquations
from tests.model.worlds import learned, noisy_world
from tests.strategies import ratings

NAMES = ("normal", "gradient")


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test change the number of threads."""
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


def config_of(name: str, n_factors: int = 5) -> ModelConfig:
    return ModelConfig(statistic="normal" if name == "normal" else "gradient", n_factors=n_factors)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_computes_the_same_bits_in_any_batch_and_on_any_number_of_cores(name: str, threads: None) -> None:
    own = noisy_world()
    model = learned(config_of(name, 15), own, 3)
    statistic, _ = build_method(config_of(name, 15), own.n_items, noisy=False)
    whole = statistic.compute(model, own)

    numba.set_num_threads(1)
    alone = [statistic.compute(model, own.select(np.array([user]))) for user in range(own.n_users)]
    shuffled = np.random.default_rng(0).permutation(own.n_users)
    mixed = statistic.compute(model, own.select(shuffled))

    assert b"".join(d.rows.tobytes() for d in alone) == whole.rows.tobytes()
    assert b"".join(d.tails.tobytes() for d in alone) == whole.tails.tobytes()
    assert mixed.tails.tobytes() == whole.tails[shuffled].tobytes()
    for place, user in enumerate(shuffled):
        mine = mixed.rows[mixed.indptr[place] : mixed.indptr[place + 1]]
        assert mine.tobytes() == whole.rows[whole.indptr[user] : whole.indptr[user + 1]].tobytes()


@given(own=ratings(), n_factors=st.integers(0, 4))
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_as_declared(name: str, noisy: bool, own: Ratings, n_factors: int) -> None:
    config = config_of(name, n_factors)
    statistic, _ = build_method(config, own.n_items, noisy=noisy)

    batch = statistic.compute(learned(config, own, 0), own)

    assert batch.rows.shape == (own.n_ratings, statistic.shape[1])
    assert batch.tails.shape == (own.n_users, statistic.shape[2])
    assert batch.rows.dtype == np.float32
    assert batch.tails.dtype == np.float64
    assert np.array_equal(batch.indices, own.items)
    assert np.array_equal(batch.indptr, own.indptr)


def test_a_noisy_gradient_releases_nothing_on_the_side() -> None:
    assert Gradient(5, 3, noisy=True).shape[2] == 0
    assert Gradient(5, 3, noisy=False).shape[2] == 1


def half_error(model: Model, own: Ratings, profiles: Float32Array, items: Float64Array) -> float:
    """Half the squared error, biases last, in float64."""
    p, q = profiles[own.users()].astype(np.float64), items[own.items]
    predicted = (p[:, :-1] * q[:, :-1]).sum(axis=1) + p[:, -1] + q[:, -1]
    return float(((model.targets(own) - predicted) ** 2).sum() / 2)


def test_gradient_points_down_the_squared_error() -> None:
    """Central differences; each user's side is fitted and stays fixed."""
    own = noisy_world(n_users=8, n_items=5)
    model = learned(config_of("gradient", 2), own, 2)
    profiles = fit_devices(model, own)
    items = model.item_means.astype(np.float64)
    batch = Gradient(5, 2, noisy=False).compute(model, own)
    total = np.zeros((5, 3))
    np.add.at(total, batch.indices, batch.rows)

    for place in np.ndindex(5, 3):
        step = np.zeros((5, 3))
        step[place] = 1e-5
        difference = half_error(model, own, profiles, items + step) - half_error(model, own, profiles, items - step)
        assert total[place] == pytest.approx(-difference / 2e-5, rel=1e-3, abs=1e-4)
    assert batch.tails.sum() == pytest.approx(2 * half_error(model, own, profiles, items), rel=1e-5)


def test_normal_equations_of_one_device_follow_the_formula() -> None:
    """One factor, one rating of 5 in standard units 1.5: a solve of two by two by hand."""
    config = config_of("normal", 1)
    model = learned(config, Ratings.from_triples(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 1, 1), 0)
    own = Ratings.from_triples(np.array([0]), np.array([0]), np.array([5.0]), 1, 1)
    q = float(model.item_means[0, 0])
    precision = np.array([[1 / 0.1 + 1.3 * q * q, 1.3 * q], [1.3 * q, 1 / 0.2 + 1.3]])
    covariance = np.linalg.inv(precision)
    p, b = covariance @ (1.3 * 1.5 * np.array([q, 1]))
    pp, pb, bb = covariance[0, 0] + p * p, covariance[0, 1] + p * b, covariance[1, 1] + b * b

    batch = NormalEquations(1, 1).compute(model, own)

    error = 1.5**2 - 2 * 1.5 * (p * q + b) + pp * q * q + 2 * pb * q + bb
    np.testing.assert_allclose(batch.rows, [[pp, p, 1, 1.5 * p - pb, 1.5 - b]], rtol=1e-5)
    np.testing.assert_allclose(batch.tails, [[pp, pb, bb, p, b, error]], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_another_shape_or_statistic_is_refused(name: str) -> None:
    own = noisy_world(5, 4)
    statistic, _ = build_method(config_of(name, 3), own.n_items, noisy=False)
    other = "gradient" if name == "normal" else "normal"

    with pytest.raises(ValueError, match=f"the model is of {other} with 3 factors, not {name} with 3"):
        statistic.compute(learned(config_of(other, 3), own, 0), own)
    with pytest.raises(ValueError, match=f"the model is of {name} with 2 factors, not {name} with 3"):
        statistic.compute(learned(config_of(name, 2), own, 0), own)


def test_ratings_of_another_catalogue_are_refused() -> None:
    model = learned(config_of("normal", 1), noisy_world(5, 4), 0)

    with pytest.raises(ValueError, match="ratings of 3 items, but a model of 4"):
        NormalEquations(4, 1).compute(model, noisy_world(5, 3))


def test_a_device_without_ratings_stays_at_the_prior() -> None:
    model = learned(config_of("normal", 2), noisy_world(), 3)
    nobody = Ratings(np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), model.n_items)

    profile = fit_devices(model, nobody)

    np.testing.assert_allclose(profile[0], model.float64("user_mean"), rtol=1e-4, atol=1e-5)

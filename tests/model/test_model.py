from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.data.ratings import Ratings
from liberate.errors import DataError
from liberate.model.codec import decode_model, encode_model, model_digest
from liberate.model.config import ModelConfig
from liberate.model.model import Model, initial
from liberate.model.profiles import fit_devices, predict
from tests.model.worlds import SECRET, learned, noisy_world

NORMAL = ModelConfig(statistic="normal", n_factors=3)
GRADIENT = ModelConfig(statistic="gradient", n_factors=3)


@pytest.mark.parametrize("config", [NORMAL, GRADIENT, replace(GRADIENT, optimizer="momentum")])
@pytest.mark.parametrize("rounds", [0, 2])
def test_a_model_comes_back_from_its_bytes(config: ModelConfig, rounds: int) -> None:
    model = learned(config, noisy_world(10, 6), rounds)

    again = decode_model(encode_model(model))

    assert encode_model(again) == encode_model(model)
    assert (again.version, again.statistic, again.centre) == (rounds, config.statistic, 3.5)
    assert again.arrays.keys() == model.arrays.keys()
    for name, array in model.arrays.items():
        assert again.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays[name], array)


@given(data=st.data())
def test_bytes_that_are_no_model_are_refused(data: st.DataObject) -> None:
    """A flipped bit within the numbers may give another model, with another digest; everything else is refused."""
    model = encode_model(initial(NORMAL, 3, 1.0, 5.0, SECRET))
    place, bit = data.draw(st.integers(0, len(model) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(model)
    flipped[place] ^= 1 << bit

    with contextlib.suppress(DataError):
        assert encode_model(decode_model(bytes(flipped))) == flipped
    assert model_digest(bytes(flipped)) != model_digest(model)


@pytest.mark.parametrize("cut", [0, 10, 20, 100, -1])
def test_truncated_and_extended_models_are_refused(cut: int) -> None:
    model = encode_model(initial(NORMAL, 3, 1.0, 5.0, SECRET))

    with pytest.raises(DataError, match="these bytes are not a model"):
        decode_model(model[:cut])
    with pytest.raises(DataError, match="these bytes are not a model"):
        decode_model(model + b"\0")


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("item_means", np.zeros(4, np.float32), "no table of item means"),
        ("item_means", np.zeros((2, 4), np.float32), "no array item_moments of shape"),
        ("user_precision", np.eye(3), "no array user_precision of shape"),
        ("user_mean", np.full(4, np.nan), "user_mean holds a number that is not finite"),
        ("noise_precision", np.zeros(1), "noise_precision is not positive"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(name: str, array: npt.NDArray[np.floating], reason: str) -> None:
    model = initial(NORMAL, 3, 1.0, 5.0, SECRET)

    with pytest.raises(ValueError, match=reason):
        Model.of(1, "normal", 1.0, 5.0, {**model.arrays, name: array})


def test_arrays_of_a_model_are_read_only() -> None:
    model = initial(GRADIENT, 3, 1.0, 5.0, SECRET)

    with pytest.raises(ValueError, match="read-only"):
        model.item_means[0, 0] = 1


def test_a_secret_fixes_the_first_model() -> None:
    first, again = (encode_model(initial(NORMAL, 9, 1.0, 5.0, SECRET)) for _ in range(2))

    assert first == again
    assert first != encode_model(initial(NORMAL, 9, 1.0, 5.0, bytes(32)))


@pytest.mark.parametrize(("noisy", "name"), [(False, "normal"), (True, "gradient")])
def test_auto_stands_for_the_gradient_where_noise_is_added(noisy: bool, name: str) -> None:
    assert initial(ModelConfig(), 3, 1.0, 5.0, SECRET, noisy=noisy).statistic == name


@pytest.mark.parametrize("scale", [(5.0, 5.0), (5.0, 1.0), (1.0, float("inf"))])
def test_an_empty_scale_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="has room for no two ratings"):
        initial(NORMAL, 3, *scale, SECRET)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_factors": -1},
        {"n_factors": 129},
        {"reg": 0.0},
        {"bias_reg": -1.0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"tolerance": -0.1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        ModelConfig(**wrong)


def test_without_factors_a_device_fits_its_bias_by_ridge() -> None:
    """Noise precision 1.3 and bias variance 0.2: a ridge of 1 / (1.3 · 0.2) ratings towards 3.5."""
    own = Ratings.from_triples(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([5.0, 4.0, 1.0]), 3, 2)
    model = initial(replace(NORMAL, n_factors=0), 2, 1.0, 5.0, SECRET)
    ridge = 1 / (1.3 * 0.2)

    profiles = fit_devices(model, own)

    np.testing.assert_allclose(profiles[:, 0], [(1.5 + 0.5) / (2 + ridge), -2.5 / (1 + ridge), 0], rtol=1e-6)
    np.testing.assert_allclose(
        predict(model, profiles, np.array([0, 2], np.int32), np.array([0, 1], np.int32)),
        [3.5 + profiles[0, 0], 3.5],
        rtol=1e-6,
    )


@pytest.mark.parametrize("config", [NORMAL, GRADIENT])
def test_learning_does_not_depend_on_the_scale(config: ModelConfig) -> None:
    own = noisy_world()
    stretched = Ratings(own.indptr, own.items, (own.values - 1) * np.float32(25), own.n_items)
    users = own.users()
    model, wide = learned(config, own, 5), learned(config, stretched, 5, 0.0, 100.0)

    predicted = predict(model, fit_devices(model, own), users, own.items)
    wide_predicted = predict(wide, fit_devices(wide, stretched), users, own.items)

    np.testing.assert_allclose(wide_predicted, (predicted - 1) * 25, atol=1e-2)


def test_predictions_stay_on_the_scale_and_indices_within_range() -> None:
    model = initial(GRADIENT, 2, 1.0, 5.0, SECRET)
    extreme = np.array([[0, 0, 0, 99], [0, 0, 0, -99]], np.float32)
    index = np.array([0, 1], np.int32)

    assert predict(model, extreme, index, index).tolist() == [5.0, 1.0]
    with pytest.raises(IndexError):
        predict(model, extreme, index + 1, index)
    with pytest.raises(IndexError):
        predict(model, extreme, index, index - 1)

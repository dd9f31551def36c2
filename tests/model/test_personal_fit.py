"""Copies on a recipient's device: of like taste they help, of another they change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.metrics import rmse
from liberate.model.personal_fit import _weighted_profile, fit_with_copies
from liberate.model.profiles import fit_devices, predict
from tests.model.worlds import checkerboard, learned, noisy_world

SPLIT = checkerboard()
MODEL = learned(ModelConfig(n_factors=2, statistic="normal"), SPLIT.train, 6)
NOBODY = Ratings.from_user_bytes([], MODEL.n_items)


def of(*users: int) -> Ratings:
    return SPLIT.train.select(np.array(users))


def few(own: Ratings, n: int) -> Ratings:
    """The first ratings of a person."""
    return Ratings.from_triples(np.zeros(n, np.int64), own.items[:n], own.values[:n], 1, own.n_items)


def test_copies_of_like_taste_make_the_recipients_predictions_better() -> None:
    """Even people like even items; everybody's ratings are noisy, and recipients have rated little."""
    users, items = (index.ravel() for index in np.indices((40, 30)))
    truth = np.where((users + items) % 2 == 0, 4.0, 2.0)
    noisy = np.clip(np.rint(truth + np.random.default_rng(3).normal(0, 1.2, len(truth))), 1, 5)
    ratings = Ratings.from_triples(users, items, noisy, 40, 30)
    model = learned(ModelConfig(n_factors=2, statistic="normal"), ratings, 6)

    alone: list[float] = []
    together: list[float] = []
    for user in range(0, 20, 2):
        own = few(ratings.select(np.array([user])), 3)
        copies = ratings.select(np.array([20 + user, 22 - user if user > 10 else 38 - user]))
        fits = fit_devices(model, own), fit_with_copies(model, own, copies, np.array([0.5, 0.5]))
        true = truth.reshape(40, 30)[user].astype(np.float32)
        for errors, fit in zip((alone, together), fits, strict=True):
            errors.append(rmse(predict(model, fit, np.zeros(30, np.int32), np.arange(30, dtype=np.int32)), true))

    assert np.mean(together) < 0.9 * np.mean(alone)


def test_copies_of_another_taste_change_nothing() -> None:
    own = few(of(0), 4)

    with_copies = fit_with_copies(MODEL, own, of(1, 3), np.array([1.0, 1.0]))

    assert np.array_equal(with_copies, fit_devices(MODEL, own))


def test_without_copies_it_is_the_profile_of_the_own_ratings() -> None:
    assert np.array_equal(fit_with_copies(MODEL, of(0), NOBODY, np.zeros(0)), fit_devices(MODEL, of(0)))


@pytest.mark.parametrize("statistic", ["normal", "gradient"])
def test_ratings_that_count_once_give_the_kernels_profile(statistic: str) -> None:
    ratings = noisy_world()
    config = ModelConfig(n_factors=2, statistic="gradient" if statistic == "gradient" else "normal")
    model = learned(config, ratings, 3)
    own = ratings.select(np.array([7]))

    profile = _weighted_profile(model, own.items, model.targets(own).astype(float), np.ones(own.n_ratings))

    assert profile == pytest.approx(fit_devices(model, own)[0], rel=1e-3, abs=1e-4)

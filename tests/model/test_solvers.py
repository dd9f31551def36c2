from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from liberate.arrays import Float64Array
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.model.codec import encode_model
from liberate.model.config import ModelConfig
from liberate.model.model import Model, initial
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method
from liberate.model.solvers import AggregatedStatistics, Descent, VariationalBayes, has_converged
from tests.model.worlds import SECRET, learned, noisy_world
from tests.reference import factorisation as plain

Optimizer = Literal["sgd", "momentum", "adam"]
NORMAL = ModelConfig(statistic="normal", n_factors=3)
GRADIENT = ModelConfig(statistic="gradient", n_factors=3)


def total_of(config: ModelConfig, model: Model, own: Ratings) -> AggregatedStatistics:
    statistic, _ = build_method(config, own.n_items, noisy=False)
    return aggregate_statistics(statistic, model, own)


def expected_error(model: Model, users: Model, own: Ratings) -> float:
    """Expected squared error under a model's items and the users fitted to another model, one rating at a time."""
    k = model.n_factors + 1
    batch = build_method(NORMAL, own.n_items, noisy=False)[0].compute(users, own)
    error = 0.0
    for user in range(own.n_users):
        xx, x = plain.unpack(batch.tails[user, : -k - 1], k), batch.tails[user, -k - 1 : -1]
        for rating in range(own.indptr[user], own.indptr[user + 1]):
            item = own.items[rating]
            w, ww = model.float64("item_means")[item], plain.unpack(model.float64("item_moments")[item], k)
            error += plain.expected_square(float(model.targets(own)[rating]), x, xx, w, ww)
    return error


def test_variational_bayes_learns_precision_and_priors_from_the_sums() -> None:
    own, k = noisy_world(20, 12), 4
    model = learned(NORMAL, own, 2)
    total = total_of(NORMAL, model, own)

    solved = VariationalBayes(3).solve(model, total)

    # the noise precision comes from the users' error first and, the items solved, from the error they leave
    means, moments = np.empty((12, k)), np.empty((12, 10))
    count = own.n_ratings
    tau = (count + 1) / (total.tail[-1] + 1 / 1.3)
    precision = model.float64("item_precision")
    plain.solve_items(total.rows, tau, precision, precision @ model.float64("item_mean"), means, moments)
    np.testing.assert_allclose(solved.item_means, means, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(solved.float64("item_moments"), moments, rtol=1e-5, atol=1e-7)
    left = expected_error(solved, model, own)
    assert solved.float64("noise_precision")[0] == pytest.approx((count + 1) / (left + 1 / 1.3), rel=1e-4)
    assert left < expected_error(model, model, own)

    # a prior is the Gaussian of all posteriors and ten more of the initial prior
    for side, mean_sum, moment_sum, n in (
        ("user", total.tail[10:14], total.tail[:10], 20),
        ("item", means.sum(axis=0), moments.sum(axis=0), 12),
    ):
        mean = mean_sum / (n + 10)
        moment = (plain.unpack(moment_sum, k) + 10 * np.diag([0.1, 0.1, 0.1, 0.2])) / (n + 10)
        np.testing.assert_allclose(solved.float64(f"{side}_mean"), mean, rtol=1e-10, atol=1e-12)
        learned_precision = solved.float64(f"{side}_precision")
        np.testing.assert_allclose(learned_precision, np.linalg.inv(moment - np.outer(mean, mean)), rtol=1e-9)


def test_items_nobody_rated_teach_the_prior_nothing() -> None:
    own = noisy_world(20, 12)
    wider = Ratings(own.indptr, own.items, own.values, 15)
    model, wide = learned(NORMAL, own, 1), initial(NORMAL, 15, 1.0, 5.0, SECRET)
    arrays = dict(wide.arrays)
    first = initial(NORMAL, 12, 1.0, 5.0, SECRET)
    for name in ("item_means", "item_moments"):
        arrays[name] = np.concatenate([first.arrays[name], wide.arrays[name][12:]])
    wide = Model.of(0, "normal", 1.0, 5.0, arrays)

    solved = VariationalBayes(3).solve(wide, total_of(NORMAL, wide, wider))

    np.testing.assert_array_equal(solved.item_means[:12], model.item_means)
    for name in ("item_mean", "item_precision", "noise_precision"):
        np.testing.assert_array_equal(solved.arrays[name], model.arrays[name])


@pytest.mark.parametrize("config", [NORMAL, GRADIENT, replace(GRADIENT, optimizer="momentum")])
def test_a_solve_repeats_to_the_bit(config: ModelConfig) -> None:
    own = noisy_world()
    model = learned(config, own, 2)
    total = total_of(config, model, own)
    _, solver = build_method(config, own.n_items, noisy=False)

    first, again = (encode_model(solver.solve(model, total)) for _ in range(2))

    assert first == again


def steps(optimizer: Optimizer, gradients: list[Float64Array], rate: float) -> Float64Array:
    """Return where an optimizer is after some gradients, as its paper writes it."""
    position = velocity = mean = square = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, 1):
        match optimizer:
            case "sgd":
                position = position + rate * g
            case "momentum":
                velocity = 0.9 * velocity + g
                position = position + rate * velocity
            case "adam":
                mean, square = 0.9 * mean + 0.1 * g, 0.99 * square + 0.01 * g**2
                unbiased = mean / (1 - 0.9**t)
                position = position + rate * unbiased / (np.sqrt(square / (1 - 0.99**t)) + 1e-8)
    return position


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_descent_follows_its_paper(optimizer: Optimizer) -> None:
    """Ridge is far too small to show; the sum is of five devices, a step follows their mean."""
    rng = np.random.default_rng(0)
    sums = [rng.normal(0, 1, (6, 4)) for _ in range(4)]
    start = initial(GRADIENT, 6, 1.0, 5.0, SECRET)
    solver = Descent(optimizer, 3, round(0.05 * 1e9), 1, 1)

    model = start
    for total in sums:
        model = solver.solve(model, AggregatedStatistics(total, np.zeros(1), 5))

    expected = start.item_means + steps(optimizer, [total / 5 for total in sums], 0.05)
    np.testing.assert_allclose(model.item_means, expected, rtol=1e-4, atol=1e-5)
    assert model.version == 4


def test_descent_pulls_towards_zero_by_the_ridge() -> None:
    start = initial(GRADIENT, 6, 1.0, 5.0, SECRET)
    solver = Descent("sgd", 3, 10**9, 2 * 10**9, 10**9)
    total = AggregatedStatistics(np.ones((6, 4)), np.zeros(1), 10)

    moved = solver.solve(start, total)

    means = start.float64("item_means")
    ridge = np.array([2.0, 2.0, 2.0, 1.0])
    np.testing.assert_allclose(moved.item_means, means + (1 - ridge * means) / 10, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e12])
def test_no_noise_carries_a_model_away(optimizer: Optimizer, scale: float) -> None:
    rng = np.random.default_rng(0)
    own = noisy_world()
    model = initial(GRADIENT, own.n_items, 1.0, 5.0, SECRET, noisy=True)
    _, solver = build_method(replace(GRADIENT, optimizer=optimizer), own.n_items, noisy=True)

    for _ in range(50):
        model = solver.solve(
            model, AggregatedStatistics(rng.laplace(0, scale, (own.n_items, 4)), np.zeros(0), own.n_users)
        )

    assert np.abs(model.item_means).max() <= 8
    assert np.isfinite(fit_devices(model, own)).all()
    assert "training_error" not in model.arrays


def test_parameters_are_integers_that_tell_solvers_apart() -> None:
    _, adam = build_method(GRADIENT, 4, noisy=False)
    _, careful = build_method(GRADIENT, 4, noisy=True)
    _, variational = build_method(NORMAL, 4, noisy=False)

    assert (adam.name, variational.name) == ("adam/1", "variational/1")
    assert adam.parameters() == {
        "n_factors": 3,
        "learning_rate_nano": 10**8,
        "reg_nano": 13 * 10**9,
        "bias_reg_nano": 4 * 10**9,
    }
    assert careful.parameters()["learning_rate_nano"] == 10**7
    assert variational.parameters() == {"n_factors": 3}


@pytest.mark.parametrize("config", [NORMAL, GRADIENT])
def test_a_sum_nobody_joined_gives_a_finite_model(config: ModelConfig) -> None:
    model = initial(config, 4, 1.0, 5.0, SECRET)
    statistic, solver = build_method(config, 4, noisy=False)

    solved = solver.solve(model, AggregatedStatistics(np.zeros(statistic.shape[:2]), np.zeros(statistic.shape[2]), 0))

    assert math.isfinite(float(np.sum(solved.item_means)))


@pytest.mark.parametrize("sign", [-1, 0])
def test_a_sum_that_no_ratings_give_is_refused(sign: int) -> None:
    """One upload of hostile moments makes an item's normal equations indefinite, or its count negative."""
    own = noisy_world()
    model = learned(NORMAL, own, 2)
    total = total_of(NORMAL, model, own)
    total.rows[0] *= -1000
    total.tail[-1] *= sign

    with pytest.raises(FederationError, match="no model follows from the round's sum"):
        VariationalBayes(3).solve(model, total)


def test_converged_when_the_training_error_stands_still() -> None:
    own = noisy_world()
    models = [learned(NORMAL, own, rounds) for rounds in (0, 1, 2, 40, 41)]

    assert not has_converged(models[0], models[1], 0.5)  # the first model has no training error
    assert not has_converged(models[1], models[2], 1e-3)
    assert has_converged(models[3], models[4], 1e-3)
    assert has_converged(models[3], models[4], None)
    assert not has_converged(models[3], models[4], 0.0)

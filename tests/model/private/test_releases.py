from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Float32Array, Float64Array, RealStatistics
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.model.cooccurrence import Gram
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.private.solvers import Embeddings, ItemBiases, ItemResiduals, LearnedPrior, shrunk_popularity
from liberate.model.private.statistics import (
    BIAS_NORM,
    EXPOSURE,
    GRAM_NORM,
    MOMENTS_CLIP,
    N_EMBEDDINGS,
    RESIDUALS_NORM,
    BiasSums,
    Moments,
    Residuals,
    initial_features,
)
from liberate.model.profiles import fit_devices, predict
from liberate.model.registry import aggregate_statistics
from liberate.model.solvers import AggregatedStatistics, Solver
from liberate.model.spectral import packed, unpacked
from liberate.model.statistics import Statistic
from tests.reference import releases as plain
from tests.strategies import ratings

D = 4
"""Directions of taste."""


def world(n_users: int = 400, n_items: int = 60, seed: int = 0) -> tuple[Ratings, Float64Array, Float32Array]:
    """People of two camps rate mostly items of their camp, and items differ in quality; with qualities and genres."""
    rng = np.random.default_rng(seed)
    camp, side = rng.integers(0, 2, n_users), np.arange(n_items) % 2
    is_own = camp[:, None] == side
    quality = rng.normal(0, 0.5, n_items)
    users, items = np.nonzero(rng.random((n_users, n_items)) < np.where(is_own, 0.5, 0.1))
    scores = 3.2 + quality[items] + np.where(is_own[users, items], 0.6, -0.6) + rng.normal(0, 0.4, len(users))
    own = Ratings.from_triples(users, items, np.clip(np.rint(scores), 1, 5), n_users, n_items)
    genres = (rng.integers(0, 3, n_items)[:, None] == np.arange(3)).astype(np.float32)
    return own, quality, genres


def first_model(n_items: int, n_features: int = 3, statistic: str = "bias") -> Model:
    features = np.random.default_rng(1).random((n_items, n_features), dtype=np.float32)
    return initial_features(features, 1.0, 5.0, statistic=statistic)


def moments_model(n_items: int, rounds: int = 9) -> Model:
    """A model that asks for so many rounds of moments."""
    model = first_model(n_items, 2, "moments")
    return Model.of(2, "moments", 1.0, 5.0, dict(model.arrays) | {"moments_left": np.array([float(rounds)])})


def learned(own: Ratings, features: Float32Array, noise: float = 0.0, rounds: int = 2) -> list[Model]:
    """Every model of the design, with continuous noise of one deviation on every sum but those of moments."""
    rng = np.random.default_rng(2)
    nano = round(noise / np.sqrt(own.n_users) * 1e9)
    n = own.n_items
    models = [initial_features(features, 1.0, 5.0, statistic="bias")]
    steps: list[tuple[Statistic, Solver, float]] = [
        (BiasSums(n), ItemBiases(nano, n), noise),
        (Gram(n), Embeddings(nano, rounds, D), noise),
        *[(Moments(features.shape[1] + N_EMBEDDINGS), LearnedPrior(D), 0.0)] * rounds,
        (Residuals(n, D), ItemResiduals(nano), noise),
    ]
    for statistic, solver, deviation in steps:
        total = aggregate_statistics(statistic, models[-1], own)
        total.rows[:] += rng.normal(0, deviation, total.rows.shape)
        models.append(solver.solve(models[-1], total))
    return models


def norms(batch: RealStatistics) -> Float64Array:
    """The L2 norm of what each device sends."""
    owners = np.repeat(np.arange(len(batch.tails)), np.diff(batch.indptr))
    squares = (batch.rows.astype(np.float64) ** 2).sum(axis=1)
    return np.sqrt(np.bincount(owners, squares, len(batch.tails)))


# --- statistics -------------------------------------------------------------------------------------------------------


@given(own=ratings())
def test_bias_sums_follow_their_definition(own: Ratings) -> None:
    batch = BiasSums(own.n_items).compute(first_model(own.n_items), own)

    for user in range(own.n_users):
        mine = slice(own.indptr[user], own.indptr[user + 1])
        if mine.stop > mine.start:
            targets = own.values[mine].astype(np.float64) - 3.5
            np.testing.assert_allclose(batch.rows[mine], plain.bias_sums(targets), rtol=1e-5)
    assert np.array_equal(batch.indices, own.items)


@given(own=ratings())
def test_nobodys_part_of_the_bias_sums_is_larger_than_the_norm_says(own: Ratings) -> None:
    found = norms(BiasSums(own.n_items).compute(first_model(own.n_items), own))

    np.testing.assert_allclose(found, np.where(np.diff(own.indptr) > 0, BIAS_NORM, 0), rtol=1e-6)


def asked(model: Model, n_directions: int) -> Model:
    """The model, asking for residuals in some directions of taste."""
    directions = np.random.default_rng(4).normal(0, 3, (model.n_factors, n_directions))
    return Model.of(model.version, "residuals", 1.0, 5.0, dict(model.arrays) | {"directions": directions})


@given(own=ratings(), n_directions=st.integers(0, 4))
def test_nobodys_residuals_are_larger_than_the_norm_says(own: Ratings, n_directions: int) -> None:
    batch = Residuals(own.n_items, n_directions).compute(
        asked(first_model(own.n_items, 5, "residuals"), n_directions), own
    )

    assert (norms(batch) <= RESIDUALS_NORM).all()
    assert np.array_equal(batch.indices, own.items)


def test_residuals_are_what_predictions_miss() -> None:
    own, _, genres = world(30)
    model = learned(own, genres)[4]
    profiles = fit_devices(model, own)
    tastes = profiles[:, :-1] @ model.float64("directions")
    factors = np.concatenate([np.ones((30, 1)), 0.7 * tastes], axis=1)
    missed = own.values - predict(model, profiles, own.users(), own.items)

    rows = Residuals(60, D).compute(model, own).rows

    for user in range(30):
        mine = slice(own.indptr[user], own.indptr[user + 1])
        expected = missed[mine, None] * factors[user]
        expected /= np.sqrt((expected**2).sum() + 0.05 * len(expected))
        np.testing.assert_allclose(rows[mine], expected, rtol=0.2, atol=0.05)


def test_people_of_two_worlds_move_the_gram_by_its_norm_at_most() -> None:
    own, _, genres = world()
    model = learned(own, genres)[1]
    without = own.where(own.users() != 7)

    difference = aggregate_statistics(Gram(60), model, own).rows - aggregate_statistics(Gram(60), model, without).rows

    assert np.linalg.norm(difference) == pytest.approx(GRAM_NORM, rel=1e-5)


@given(own=ratings(), n_features=st.integers(0, 3), seed=st.integers(0, 9))
def test_moments_follow_their_definition(own: Ratings, n_features: int, seed: int) -> None:
    model = first_model(own.n_items, n_features, "moments")
    mixed = np.random.default_rng(seed).normal(size=(n_features + 1,) * 2)
    precision = mixed @ mixed.T + np.eye(n_features + 1)
    covariance = np.linalg.inv(precision).astype(np.float64)
    model = Model.of(3, "moments", 1.0, 5.0, dict(model.arrays) | {"user_precision": precision})
    statistic = Moments(n_features)
    batch = statistic.compute(model, own)

    assert np.array_equal(batch.indices, np.tile(np.arange(statistic.shape[0]), own.n_users))
    for user in range(own.n_users):
        mine = slice(own.indptr[user], own.indptr[user + 1])
        items = model.float64("item_means")[own.items[mine]]
        targets = own.values[mine].astype(np.float64) - 3.5
        expected = plain.moments(items, targets, covariance, 0.8)
        found = unpacked(batch.rows[batch.indptr[user] : batch.indptr[user + 1], 0].astype(np.float64))
        # the same up to a rotation of coordinates: compare what does not change with it
        np.testing.assert_allclose(np.linalg.eigvalsh(found), np.linalg.eigvalsh(expected), rtol=1e-3, atol=1e-3)


def test_the_average_of_moments_moves_the_prior_to_what_people_are_like() -> None:
    """Somebody without ratings is as the prior expects and says nothing."""
    model = first_model(5, 2, "moments")
    nobody = Ratings(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 5)

    batch = Moments(2).compute(model, nobody)

    np.testing.assert_allclose(batch.rows, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["bias", "moments", "residuals"])
def test_a_device_computes_the_same_bits_in_any_batch_and_on_any_number_of_cores(name: str) -> None:
    own, _, genres = world(30)
    models = learned(own, genres)
    statistics: dict[str, tuple[Statistic, Model]] = {
        "bias": (BiasSums(60), models[0]),
        "moments": (Moments(19), models[2]),
        "residuals": (Residuals(60, D), models[4]),
    }
    statistic, model = statistics[name]
    whole = statistic.compute(model, own)
    before = numba.get_num_threads()

    numba.set_num_threads(1)
    try:
        alone = [statistic.compute(model, own.select(np.array([user]))) for user in range(own.n_users)]
    finally:
        numba.set_num_threads(before)

    assert b"".join(batch.rows.tobytes() for batch in alone) == whole.rows.tobytes()


def test_one_persons_other_ratings_move_a_clipped_sum_by_twice_the_clip_at_most() -> None:
    """And leaving the person out, the relation that is promised, by the clip."""
    own, _, genres = world(40)
    model = learned(own, genres)[2]
    statistic = Moments(model.n_factors)
    changed = own.values.copy()
    changed[own.users() == 3] = 1.0
    other = Ratings(own.indptr, own.items, changed, own.n_items)

    def clipped_sum(batch: RealStatistics) -> Float64Array:
        found = norms(batch)
        shares = np.minimum(1, MOMENTS_CLIP / np.maximum(found, 1e-12))
        total: Float64Array = (batch.rows.reshape(len(found), -1) * shares[:, None]).sum(axis=0, dtype=np.float64)
        return total

    whole, changed_sum = (clipped_sum(statistic.compute(model, r)) for r in (own, other))
    without = clipped_sum(statistic.compute(model, own.select(np.delete(np.arange(40), 3))))

    assert 0 < np.linalg.norm(whole - without) <= MOMENTS_CLIP * (1 + 1e-4)
    assert 0 < np.linalg.norm(whole - changed_sum) <= 2 * MOMENTS_CLIP * (1 + 1e-4)


# --- solvers ----------------------------------------------------------------------------------------------------------


def test_every_stage_names_the_next_and_predicts_better() -> None:
    own, _, genres = world()
    held_out = np.random.default_rng(3).random(own.n_ratings) < 0.2
    train, test = own.where(~held_out), own.where(held_out)

    models = learned(train, genres)

    errors = [
        rmse(predict(model, fit_devices(model, train), test.users(), test.items), test.values) for model in models
    ]
    assert [model.statistic for model in models] == ["bias", "gram", "moments", "moments", "residuals", "residuals"]
    assert [model.version for model in models] == [0, 1, 2, 3, 4, 5]
    assert errors[1] < errors[0] - 0.05
    assert errors[2] < errors[1] - 0.02
    assert errors[4] <= errors[2] + 0.002
    assert errors[5] < errors[4] - 0.002


def test_biases_follow_the_qualities_of_items() -> None:
    own, quality, genres = world()

    biases = learned(own, genres)[1].item_means[:, -1]

    assert np.corrcoef(biases, quality)[0, 1] > 0.9


def test_noise_shrinks_biases_towards_what_is_known_otherwise() -> None:
    own, quality, genres = world()

    clean, noisy = (learned(own, genres[:, :0], noise)[1].item_means[:, -1] for noise in (0.0, 30.0))

    assert noisy.std() < 0.3 * clean.std()
    assert np.sqrt(((noisy - quality) ** 2).mean()) < 1.2 * quality.std()


def test_popularity_shrinks_to_its_mean_as_noise_grows() -> None:
    counts = np.random.default_rng(0).gamma(1, 20, 500)

    spreads = [shrunk_popularity(counts, deviation).std() for deviation in (0.0, 10.0, 1e3)]

    assert spreads[0] == pytest.approx(np.maximum(counts, 0.02 * counts.mean()).std())
    assert spreads[0] > spreads[1] > spreads[2] == 0
    assert (shrunk_popularity(np.zeros(5), 1.0) > 0).all()


def test_the_gram_is_over_the_most_popular_items() -> None:
    own, _, genres = world()
    counts = np.bincount(own.items, minlength=60)
    model = initial_features(genres, 1.0, 5.0, statistic="bias")

    after = ItemBiases(0, 10).solve(model, aggregate_statistics(BiasSums(60), model, own))

    chosen = after.arrays["gram_items"].astype(int)
    assert list(chosen) == sorted(chosen)
    assert len(chosen) == 10
    assert counts[chosen].mean() > 1.05 * counts.mean()
    np.testing.assert_array_equal(after.arrays["gram_weights"], EXPOSURE)


def test_without_a_gram_residuals_come_next() -> None:
    own, _, genres = world()
    model = initial_features(genres, 1.0, 5.0, statistic="bias")

    after = ItemBiases(0, 0).solve(model, aggregate_statistics(BiasSums(60), model, own))

    assert after.statistic == "residuals"
    assert "gram_items" not in after.arrays


def test_residuals_correct_what_the_bias_sums_got_wrong() -> None:
    """A bias that noise has put off comes back by the residuals of those who rated the item."""
    own, _, genres = world()
    model = learned(own, genres)[4]
    means = model.item_means.copy()
    means[7, -1] += 0.5
    off = Model.of(4, "residuals", 1.0, 5.0, dict(model.arrays) | {"item_means": means})
    statistic = Residuals(60, D)

    after = ItemResiduals(0).solve(off, aggregate_statistics(statistic, off, own))
    undisturbed = ItemResiduals(0).solve(model, aggregate_statistics(statistic, model, own))

    moved = after.item_means[:, -1] - undisturbed.item_means[:, -1]
    assert 0 <= moved[7] < 0.3
    assert np.abs(np.delete(moved, 7)).max() < 0.05


def test_residuals_correct_whom_an_item_suits() -> None:
    """The features of an item put into the wrong camp move back towards those of its own."""
    own, _, genres = world()
    model = learned(own, genres)[4]
    means = model.item_means.copy()
    means[7, :-1] = means[8, :-1]
    off = Model.of(4, "residuals", 1.0, 5.0, dict(model.arrays) | {"item_means": means})

    after = ItemResiduals(0).solve(off, aggregate_statistics(Residuals(60, D), off, own))

    covariance = np.linalg.inv(model.float64("user_precision"))[:-1, :-1]
    before, now = ((m[7] - model.item_means[7])[:-1] for m in (means, after.item_means))
    assert now @ covariance @ now < 0.7 * (before @ covariance @ before)


def test_residuals_full_of_noise_leave_items_as_they_were() -> None:
    own, _, genres = world()
    model = learned(own, genres)[4]
    noise = np.random.default_rng(0).normal(0, 1e4, (60, 1 + D))

    after = ItemResiduals(round(1e4 / np.sqrt(400) * 1e9)).solve(model, AggregatedStatistics(noise, np.zeros(0), 400))

    np.testing.assert_allclose(after.item_means, model.item_means, atol=0.01)


def test_directions_of_taste_are_independent_under_the_prior() -> None:
    own, _, genres = world()
    model = learned(own, genres)[4]
    chosen = model.float64("directions")
    covariance = np.linalg.inv(model.float64("user_precision"))[:-1, :-1]

    assert chosen.shape == (model.n_factors, D)
    np.testing.assert_allclose(chosen.T @ covariance @ chosen, np.eye(D), atol=1e-8)


def test_without_moments_residuals_follow_the_gram() -> None:
    own, _, genres = world(50)
    before = learned(own, genres)[1]

    after = Embeddings(0, 0, D).solve(before, aggregate_statistics(Gram(60), before, own))

    assert after.statistic == "residuals"
    assert after.arrays["directions"].shape == (3 + N_EMBEDDINGS, D)


def test_embeddings_tell_the_camps_apart_and_leave_other_items_at_zero() -> None:
    own, _, genres = world()
    before = learned(own, genres)[1]
    chosen = np.arange(40.0)
    before = Model.of(1, "gram", 1.0, 5.0, dict(before.arrays) | {"gram_items": chosen})

    after = Embeddings(0, 2, D).solve(before, aggregate_statistics(Gram(40), before, own))

    embeddings = after.item_means[:, 3:-1]
    assert embeddings.shape == (60, N_EMBEDDINGS)
    assert (embeddings[40:] == 0).all()
    assert (embeddings[:40] ** 2).sum() == pytest.approx(40, rel=1e-4)
    side = np.where(np.arange(40) % 2 == 0, 1, -1)
    assert max(abs(np.corrcoef(column, side)[0, 1]) for column in embeddings[:40, :3].T) > 0.9
    np.testing.assert_array_equal(after.item_means[:, :3], before.item_means[:, :3])


def test_a_gram_of_noise_gives_no_embedding() -> None:
    own, _, genres = world(20)

    model = learned(own, genres, noise=1e4)[2]

    assert np.count_nonzero(np.abs(model.item_means[:, 3:-1]).sum(axis=0)) <= 1


def test_the_prior_becomes_the_covariance_that_its_moments_say() -> None:
    """Whoever has the sum sees the step: covariance L (I + D / N)² Lᵀ."""
    model = moments_model(5)
    moved = np.array([[1.5, 0.2, 0.0], [0.2, 0.8, 0.1], [0.0, 0.1, 0.5]])
    total = AggregatedStatistics(packed(moved - np.eye(3))[:, None] * 10, np.zeros(0), 10)

    after = LearnedPrior(D).solve(model, total)

    factor = np.linalg.cholesky(model.float64("user_precision"))
    expected = np.linalg.inv(factor.T) @ moved @ moved @ np.linalg.inv(factor)
    np.testing.assert_allclose(np.linalg.inv(after.float64("user_precision")), expected, rtol=1e-8)


@pytest.mark.parametrize("scale", [-1e6, 1e6])
def test_noise_cannot_carry_the_prior_away(scale: float) -> None:
    model = moments_model(5)
    noise = scale * np.random.default_rng(0).normal(size=(6, 1))

    for _ in range(5):
        model = LearnedPrior(D).solve(model, AggregatedStatistics(noise, np.zeros(0), 3))

    assert np.linalg.eigvalsh(model.float64("user_precision")).min() > 0


@pytest.mark.parametrize("statistic", [BiasSums(5), Residuals(5, 0), Moments(2)])
def test_a_model_of_another_statistic_is_refused(statistic: Statistic) -> None:
    own = Ratings.from_triples(np.array([0]), np.array([0]), np.array([5.0]), 1, 5)

    with pytest.raises(ValueError, match="the model is of gram"):
        statistic.compute(first_model(5, 2, "gram"), own)


@pytest.mark.parametrize("solver", [ItemBiases(0, 2), Embeddings(0, 2, D), ItemResiduals(0), LearnedPrior(D)])
def test_a_solver_refuses_a_model_of_another_statistic(solver: Solver) -> None:
    with pytest.raises(ValueError, match="the model is of normal"):
        solver.solve(first_model(5, 2, "normal"), AggregatedStatistics(np.zeros((6, 2)), np.zeros(0), 1))


def test_a_sum_that_no_ratings_give_is_refused() -> None:
    model = first_model(5, 2)

    with pytest.raises(FederationError, match="no model follows"):
        ItemBiases(0, 0).solve(model, AggregatedStatistics(np.full((5, 2), np.nan), np.zeros(0), 1))

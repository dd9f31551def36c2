"""A pool's copies become a model that serves people who share nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from liberate.arrays import Float32Array
from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.errors import FederationError
from liberate.model.codec import encode_model
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.pool_learner import FollowingStage, PoolLearner, initial_pool, learner_from
from liberate.model.private.solvers import ItemResiduals, LearnedPrior
from liberate.model.private.statistics import initial_features
from liberate.model.profiles import fit_devices, predict
from liberate.model.registry import aggregate_statistics, statistic_of
from liberate.model.solvers import FIRST_VERSION, VariationalBayes

N_USERS, N_ITEMS, N_SENDERS = 400, 60, 120
OPEN = PoolLearner(follows="nothing", n_factors=2, n_levels=5)


def _world(seed: int = 0) -> tuple[Ratings, Float32Array]:
    """Two hidden tastes, three genres that are liked by themselves, and ratings from 1 to 5."""
    rng = np.random.default_rng(seed)
    genres = (rng.integers(0, 3, N_ITEMS)[:, None] == np.arange(3)).astype(np.float32)
    scores = 3.4 + rng.normal(0, 0.6, (N_USERS, 2)) @ rng.normal(0, 0.8, (2, N_ITEMS))
    scores += rng.normal(0, 0.4, (N_USERS, 3)) @ genres.T + rng.normal(0, 0.5, N_ITEMS) + genres @ [0.5, 0.0, -0.5]
    values = np.clip(np.rint(scores + rng.normal(0, 0.4, scores.shape)), 1, 5)
    users, items = np.nonzero(rng.random(scores.shape) < 0.4)
    return Ratings.from_triples(users, items, values[users, items], N_USERS, N_ITEMS), genres


RATINGS, GENRES = _world()
HELD_OUT = np.zeros(RATINGS.n_ratings, np.bool_)
HELD_OUT[np.random.default_rng(7).permutation(RATINGS.n_ratings)[: round(0.2 * RATINGS.n_ratings)]] = True
SPLIT = Split(train=RATINGS.where(~HELD_OUT), test=RATINGS.where(HELD_OUT))
COPIES = SPLIT.train.select(np.arange(N_SENDERS))
OTHERS = np.arange(N_SENDERS, N_USERS)
FIRST = initial_pool(GENRES, 1.0, 5.0)


def _error(model: Model) -> float:
    """Return the RMSE of those who shared nothing."""
    own, held_out = SPLIT.train.select(OTHERS), SPLIT.test.select(OTHERS)
    return rmse(predict(model, fit_devices(model, own), held_out.users(), held_out.items), held_out.values)


def _answers(copies: Ratings, epsilon: float) -> Ratings:
    """Perturb each rating: kept with the greatest chance that epsilon allows, else another level."""
    rng = np.random.default_rng(3)
    is_kept = rng.random(copies.n_ratings) < 1 / (1 + 4 * np.exp(-epsilon))
    others = (copies.values - 1 + rng.integers(1, 5, copies.n_ratings)) % 5 + 1
    return replace(copies, values=np.where(is_kept, copies.values, others).astype(np.float32))


def test_a_pool_serves_people_who_shared_nothing() -> None:
    alone = initial_features(GENRES, 1.0, 5.0, statistic="bias")

    model = OPEN.learn(FIRST, COPIES)

    assert _error(model) < 0.85 * _error(alone)
    assert (model.version, model.statistic) == (1, "pool")


def test_more_senders_serve_better() -> None:
    errors = [_error(OPEN.learn(FIRST, COPIES.select(np.arange(n)))) for n in (5, 30, N_SENDERS)]

    assert errors[0] > errors[1] > errors[2]


def test_items_that_the_pool_does_not_have_start_from_their_genres() -> None:
    hidden = np.flatnonzero(GENRES[:, 0] + GENRES[:, 2] > 0)[::3]
    is_liked = GENRES[hidden, 0] > 0

    model = OPEN.learn(FIRST, COPIES.where(~np.isin(COPIES.items, hidden)))

    expected = model.arrays["item_means"][hidden, -1]
    assert expected[is_liked].min() > expected[~is_liked].max()


def test_an_empty_pool_is_as_good_as_public_features() -> None:
    model = OPEN.learn(FIRST, COPIES.select(np.arange(0)))

    np.testing.assert_allclose(model.arrays["item_means"][:, 3:], 0, atol=1e-6)
    assert _error(model) == pytest.approx(_error(FIRST), abs=0.02)


@pytest.mark.parametrize("epsilon", [1.5, 2.5])
def test_perturbation_is_undone_better_than_overlooked(epsilon: float) -> None:
    answers = _answers(COPIES, epsilon)

    overlooked = _error(OPEN.learn(FIRST, answers))
    undone = _error(OPEN.learn(FIRST, answers, [round(epsilon * 1e9)] * COPIES.n_users))

    assert _error(OPEN.learn(FIRST, COPIES)) < undone < overlooked - 0.005


def test_answers_that_never_change_a_rating_are_learned_from_as_open_ones() -> None:
    sure = OPEN.learn(FIRST, COPIES, [40 * 10**9] * COPIES.n_users)

    assert _error(sure) == pytest.approx(_error(OPEN.learn(FIRST, COPIES)), abs=0.02)


def test_each_sender_has_an_epsilon_of_its_own() -> None:
    """Half of the copies are open: undoing those too is worse than undoing the others alone."""
    mixed = [0 if sender % 2 else 10**9 for sender in range(COPIES.n_users)]
    is_open = (COPIES.users() % 2).astype(bool)
    answers = replace(COPIES, values=np.where(is_open, COPIES.values, _answers(COPIES, 1.0).values))

    told, mistaken, overlooked = (
        _error(OPEN.learn(FIRST, answers, epsilons)) for epsilons in (mixed, [10**9] * COPIES.n_users, None)
    )

    assert told < min(mistaken, overlooked)


@pytest.mark.parametrize("epsilon", [0.5, 0.1, 0.01, 1e-4])
def test_answers_that_tell_nothing_harm_no_more_than_open_lies(epsilon: float) -> None:
    """A tenth of the senders hate everything, or answer by chance."""
    is_theirs = COPIES.users() < N_SENDERS // 10
    lies = replace(COPIES, values=np.where(is_theirs, 1, COPIES.values).astype(np.float32))
    chance = replace(COPIES, values=np.where(is_theirs, _answers(COPIES, epsilon).values, COPIES.values))
    claims = np.where(np.arange(N_SENDERS) < N_SENDERS // 10, round(epsilon * 1e9), 0).tolist()

    openly = _error(OPEN.learn(FIRST, lies))
    assert _error(OPEN.learn(FIRST, chance, claims)) < openly + 0.1
    assert _error(OPEN.learn(FIRST, lies, claims)) < openly + 0.03


@pytest.mark.parametrize("epsilon_nano", [0, 2 * 10**9])
def test_the_same_copies_give_the_same_bytes(epsilon_nano: int) -> None:
    first, second = (OPEN.learn(FIRST, COPIES, [epsilon_nano] * COPIES.n_users) for _ in range(2))

    assert encode_model(first) == encode_model(second)


def test_normal_equations_go_on_from_a_pool() -> None:
    bare = initial_pool(np.zeros((N_ITEMS, 0), np.float32), 1.0, 5.0)
    first = replace(OPEN, follows="normal", n_factors=3).learn(bare, COPIES)

    after = VariationalBayes(3).solve(first, aggregate_statistics(statistic_of(first, noisy=False), first, SPLIT.train))

    assert (first.version, first.statistic, after.version) == (1, "normal", 2)
    assert _error(after) < _error(first)


def test_a_gradient_starts_from_a_pool_and_keeps_the_version_its_run_began_at() -> None:
    bare = initial_pool(np.zeros((N_ITEMS, 0), np.float32), 1.0, 5.0)
    begun = Model.of(7, bare.statistic, 1.0, 5.0, dict(bare.arrays) | {FIRST_VERSION: np.array([7.0])})

    first = replace(OPEN, follows="gradient").learn(begun, COPIES)

    assert (first.version, first.statistic, first.n_factors) == (8, "gradient", 2)
    assert first.arrays[FIRST_VERSION][0] == 7
    assert len(aggregate_statistics(statistic_of(first, noisy=True), first, SPLIT.train).rows) == N_ITEMS


def test_bias_sums_follow_with_the_pool_as_public_features() -> None:
    first = replace(OPEN, follows="bias", n_participants=N_USERS).learn(FIRST, COPIES)

    assert first.statistic == "bias"
    assert first.n_factors == 3 + 2 + 1
    np.testing.assert_array_equal(first.arrays["item_means"][:, :3], GENRES)
    np.testing.assert_array_equal(first.arrays["item_means"][:, -1], 0)


@pytest.mark.parametrize("moments_rounds", [0, 2])
def test_private_rounds_correct_what_a_small_pool_has_learned(moments_rounds: int) -> None:
    learner = replace(OPEN, follows="moments", n_participants=N_USERS, moments_rounds=moments_rounds, n_directions=2)
    model = first = learner.learn(FIRST, COPIES.select(np.arange(20)))
    for _ in range(moments_rounds):
        assert model.statistic == "moments"
        model = LearnedPrior(2).solve(model, aggregate_statistics(statistic_of(model, noisy=True), model, SPLIT.train))
    assert model.statistic == "residuals"

    last = ItemResiduals(0).solve(model, aggregate_statistics(statistic_of(model, noisy=True), model, SPLIT.train))

    assert _error(last) < _error(first) - 0.01


@pytest.mark.parametrize("follows", get_args(FollowingStage))
def test_a_learner_is_rebuilt_from_its_name_and_parameters(follows: FollowingStage) -> None:
    learner = PoolLearner(follows=follows, n_factors=4, n_levels=9, n_participants=6, moments_rounds=2, n_directions=1)

    assert learner_from(learner.name, learner.parameters()) == learner


@pytest.mark.parametrize(
    ("name", "changed"),
    [("pool_for_nobody/1", {}), (OPEN.name, {"repeats_within_nano": 1}), (OPEN.name, {"luck": 1})],
)
def test_no_learner_is_rebuilt_from_what_names_none(name: str, changed: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="learner"):
        learner_from(name, OPEN.parameters() | changed)


def test_other_models_and_catalogues_are_refused() -> None:
    with pytest.raises(ValueError, match="first model of a pool"):
        OPEN.learn(initial_features(GENRES, 1.0, 5.0, statistic="bias"), COPIES)
    with pytest.raises(ValueError, match="first model of a pool"):
        OPEN.learn(FIRST, COPIES.within(N_ITEMS - 1))


@pytest.mark.parametrize("epsilon_nano", [0, 2 * 10**9])
def test_ratings_beyond_the_scale_count_as_its_ends(epsilon_nano: int) -> None:
    epsilons = [epsilon_nano] * COPIES.n_users
    values = COPIES.values.copy()
    values[values == 5] = 1e30

    beyond = OPEN.learn(FIRST, replace(COPIES, values=values), epsilons)

    assert encode_model(beyond) == encode_model(OPEN.learn(FIRST, COPIES, epsilons))


def test_copies_that_no_finite_model_follows_from_are_reported() -> None:
    arrays = dict(FIRST.arrays) | {"item_means": FIRST.arrays["item_means"] * np.float32(1e30)}

    with pytest.raises(FederationError, match="no model follows"):
        OPEN.learn(Model.of(0, "pool", 1.0, 5.0, arrays), COPIES)

"""Forgetting people: exact where one round is all there is, nearly so where there are several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.model import Array, Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method, first_model
from liberate.model.solvers import AggregatedStatistics, Solver
from liberate.model.statistics import Statistic
from liberate.model.unlearning import distance, subtract_leavers, unlearn_rounds
from tests.model.worlds import SECRET, noisy_world

LOW, HIGH = 1.0, 5.0
ROUNDS = 8
WORLD = noisy_world(n_users=300, n_items=60)
LEAVERS = np.array([3, 40, 41])
STAYERS = np.delete(np.arange(WORLD.n_users), LEAVERS)


@dataclass(frozen=True, slots=True)
class Course:
    """All models of a course of rounds, the first included, and the sum of each round."""

    statistic: Statistic
    solver: Solver
    models: list[Model]
    totals: list[AggregatedStatistics]


def learned(ratings: Ratings, config: ModelConfig, rounds: int) -> Course:
    statistic, solver = build_method(config, ratings.n_items, noisy=False)
    course = Course(statistic, solver, [first_model(config, ratings.n_items, LOW, HIGH, SECRET)], [])
    for _ in range(rounds):
        course.totals.append(aggregate_statistics(statistic, course.models[-1], ratings))
        course.models.append(solver.solve(course.models[-1], course.totals[-1]))
    return course


@pytest.fixture(scope="module")
def explicit() -> tuple[Course, Course]:
    """Learned with everybody, and by those who stay."""
    config = ModelConfig(n_factors=3)
    return learned(WORLD, config, ROUNDS), learned(WORLD.select(STAYERS), config, ROUNDS)


def apart(one: Model, other: Model) -> float:
    own = WORLD.select(STAYERS)
    return distance(one, other, own, own, np.ones(len(STAYERS), np.bool_))


def forgotten(course: Course, leavers: Ratings) -> Model:
    own, bases = WORLD.select(STAYERS), course.models[:-1]
    sides = [fit_devices(base, own) for base in bases]
    return unlearn_rounds(course.solver, bases, course.totals, sides, own, leavers)


def test_forgetting_comes_close_to_a_model_learned_without_the_person(explicit: tuple[Course, Course]) -> None:
    course, exact = explicit

    before = apart(course.models[-1], exact.models[-1])
    after = apart(forgotten(course, WORLD.select(LEAVERS)), exact.models[-1])

    assert before > 0.005
    assert after <= 0.2 * before


def test_forgetting_takes_more_than_the_last_round(explicit: tuple[Course, Course]) -> None:
    course, exact = explicit
    base = course.models[-2]
    last = course.solver.solve(base, subtract_leavers(course.totals[-1], course.statistic, base, WORLD.select(LEAVERS)))

    after = apart(forgotten(course, WORLD.select(LEAVERS)), exact.models[-1])

    assert after < 0.5 * apart(last, exact.models[-1])


def test_forgetting_nobody_gives_the_model_again() -> None:
    course = learned(WORLD.select(STAYERS), ModelConfig(n_factors=3), ROUNDS)

    again = forgotten(course, WORLD.select(np.array([], np.int64)))

    assert apart(again, course.models[-1]) < 1e-4


def test_one_round_is_forgotten_exactly() -> None:
    course = learned(WORLD, ModelConfig(objective="implicit"), 1)
    exact = learned(WORLD.select(STAYERS), ModelConfig(objective="implicit"), 1)

    less = subtract_leavers(course.totals[0], course.statistic, course.models[0], WORLD.select(LEAVERS))
    model = course.solver.solve(course.models[0], less)

    np.testing.assert_allclose(less.rows, exact.totals[0].rows, atol=1e-9)
    assert less.n_devices == len(STAYERS)
    assert apart(course.models[-1], exact.models[-1]) > 0
    assert apart(model, exact.models[-1]) == 0


def test_distance_does_not_see_a_rotation(explicit: tuple[Course, Course]) -> None:
    model = explicit[0].models[-1]
    turn = np.eye(4)
    turn[:2, :2] = [[0.6, 0.8], [-0.8, 0.6]]
    lower = np.tril_indices(4)
    moments = np.zeros((model.n_items, 4, 4))
    moments[:, lower[0], lower[1]] = model.float64("item_moments")
    moments += np.tril(moments, -1).transpose(0, 2, 1)
    turned: dict[str, Array] = {
        "item_means": (model.float64("item_means") @ turn.T).astype(np.float32),
        "item_moments": (turn @ moments @ turn.T)[:, lower[0], lower[1]].astype(np.float32),
        "user_mean": turn @ model.float64("user_mean"),
        "user_precision": turn @ model.float64("user_precision") @ turn.T,
    }
    other = Model.of(model.version, model.statistic, LOW, HIGH, dict(model.arrays) | turned)

    assert not np.allclose(other.item_means, model.item_means)
    assert apart(model, other) < 1e-4


def test_distance_counts_whom_it_is_told_to(explicit: tuple[Course, Course]) -> None:
    one, other = (course.models[-1] for course in explicit)
    own = WORLD.select(STAYERS)
    nobody, first = np.zeros(len(STAYERS), np.bool_), np.arange(len(STAYERS)) == 0

    assert distance(one, other, own, own, nobody) == 0
    assert 0 < distance(one, other, own, own, first) != apart(one, other)

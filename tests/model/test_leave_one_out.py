"""What one person's part does to the others: as if the round had been solved without it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from liberate.arrays import Float64Array, Int32Array, RealStatistics
from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.item_solvers import MostPopular
from liberate.model.kernels import ranking
from liberate.model.leave_one_out import HeldOut, LeaveOneOut
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method, first_model
from liberate.model.solvers import AggregatedStatistics
from tests.worlds import HIGH, LOW, low_rank_ratings

TRAIN = low_rank_ratings(n_users=30, n_items=15)
TEST = TRAIN.where(np.arange(TRAIN.n_ratings) % 5 == 0)
CONFIGS = [
    ModelConfig(n_factors=2),
    ModelConfig(n_factors=2, statistic="gradient"),
    ModelConfig(n_factors=2, statistic="gradient", optimizer="momentum"),
    ModelConfig(n_factors=14, statistic="gradient", optimizer="sgd"),  # K is the number of items
]


class Scene:
    """The third round of learning, everybody's part in it, and what follows."""

    def __init__(self, config: ModelConfig) -> None:
        self.statistic, self.solver = build_method(config, TRAIN.n_items, noisy=False)
        self.base = first_model(config, TRAIN.n_items, LOW, HIGH, bytes(32))
        for _ in range(2):
            self.base = self.solver.solve(self.base, aggregate_statistics(self.statistic, self.base, TRAIN))
        self.parts: RealStatistics = self.statistic.compute(self.base, TRAIN)
        self.total = aggregate_statistics(self.statistic, self.base, TRAIN)
        self.model = self.solver.solve(self.base, self.total)
        self.profiles = fit_devices(self.base, TRAIN)

    def part(self, user: int) -> tuple[Int32Array, Float64Array]:
        own = slice(self.parts.indptr[user], self.parts.indptr[user + 1])
        return self.parts.indices[own], self.parts.rows[own].astype(np.float64)

    def leave_out(self, held_out: HeldOut | None = None) -> LeaveOneOut:
        found = LeaveOneOut.of(self.solver, self.base, self.total, TRAIN.n_ratings, held_out)
        assert found is not None
        return found

    def without(self, user: int) -> Model:
        """Solve the whole round again without somebody's rows, all else as it was."""
        items, rows = self.part(user)
        left = self.total.rows.copy()
        left[items] -= rows
        tail = self.total.tail.copy()
        if self.base.statistic == "normal":  # so that the noise precision stays what it was
            n_packed = self.base.arrays["item_moments"].shape[1]
            count, kept = self.total.rows[:, n_packed - 1].sum(), left[:, n_packed - 1].sum()
            pseudo = 1 / 1.3
            tail[-1] = (tail[-1] + pseudo) * (kept + 1) / (count + 1) - pseudo
        return self.solver.solve(self.base, AggregatedStatistics(left, tail, self.total.n_devices))

    def errors(self, model: Model) -> float:
        predicted = ranking.predict_pairs(self.profiles, model.item_means, TEST.users(), TEST.items)
        return float(((model.targets(TEST) - predicted).astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.statistic} {config.optimizer}")
def test_items_without_somebody_are_those_of_a_round_without(config: ModelConfig) -> None:
    scene = Scene(config)
    leave_out = scene.leave_out()
    for user in (0, 7, 29):
        items, rows = scene.part(user)
        wanted = scene.without(user).item_means

        means, _ = leave_out.solve(items, leave_out.total.rows[items] - rows)

        assert np.allclose(means, wanted[items], atol=1e-6)
        untouched = np.setdiff1d(np.arange(15), items)
        assert np.allclose(leave_out.means[untouched], wanted[untouched], atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.statistic} {config.optimizer}")
def test_effect_on_held_out_ratings_is_what_predictions_say(config: ModelConfig) -> None:
    scene = Scene(config)
    leave_out = scene.leave_out(HeldOut.of(scene.base, scene.profiles, TEST))
    before = scene.errors(scene.model)

    assert leave_out.held_out_error == pytest.approx(before, rel=1e-5)
    for user in (0, 7, 29):
        wanted = math.sqrt(before / TEST.n_ratings) - math.sqrt(scene.errors(scene.without(user)) / TEST.n_ratings)
        assert leave_out.effect(*scene.part(user)).held_out == pytest.approx(wanted * scene.base.unit, abs=2e-6)


def flipped(items: Int32Array, rows: Float64Array, k: int) -> tuple[Int32Array, Float64Array]:
    """Send the negative of what is learned from."""
    rows = rows.copy()
    rows[:, -k:] *= -30
    return items, rows


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: config.statistic)
def test_a_hostile_part_stands_out(config: ModelConfig) -> None:
    scene = Scene(config)
    hostile = flipped(*scene.part(4), scene.base.n_factors + 1)
    items, rows = scene.part(4)
    scene.total.rows[items] += hostile[1] - rows
    leave_out = scene.leave_out(HeldOut.of(scene.base, scene.profiles, TEST))

    effects = [leave_out.effect(*(hostile if user == 4 else scene.part(user))) for user in range(TRAIN.n_users)]

    assert int(np.argmax([each.fit for each in effects])) == 4
    assert effects[4].fit > 0
    assert (effects[4].held_out or 0) > 0


def test_nobody_is_harmed_by_an_empty_part() -> None:
    scene = Scene(CONFIGS[0])
    effect = scene.leave_out().effect(np.zeros(0, np.int32), np.zeros((0, scene.statistic.shape[1])))

    assert (effect.fit, effect.held_out) == (0, None)


def test_only_solvers_that_go_item_by_item_leave_people_out() -> None:
    scene = Scene(CONFIGS[0])

    assert LeaveOneOut.of(MostPopular(0), scene.base, scene.total, 1, None) is None


def test_held_out_ratings_are_wanted() -> None:
    scene = Scene(CONFIGS[0])
    nothing: Callable[[Ratings], Ratings] = lambda ratings: ratings.where(np.zeros(ratings.n_ratings, np.bool_))  # noqa: E731

    with pytest.raises(ValueError, match="held out"):
        HeldOut.of(scene.base, scene.profiles, nothing(TEST))

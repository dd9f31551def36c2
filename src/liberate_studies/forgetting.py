"""Ways to forget people, and how far what they leave is from a model that was learned without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import sqrt

import numpy as np
import pyarrow as pa

from liberate.arrays import BoolArray, Float64Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.federation.sharing.consents import withdraw
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method
from liberate.model.solvers import AggregatedStatistics, Solver
from liberate.model.statistics import Statistic
from liberate.model.unlearning import distance, subtract_leavers, unlearn_rounds
from liberate.privacy.attacks import auc
from liberate.randomness import SimulatedRandomness, generator
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, load_run
from liberate.runs.unlearn import Method, unlearn
from liberate_studies.rungs import REPEATS, fastest, federated, first_secret, timed
from liberate_studies.study import StudyRun
from liberate_studies.worlds import SEED, Job, World, keep_ratings

WANTED_SHARE, WANTED_SPEED = 0.3, 5.0
"""What fast forgetting is to reach: at most this of the distance left, at so many times the speed."""

_CANARY_RATINGS = 100
_POPULAR = 0.3
"""Part of the items, the most popular, that canaries leave alone: elsewhere they count for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlearningMethod:
    """One way to forget all at once, and how well it does.

    Attributes:
        name: What was done.
        rounds: Rounds in which everybody was asked.
        arithmetic_s: Seconds without messages and ledger; None: nothing was done.
        ledger_s: Seconds with both; None: nothing was done there.
        distance: Of its predictions for the others from those of the model learned again.
        share_left: That by the distance before.
        arithmetic_speed: Times faster than learning again by arithmetic; None: nothing was done.
        ledger_speed: The same on a ledger.
        told_by_model: How surely a canary's coin is told from the public model, AUC.
        told_by_all: The same by whoever knows all other ratings, and so the model learned again.
        by_chance: How far from 0.5 an AUC of so many coins is by chance in one case of twenty.
    """

    name: str
    rounds: int
    arithmetic_s: float | None
    ledger_s: float | None
    distance: float
    share_left: float
    arithmetic_speed: float | None
    ledger_speed: float | None
    told_by_model: float
    told_by_all: float
    by_chance: float

    @property
    def verdict(self) -> str:
        """Whether it does what is wanted of a fast way."""
        if self.share_left > WANTED_SHARE:
            return "does not forget"
        speed = self.arithmetic_speed if self.ledger_speed is None else self.ledger_speed
        return "forgets, fast" if speed is not None and speed >= WANTED_SPEED else "forgets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """How well one person alone is forgotten.

    Attributes:
        is_canary: Whether it is a planted one.
        ratings: How many the person's device learned from.
        before: Distance before.
        last_round: Share left where the person is taken out of the last round's sum.
        estimate: Share left where the rounds are followed without the person.
    """

    is_canary: bool
    ratings: int
    before: float
    last_round: float
    estimate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """How all are forgotten at once where one round has learned lists: their part is taken out of its sum.

    Attributes:
        before: Share of places in the others' lists that hold another item than those of a model learned again.
        after: The same with their part taken out.
        seconds: What that took.
        again: What learning again took, by arithmetic in one place.
    """

    before: float
    after: float
    seconds: float
    again: float


def plant_canaries(study: StudyRun, n_canaries: int) -> tuple[World, list[str]]:
    """Add canaries to a world: each rates items of its own, the lowest or the highest as a coin falls.

    Returns:
        The new world, and the canaries' names in it.
    """
    data = study.world.dataset
    rng = generator(SimulatedRandomness(SEED).secret("canaries"))
    rare = np.argsort(-np.bincount(data.items), kind="stable")[int(_POPULAR * len(data.item_ids)) :]
    n_each = min(_CANARY_RATINGS, len(rare) // n_canaries)
    items = rng.permutation(rare)[: n_each * n_canaries]

    # Of the same kind as the other names, which a reader would otherwise put into another order.
    is_numbered = all(name.isdecimal() for name in data.user_ids)
    first = max(map(int, data.user_ids)) + 1 if is_numbered else 0
    names = [str(first + canary) if is_numbered else f"~canary {canary}" for canary in range(n_canaries)]

    ratings = pa.table(
        {
            "user": [*(data.user_ids[user] for user in data.users), *np.repeat(names, n_each).tolist()],
            "item": pa.array(data.item_ids).take(pa.array(np.concatenate([data.items, items]))),
            "rating": np.concatenate([data.values, np.where(rng.random(len(items)) < 0.5, data.low, data.high)]),
        }
    )
    path = study.scratch / "planted.parquet"
    return keep_ratings(path, ratings, data.low, data.high, study.world.name), names


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What was learned in one place, round by round.

    Attributes:
        statistic: Of every round.
        solver: Of every round.
        models: The first model, then the one after each round.
        totals: The sum of each round.
    """

    statistic: Statistic
    solver: Solver
    models: list[Model]
    totals: list[AggregatedStatistics]

    @classmethod
    def of(cls, job: Job, ratings: Ratings, first: Model, rounds: int) -> Course:
        """Learn some rounds from a first model."""
        statistic, solver = build_method(job.settings.model, ratings.n_items, noisy=False)
        course = cls(statistic=statistic, solver=solver, models=[first], totals=[])
        for _ in range(rounds):
            course.totals.append(aggregate_statistics(course.statistic, course.models[-1], ratings))
            course.models.append(course.solver.solve(course.models[-1], course.totals[-1]))
        return course

    def one_more(self, ratings: Ratings) -> Model:
        """Return the model after another round."""
        return self.solver.solve(self.models[-1], aggregate_statistics(self.statistic, self.models[-1], ratings))

    def last_round_without(self, leavers: Ratings) -> Model:
        """Return the last model, people taken out of the last round's sum."""
        base = self.models[-2]
        return self.solver.solve(base, subtract_leavers(self.totals[-1], self.statistic, base, leavers))


class Departure:
    """Some people's leaving, and what a model would have been without them.

    Args:
        job: What was learned, from everybody's ratings.
        course: How it was learned.
        leavers: Who leaves.
    """

    def __init__(self, job: Job, course: Course, leavers: Int64Array) -> None:
        everybody = job.split.train
        self.stayers = everybody.select(np.delete(np.arange(everybody.n_users), leavers))
        self.leavers = everybody.select(leavers)
        self._job, self._course = job, course
        self._stays = np.isin(np.arange(everybody.n_users), leavers, invert=True)

    @cached_property
    def exact(self) -> Model:
        """The model learned again from the same start, as often, by those who stay."""
        return Course.of(self._job, self.stayers, self._course.models[0], len(self._course.totals)).models[-1]

    @cached_property
    def before(self) -> float:
        """Distance of the last model with everybody from the exact one."""
        return self.distance(self._course.models[-1])

    def distance(self, model: Model) -> float:
        """Return how far a model is from the exact one, for those who stay."""
        split = self._job.split
        return distance(model, self.exact, split.train, split.test, self._stays)

    def followed(self) -> partial[Model]:
        """Return what follows all rounds without the leavers, with what the others had fitted in each known."""
        bases = self._course.models[:-1]
        sides = [fit_devices(base, self.stayers) for base in bases]
        return partial(
            unlearn_rounds, self._course.solver, bases, self._course.totals, sides, self.stayers, self.leavers
        )


def forget_alone(job: Job, course: Course, user: int, *, is_canary: bool) -> Alone:
    """Forget one person by arithmetic."""
    departure = Departure(job, course, np.array([user]))
    return Alone(
        is_canary=is_canary,
        ratings=departure.leavers.n_ratings,
        before=departure.before,
        last_round=departure.distance(course.last_round_without(departure.leavers)) / departure.before,
        estimate=departure.distance(departure.followed()()) / departure.before,
    )


def forget_in_lists(world: World, leavers: Int64Array) -> Lists:
    """Forget people in lists that a Gram matrix has learned."""
    job = world.job("privacy.mode=plain", "model.objective=implicit", "model.statistic=gram")
    course = Course.of(job, job.split.train, job.plan.first_model(job.dataset, first_secret(job)), 1)
    departure = Departure(job, course, leavers)
    _, again = timed(lambda: Course.of(job, departure.stayers, course.models[0], 1))
    model, seconds = timed(lambda: course.last_round_without(departure.leavers))
    return Lists(before=departure.before, after=departure.distance(model), seconds=seconds, again=again)


def forget_all(
    study: StudyRun, job: Job, course: Course, run: Run, leavers: Int64Array, canaries: Int64Array
) -> list[UnlearningMethod]:
    """Forget all at once, in each way; the two that the product has on the ledger."""
    departure, n_rounds = Departure(job, course, leavers), len(course.totals)
    study.progress("following the rounds without all of them")
    estimate, estimate_s = timed(departure.followed())
    stayers = Split(train=departure.stayers, test=departure.stayers)
    free = fastest(lambda: federated(replace(job, split=stayers)))
    round_s = free.seconds / free.rounds

    with open_run_federation(run) as federation:
        for user in leavers:
            device = federation.devices.find(user_id=job.dataset.user_ids[user])
            assert device is not None  # everybody has taken part
            withdraw(federation.ledger, federation.devices, device, None)
    fast, fast_s, fast_rounds_s = _on_ledger(study, run, "fast")
    exact, exact_s, _ = _on_ledger(study, run, "exact")

    judge = partial(_judge, job, departure, canaries, (n_rounds * round_s, exact_s))
    more, last = course.one_more(departure.stayers), course.last_round_without(departure.leavers)
    return [
        judge("nothing", course.models[-1], 0, None, None),
        judge("one more round without them", more, 1, round_s, fast_rounds_s),
        judge("the last round without them", last, 1, round_s, fast_rounds_s),
        judge("estimate: all rounds followed", estimate, 0, estimate_s, None),
        judge("fast: all but the last followed", fast, 1, estimate_s + round_s, fast_s),
        judge("exact", exact, n_rounds, n_rounds * round_s, exact_s),
    ]


def _judge(
    job: Job,
    departure: Departure,
    canaries: Int64Array,
    again_s: tuple[float, float],
    name: str,
    model: Model,
    rounds: int,
    arithmetic_s: float | None,
    ledger_s: float | None,
) -> UnlearningMethod:
    """Judge one way, beside the seconds that learning again takes by arithmetic and on the ledger."""
    apart, (coins, items) = departure.distance(model), _coins(job, canaries)
    scores, known = (_mean_predictions(m, departure.stayers)[items] for m in (model, departure.exact))
    n_pairs = int(coins.sum()) * int((~coins).sum())

    return UnlearningMethod(
        name=name,
        rounds=rounds,
        arithmetic_s=arithmetic_s,
        ledger_s=ledger_s,
        distance=apart,
        share_left=apart / departure.before,
        arithmetic_speed=None if arithmetic_s is None else again_s[0] / arithmetic_s,
        ledger_speed=None if ledger_s is None else again_s[1] / ledger_s,
        told_by_model=auc(scores, coins),
        told_by_all=auc(scores - known, coins),
        by_chance=1.96 * sqrt((len(coins) + 1) / (12 * max(1, n_pairs))),
    )


def _on_ledger(study: StudyRun, run: Run, way: Method) -> tuple[Model, float, float]:
    """Forget by the product, several times; return the model, the least seconds, and those of the rounds alone."""
    outs = [study.scratch / f"{way}-{number}" for number in range(REPEATS)]
    unlearned = [unlearn(run, out, method=way, progress=study.progress) for out in outs]
    seconds = min(run.seconds for run in unlearned if run.seconds is not None)
    rounds_s = min(run.result.seconds for run in unlearned if run.result is not None)
    return load_run(outs[0]).model(), seconds, rounds_s


def _coins(job: Job, canaries: Int64Array) -> tuple[BoolArray, Int64Array]:
    """Return how the coins fell of what was learned from, and the item of each."""
    ratings = job.split.train.select(canaries)
    return ratings.values > (job.dataset.low + job.dataset.high) / 2, ratings.items.astype(np.int64)


def _mean_predictions(model: Model, ratings: Ratings) -> Float64Array:
    """Return each item's mean score over people, shape (n_items,): what a model alone says of an item."""
    side = fit_devices(model, ratings).astype(np.float64).mean(axis=0)
    items = model.float64("item_means")
    scores: Float64Array = items[:, :-1] @ side[:-1] + items[:, -1]
    return scores

"""Being forgotten: how much of people stays in a model that goes on without them, and what it costs to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from liberate.runs.train import train
from liberate.runs.unlearn import Method, unlearn
from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.findings import TIMES, Row, Study, StudyResults, header, number, table
from liberate_studies.rungs import REPEATS, fastest, federated
from liberate_studies.worlds import SEED, Job, World, keep_ratings

WANTED_SHARE, WANTED_SPEED = 0.3, 5.0
"""What fast forgetting is to reach: at most this of the distance left, at so many times the speed."""

_HEAVY, _QUICK_HEAVY = 10, 3
_CANARIES, _QUICK_CANARIES = 10, 3
_CANARY_RATINGS = 100
_POPULAR = 0.3
"""Part of the items, the most popular, that canaries leave alone: elsewhere they count for more."""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlearningMethod:
    """One way to forget all at once, and how well it does.

    Attributes:
        name: What was done.
        colour: In the figure.
        rounds: Rounds in which everybody was asked.
        arithmetic: Seconds without messages and ledger; None: nothing was done.
        on_ledger: Seconds with both; None: nothing was done there.
        distance: Of its predictions for the others from those of the model learned again.
        share: That by the distance before.
        speed: Times faster than learning again by arithmetic; None: nothing was done.
        ledger_speed: The same on a ledger.
        told_by_model: How surely a canary's coin is told from the public model, AUC.
        told_by_all: The same by whoever knows all other ratings, and so the model learned again.
        by_chance: How far from 0.5 an AUC of so many coins is by chance in one case of twenty.
    """

    name: str
    colour: str
    rounds: int
    arithmetic: float | None
    on_ledger: float | None
    distance: float
    share: float
    speed: float | None
    ledger_speed: float | None
    told_by_model: float
    told_by_all: float
    by_chance: float

    @property
    def verdict(self) -> str:
        """Whether it does what is wanted of a fast way."""
        speed = self.speed if self.ledger_speed is None else self.ledger_speed
        is_fast = speed is not None and speed >= WANTED_SPEED
        if self.share <= WANTED_SHARE and is_fast:
            return "forgets, fast"
        return "forgets" if self.share <= WANTED_SHARE else "does not forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """How well one person alone is forgotten.

    Attributes:
        is_canary: Whether it is a planted one.
        ratings: How many the person's device learned from.
        before: Distance before.
        last: Share left where the person is taken out of the last round's sum.
        fast: Share left where the rounds are followed without the person.
    """

    is_canary: bool
    ratings: int
    before: float
    last: float
    fast: float


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


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    n_heavy, n_canaries = (_QUICK_HEAVY, _QUICK_CANARIES) if is_quick else (_HEAVY, _CANARIES)
    planted, names = _planted(world, n_canaries, scratch / "planted.parquet")
    job = planted.job("privacy.mode=plain")
    canaries = np.array([job.dataset.user_ids.index(name) for name in names])
    counts = np.diff(job.split.train.indptr)
    counts[canaries] = 0
    leavers = np.concatenate([np.argsort(-counts, kind="stable")[:n_heavy], canaries])
    progress("learning with everybody")
    train(job.settings, scratch / "run", progress=progress)
    run = load_run(scratch / "run")
    course = _learned(job, job.split.train, run.model(0), run.result.rounds)
    alone: list[Alone] = []
    for user in leavers:
        progress(f"forgetting person {len(alone) + 1} of {len(leavers)} alone")
        alone.append(_alone(job, course, int(user), user in canaries))
    ways = _ways(job, course, run, leavers, canaries, scratch, progress)
    progress("forgetting all in lists")
    lists = _lists(planted, leavers)
    return StudyResults(
        rows=_rows(ways, alone, lists),
        page=_page(world, n_heavy, n_canaries, ways, alone, lists),
        figure=_figure(ways, alone),
        alt="Left: going on without the people leaves most of their trace, following the rounds without them little. "
        "Right: the same for each person alone; following the rounds goes wrong most for who moved the model most.",
    )


def _planted(world: World, n_canaries: int, path: Path) -> tuple[World, list[str]]:
    """Add canaries to a world: each rates items of its own, the lowest or the highest as a coin falls."""
    found = world.dataset
    rng = generator(SimulatedRandomness(SEED).secret("canaries"))
    rare = np.argsort(-np.bincount(found.items), kind="stable")[int(_POPULAR * len(found.item_ids)) :]
    each = min(_CANARY_RATINGS, len(rare) // n_canaries)
    items = rng.permutation(rare)[: each * n_canaries]
    numbers = all(name.isdecimal() for name in found.user_ids)
    first = max(map(int, found.user_ids)) + 1 if numbers else 0
    names = [str(first + canary) if numbers else f"~canary {canary}" for canary in range(n_canaries)]
    ratings = pa.table(
        {
            "user": [*(found.user_ids[user] for user in found.users), *np.repeat(names, each).tolist()],
            "item": pa.array(found.item_ids).take(pa.array(np.concatenate([found.items, items]))),
            "rating": np.concatenate([found.values, np.where(rng.random(len(items)) < 0.5, found.low, found.high)]),
        }
    )
    return keep_ratings(path, ratings, found.low, found.high, world.name), names


# --- all at once -----------------------------------------------------------------------------------------------------


def _learned(job: Job, ratings: Ratings, first: Model, rounds: int) -> Course:
    statistic, solver = build_method(job.settings.model, ratings.n_items, noisy=False)
    course = Course(statistic, solver, [first], [])
    for _ in range(rounds):
        course.totals.append(aggregate_statistics(statistic, course.models[-1], ratings))
        course.models.append(solver.solve(course.models[-1], course.totals[-1]))
    return course


def _parted(ratings: Ratings, leavers: Int64Array) -> tuple[Ratings, Ratings]:
    """Give the ratings of those who stay, and of those who leave."""
    return ratings.select(np.delete(np.arange(ratings.n_users), leavers)), ratings.select(leavers)


def _last_round(course: Course, base: Model, leavers: Ratings) -> Model:
    """Take people out of the last round's sum."""
    return course.solver.solve(base, subtract_leavers(course.totals[-1], course.statistic, base, leavers))


def _followed(course: Course, stayers: Ratings, leavers: Ratings, times: int = 1) -> tuple[Model, float]:
    """Follow all rounds without people, what others had fitted in each known; give the least seconds of some times."""
    bases = course.models[:-1]
    sides = [fit_devices(base, stayers) for base in bases]
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        model = unlearn_rounds(course.solver, bases, course.totals, sides, stayers, leavers)
        seconds.append(time.perf_counter() - begin)
    return model, min(seconds)


def _ways(
    job: Job, course: Course, run: Run, leavers: Int64Array, canaries: Int64Array, scratch: Path, progress: Progress
) -> list[UnlearningMethod]:
    """Forget all at once, in each way; the two that the product has on the ledger."""
    n_rounds = len(course.totals)
    stayers, gone = _parted(job.split.train, leavers)
    exact = _learned(job, stayers, course.models[0], n_rounds).models[-1]
    progress("following the rounds without all of them")
    estimate, estimating = _followed(course, stayers, gone, REPEATS)
    free = fastest(lambda: federated(replace(job, split=Split(train=stayers, test=stayers))))
    one = free.seconds / free.rounds
    with open_run_federation(run) as standing:
        for user in leavers:
            device = standing.devices.find(user_id=job.dataset.user_ids[user])
            assert device is not None  # everybody has taken part
            withdraw(standing.ledger, standing.devices, device, None)
    fast_seconds, one_round, fast = _on_ledger(run, "fast", scratch, progress)
    all_rounds, _, again = _on_ledger(run, "exact", scratch, progress)
    more = course.solver.solve(course.models[-1], aggregate_statistics(course.statistic, course.models[-1], stayers))
    before = _far(job, leavers, course.models[-1], exact)
    last = _last_round(course, course.models[-2], gone)
    tried: list[tuple[str, str, int, float | None, float | None, Model]] = [
        ("nothing", FREE, 0, None, None, course.models[-1]),
        ("one more round without them", PRIVATE, 1, one, one_round, more),
        ("the last round without them", PRIVATE, 1, one, one_round, last),
        ("estimate: all rounds followed", OPEN, 0, estimating, None, estimate),
        ("fast: all but the last followed", OPEN, 1, estimating + one, fast_seconds, fast),
        ("exact", RECORDED, n_rounds, n_rounds * one, all_rounds, again),
    ]
    coins, items = _coins(job, canaries)
    known = _mean_predictions(exact, stayers)[items]
    ways = []
    for name, colour, rounds, arithmetic, on_ledger, model in tried:
        scores, apart = _mean_predictions(model, stayers)[items], _far(job, leavers, model, exact)
        way = UnlearningMethod(
            name=name,
            colour=colour,
            rounds=rounds,
            arithmetic=arithmetic,
            on_ledger=on_ledger,
            distance=apart,
            share=apart / before,
            speed=None if arithmetic is None else n_rounds * one / arithmetic,
            ledger_speed=None if on_ledger is None else all_rounds / on_ledger,
            told_by_model=auc(scores, coins),
            told_by_all=auc(scores - known, coins),
            by_chance=1.96 * math.sqrt((len(coins) + 1) / (12 * max(1, int(coins.sum()) * int((~coins).sum())))),
        )
        ways.append(way)
    return ways


def _on_ledger(run: Run, way: Method, scratch: Path, progress: Progress) -> tuple[float, float, Model]:
    """Forget by the product, several times; give the least seconds, those of the rounds alone, and the model."""
    outs = [scratch / f"{way}-{number}" for number in range(REPEATS)]
    found = [unlearn(run, out, method=way, progress=progress) for out in outs]
    seconds = min(each.seconds for each in found if each.seconds is not None)
    rounds = min(each.result.seconds for each in found if each.result is not None)
    return seconds, rounds, load_run(outs[0]).model()


def _far(job: Job, leavers: Int64Array, one: Model, other: Model) -> float:
    """Give how far two models are for everybody else."""
    split = job.split
    stays = np.ones(split.train.n_users, np.bool_)
    stays[leavers] = False
    return distance(one, other, split.train, split.test, stays)


def _coins(job: Job, canaries: Int64Array) -> tuple[BoolArray, Int64Array]:
    """Give how the coins fell of what was learned from, and the item of each."""
    own = job.split.train.select(canaries)
    return own.values > (job.dataset.low + job.dataset.high) / 2, own.items.astype(np.int64)


def _mean_predictions(model: Model, ratings: Ratings) -> Float64Array:
    """Give each item's mean score over people, shape (n_items,): what a model alone says of an item."""
    side = fit_devices(model, ratings).astype(np.float64).mean(axis=0)
    items = model.float64("item_means")
    scores: Float64Array = items[:, :-1] @ side[:-1] + items[:, -1]
    return scores


# --- one at a time ---------------------------------------------------------------------------------------------------


def _alone(job: Job, course: Course, user: int, is_canary: bool) -> Alone:
    leavers = np.array([user])
    stayers, gone = _parted(job.split.train, leavers)
    exact = _learned(job, stayers, course.models[0], len(course.totals)).models[-1]
    before = _far(job, leavers, course.models[-1], exact)
    return Alone(
        is_canary=is_canary,
        ratings=gone.n_ratings,
        before=before,
        last=_far(job, leavers, _last_round(course, course.models[-2], gone), exact) / before,
        fast=_far(job, leavers, _followed(course, stayers, gone)[0], exact) / before,
    )


def _lists(world: World, leavers: Int64Array) -> Lists:
    """Forget people in lists that a Gram matrix has learned."""
    job = world.job("privacy.mode=plain", "model.objective=implicit", "model.statistic=gram")
    stayers, gone = _parted(job.split.train, leavers)
    first = job.plan.first_model(job.dataset, SimulatedRandomness(SEED).secret("initial model", 1))
    course = _learned(job, job.split.train, first, 1)
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        exact = _learned(job, stayers, first, 1).models[-1]
        middle = time.perf_counter()
        model = _last_round(course, first, gone)
        times.append((time.perf_counter() - middle, middle - begin))
    seconds, again = map(min, zip(*times, strict=True))
    return Lists(
        before=_far(job, leavers, course.models[-1], exact),
        after=_far(job, leavers, model, exact),
        seconds=seconds,
        again=again,
    )


# --- what is said of it ----------------------------------------------------------------------------------------------


def _rows(ways: Sequence[UnlearningMethod], alone: Sequence[Alone], lists: Lists) -> list[Row]:
    rows: list[Row] = [
        {
            "series": "all at once",
            "name": way.name,
            "rounds": way.rounds,
            "seconds_arithmetic": way.arithmetic,
            "seconds_on_ledger": way.on_ledger,
            "distance": way.distance,
            "share_left": way.share,
            "times_faster_arithmetic": way.speed,
            "times_faster_on_ledger": way.ledger_speed,
            "canary_auc_model": way.told_by_model,
            "canary_auc_all_else": way.told_by_all,
            "auc_by_chance": way.by_chance,
            "verdict": way.verdict,
        }
        for way in ways
    ]
    rows += [
        {
            "series": "alone",
            "name": "canary" if each.is_canary else "heavy rater",
            "ratings": each.ratings,
            "distance": each.before,
            "share_left_last_round": each.last,
            "share_left": each.fast,
        }
        for each in alone
    ]
    return [*rows, {"series": "lists", "name": "the sum less their part", **asdict(lists)}]


def _page(
    world: World, n_heavy: int, n_canaries: int, ways: Sequence[UnlearningMethod], alone: Sequence[Alone], lists: Lists
) -> str:
    groups = (("heavy raters", [a for a in alone if not a.is_canary]), ("canaries", [a for a in alone if a.is_canary]))
    return "\n\n".join(
        [
            header("Being forgotten", world),
            f"The {n_heavy} people with most ratings and {n_canaries} canaries withdraw from a run that has learned "
            "ratings by normal equations, and are forgotten.\n"
            "Canaries are added people; each rates items of its own that not many rate, the lowest or the highest as a "
            "coin falls.\n"
            "The distance is the root mean square difference between predictions of the others' held-out ratings, in "
            "rating points, and those of a model learned again without these people from the same start.",
            "## All at once",
            table(
                [
                    "",
                    "rounds",
                    "distance",
                    "left",
                    "arithmetic, s",
                    "times faster",
                    "on a ledger, s",
                    "times faster",
                    "coins, by the model",
                    "by all else",
                    "",
                ],
                [_cells(way) for way in ways],
            ),
            f"Wanted of a fast way: at most {100 * WANTED_SHARE:.0f} % of the distance left, {WANTED_SPEED:.0f} times "
            "faster than learning again, on a ledger where there is one.\n"
            "Arithmetic is what a federation computes without messages and ledger; for the estimate the sum of each "
            "round and what the others had fitted in it are kept, and everything else counts.\n"
            "On a ledger it is `liberate unlearn` from its beginning to the last model, without proofs and figures, "
            "sums and fits made again; a round asks everybody.\n"
            "An exact run ends when it has converged, which may be a round before or after the one it is compared to.\n"
            f"{TIMES}\n"
            "The last columns are how surely a canary's coins are told (AUC; 0.5 is chance): from what the model "
            "predicts on average, and by an adversary who has all other ratings and learns the exact model from them.\n"
            f"So many coins give 0.5 ± {ways[0].by_chance:.3f} by chance in 19 of 20 cases.",
            "## Each alone",
            table(
                [
                    "",
                    "people",
                    "distance before",
                    "last round: left, median",
                    "worst",
                    "estimate: left, median",
                    "worst",
                ],
                [_summary(name, each) for name, each in groups],
            ),
            "## Lists",
            "Lists (`model.objective` implicit) are learned in one round, so the sum less the part of "
            "these people is that of the others.\n"
            f"Of the places in the others' lists of ten, {100 * lists.before:.2f} % hold another item before, and "
            f"{100 * lists.after:.2f} % after; it takes {lists.seconds:.2f} s of arithmetic in one place instead of "
            f"{lists.again:.2f} s.",
        ]
    )


def _cells(way: UnlearningMethod) -> list[str]:
    return [
        way.name,
        str(way.rounds),
        number(way.distance),
        f"{100 * way.share:.1f} %",
        number(way.arithmetic, 2),
        number(way.speed, 1),
        number(way.on_ledger, 1),
        number(way.ledger_speed, 1),
        number(way.told_by_model, 3),
        number(way.told_by_all, 3),
        way.verdict,
    ]


def _summary(name: str, participants: Sequence[Alone]) -> list[str]:
    last, fast = (
        [100 * share for share in shares] for shares in zip(*((a.last, a.fast) for a in participants), strict=True)
    )
    return [
        name,
        str(len(participants)),
        number(float(np.median([each.before for each in participants]))),
        *(f"{value:.1f} %" for value in (np.median(last), max(last), np.median(fast), max(fast))),
    ]


def _figure(ways: Sequence[UnlearningMethod], alone: Sequence[Alone]) -> Figure:
    figure, (together, single) = panels(2.9, 1, 2, width_ratios=[1.2, 1])
    _draw_ways(together, ways)
    _draw_alone(single, alone)
    return figure


def _draw_ways(axes: Axes, ways: Sequence[UnlearningMethod]) -> None:
    for place, way in enumerate(ways):
        axes.barh(place, 100 * way.share, color=way.colour, height=0.62)
        axes.text(100 * way.share + 2, place, f"{100 * way.share:.0f} %", va="center", fontsize=8.5)
    axes.axvline(100 * WANTED_SHARE, color=FREE, linewidth=0.9, linestyle=":")
    axes.set_yticks(range(len(ways)), [way.name.replace(": ", ":\n").replace(", ", ",\n") for way in ways])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    axes.set(title="All at once", xlabel="% of the distance left", xlim=(0, 100 * max(w.share for w in ways) * 1.25))


def _draw_alone(axes: Axes, alone: Sequence[Alone]) -> None:
    for is_canary, marker in ((False, "o"), (True, "^")):
        participants = [each for each in alone if each.is_canary == is_canary]
        name = "canary" if is_canary else "heavy rater"
        before = [each.before for each in participants]
        for what, colour, shares in (
            ("last round", PRIVATE, [100 * each.last for each in participants]),
            ("estimate", OPEN, [100 * each.fast for each in participants]),
        ):
            axes.plot(before, shares, marker, color=colour, markersize=4, label=f"{name}, {what}")
    axes.axhline(100 * WANTED_SHARE, color=FREE, linewidth=0.9, linestyle=":")
    axes.set(title="Each alone", xlabel="distance before, rating points", ylabel="% of the distance left")
    axes.set(xlim=(0, None), ylim=(0, 145), yticks=range(0, 101, 20))
    axes.legend(frameon=False, fontsize=7.5, loc="upper left", handletextpad=0.1, labelspacing=0.2)


STUDY = Study(default_source="ml-1m", run=_run)

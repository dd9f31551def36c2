"""The paper's sizes: 10 to 20 users and 40 to 90 items, accuracy at several epsilons, time with and without ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.federated import EPSILONS, MEANINGFUL, draw_levels
from liberate_studies.ledgered import measure
from liberate_studies.rungs import TIMES, centralised, judge, judge_ends
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import number, table, table_of
from liberate_studies.worlds import SEED, Accuracy, World, corner, free

_SIZES = ((10, 40), (15, 65), (20, 90))
_SPLITS, _QUICK_SPLITS = 20, 5
_USERS, _QUICK_USERS = (10, 15, 20, 50, 100, 200, 500, 1000), (10, 20, 50)
_ITEMS, _QUICK_ITEMS = (40, 65, 90, 200, 500, 1000, 3000), (40, 90)
_TIMED = ("privacy.mode=local", f"privacy.epsilon={MEANINGFUL}")
_NOTICEABLE = 0.005
"""Rating points; means over the splits wander by about as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What something reached, over splits.

    Attributes:
        size: Users and items of the corner.
        name: What was judged.
        epsilon: Of each person, for the whole run, where that is private.
        rmse: Per split; NaN for what predicts no ratings.
        ndcg_at_10: Per split; NaN for what ranks nothing.
    """

    size: tuple[int, int]
    name: str
    epsilon: int | None
    rmse: Sequence[float]
    ndcg_at_10: Sequence[float]


@dataclass(frozen=True, slots=True)
class Corner:
    """A corner in which accuracy is measured.

    Attributes:
        size: Its users and items.
        choice: Items a list of ten is chosen from, mean over users.
    """

    size: tuple[int, int]
    choice: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a run without and with the ledger."""

    users: int
    items: int
    without: float
    recorded: float


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    scores: list[Score] = []
    corners = []
    for size in _SIZES:
        study.progress(f"{size[0]} users, {size[1]} items")
        place = corner(study.world, *size, study.scratch / "corner.parquet")
        train_part = place.job().split.train
        corners.append(Corner(size, train_part.n_items - train_part.n_ratings / train_part.n_users))
        scores += _scores(place, size, _QUICK_SPLITS if study.is_quick else _SPLITS)

    users, items = (_QUICK_USERS, _QUICK_ITEMS) if study.is_quick else (_USERS, _ITEMS)
    sizes = dict.fromkeys([*((n, 90) for n in users), *((20, n) for n in items)])
    timings = {size: _timing(study, *size) for size in sizes}

    return StudyResults(
        rows={"corners": corners, "scores": scores, "timings": list(timings.values())},
        page=_page(study.world, scores, corners, list(timings.values())),
        figure=_figure(scores, [timings[n, 90] for n in users], [timings[20, n] for n in items]),
        alt="Above: RMSE and NDCG@10 over epsilon, flat up to 16. Below: time over users and items, with the ledger "
        "and without.",
    )


def _scores(place: World, size: tuple[int, int], n_splits: int) -> Iterator[Score]:
    """Judge baselines, no privacy and every epsilon on the same splits."""
    seeds = [(f"data.split_seed={seed}", f"run.seed={seed}") for seed in range(SEED, SEED + n_splits)]

    baselines = [free(place, place.job(*seed)) for seed in seeds]
    for name in baselines[0]:
        yield _score(size, name, [known[name] for known in baselines])

    for epsilon in EPSILONS:
        jobs = [place.job("privacy.mode=local", f"privacy.epsilon={epsilon}", *seed) for seed in seeds]
        before, after = judge_ends(jobs)
        if epsilon == EPSILONS[0]:
            yield _score(size, "nothing sent", before)
        yield _score(size, f"local, ε = {epsilon:,}", after, epsilon)

    jobs = [place.job("privacy.mode=plain", 'model.statistic="gradient"', *seed) for seed in seeds]
    yield _score(size, "no privacy", [judge(job, centralised(job).models[-1]) for job in jobs])


def _score(
    size: tuple[int, int], name: str, judged: Sequence[Accuracy] | Sequence[Metrics], epsilon: int | None = None
) -> Score:
    errors, rankings = [split.rmse for split in judged], [split.ndcg_at_10 for split in judged]
    return Score(size=size, name=name, epsilon=epsilon, rmse=errors, ndcg_at_10=rankings)


def _timing(study: StudyRun, n_users: int, n_items: int) -> Timing:
    """Measure the same run without and with the ledger, and check that they come to the same models."""
    place = corner(study.world, n_users, n_items, study.scratch / "timed.parquet")
    pair = measure(study, f"time of {n_users} users, {n_items} items", place.job(*_TIMED))
    return Timing(
        users=len(place.dataset.user_ids),
        items=len(place.dataset.item_ids),
        without=pair.without.seconds,
        recorded=pair.recorded.seconds,
    )


def _page(world: World, scores: Sequence[Score], corners: Sequence[Corner], timings: Sequence[Timing]) -> Sequence[str]:
    n_splits = len(scores[0].rmse)
    sizes = [f"{n_users} × {n_items}" for n_users, n_items in _SIZES]

    return [
        "# The paper's sizes",
        f"{world.sentence}\n"
        "Of these the densest corner: the items with most ratings, then the users who rated most of them; of "
        "equals the first in the data set.\n"
        f"All figures are means over {n_splits} random splits, each with its own seed, a fifth held out; "
        "`beats` counts the splits in which RMSE is below that of `nothing sent`.",
        "## RMSE, users × items",
        table(["", *(cell for size in sizes for cell in (size, "beats"))], _errors(scores)),
        "## NDCG@10",
        table(["", *sizes], _rankings(scores)),
        _reading(scores, corners),
        "## Seconds of a run, ε = 16, ten rounds",
        table_of(
            timings,
            ("users", lambda t: str(t.users)),
            ("items", lambda t: str(t.items)),
            ("without ledger", lambda t: number(t.without, 3)),
            ("with ledger", lambda t: number(t.recorded, 3)),
            ("with / without", lambda t: f"{t.recorded / t.without:.0f}"),
        ),
        "Without and with the ledger the models are the same to the bit.\n"
        "Ten people's arithmetic takes milliseconds, and the ledger's fixed cost, keys, enrolment and a durable "
        "block per step, shows; as either side grows the ratio falls.",
        TIMES,
    ]


def _by_name(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Return the scores of each name, by size."""
    return {score.name: [other for other in scores if other.name == score.name] for score in scores}


def _errors(scores: Sequence[Score]) -> list[list[str]]:
    """Return the table of RMSE: beside each mean the splits in which it is below that of `nothing sent`."""
    by_name = _by_name(scores)

    def cells(score: Score, nothing: Score) -> list[str]:
        wins = sum(one < other for one, other in zip(score.rmse, nothing.rmse, strict=True))
        return [number(fmean(score.rmse)), "-" if score is nothing else f"{wins}/{len(score.rmse)}"]

    return [
        [name, *(cell for pair in zip(group, by_name["nothing sent"], strict=True) for cell in cells(*pair))]
        for name, group in by_name.items()
        if not isnan(group[0].rmse[0])
    ]


def _rankings(scores: Sequence[Score]) -> list[list[str]]:
    return [
        [name, *(number(fmean(score.ndcg_at_10), 3) for score in group)]
        for name, group in _by_name(scores).items()
        if not isnan(group[0].ndcg_at_10[0])
    ]


def _reading(scores: Sequence[Score], corners: Sequence[Corner]) -> str:
    errors = {(score.name, score.size): fmean(score.rmse) for score in scores}
    small = [score for score in scores if score.epsilon is not None and score.epsilon <= MEANINGFUL]
    change = min(errors[score.name, score.size] - errors["nothing sent", score.size] for score in small)
    verdict = f"compared with sending nothing, RMSE changes by {change:+.4f} at best."
    if change > -_NOTICEABLE:
        verdict = f"No mechanism here learns anything at ε ≤ {MEANINGFUL}: {verdict}"
    else:
        verdict = f"At ε ≤ {MEANINGFUL}, {verdict}"

    size = _SIZES[-1]
    return (
        f"{verdict}\n"
        f"Without privacy too there is little to learn at these sizes: at {size[0]} × {size[1]} matrix "
        f"factorisation reaches {errors['no privacy', size]:.4f}, `damped biases` {errors['damped biases', size]:.4f}."
        "\nA list of ten is chosen from what is not in the training set, "
        f"{' / '.join(f'{corner.choice:.0f}' for corner in corners)} items on average, so NDCG@10 must be compared "
        "with that of `nothing sent`, whose lists are random.\n"
        "ε is each person's for the whole run of ten rounds, by basic composition; the unit is the user."
    )


def _figure(scores: Sequence[Score], by_users: Sequence[Timing], by_items: Sequence[Timing]) -> Figure:
    figure, (errors, rankings, users, items) = panels(5.6, 2, 2)
    size = _SIZES[-1]
    errors.set_title(f"RMSE, {size[0]} users, {size[1]} items")
    rankings.set_title(f"NDCG@10, {size[0]} users, {size[1]} items")

    for axes, metric, baseline in ((errors, "rmse", "damped biases"), (rankings, "ndcg_at_10", "most popular")):
        values = {score.name: fmean(getattr(score, metric)) for score in scores if score.size == size}
        marks = [
            (values[name], name, colour)
            for name, colour in (("nothing sent", FREE), (baseline, FREE), ("no privacy", OPEN))
        ]
        draw_levels(axes, [values[f"local, ε = {epsilon:,}"] for epsilon in EPSILONS], marks)

    _draw_times(users, [t.users for t in by_users], by_users, "users (90 items)")
    _draw_times(items, [t.items for t in by_items], by_items, "items (20 users)")
    return figure


def _draw_times(axes: Axes, sizes: Sequence[int], timings: Sequence[Timing], label: str) -> None:
    for values, name, colour in (
        ([t.recorded for t in timings], "with ledger", RECORDED),
        ([t.without for t in timings], "without", PRIVATE),
    ):
        axes.plot(sizes, values, color=colour, marker="o", markersize=4)
        axes.annotate(
            name, (sizes[-1], values[-1]), (6, 0), textcoords="offset points", color=colour, va="center", fontsize=8.5
        )

    axes.set(xscale="log", yscale="log", xlabel=label, title=f"Seconds of a run, by {label.split()[0]}")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45, ha="right", rotation_mode="anchor")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")

"""The paper's sizes: 10 to 20 users and 40 to 90 items, accuracy at several epsilons, time with and without ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import mkdtemp

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.federated import MEANINGFUL, draw_levels
from liberate_studies.findings import TIMES, Row, Study, StudyResults, number, table
from liberate_studies.rungs import centralised, fastest, federated, judge, ledgered, require_same, warm_up
from liberate_studies.worlds import SEED, World, corner, free

_SIZES = ((10, 40), (15, 65), (20, 90))
_EPSILONS = (1, 4, 16, 64, 256, 1024, 16384)
_SPLITS, _QUICK_SPLITS = 20, 5
_USERS, _QUICK_USERS = (10, 15, 20, 50, 100, 200, 500, 1000), (10, 20, 50)
_ITEMS, _QUICK_ITEMS = (40, 65, 90, 200, 500, 1000, 3000), (40, 90)
_TIMED = ("privacy.mode=local", f"privacy.epsilon={MEANINGFUL}")
_NOTICEABLE = 0.005
"""Rating points; means over the splits wander by about as much."""


@dataclass(frozen=True, slots=True)
class _Score:
    """What something reached, over splits.

    Attributes:
        size: Users and items of the corner.
        name: What was judged.
        epsilon: Of each person, for the whole run, where that is private.
        rmse: Per split.
        ndcg: NDCG@10 per split; empty for what ranks nothing.
    """

    size: tuple[int, int]
    name: str
    epsilon: int | None
    rmse: Sequence[float]
    ndcg: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Timing:
    """Seconds of a run without and with the ledger."""

    n_users: int
    n_items: int
    without: float
    recorded: float


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    scores, choices = [], []
    for size in _SIZES:
        progress(f"{size[0]} users, {size[1]} items")
        place = corner(world, *size, scratch / "corner.parquet")
        train_part = place.job().split.train
        choices.append(train_part.n_items - train_part.n_ratings / train_part.n_users)
        scores += list(_scores(place, size, _QUICK_SPLITS if is_quick else _SPLITS))
    users, items = (_QUICK_USERS, _QUICK_ITEMS) if is_quick else (_USERS, _ITEMS)
    timings = {}
    for size in [*((n, 90) for n in users), *((20, n) for n in items)]:
        if size not in timings:
            progress(f"time of {size[0]} users, {size[1]} items")
            timings[size] = _timing(world, *size, scratch)
    by_users, by_items = [timings[n, 90] for n in users], [timings[20, n] for n in items]
    return StudyResults(
        rows=[*_score_rows(scores), *_timing_rows(list(timings.values()))],
        page=_page(world, scores, choices, list(timings.values())),
        figure=_figure(scores, by_users, by_items),
        alt="Above: RMSE and NDCG@10 over epsilon, flat up to 16. Below: time over users and items, with the ledger "
        "and without.",
    )


def _scores(place: World, size: tuple[int, int], n_splits: int) -> Iterator[_Score]:
    """Judge baselines, no privacy and every epsilon on the same splits."""
    seeds = [(f"data.split_seed={seed}", f"run.seed={seed}") for seed in range(SEED, SEED + n_splits)]
    baselines = [free(place, place.job(*seed)) for seed in seeds]
    for name in baselines[0]:
        found = [each[name] for each in baselines]
        yield _Score(
            size,
            name,
            None,
            [each["rmse"] for each in found if "rmse" in each],
            [each["ndcg_at_10"] for each in found if "ndcg_at_10" in each],
        )
    for epsilon in _EPSILONS:
        jobs = [place.job("privacy.mode=local", f"privacy.epsilon={epsilon}", *seed) for seed in seeds]
        runs = [federated(job) for job in jobs]
        if epsilon == _EPSILONS[0]:
            before = [judge(job, run.models[0]) for job, run in zip(jobs, runs, strict=True)]
            yield _score(size, "nothing sent", None, before)
        after = [judge(job, run.models[-1]) for job, run in zip(jobs, runs, strict=True)]
        yield _score(size, f"local, ε = {epsilon:,}", epsilon, after)
    jobs = [place.job("privacy.mode=plain", 'model.statistic="gradient"', *seed) for seed in seeds]
    yield _score(size, "no privacy", None, [judge(job, centralised(job).models[-1]) for job in jobs])


def _score(size: tuple[int, int], name: str, epsilon: int | None, found: Sequence[Metrics]) -> _Score:
    return _Score(size, name, epsilon, [m.rmse for m in found], [m.ndcg_at_10 for m in found])


def _timing(world: World, n_users: int, n_items: int, scratch: Path) -> _Timing:
    """Measure the same run without and with the ledger, and check that they come to the same models."""
    place = corner(world, n_users, n_items, scratch / "timed.parquet")
    job = place.job(*_TIMED)
    warm_up(job)
    recorded = fastest(lambda: ledgered(job, Path(mkdtemp(dir=scratch), "run")))
    without = fastest(lambda: federated(job, recorded.first_root))
    require_same(without, recorded.recorded)
    return _Timing(len(place.dataset.user_ids), len(place.dataset.item_ids), without.seconds, recorded.seconds)


def _score_rows(scores: Sequence[_Score]) -> list[Row]:
    return [
        {
            "series": score.name,
            "users": score.size[0],
            "items": score.size[1],
            "epsilon": None if score.epsilon is None else float(score.epsilon),
            "split": SEED + split,
            "rmse": score.rmse[split] if score.rmse else None,
            "ndcg_at_10": score.ndcg[split] if score.ndcg else None,
        }
        for score in scores
        for split in range(max(len(score.rmse), len(score.ndcg)))
    ]


def _timing_rows(timings: Sequence[_Timing]) -> list[Row]:
    return [
        {"series": series, "users": timing.n_users, "items": timing.n_items, "seconds": seconds}
        for timing in timings
        for series, seconds in (("without ledger", timing.without), ("with ledger", timing.recorded))
    ]


def _page(world: World, scores: Sequence[_Score], choices: Sequence[float], timings: Sequence[_Timing]) -> str:
    names = list(dict.fromkeys(score.name for score in scores))
    found = {(score.name, score.size): score for score in scores}
    n_splits = len(scores[0].rmse)
    sizes = [f"{n_users} × {n_items}" for n_users, n_items in _SIZES]
    errors, rankings = [], []
    for name in names:
        each = [found[name, size] for size in _SIZES]
        if each[0].rmse:
            cells = [(number(mean(s.rmse)), _wins_of(s, found["nothing sent", s.size])) for s in each]
            errors.append([name, *(cell for pair in cells for cell in pair)])
        if each[0].ndcg:
            rankings.append([name, *(number(mean(s.ndcg), 3) for s in each)])
    lines = [
        [str(t.n_users), str(t.n_items), number(t.without, 3), number(t.recorded, 3), f"{t.recorded / t.without:.0f}"]
        for t in timings
    ]
    return "\n\n".join(
        [
            "# The paper's sizes",
            f"{world.sentence}\n"
            "Of these the densest corner: the items with most ratings, then the users who rated most of them; of "
            "equals the first in the data set.\n"
            f"All figures are means over {n_splits} random splits, each with its own seed, a fifth held out; "
            "`beats` counts the splits in which RMSE is below that of `nothing sent`.",
            "## RMSE, users × items",
            table(["", *(cell for size in sizes for cell in (size, "beats"))], errors),
            "## NDCG@10",
            table(["", *sizes], rankings),
            _reading(found, choices),
            "## Seconds of a run, ε = 16, ten rounds",
            table(["users", "items", "without ledger", "with ledger", "with / without"], lines),
            "Without and with the ledger the models are the same to the bit.\n"
            "Ten people's arithmetic takes milliseconds, and the ledger's fixed cost, keys, enrolment and a durable "
            "block per step, shows; as either side grows the ratio falls.",
            TIMES,
        ]
    )


def _wins_of(score: _Score, nothing: _Score) -> str:
    if score is nothing:
        return "-"
    wins = sum(one < other for one, other in zip(score.rmse, nothing.rmse, strict=True))
    return f"{wins}/{len(score.rmse)}"


def _reading(found: Mapping[tuple[str, tuple[int, int]], _Score], choices: Sequence[float]) -> str:
    small = [score for score in found.values() if score.epsilon is not None and score.epsilon <= MEANINGFUL]
    change = min(mean(score.rmse) - mean(found["nothing sent", score.size].rmse) for score in small)
    verdict = f"compared with sending nothing, RMSE changes by {change:+.4f} at best."
    if change > -_NOTICEABLE:
        verdict = f"No mechanism here learns anything at ε ≤ {MEANINGFUL}: {verdict}"
    else:
        verdict = f"At ε ≤ {MEANINGFUL}, {verdict}"
    open_error, best_free = (mean(found[name, _SIZES[-1]].rmse) for name in ("no privacy", "damped biases"))
    return (
        f"{verdict}\n"
        f"Without privacy too there is little to learn at these sizes: at {_SIZES[-1][0]} × {_SIZES[-1][1]} matrix "
        f"factorisation reaches {open_error:.4f}, `damped biases` {best_free:.4f}.\n"
        "A list of ten is chosen from what is not in the training set, "
        f"{' / '.join(f'{n:.0f}' for n in choices)} items on average, so NDCG@10 must be compared with that of "
        "`nothing sent`, whose lists are random.\n"
        "ε is each person's for the whole run of ten rounds, by basic composition; the unit is the user."
    )


def _figure(scores: Sequence[_Score], by_users: Sequence[_Timing], by_items: Sequence[_Timing]) -> Figure:
    figure, (errors, rankings, users, items) = panels(5.6, 2, 2)
    size = _SIZES[-1]
    found = {score.name: score for score in scores if score.size == size}
    private = [score for score in found.values() if score.epsilon is not None]
    errors.set_title(f"RMSE, {size[0]} users, {size[1]} items")
    rankings.set_title(f"NDCG@10, {size[0]} users, {size[1]} items")
    for axes, metric, baseline in ((errors, "rmse", "damped biases"), (rankings, "ndcg", "most popular")):
        values = {name: mean(getattr(score, metric)) for name, score in found.items() if getattr(score, metric)}
        marks = [
            (values["nothing sent"], "nothing sent", FREE),
            (values[baseline], baseline, FREE),
            (values["no privacy"], "no privacy", OPEN),
        ]
        draw_levels(axes, _EPSILONS, [values[score.name] for score in private], marks)
    _draw_times(users, [t.n_users for t in by_users], by_users, "users (90 items)")
    _draw_times(items, [t.n_items for t in by_items], by_items, "items (20 users)")
    return figure


def _draw_times(axes: Axes, sizes: Sequence[int], timings: Sequence[_Timing], label: str) -> None:
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


STUDY = Study(default_source="ml-1m", run=_run)

"""How good each mode is at each epsilon, explicit and implicit, with what costs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.runs.folder import Run
from liberate_studies.cells import Cell, measure_cells
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, epsilon_axis, mark_levels, name_beside, panels
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import header, number, table
from liberate_studies.worlds import SEED, Accuracy, World, free

EPSILONS, _QUICK_EPSILONS = (1, 4, 8, 16), (1, 16)
_SEEDS = range(SEED, SEED + 3)
_PURPLE = "#7a5195"
_LOCAL_FACTORS = 4
"""Fewer than by default: `local` adds noise to every number of every upload, so fewer numbers serve it and its time."""


@dataclass(frozen=True, slots=True)
class _Series:
    """One way of learning, at every epsilon if it is private.

    Attributes:
        name: In tables and figures.
        settings: `section.key=value` each.
        colour: In figures.
        style: Of its line.
        is_private: Whether it has an epsilon.
        objectives: What it learns: ratings (`explicit`), rankings (`implicit`).
    """

    name: str
    settings: tuple[str, ...]
    colour: str
    style: str = "-"
    is_private: bool = True
    objectives: tuple[str, ...] = ("explicit", "implicit")


_LOCAL = ("privacy.mode=local", f"model.n_factors={_LOCAL_FACTORS}")
_SUMMED = ("privacy.mode=distributed",)
_BLIND = (*_SUMMED, "data.public_features=false")
_SERIES = (
    _Series("device", ("privacy.mode=device",), RECORDED, is_private=False),
    _Series("plain", ("privacy.mode=plain",), OPEN, is_private=False),
    _Series("local, Laplace", (*_LOCAL, 'privacy.mechanism="laplace"'), _PURPLE),
    _Series("local, Gauss", (*_LOCAL, 'privacy.mechanism="gaussian"'), _PURPLE, "--"),
    _Series("distributed", _SUMMED, PRIVATE),
    _Series("distributed, no features", _BLIND, PRIVATE, "--", objectives=("explicit",)),
)


def _series(*objectives: str) -> Iterator[tuple[str, _Series]]:
    """Return the series of each objective."""
    return ((o, series) for o, series in product(objectives, _SERIES) if o in series.objectives)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierRun:
    """What one run reached.

    Attributes:
        series: How it learned.
        objective: What it learned: `explicit` or `implicit`.
        epsilon: Of each person, for the whole run; None without noise.
        seed: Of noise and starting values.
        rmse: On held-out ratings; None of a model that predicts none.
        ndcg_at_10: On held-out ratings.
        rounds: Rounds of the run.
        seconds: From opening the federation to the last model on the ledger.
    """

    series: str
    objective: str
    epsilon: int | None
    seed: int
    rmse: float | None
    ndcg_at_10: float
    rounds: int
    seconds: float


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    world, baselines = study.world, free(study.world, study.world.job())
    seeds, epsilons = (_SEEDS[:1], _QUICK_EPSILONS) if study.is_quick else (_SEEDS, EPSILONS)
    runs = measure_cells(study, list(_cells(world, epsilons, seeds)), FrontierRun)
    return StudyResults(
        rows={"baselines": list(baselines.values()), "runs": runs},
        page=_page(world, baselines, runs, epsilons, seeds),
        figure=_figure(baselines, runs, epsilons),
        alt="RMSE of explicit models and NDCG@10 of implicit ones over epsilon, mode by mode.",
    )


def _cells(world: World, epsilons: Sequence[int], seeds: Sequence[int]) -> Iterator[Cell[FrontierRun]]:
    for objective, series in _series("explicit", "implicit"):
        for epsilon, seed in product(epsilons if series.is_private else (None,), seeds):
            bound = () if epsilon is None else (f"privacy.epsilon={epsilon}",)
            job = world.job(f'model.objective="{objective}"', *series.settings, *bound, f"run.seed={seed}")
            words = f"{objective}, {series.name}{'' if epsilon is None else f', epsilon {epsilon}'}, seed {seed}"
            yield Cell(words, job, partial(_read, series=series.name, objective=objective, epsilon=epsilon, seed=seed))


def _read(run: Run, *, series: str, objective: str, epsilon: int | None, seed: int) -> FrontierRun:
    result = run.result
    return FrontierRun(
        series=series,
        objective=objective,
        epsilon=epsilon,
        seed=seed,
        rmse=None if math.isnan(result.rmse) else result.rmse,
        ndcg_at_10=result.ndcg_at_10,
        rounds=result.rounds,
        seconds=result.seconds,
    )


def _values(runs: Sequence[FrontierRun], objective: str, series: str, epsilon: int | None, metric: str) -> list[float]:
    """Return a metric of all seeds."""
    place = (objective, series, epsilon)
    values = [getattr(run, metric) for run in runs if (run.objective, run.series, run.epsilon) == place]
    return [value for value in values if value is not None]


# --- page -------------------------------------------------------------------------------------------------------------

_WANTED: Mapping[str, Mapping[str, Mapping[int, float]]] = {
    "ml-1m": {
        "rmse": {1: 0.920, 4: 0.890, 8: 0.878, 16: 0.871},
        "ndcg_at_10": {1: 0.26, 4: 0.32, 8: 0.34, 16: 0.345},
    },
    "ml-100k": {"rmse": {4: 0.950, 8: 0.933, 16: 0.918}},
}
"""What we set out to reach with `distributed`, by data set, metric and epsilon."""


def _page(
    world: World,
    baselines: Mapping[str, Accuracy],
    runs: Sequence[FrontierRun],
    epsilons: Sequence[int],
    seeds: Sequence[int],
) -> Sequence[str]:
    named = f"seeds {SEED} to {seeds[-1]}" if len(seeds) > 1 else f"seed {SEED}"

    def table_by(metric: str, *objectives: str) -> str:
        blank = ["-"] * len(epsilons)
        free_values = ((name, getattr(known, metric)) for name, known in baselines.items())
        lines = [[name, number(value), *blank] for name, value in free_values if not math.isnan(value)]
        lines += _lines(runs, epsilons, metric, objectives)
        wanted = _WANTED.get(world.name, {}).get(metric)
        if wanted is not None:
            lines.append(["wanted of distributed", "-", *(number(wanted.get(epsilon), 3) for epsilon in epsilons)])
        return table(["", "no ε", *(f"ε = {epsilon}" for epsilon in epsilons)], lines)

    return [
        header("What privacy costs", world),
        "## RMSE of explicit models",
        table_by("rmse", "explicit"),
        "## NDCG@10",
        table_by("ndcg_at_10", "implicit", "explicit"),
        f"Means over {named} of noise and starting values; ± is half the distance between the best and the worst.\n"
        "ε is each person's for the whole run, at δ = 1e-5, and covers everything one person rated; `liberate "
        "privacy plan` says how it is spent.\n"
        "Of the rows without ε, `device` and `user mean` are what a device has alone; all others need exact sums.\n"
        f"`local` learns {_LOCAL_FACTORS} factors of ratings, and for rankings popularity alone.\n"
        "`distributed, no features` does without what a catalogue says of its items, such as genres.",
    ]


def _lines(
    runs: Sequence[FrontierRun], epsilons: Iterable[int], metric: str, objectives: Sequence[str]
) -> list[list[str]]:
    return [
        [
            series.name if objective == objectives[0] else f"{series.name}, {objective}",
            *(_spread(_values(runs, objective, series.name, epsilon, metric)) for epsilon in (None, *epsilons)),
        ]
        for objective, series in _series(*objectives)
    ]


def _spread(values: Sequence[float]) -> str:
    """Return a mean as text, and how far the values lie from the middle."""
    if not values:
        return "-"
    half = (max(values) - min(values)) / 2
    return number(mean(values)) + (f" ± {half:.4f}" if len(values) > 1 else "")


# --- figure -----------------------------------------------------------------------------------------------------------


def _figure(baselines: Mapping[str, Accuracy], runs: Sequence[FrontierRun], epsilons: Sequence[int]) -> Figure:
    figure, (left, right) = panels(3.4, 1, 2)
    left.set_title("RMSE (less is better)")
    right.set_title("NDCG@10 (more is better)")
    errors = [(baselines[name].rmse, name, FREE) for name in ("user mean", "damped biases")]
    _draw(left, runs, epsilons, "explicit", "rmse", errors)
    popular = (baselines["most popular"].ndcg_at_10, "most popular", FREE)
    _draw(right, runs, epsilons, "implicit", "ndcg_at_10", [popular])
    return figure


def _draw(
    axes: Axes,
    runs: Sequence[FrontierRun],
    epsilons: Sequence[int],
    objective: str,
    metric: str,
    marks: Sequence[tuple[float, str, str]],
) -> None:
    """Draw a metric over epsilon for each series of an objective, the spread over seeds shaded."""
    names = [*marks]
    for _, series in _series(objective):
        places = epsilons if series.is_private else (None,)
        values = [_values(runs, objective, series.name, epsilon, metric) for epsilon in places]
        means = [*map(mean, values)]
        names.append((means[-1], series.name, series.colour))

        if series.is_private:
            axes.plot(epsilons, means, series.style, color=series.colour, marker="o", markersize=4)
            low, high = [*map(min, values)], [*map(max, values)]
            axes.fill_between(epsilons, low, high, color=series.colour, alpha=0.18, linewidth=0)
        else:
            axes.axhline(means[0], color=series.colour, linewidth=1.2, zorder=0)

    mark_levels(axes, marks)
    epsilon_axis(axes, epsilons)
    name_beside(axes, names)

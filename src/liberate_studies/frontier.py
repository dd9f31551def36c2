"""How good each mode is at each epsilon, explicit and implicit, with what costs nothing beside it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.runs.train import train
from liberate.settings import to_toml
from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, epsilon_axis, name_beside, panels
from liberate_studies.findings import (
    RESULTS,
    Row,
    Study,
    StudyResults,
    free_rows,
    header,
    load_rows,
    number,
    save_rows,
    table,
)
from liberate_studies.worlds import SEED, Job, World, free

EPSILONS, _QUICK_EPSILONS = (1, 4, 8, 16), (1, 16)
_SEEDS = range(SEED, SEED + 3)
_PURPLE = "#7a5195"
_LOCAL_FACTORS = 4
"""Fewer than by default: `local` adds noise to every number of every upload, so fewer numbers serve it and its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """One way of learning, at every epsilon if it is private.

    Attributes:
        name: In tables and figures.
        objective: What is learned: ratings (`explicit`) or rankings (`implicit`).
        settings: `section.key=value` each.
        is_private: Whether it has an epsilon.
        colour: In figures.
        style: Of its line.
    """

    name: str
    objective: str
    settings: tuple[str, ...]
    is_private: bool
    colour: str
    style: str = "-"

    def assignments(self, epsilon: int | None, seed: int) -> tuple[str, ...]:
        """Give the settings of one run."""
        bound = () if epsilon is None else (f"privacy.epsilon={epsilon}",)
        return (f'model.objective="{self.objective}"', *self.settings, *bound, f"run.seed={seed}")


_LAPLACE = ("privacy.mode=local", 'privacy.mechanism="laplace"', f"model.n_factors={_LOCAL_FACTORS}")
_GAUSS = ("privacy.mode=local", 'privacy.mechanism="gaussian"', f"model.n_factors={_LOCAL_FACTORS}")
_SERIES = (
    _Series(name="device", objective="explicit", settings=("privacy.mode=device",), is_private=False, colour=RECORDED),
    _Series(name="plain", objective="explicit", settings=("privacy.mode=plain",), is_private=False, colour=OPEN),
    _Series(name="local, Laplace", objective="explicit", settings=_LAPLACE, is_private=True, colour=_PURPLE),
    _Series(name="local, Gauss", objective="explicit", settings=_GAUSS, is_private=True, colour=_PURPLE, style="--"),
    _Series(
        name="distributed",
        objective="explicit",
        settings=("privacy.mode=distributed",),
        is_private=True,
        colour=PRIVATE,
    ),
    _Series(
        name="distributed, no features",
        objective="explicit",
        settings=("privacy.mode=distributed", "data.public_features=false"),
        is_private=True,
        colour=PRIVATE,
        style="--",
    ),
    _Series(name="device", objective="implicit", settings=("privacy.mode=device",), is_private=False, colour=RECORDED),
    _Series(name="plain", objective="implicit", settings=("privacy.mode=plain",), is_private=False, colour=OPEN),
    _Series(name="local, Laplace", objective="implicit", settings=_LAPLACE, is_private=True, colour=_PURPLE),
    _Series(name="local, Gauss", objective="implicit", settings=_GAUSS, is_private=True, colour=_PURPLE, style="--"),
    _Series(
        name="distributed",
        objective="implicit",
        settings=("privacy.mode=distributed",),
        is_private=True,
        colour=PRIVATE,
    ),
)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One run that the study asks for."""

    series: _Series
    epsilon: int | None
    seed: int
    job: Job

    @property
    def key(self) -> str:
        """Name of the run's settings and ratings: a row of results with the same one need not be measured again."""
        return sha256((to_toml(self.job.settings) + self.job.dataset.digest).encode()).hexdigest()[:16]


def _run(world: World, is_quick: bool, folder: Path, progress: Progress) -> StudyResults:
    baselines = free(world, world.job())
    seeds, epsilons = (_SEEDS[:1], _QUICK_EPSILONS) if is_quick else (_SEEDS, EPSILONS)
    rows = _measure(list(_cells(world, epsilons, seeds)), folder, progress)
    found = _by_place(rows)
    return StudyResults(
        rows=[*free_rows(baselines), *rows],
        page=_page(world, baselines, found, epsilons, len(seeds)),
        figure=_figure(baselines, found, epsilons),
        alt="RMSE of explicit models and NDCG@10 of implicit ones over epsilon, mode by mode.",
    )


def _cells(world: World, epsilons: Sequence[int], seeds: Sequence[int]) -> Iterator[_Cell]:
    for series in _SERIES:
        for epsilon, seed in product(epsilons if series.is_private else (None,), seeds):
            yield _Cell(series, epsilon, seed, world.job(*series.assignments(epsilon, seed)))


def _measure(cells: Sequence[_Cell], folder: Path, progress: Progress) -> list[Row]:
    """Train what the folder's results do not have yet; they are saved after every run."""
    known = {row["key"]: row for row in load_rows(folder / RESULTS) if row.get("key")}
    rows: list[Row] = []
    for count, cell in enumerate(cells, start=1):
        row = known.get(cell.key)
        if row is None:
            bound = "" if cell.epsilon is None else f", epsilon {cell.epsilon}"
            progress(f"{count} of {len(cells)}: {cell.series.objective}, {cell.series.name}{bound}, seed {cell.seed}")
            row = known[cell.key] = _trained(cell, folder / "run")
            save_rows(list(known.values()), folder / RESULTS)
        rows.append(row)
    return rows


def _trained(cell: _Cell, out: Path) -> Row:
    shutil.rmtree(out, ignore_errors=True)
    result = train(cell.job.settings, out)
    shutil.rmtree(out)
    return {
        "series": cell.series.name,
        "objective": cell.series.objective,
        "epsilon": None if cell.epsilon is None else float(cell.epsilon),
        "seed": cell.seed,
        "rmse": None if math.isnan(result.rmse) else result.rmse,
        "ndcg_at_10": result.ndcg_at_10,
        "rounds": result.rounds,
        "seconds": result.seconds,
        "key": cell.key,
    }


_Found = Mapping[tuple[str, str, int | None], Sequence[Row]]
"""Rows of all seeds by objective, series and epsilon."""


def _by_place(rows: Sequence[Row]) -> _Found:
    found: dict[tuple[str, str, int | None], list[Row]] = {}
    for row in rows:
        epsilon = row["epsilon"]
        place = (str(row["objective"]), str(row["series"]), None if epsilon is None else int(epsilon))
        found.setdefault(place, []).append(row)
    return found


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    return [float(value) for row in rows if (value := row[metric]) is not None]


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
    baselines: Mapping[str, Mapping[str, float]],
    found: _Found,
    epsilons: Sequence[int],
    n_seeds: int,
) -> str:
    seeds = f"seeds {SEED} to {SEED + n_seeds - 1}" if n_seeds > 1 else f"seed {SEED}"
    return "\n\n".join(
        [
            header("What privacy costs", world),
            "## RMSE of explicit models",
            _table(world, baselines, found, epsilons, "rmse", ("explicit",)),
            "## NDCG@10",
            _table(world, baselines, found, epsilons, "ndcg_at_10", ("implicit", "explicit")),
            f"Means over {seeds} of noise and starting values; ± is half the distance between the best and the worst.\n"
            "ε is each person's for the whole run, at δ = 1e-5, and covers everything one person rated; `liberate "
            "privacy plan` says how it is spent.\n"
            "Of the rows without ε, `device` and `user mean` are what a device has alone; all others need exact sums.\n"
            f"`local` learns {_LOCAL_FACTORS} factors of ratings, and for rankings popularity alone.\n"
            "`distributed, no features` does without what a catalogue says of its items, such as genres.",
        ]
    )


def _table(
    world: World,
    baselines: Mapping[str, Mapping[str, float]],
    found: _Found,
    epsilons: Sequence[int],
    metric: str,
    objectives: Sequence[str],
) -> str:
    blank = ["-"] * len(epsilons)
    lines = [[name, number(each[metric]), *blank] for name, each in baselines.items() if metric in each]
    for objective in objectives:
        for series in _SERIES:
            if series.objective != objective:
                continue
            name = series.name if objective == objectives[0] else f"{series.name}, {objective}"
            cells = [_spread(_values(found.get((objective, series.name, e), ()), metric)) for e in (None, *epsilons)]
            lines.append([name, *cells])
    wanted = _WANTED.get(world.name, {}).get(metric)
    if wanted is not None:
        lines.append(["wanted of distributed", "-", *(number(wanted.get(epsilon), 3) for epsilon in epsilons)])
    return table(["", "no ε", *(f"ε = {epsilon}" for epsilon in epsilons)], lines)


def _spread(values: Sequence[float]) -> str:
    """Write a mean, and how far the values lie from the middle."""
    if not values:
        return "-"
    half = (max(values) - min(values)) / 2
    return number(mean(values)) + (f" ± {half:.4f}" if len(values) > 1 else "")


# --- figure -----------------------------------------------------------------------------------------------------------


def _figure(baselines: Mapping[str, Mapping[str, float]], found: _Found, epsilons: Sequence[int]) -> Figure:
    figure, (left, right) = panels(3.4, 1, 2)
    left.set_title("RMSE (less is better)")
    right.set_title("NDCG@10 (more is better)")
    errors = [(baselines[name]["rmse"], name) for name in ("user mean", "damped biases")]
    _draw(left, found, epsilons, "explicit", "rmse", errors)
    _draw(right, found, epsilons, "implicit", "ndcg_at_10", [(baselines["most popular"]["ndcg_at_10"], "most popular")])
    return figure


def _draw(
    axes: Axes,
    found: _Found,
    epsilons: Sequence[int],
    objective: str,
    metric: str,
    free_marks: Sequence[tuple[float, str]],
) -> None:
    """Draw a metric over epsilon for each series of an objective, the spread over seeds shaded."""
    names = [(height, name, FREE) for height, name in free_marks]
    for series in _SERIES:
        if series.objective != objective:
            continue
        places = epsilons if series.is_private else (None,)
        values = [_values(found[objective, series.name, epsilon], metric) for epsilon in places]
        means = [mean(each) for each in values]
        if series.is_private:
            axes.plot(epsilons, means, series.style, color=series.colour, marker="o", markersize=4)
            low, high = [min(each) for each in values], [max(each) for each in values]
            axes.fill_between(epsilons, low, high, color=series.colour, alpha=0.18, linewidth=0)
        else:
            axes.axhline(means[0], color=series.colour, linewidth=1.2, zorder=0)
        names.append((means[-1], series.name, series.colour))
    for height, _ in free_marks:
        axes.axhline(height, color=FREE, linewidth=0.9, zorder=0)
    epsilon_axis(axes, epsilons)
    name_beside(axes, names)


STUDY = Study(default_source="ml-1m", run=_run, resumes=True)

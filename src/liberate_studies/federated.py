"""The paper's second experiment: federated, with local differential privacy, on a small set, at several epsilons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate.privacy.promises import signal_to_noise
from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, epsilon_axis, name_beside, panels
from liberate_studies.findings import Row, Study, StudyResults, free_lines, free_rows, header, number, table
from liberate_studies.rungs import federated, judge
from liberate_studies.worlds import SEED, Job, World, free

EPSILONS = (1, 4, 16, 64, 256, 1024, 16384)
MEANINGFUL = 16
"""The largest epsilon that still promises something to a person, generously."""

_SEEDS, _QUICK_SEEDS = 5, 10


@dataclass(frozen=True, slots=True)
class _Level:
    """What one epsilon came to, over seeds of noise and starting values.

    Attributes:
        epsilon: Of each person, for the whole run.
        ratio: Upper bound of the signal-to-noise ratio of a round.
        before: Metrics of the model before the first round, per seed: nothing was sent.
        after: Metrics of the last model, per seed.
    """

    epsilon: int
    ratio: float
    before: Sequence[Metrics]
    after: Sequence[Metrics]

    @property
    def wins(self) -> int:
        """Seeds whose last model predicts better than the first."""
        return sum(after.rmse < before.rmse for before, after in zip(self.before, self.after, strict=True))


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    baselines = free(world, world.job())
    seeds = range(SEED, SEED + (_QUICK_SEEDS if is_quick else _SEEDS))
    levels = []
    for epsilon in EPSILONS:
        progress(f"epsilon {epsilon}")
        levels.append(_level(world, epsilon, seeds))
    progress("without noise")
    job = world.job("privacy.mode=local", "privacy.epsilon=1")
    rounds = job.plan.rounds
    job = world.job("privacy.mode=plain", 'model.statistic="gradient"', f"federation.rounds={rounds}")
    without = judge(job, federated(job).models[-1])
    rows = [*free_rows(baselines), *_rows(levels)]
    rows.append({"series": "without noise", "rmse": without.rmse, "ndcg_at_10": without.ndcg_at_10})
    return StudyResults(
        rows=rows,
        page="\n\n".join(
            [
                header("Federated, with local differential privacy", world),
                _table(levels, without, baselines),
                _reading(levels, rounds),
            ]
        ),
        figure=_figure(levels, without, baselines),
        alt="RMSE and NDCG@10 over epsilon: they leave the line of nothing sent only at epsilons that promise nothing.",
    )


def _level(world: World, epsilon: int, seeds: Sequence[int]) -> _Level:
    jobs = [world.job("privacy.mode=local", f"privacy.epsilon={epsilon}", f"run.seed={seed}") for seed in seeds]
    runs = [federated(job) for job in jobs]
    return _Level(
        epsilon,
        _ratio(jobs[0]),
        [judge(job, run.models[0]) for job, run in zip(jobs, runs, strict=True)],
        [judge(job, run.models[-1]) for job, run in zip(jobs, runs, strict=True)],
    )


def _ratio(job: Job) -> float:
    plan = job.plan
    (planned,) = plan.stages  # mode local
    return signal_to_noise(planned.stage.mechanism, plan.n_participants, planned.stage.statistic.shape)


def _mean(metrics: Sequence[Metrics], name: str) -> float:
    return float(np.mean([getattr(m, name) for m in metrics]))


def _rows(levels: Sequence[_Level]) -> list[Row]:
    return [
        {
            "series": series,
            "epsilon": float(level.epsilon),
            "signal_to_noise": level.ratio,
            "seed": SEED + index,
            "rmse": metrics.rmse,
            "ndcg_at_10": metrics.ndcg_at_10,
        }
        for level in levels
        for series, found in (("nothing sent", level.before), ("local", level.after))
        for index, metrics in enumerate(found)
    ]


def _table(levels: Sequence[_Level], without: Metrics, baselines: Mapping[str, Mapping[str, float]]) -> str:
    nothing, n_seeds = levels[0].before, len(levels[0].before)
    lines = free_lines(baselines, 5)
    lines.append(["nothing sent", "-", number(_mean(nothing, "rmse")), number(_mean(nothing, "ndcg_at_10")), "-"])
    for level in levels:
        rmse, ndcg = _mean(level.after, "rmse"), _mean(level.after, "ndcg_at_10")
        wins = f"{level.wins} of {n_seeds}"
        lines.append([f"local, ε = {level.epsilon:,}", number(level.ratio), number(rmse), number(ndcg), wins])
    lines.append(["plain: no clip, no noise", "-", number(without.rmse), number(without.ndcg_at_10), "-"])
    return table(["", "signal/noise, at most", "RMSE", "NDCG@10", "beats nothing sent"], lines)


def _reading(levels: Sequence[_Level], rounds: int) -> str:
    n_seeds = len(levels[0].before)
    learning = [level.epsilon for level in levels if level.wins == n_seeds]
    first = f"the first ε here that does is {learning[0]:,}" if learning else "no ε here does"
    if learning and learning[0] <= MEANINGFUL:
        verdict = f"ε = {learning[0]} is enough to beat `nothing sent` with every seed."
    else:
        verdict = f"No ε up to {MEANINGFUL} beats `nothing sent` with every seed: nothing is learned; {first}."
    return (
        f"{verdict}\n"
        f"ε is each person's for the whole run of {rounds} rounds, by basic composition; the unit is the user.\n"
        "An upload is clipped to an L1 norm of 1 and gets discrete Laplace noise on every number of every item; "
        "the last row of `local` is what the clip alone leaves.\n"
        f"`nothing sent` is what a device has alone: its own mean and random lists. `local` and it are means over "
        f"seeds {SEED} to {SEED + n_seeds - 1}.\n"
        "The rows above cost no work, but all of them except `user mean` need everybody's ratings in one place."
    )


def _figure(levels: Sequence[_Level], without: Metrics, baselines: Mapping[str, Mapping[str, float]]) -> Figure:
    figure, (left, right) = panels(3.0, 1, 2)
    left.set_title("RMSE (less is better)")
    right.set_title("NDCG@10 (more is better)")
    for axes, metric, baseline in ((left, "rmse", "damped biases"), (right, "ndcg_at_10", "most popular")):
        marks = [
            (_mean(levels[0].before, metric), "nothing sent", FREE),
            (baselines[baseline][metric], baseline, FREE),
            (float(getattr(without, metric)), "no noise", OPEN),
        ]
        draw_levels(axes, EPSILONS, [_mean(level.after, metric) for level in levels], marks)
    return figure


def draw_levels(
    axes: Axes, epsilons: Sequence[int], values: Sequence[float], marks: Sequence[tuple[float, str, str]]
) -> None:
    """Draw a metric over epsilon, with lines for what does not depend on it.

    Args:
        axes: The panel.
        epsilons: Increasing.
        values: The metric at each epsilon.
        marks: (height, name, colour) of each line.
    """
    axes.plot(epsilons, values, color=PRIVATE, marker="o", markersize=4)
    for height, _, colour in marks:
        axes.axhline(height, color=colour, linewidth=0.9, zorder=0)
    epsilon_axis(axes, epsilons, MEANINGFUL)
    name_beside(axes, [*marks, (values[-1], "local", PRIVATE)])


STUDY = Study(default_source="ml-100k", run=_run)

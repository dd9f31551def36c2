"""The paper's second experiment: federated, with local differential privacy, on a small set, at several epsilons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate.privacy.promises import signal_to_noise
from liberate_studies.drawing import FREE, OPEN, PRIVATE, epsilon_axis, mark_levels, name_beside, panels
from liberate_studies.rungs import federated, judge, judge_ends
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import free_lines, header, number, table
from liberate_studies.worlds import SEED, Accuracy, World, free

EPSILONS = (1, 4, 16, 64, 256, 1024, 16384)
MEANINGFUL = 16
"""The largest epsilon that still promises something to a person, generously."""

_SEEDS, _QUICK_SEEDS = 5, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyLevel:
    """What one epsilon came to, over seeds of noise and starting values.

    Attributes:
        epsilon: Of each person, for the whole run.
        signal_to_noise: Upper bound of that ratio in a round.
        before: Metrics of the model before the first round, per seed: nothing was sent.
        after: Metrics of the last model, per seed.
    """

    epsilon: int
    signal_to_noise: float
    before: Sequence[Metrics]
    after: Sequence[Metrics]

    @property
    def wins(self) -> int:
        """Seeds whose last model predicts better than the first."""
        return sum(after.rmse < before.rmse for before, after in zip(self.before, self.after, strict=True))


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    world, n_seeds = study.world, _QUICK_SEEDS if study.is_quick else _SEEDS
    baselines, levels = free(world, world.job()), []
    for epsilon in EPSILONS:
        study.progress(f"epsilon {epsilon}")
        levels.append(_level(world, epsilon, n_seeds))

    study.progress("without noise")
    rounds = world.job("privacy.mode=local", "privacy.epsilon=1").plan.rounds
    job = world.job("privacy.mode=plain", 'model.statistic="gradient"', f"federation.rounds={rounds}")
    without = judge(job, federated(job).models[-1])

    return StudyResults(
        rows={"baselines": list(baselines.values()), "levels": levels, "without noise": [without]},
        page=[
            header("Federated, with local differential privacy", world),
            _table(levels, without, baselines),
            _reading(levels, rounds),
        ],
        figure=_figure(levels, without, baselines),
        alt="RMSE and NDCG@10 over epsilon: they leave the line of nothing sent only at epsilons that promise nothing.",
    )


def _level(world: World, epsilon: int, n_seeds: int) -> PrivacyLevel:
    seeds = range(SEED, SEED + n_seeds)
    jobs = [world.job("privacy.mode=local", f"privacy.epsilon={epsilon}", f"run.seed={seed}") for seed in seeds]
    plan = jobs[0].plan
    (planned,) = plan.stages  # mode local
    ratio = signal_to_noise(planned.stage.mechanism, plan.n_participants, planned.stage.statistic.shape)
    before, after = judge_ends(jobs)
    return PrivacyLevel(epsilon=epsilon, signal_to_noise=ratio, before=before, after=after)


def _mean(metrics: Sequence[Metrics], name: str) -> float:
    return fmean(getattr(m, name) for m in metrics)


def _table(levels: Sequence[PrivacyLevel], without: Metrics, baselines: Mapping[str, Accuracy]) -> str:
    def line(name: str, ratio: float | None, metrics: Sequence[Metrics], wins: str) -> list[str]:
        return [name, number(ratio), number(_mean(metrics, "rmse")), number(_mean(metrics, "ndcg_at_10")), wins]

    nothing = levels[0].before
    return table(
        ["", "signal/noise, at most", "RMSE", "NDCG@10", "beats nothing sent"],
        [
            *free_lines(baselines.values(), 5),
            line("nothing sent", None, nothing, "-"),
            *(
                line(f"local, ε = {e.epsilon:,}", e.signal_to_noise, e.after, f"{e.wins} of {len(nothing)}")
                for e in levels
            ),
            line("plain: no clip, no noise", None, [without], "-"),
        ],
    )


def _reading(levels: Sequence[PrivacyLevel], rounds: int) -> str:
    n_seeds = len(levels[0].before)
    learning = [level.epsilon for level in levels if level.wins == n_seeds]
    if learning and learning[0] <= MEANINGFUL:
        verdict = f"ε = {learning[0]} is enough to beat `nothing sent` with every seed."
    else:
        first = f"the first ε here that does is {learning[0]:,}" if learning else "no ε here does"
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


def _figure(levels: Sequence[PrivacyLevel], without: Metrics, baselines: Mapping[str, Accuracy]) -> Figure:
    figure, (left, right) = panels(3.0, 1, 2)
    left.set_title("RMSE (less is better)")
    right.set_title("NDCG@10 (more is better)")
    for axes, metric, baseline in ((left, "rmse", "damped biases"), (right, "ndcg_at_10", "most popular")):
        marks = [
            (_mean(levels[0].before, metric), "nothing sent", FREE),
            (float(getattr(baselines[baseline], metric)), baseline, FREE),
            (float(getattr(without, metric)), "no noise", OPEN),
        ]
        draw_levels(axes, [_mean(level.after, metric) for level in levels], marks)
    return figure


def draw_levels(axes: Axes, values: Sequence[float], marks: Sequence[tuple[float, str, str]]) -> None:
    """Draw a metric over `EPSILONS`, with lines for what does not depend on epsilon.

    Args:
        axes: The panel.
        values: The metric at each epsilon.
        marks: (height, name, colour) of each line.
    """
    axes.plot(EPSILONS, values, color=PRIVATE, marker="o", markersize=4)
    mark_levels(axes, marks)
    epsilon_axis(axes, EPSILONS, MEANINGFUL)
    name_beside(axes, [*marks, (values[-1], "local", PRIVATE)])

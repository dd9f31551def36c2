"""The paper's first experiment: matrix factorisation with all ratings in one place, without noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, RECORDED, name_beside, panels
from liberate_studies.findings import TIMES, LearningCurve, Study, StudyResults, free_lines, free_rows, header, table
from liberate_studies.rungs import centralised, fastest, judge, warm_up
from liberate_studies.worlds import Job, World, free

_METHODS = {
    "gradient (Adam)": ('model.statistic="gradient"', OPEN),
    "normal equations": ('model.statistic="normal"', RECORDED),
}


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    baselines = free(world, world.job())
    curves = []
    for name, (setting, colour) in _METHODS.items():
        progress(name)
        curves.append(curve(world.job("privacy.mode=plain", setting), name, colour))
    page = [
        header("Matrix factorisation in one place, without privacy", world),
        table(
            ["", "rounds", "RMSE", "NDCG@10", "seconds"],
            [*free_lines(baselines, 5), *(each.cells() for each in curves)],
        ),
        "Both methods learn from the same ratings with 15 factors and stop when the training error has settled.\n"
        "The gradient is what the paper's devices send; ours send normal equations unless noise is added.\n"
        "The rows above them cost nothing.",
        TIMES,
    ]
    return StudyResults(
        rows=[*free_rows(baselines), *(row for each in curves for row in each.rows())],
        page="\n\n".join(page),
        figure=_figure(curves, baselines),
        alt="RMSE of held-out ratings by round and by time, for the gradient and for normal equations.",
    )


def curve(job: Job, name: str, colour: str) -> LearningCurve:
    """Learn in one place, and judge every version."""
    warm_up(job)
    learned = fastest(partial(centralised, job))
    return LearningCurve(name, colour, learned.seconds, [judge(job, model) for model in learned.models])


def _figure(curves: Sequence[LearningCurve], baselines: Mapping[str, Mapping[str, float]]) -> Figure:
    figure, (by_round, by_time) = panels(3.1, 1, 2, sharey=True)
    for each in curves:
        by_round.plot(range(each.rounds + 1), each.errors, color=each.colour)
        milliseconds = [1000 * each.round_seconds * version for version in range(each.rounds + 1)]
        by_time.plot(milliseconds, each.errors, color=each.colour)
    names = [(each.errors[-1], f"{each.errors[-1]:.4f} {each.name}", each.colour) for each in curves]
    for name, found in baselines.items():
        if "rmse" in found and name != "global mean":
            names.append((found["rmse"], f"{found['rmse']:.4f} {name}", FREE))
            for axes in (by_round, by_time):
                axes.axhline(found["rmse"], color=FREE, linewidth=0.9, zorder=0)
    by_round.set(title="By round", xlabel="round", ylabel="RMSE of held-out ratings", xlim=(0, None))
    by_time.set(title="By time", xlabel="milliseconds, on one machine", xlim=(0, None))
    name_beside(by_time, names)
    return figure


STUDY = Study(default_source="ml-100k", run=_run)

"""The paper's first experiment: matrix factorisation with all ratings in one place, without noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate_studies.drawing import FREE, OPEN, RECORDED, mark_levels, name_beside, panels
from liberate_studies.rungs import TIMES, centralised, fastest, federated, judge
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import free_lines, header, number, table
from liberate_studies.worlds import Accuracy, Job, free

_METHODS = {"gradient (Adam)": 'model.statistic="gradient"', "normal equations": 'model.statistic="normal"'}
_COLOURS = (OPEN, RECORDED)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How good the models of one way of learning were, round by round.

    Attributes:
        name: What was done.
        seconds: From the first step to the last model.
        metrics: Of every version, from 0.
    """

    name: str
    seconds: float
    metrics: Sequence[Metrics]

    @property
    def rounds(self) -> int:
        return len(self.metrics) - 1

    @property
    def round_ms(self) -> float:
        """Milliseconds of a round."""
        return 1000 * self.seconds / self.rounds

    @property
    def errors(self) -> list[float]:
        """RMSE of every version."""
        return [metrics.rmse for metrics in self.metrics]

    def cells(self) -> list[str]:
        """Return the outcome as cells of a table: name, rounds, RMSE, NDCG@10, seconds."""
        last = self.metrics[-1]
        return [self.name, str(self.rounds), number(last.rmse), number(last.ndcg_at_10), number(self.seconds, 2)]


def curve(job: Job, name: str) -> LearningCurve:
    """Learn in one place, and judge every version."""
    federated(job)  # loads and compiles what is needed, so that no measured time holds it
    learned = fastest(partial(centralised, job))
    return LearningCurve(name, learned.seconds, [judge(job, model) for model in learned.models])


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    baselines, curves = free(study.world, study.world.job()), []
    for name, setting in _METHODS.items():
        study.progress(name)
        curves.append(curve(study.world.job("privacy.mode=plain", setting), name))

    lines = [*free_lines(baselines.values(), 5), *(line.cells() for line in curves)]
    return StudyResults(
        rows={"baselines": list(baselines.values()), "curves": curves},
        page=[
            header("Matrix factorisation in one place, without privacy", study.world),
            table(["", "rounds", "RMSE", "NDCG@10", "seconds"], lines),
            "Both methods learn from the same ratings with 15 factors and stop when the training error has settled.\n"
            "The gradient is what the paper's devices send; ours send normal equations unless noise is added.\n"
            "The rows above them cost nothing.",
            TIMES,
        ],
        figure=_figure(curves, baselines),
        alt="RMSE of held-out ratings by round and by time, for the gradient and for normal equations.",
    )


def _figure(curves: Sequence[LearningCurve], baselines: Mapping[str, Accuracy]) -> Figure:
    figure, (by_round, by_time) = panels(3.1, 1, 2, sharey=True)
    for line, colour in zip(curves, _COLOURS, strict=True):
        by_round.plot(range(line.rounds + 1), line.errors, color=colour)
        by_time.plot([line.round_ms * version for version in range(line.rounds + 1)], line.errors, color=colour)

    marks = [
        (known.rmse, f"{known.rmse:.4f} {known.name}", FREE)
        for known in baselines.values()
        if not isnan(known.rmse) and known.name != "global mean"
    ]
    mark_levels(by_round, marks)
    mark_levels(by_time, marks)
    by_round.set(title="By round", xlabel="round", ylabel="RMSE of held-out ratings", xlim=(0, None))
    by_time.set(title="By time", xlabel="milliseconds, on one machine", xlim=(0, None))

    ends = zip(curves, _COLOURS, strict=True)
    name_beside(by_time, [*((c.errors[-1], f"{c.errors[-1]:.4f} {c.name}", colour) for c, colour in ends), *marks])
    return figure

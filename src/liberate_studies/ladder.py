"""The paper's three first experiments side by side, with one seed: error and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate_studies.centralised import LearningCurve, curve
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, mark_levels, name_beside, panels
from liberate_studies.ledgered import Pair, measure, same_models
from liberate_studies.rungs import TIMES, judge
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import free_lines, header, number, table
from liberate_studies.worlds import Accuracy, free

_OPEN = ("privacy.mode=plain", 'model.statistic="gradient"')
_PRIVATE = ("privacy.mode=local", "privacy.epsilon=8")
_COLOURS = (OPEN, PRIVATE, RECORDED)


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    baselines = free(study.world, study.world.job())
    study.progress("centralised")
    first = curve(study.world.job(*_OPEN), "1 centralised, no privacy")
    pair = measure(study, "federated", study.world.job(*_PRIVATE))
    metrics = [judge(study.world.job(*_PRIVATE), model) for model in pair.without.models]
    rungs = [
        first,
        LearningCurve("2 federated, local ε = 8", pair.without.seconds, metrics),
        LearningCurve("3 the same on the ledger", pair.recorded.seconds, metrics),
    ]

    lines = [*free_lines(baselines.values(), 6), *([*rung.cells(), number(rung.round_ms, 0)] for rung in rungs)]
    return StudyResults(
        rows={"baselines": list(baselines.values()), "rungs": rungs},
        page=[
            header("The paper's ladder", study.world),
            table(["", "rounds", "RMSE", "NDCG@10", "seconds", "ms a round"], lines),
            _reading(rungs, pair),
            TIMES,
        ],
        figure=_figure(rungs, baselines),
        alt="Left: RMSE by round without privacy and with it. Right: time of a round on each rung.",
    )


def _reading(rungs: Sequence[LearningCurve], pair: Pair) -> str:
    errors = rungs[1].errors
    return (
        "Rung 1 is the gradient followed until it has settled.\n"
        f"Rung 2 spends ε = 8 per person in the whole run, by basic composition; RMSE is {errors[0]:.4f} before its "
        f"first round and {errors[-1]:.4f} after its last.\n"
        "`liberate study federated` repeats that with several seeds and ε.\n"
        f"Rung 3 takes {pair.ratio:.1f} times as long as rung 2, enrolment included.\n{same_models(pair)}"
    )


def _figure(rungs: Sequence[LearningCurve], baselines: Mapping[str, Accuracy]) -> Figure:
    figure, (left, right) = panels(3.2, 1, 2, width_ratios=[1.35, 1])
    _draw_errors(left, rungs, baselines)

    for place, (rung, colour) in enumerate(zip(rungs, _COLOURS, strict=True)):
        right.barh(place, rung.round_ms, color=colour, height=0.45)
        right.text(0, place - 0.36, rung.name, fontsize=8.5, va="center", color=colour)
        right.text(rung.round_ms, place, f" {rung.round_ms:,.0f} ms", va="center", fontsize=8.5)
    right.spines["left"].set_visible(False)
    right.margins(x=0.22)
    right.set(
        title="Time of a round", xlabel="milliseconds, on one machine", xlim=(0, None), ylim=(2.6, -0.7), yticks=[]
    )
    return figure


def _draw_errors(axes: Axes, rungs: Sequence[LearningCurve], baselines: Mapping[str, Accuracy]) -> None:
    """Draw RMSE by round; the two private rungs are the same line."""
    centralised, private, recorded = (rung.errors for rung in rungs)
    axes.plot(centralised, color=OPEN)
    axes.plot(private, color=PRIVATE)
    axes.plot(recorded, color=RECORDED, linestyle="none", marker="o", markersize=5, fillstyle="none")
    axes.set(title="RMSE of held-out ratings", xlabel="round", xlim=(0, None))

    free_errors = [(baselines[name].rmse, name) for name in ("user mean", "damped biases")]
    marks = [(error, f"{error:.4f} {name}", FREE) for error, name in free_errors]
    mark_levels(axes, marks)
    ends = ((centralised[-1], "rung 1", OPEN), (private[-1], "rungs 2 and 3", PRIVATE))
    name_beside(axes, [*((error, f"{error:.4f} {name}", colour) for error, name, colour in ends), *marks])

"""The paper's three first experiments side by side, with one seed: error and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.timing import Progress
from liberate_studies.centralised import curve
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, name_beside, panels
from liberate_studies.findings import (
    TIMES,
    LearningCurve,
    Study,
    StudyResults,
    free_lines,
    free_rows,
    header,
    number,
    table,
)
from liberate_studies.ledgered import Pair, measure, same_models
from liberate_studies.rungs import judge
from liberate_studies.worlds import World, free

_OPEN = ("privacy.mode=plain", 'model.statistic="gradient"')
_PRIVATE = ("privacy.mode=local", "privacy.epsilon=8")


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    baselines = free(world, world.job())
    progress("centralised")
    first = curve(world.job(*_OPEN), "1 centralised, no privacy", OPEN)
    pair = measure(world, "federated", _PRIVATE, scratch, progress)
    metrics = [judge(world.job(*_PRIVATE), model) for model in pair.without.models]
    rungs = [
        first,
        LearningCurve("2 federated, local ε = 8", PRIVATE, pair.without.seconds, metrics),
        LearningCurve("3 the same on the ledger", RECORDED, pair.recorded.seconds, metrics),
    ]
    lines = [[*rung.cells(), number(1000 * rung.round_seconds, 0)] for rung in rungs]
    page = [
        header("The paper's ladder", world),
        table(["", "rounds", "RMSE", "NDCG@10", "seconds", "ms a round"], [*free_lines(baselines, 6), *lines]),
        _reading(rungs, pair),
        TIMES,
    ]
    return StudyResults(
        rows=[*free_rows(baselines), *(row for rung in rungs for row in rung.rows())],
        page="\n\n".join(page),
        figure=_figure(rungs, baselines),
        alt="Left: RMSE by round without privacy and with it. Right: time of a round on each rung.",
    )


def _reading(rungs: Sequence[LearningCurve], pair: Pair) -> str:
    before, after = rungs[1].errors[0], rungs[1].errors[-1]
    return (
        "Rung 1 is the gradient followed until it has settled.\n"
        f"Rung 2 spends ε = 8 per person in the whole run, by basic composition; RMSE is {before:.4f} before its "
        f"first round and {after:.4f} after its last.\n"
        "`liberate study federated` repeats that with several seeds and ε.\n"
        f"Rung 3 takes {pair.ratio:.1f} times as long as rung 2, enrolment included.\n{same_models(pair)}"
    )


def _figure(rungs: Sequence[LearningCurve], baselines: Mapping[str, Mapping[str, float]]) -> Figure:
    figure, (left, right) = panels(3.2, 1, 2, width_ratios=[1.35, 1])
    _draw_errors(left, rungs, baselines)
    for place, rung in enumerate(rungs):
        milliseconds = 1000 * rung.round_seconds
        right.barh(place, milliseconds, color=rung.colour, height=0.45)
        right.text(0, place - 0.36, rung.name, fontsize=8.5, va="center", color=rung.colour)
        right.text(milliseconds, place, f" {milliseconds:,.0f} ms", va="center", fontsize=8.5)
    right.set(title="Time of a round", xlabel="milliseconds, on one machine", yticks=[], ylim=(2.6, -0.7))
    right.spines["left"].set_visible(False)
    right.margins(x=0.22)
    right.set_xlim(0, None)
    return figure


def _draw_errors(axes: Axes, rungs: Sequence[LearningCurve], baselines: Mapping[str, Mapping[str, float]]) -> None:
    """Draw RMSE by round; the two private rungs are the same line."""
    centralised, private, recorded = rungs
    axes.plot(centralised.errors, color=centralised.colour)
    axes.plot(private.errors, color=private.colour)
    axes.plot(recorded.errors, color=recorded.colour, linestyle="none", marker="o", markersize=5, fillstyle="none")
    axes.set(title="RMSE of held-out ratings", xlabel="round", xlim=(0, None))
    names = [
        (centralised.errors[-1], f"{centralised.errors[-1]:.4f} rung 1", centralised.colour),
        (private.errors[-1], f"{private.errors[-1]:.4f} rungs 2 and 3", private.colour),
    ]
    for name in ("user mean", "damped biases"):
        error = baselines[name]["rmse"]
        axes.axhline(error, color=FREE, linewidth=0.9, zorder=0)
        names.append((error, f"{error:.4f} {name}", FREE))
    name_beside(axes, names)


STUDY = Study(default_source="ml-100k", run=_run)

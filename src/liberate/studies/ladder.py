"""The paper's three first experiments side by side, with one seed: error and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate.studies.drawing import FREE, OPEN, PRIVATE, RECORDED, name_beside, panels
from liberate.studies.findings import Findings, Progress, Row, Study, free_lines, header, number, table
from liberate.studies.ledgered import measure, same_models
from liberate.studies.rungs import Learned, centralised, judge, warm_up
from liberate.studies.worlds import World, free

_OPEN = ("privacy.mode=plain", 'model.statistic="gradient"')
_PRIVATE = ("privacy.mode=local", "privacy.epsilon=8")
_RUNGS = ("1 centralised, no privacy", "2 federated, local ε = 8", "3 the same on the ledger")
_COLOURS = (OPEN, PRIVATE, RECORDED)


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> Findings:
    baselines = free(world, world.job())
    job = world.job(*_OPEN)
    warm_up(job)
    progress("centralised")
    first = centralised(job)
    pair = measure(world, "federated", _PRIVATE, scratch / "run", progress)
    private_job = world.job(*_PRIVATE)
    open_metrics = [judge(job, model) for model in first.models]
    private_metrics = [judge(private_job, model) for model in pair.without.models]
    rungs: list[tuple[str, Learned, Sequence[Metrics]]] = [
        (_RUNGS[0], first, open_metrics),
        (_RUNGS[1], pair.without, private_metrics),
        (_RUNGS[2], pair.recorded, private_metrics),
    ]
    rows: list[Row] = [{"series": name, **metrics} for name, metrics in baselines.items()]
    lines = free_lines(baselines, 6)
    for name, learned, metrics in rungs:
        step = learned.seconds / learned.rounds
        rows += [
            {"series": name, "round": n, "rmse": m.rmse, "ndcg_at_10": m.ndcg_at_10, "seconds": n * step}
            for n, m in enumerate(metrics)
        ]
        accuracy = [number(metrics[-1].rmse), number(metrics[-1].ndcg_at_10)]
        lines.append([name, str(learned.rounds), *accuracy, number(learned.seconds, 2), number(1000 * step, 0)])
    nothing = private_metrics[0].rmse
    verdict = (
        "learns nothing: its last model predicts no better than the one before the first round"
        if private_metrics[-1].rmse >= nothing
        else "ends below the model before the first round, by chance or by learning: `study federated` tells"
    )
    page = "\n\n".join(
        [
            header("The paper's ladder", world),
            table(["", "rounds", "RMSE", "NDCG@10", "seconds", "ms a round"], lines),
            f"Rung 1 is the gradient followed until it has settled.\n"
            f"Rung 2 spends ε = 8 per person in the whole run, by basic composition, and {verdict} "
            f"({private_metrics[-1].rmse:.4f}, {nothing:.4f}).\n"
            f"Rung 3 takes {pair.ratio:.1f} times as long as rung 2, enrolment included.\n{same_models(pair)}\n"
            "Times are of this machine: their ratios count.",
        ]
    )
    alt = "Left: RMSE by round, falling without privacy and flat with it; right: time of a round on each rung."
    return Findings(rows=rows, page=page, figure=_figure(rungs, baselines), alt=alt)


def _figure(
    rungs: Sequence[tuple[str, Learned, Sequence[Metrics]]], baselines: Mapping[str, Mapping[str, float]]
) -> Figure:
    figure, (left, right) = panels(3.2, 1, 2, width_ratios=[1.35, 1])
    _draw_errors(left, [metrics for _, _, metrics in rungs], baselines)
    for place, ((name, learned, _), colour) in enumerate(zip(rungs, _COLOURS, strict=True)):
        milliseconds = 1000 * learned.seconds / learned.rounds
        right.barh(place, milliseconds, color=colour, height=0.45)
        right.text(0, place - 0.36, name, fontsize=8.5, va="center", color=colour)
        right.text(milliseconds, place, f" {milliseconds:,.0f} ms", va="center", fontsize=8.5)
    right.set(title="Time of a round", xlabel="milliseconds, on this machine", yticks=[], ylim=(2.6, -0.7))
    right.spines["left"].set_visible(False)
    right.margins(x=0.22)
    right.set_xlim(0, None)
    return figure


def _draw_errors(
    axes: Axes, metrics: Sequence[Sequence[Metrics]], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    """Draw RMSE by round; the two private rungs are the same line."""
    errors = [[m.rmse for m in each] for each in metrics]
    axes.plot(errors[0], color=OPEN)
    axes.plot(errors[1], color=PRIVATE)
    axes.plot(errors[2], color=RECORDED, linestyle="none", marker="o", markersize=5, markerfacecolor="none")
    axes.set(title="RMSE of held-out ratings", xlabel="round", xlim=(0, None))
    marks = [(baselines[name]["rmse"], name) for name in ("user mean", "damped biases")]
    for height, _ in marks:
        axes.axhline(height, color=FREE, linewidth=0.9, zorder=0)
    names = [(height, f"{height:.4f} {name}", FREE) for height, name in marks]
    names.append((errors[0][-1], f"{errors[0][-1]:.4f} rung 1", OPEN))
    names.append((errors[1][-1], f"{errors[1][-1]:.4f} rungs 2 and 3", PRIVATE))
    name_beside(axes, names)


STUDY = Study(default_source="ml-100k", run=_run)

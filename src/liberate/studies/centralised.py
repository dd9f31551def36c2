"""The paper's first experiment: matrix factorisation with all ratings in one place, without noise."""

from __future__ import annotations

from pathlib import Path

from liberate.studies.drawing import FREE, OPEN, RECORDED, name_beside, panels
from liberate.studies.findings import Findings, Progress, Row, Study, free_lines, header, number, table
from liberate.studies.rungs import centralised, judge, warm_up
from liberate.studies.worlds import World, free

_METHODS = {
    "gradient (Adam)": ('model.statistic="gradient"', OPEN),
    "normal equations": ('model.statistic="normal"', RECORDED),
}


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> Findings:
    jobs = {name: world.job("privacy.mode=plain", setting) for name, (setting, _) in _METHODS.items()}
    warm_up(*jobs.values())
    baselines = free(world, world.job())
    rows: list[Row] = [{"series": name, **metrics} for name, metrics in baselines.items()]
    lines = free_lines(baselines, 5)
    figure, (by_round, by_time) = panels(3.1, 1, 2, sharey=True)
    names = []
    for name, job in jobs.items():
        progress(name)
        learned = centralised(job)
        seconds = learned.seconds / learned.rounds
        metrics = [judge(job, model) for model in learned.models]
        rows += [
            {"series": name, "round": n, "rmse": m.rmse, "ndcg_at_10": m.ndcg_at_10, "seconds": n * seconds}
            for n, m in enumerate(metrics)
        ]
        last, colour = metrics[-1], _METHODS[name][1]
        lines.append(
            [name, str(learned.rounds), number(last.rmse), number(last.ndcg_at_10), number(learned.seconds, 3)]
        )
        errors = [m.rmse for m in metrics]
        by_round.plot(range(len(errors)), errors, color=colour)
        by_time.plot([1000 * seconds * n for n in range(len(errors))], errors, color=colour)
        names.append((errors[-1], f"{errors[-1]:.4f} {name}", colour))
    for name, found in baselines.items():
        if "rmse" in found and name != "global mean":
            for axes in (by_round, by_time):
                axes.axhline(found["rmse"], color=FREE, linewidth=0.8, zorder=0)
            names.append((found["rmse"], f"{found['rmse']:.4f} {name}", FREE))
    by_round.set(title="By round", xlabel="round", ylabel="RMSE of held-out ratings", xlim=(0, None))
    by_time.set(title="By time", xlabel="milliseconds, on this machine", xlim=(0, None))
    name_beside(by_time, names)
    page = "\n\n".join(
        [
            header("Matrix factorisation in one place, without privacy", world),
            table(["", "rounds", "RMSE", "NDCG@10", "seconds"], lines),
            "Both methods learn from the same ratings with 15 factors and stop when the training error has settled.\n"
            "The gradient is what the paper's devices send; ours send normal equations unless noise is added.\n"
            "The rows above them cost nothing.\n"
            "Times are of this machine: their ratios count.",
        ]
    )
    alt = "RMSE of held-out ratings by round and by time: normal equations below the gradient, both below baselines."
    return Findings(rows=rows, page=page, figure=figure, alt=alt)


STUDY = Study(default_source="ml-100k", run=_run)

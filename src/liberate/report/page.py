"""From a run folder to its page."""

from __future__ import annotations

import shlex
from base64 import b64encode
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

import liberate
from liberate.files import write_atomic
from liberate.report import charts, words
from liberate.report.facts import ledger_facts, step, time_parts, ways
from liberate.report.flows import DrawnAnswer, flow_of
from liberate.runs.evaluate import evaluate_run
from liberate.runs.folder import Run
from liberate.runs.privacy_report import forecast_of, privacy_report
from liberate.settings import to_toml
from liberate.tracing.answers import ParticipantAnswer
from liberate.tracing.traces import trace_participant
from liberate.units import from_nano

FILE_NAME = "report.html"

_WIDE, _NARROW = 880.0, 400.0


def write(run: Run) -> Path:
    """Write `report.html` into a run folder: everything about the run that a person should see, in one file.

    The same run gives the same bytes.

    Args:
        run: A finished run.

    Returns:
        Where the page lies.

    Raises:
        LiberateError: The run is not finished, its ratings have changed, or a proof about its first participant fails.
    """
    page = _environment().get_template("report.html").render(_content(run))
    path = run.folder / FILE_NAME
    write_atomic(path, page.encode())
    return path


def draw(answer: DrawnAnswer, path: Path) -> None:
    """Draw an answer of `liberate trace` into an SVG file that loads nothing."""
    path.write_text(_drawn(answer), "utf-8")


def _drawn(answer: DrawnAnswer) -> str:
    return _environment().get_template("flow.svg").render(flow=flow_of(answer))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("liberate.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = ("count", "decimal", "epsilon", "percent", "scientific", "seconds", "sentence", "significant")
    environment.filters |= {name: getattr(words, name) for name in names} | {"px": words.pixels, "step": step}
    return environment


def _content(run: Run) -> dict[str, object]:
    result, settings = run.result, run.settings
    found, spent, predicted = evaluate_run(run), privacy_report(run), forecast_of(run)
    privacy = spent | spent["this_run"]
    ledger = ledger_facts(run)
    trace = trace_participant(run, str(ledger.traced))
    places = ways(trace, ledger.blocks)
    metrics = asdict(found.metrics)
    columns, rows = words.metric_table({"this run": metrics} | found.baselines)
    history = pq.read_table(run.folder / "metrics.parquet").to_pydict()
    errors = {name: row["rmse"] for name, row in found.baselines.items() if "rmse" in row}
    values = list(zip(history["version"], history["rmse"], strict=True))
    curves = [charts.curve(values, errors, width=width, height=width / 8 + 240) for width in (_WIDE, _NARROW)]
    source = replace(settings.data, source=Path(settings.data.source).name)
    return {
        "version": liberate.__version__,
        "name": run.record["dataset_name"],
        "digest": run.record["dataset"],
        "simulated": ledger.audit.simulated is not False,
        "seed": settings.run.seed,
        "result": result,
        "n_items": predicted["items"],
        "n_test": found.test.n_ratings,
        "rmse_words": words.comparison("rmse", found.metrics.rmse, found.baselines)
        if found.predictions is not None
        else "the aim is good lists: no rating is predicted",
        "predicts": found.predictions is not None,
        "ndcg_words": words.comparison("ndcg_at_10", found.metrics.ndcg_at_10, found.baselines),
        "metrics": found.metrics,
        "columns": columns,
        "rows": rows,
        "curves": [curve for curve in curves if curve is not None],
        "privacy": privacy,
        "promise": _promise(privacy, predicted) + _all_runs(spent),
        "epsilon_words": _epsilon_words(privacy),
        "joined": _joined(privacy),
        "signal": predicted["signal_to_noise"],
        "noise_warning": predicted["warning"],
        "tuning": privacy["warning"],
        "limit": _limit(privacy),
        "ledger": ledger,
        "command": f"liberate ledger verify {shlex.quote(run.folder.resolve().name)} "
        f"--key {shlex.quote(run.verifier_key)}",
        "trace": trace,
        "updates": {entry.position: entry for entry in (*trace.uses, *trace.updates)},
        "sharing": _sharing(trace),
        "flow": b64encode(_drawn(trace).encode()).decode() if trace.shares else None,
        "strips": [charts.strip(ledger.size, ledger.blocks, places, width=width) for width in (_WIDE, _NARROW)],
        "parts": time_parts(run.record["seconds"], result.seconds),
        "toml": to_toml(replace(settings, data=source)),
    }


def _promise(privacy: dict[str, Any], predicted: dict[str, Any]) -> list[tuple[str, str]]:
    """What was promised, by name: only what says something in this mode."""
    rows = [
        ("Mode", privacy["mode"]),
        ("Unit", privacy["unit"]),
        ("Relation", privacy["relation"]),
        ("Adversary", privacy["adversary"]),
        ("Mechanism", privacy["mechanism"]),
    ]
    if privacy["mode"] in ("local", "distributed"):
        rows.append(("Sampler", privacy["sampler"]))
        rows.append(("Signal to noise", f"at most {words.significant(predicted['signal_to_noise'])} in each round"))
    if privacy["mode"] == "distributed":
        rows += [("Masks", privacy["masks"]), ("Noise", privacy["noise"])]
    return [*rows, ("Rounds joined", _joined(privacy))]


def _sharing(trace: ParticipantAnswer) -> list[tuple[str, str]]:
    """What became of a participant's consents and copies, by name: only what there is."""
    rows = []
    if trace.consents:
        n_withdrawn = sum(consent.withdrawn is not None for consent in trace.consents)
        rows.append(("Consents", f"{len(trace.consents)}, {n_withdrawn} of them withdrawn"))

    if trace.shares:
        copies = words.count(len(trace.shares), "copy", "copies")
        recipients = words.count(len(trace.recipients), "recipient")
        n_accepted = sum(share.receipt is not None for share in trace.shares)
        n_models = sum(bool(model.through) for model in trace.models)
        uses = f"{words.count(len(trace.uses), 'use')} for {words.count(n_models, 'model')}"
        rows += [("Handed over", f"{copies} to {recipients}, {n_accepted} accepted"), ("Used by others", uses)]

    if trace.received:
        rows.append(("Received", words.count(len(trace.received), "copy", "copies")))
    if trace.withdrawal is not None:
        rows.append(("Left", f"withdrawn from everything, entry {trace.withdrawal}"))
    if trace.used_after_withdrawal:
        entries = words.count(len(trace.used_after_withdrawal), "entry", "entries")
        rows.append(("Used after leaving", f"{entries}, accepted before"))
    return rows


def _all_runs(spent: dict[str, Any]) -> list[tuple[str, str]]:
    """What all runs of the federation have told together, where there are several."""
    n_runs, delta = len(spent["by_run"]), words.scientific(spent["delta"])
    if n_runs < 2:
        return []
    told = "no bound" if spent["epsilon_pld"] is None else f"ε = {words.epsilon(spent['epsilon_pld'])} at δ = {delta}"
    return [("All runs", f"{told}, over {n_runs} runs on this ledger, for who spent most")]


def _joined(privacy: dict[str, Any]) -> str:
    least, most = privacy["rounds_joined_least"], privacy["rounds_joined_most"]
    if most == 0:
        return "none was held"
    return f"each participant joined {most}" if least == most else f"participants joined {least} to {most} each"


def _epsilon_words(privacy: dict[str, Any]) -> str:
    match privacy["mode"]:
        case "device":
            return "nothing left a device"
        case "plain":
            return "the coordinator is trusted"
        case _:
            tight, delta = words.epsilon(privacy["epsilon_pld"]), words.scientific(privacy["delta"])
            return f"for the whole run{f'; {tight}' if privacy['rho'] is None else ','} at δ = {delta}"


def _limit(privacy: dict[str, Any]) -> str:
    """What one participant may spend in all runs, as the genesis says it."""
    limits = {"ε": privacy["ledger_epsilon_nano_limit"], "ρ": privacy["ledger_rho_nano_limit"]}
    said = [f"{name} = {words.epsilon(from_nano(nano))}" for name, nano in limits.items() if nano is not None]
    return f"{' and '.join(said)} for a participant, in all runs" if said else "none set"

"""From a run folder to its page."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import UNSET

import liberate
from liberate.files import write_atomic
from liberate.ledger.verification.verify import VerificationReport
from liberate.report import charts, words
from liberate.report.facts import LedgerFacts, ledger_facts, step, time_parts, ways
from liberate.report.flows import DrawnAnswer, flow_of
from liberate.runs.evaluate import Evaluation, evaluate_run
from liberate.runs.folder import Run
from liberate.runs.privacy_forecast import forecast_of
from liberate.runs.privacy_report import PrivacyReport, privacy_report
from liberate.settings import to_toml
from liberate.tracing.answers import ParticipantAnswer
from liberate.tracing.traces import trace_participant
from liberate.units import from_nano

FILE_NAME = "report.html"

_WIDE, _NARROW = 880.0, 400.0
_NOT_MEASURED: Mapping[str, object] = {"measured": False, "n_test": 0, "curves": ()}


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


def _content(run: Run) -> Mapping[str, object]:
    """Return what the template names, a section after the other."""
    is_measured, ledger = run.settings.run.simulated, ledger_facts(run)
    source = replace(run.settings.data, source=Path(run.settings.data.source).name)
    name, key = shlex.quote(run.folder.resolve().name), shlex.quote(run.verifier_key)
    return {
        "version": liberate.__version__,
        "name": run.record.dataset_name,
        "digest": run.record.dataset,
        "simulated": ledger.audit.simulated is not False,
        "seed": run.settings.run.seed,
        "result": run.result,
        **(_learned(run, evaluate_run(run)) if is_measured else _NOT_MEASURED),
        **_promised(run),
        "ledger": ledger,
        "trust": _trust(ledger.audit),
        "command": f"liberate ledger verify {name} --key {key}",
        **_traced(run, ledger),
        "parts": time_parts(run.record.seconds, run.result.seconds),
        "toml": to_toml(replace(run.settings, data=source)),
    }


def _trust(audit: VerificationReport) -> str:
    """Say how far the ledger is trusted, by whoever believes the key that lies in the run's own folder."""
    text = words.trust(audit)
    if audit.distrust == "simulated":
        return text
    return f"{text}; the key is this folder's own: hold it against one you have from elsewhere"


def _learned(run: Run, evaluation: Evaluation) -> Mapping[str, object]:
    """Return how good the models are, beside the free baselines."""
    metrics, baselines = evaluation.metrics, evaluation.baselines
    columns, rows = words.metric_table({"this run": asdict(metrics)} | baselines)
    history = pq.read_table(run.folder / "metrics.parquet").to_pydict()
    values = list(zip(history["version"], history["rmse"], strict=True))
    errors = {name: row["rmse"] for name, row in baselines.items() if "rmse" in row}
    curves = [charts.curve(values, errors, width=width, height=width / 8 + 240) for width in (_WIDE, _NARROW)]

    predicts = evaluation.predictions is not None
    rmse_words = words.comparison("rmse", metrics.rmse, baselines)
    return {
        "measured": True,
        "n_test": evaluation.test.n_ratings,
        "predicts": predicts,
        "rmse_words": rmse_words if predicts else "trained to rank items: no rating is predicted",
        "ndcg_words": words.comparison("ndcg_at_10", metrics.ndcg_at_10, baselines),
        "metrics": metrics,
        "columns": columns,
        "rows": rows,
        "curves": [curve for curve in curves if curve is not None],
    }


def _promised(run: Run) -> Mapping[str, object]:
    """Return what was promised before the run, and what it has spent."""
    spent, predicted = privacy_report(run), forecast_of(run)
    privacy = replace(spent, **asdict(spent.this_run))
    joined = _joined(privacy.rounds_joined_least, privacy.rounds_joined_most)
    signal = predicted.signal_to_noise
    limits = {"ε": spent.ledger_epsilon_nano_limit, "ρ": spent.ledger_rho_nano_limit}
    return {
        "n_items": predicted.items,
        "privacy": privacy,
        "promise": [
            *_promise(privacy, signal),
            ("Rounds joined", joined),
            *_all_runs(len(spent.by_run), spent.epsilon_pld, spent.delta),
        ],
        "epsilon_words": _epsilon_words(privacy.mode, privacy.epsilon_pld, privacy.delta, is_pure=privacy.rho is None),
        "joined": joined,
        "signal": signal,
        "noise_warning": predicted.warning,
        "tuning": privacy.warning,
        "limit": _limit(limits),
    }


def _traced(run: Run, ledger: LedgerFacts) -> Mapping[str, object]:
    """Return what became of one participant's data."""
    trace = trace_participant(run, str(ledger.traced))
    places = ways(trace, ledger.blocks)
    return {
        "trace": trace,
        "updates": {entry.position: entry for entry in (*trace.uses, *trace.updates)},
        "sharing": _sharing(trace),
        "flow": b64encode(_drawn(trace).encode()).decode() if trace.shares else None,
        "strips": [charts.strip(ledger.size, ledger.blocks, places, width=width) for width in (_WIDE, _NARROW)],
    }


def _promise(privacy: PrivacyReport, signal: float | None) -> list[tuple[str, str]]:
    """What was promised, by name: only what says something in this mode."""
    names = ["mode", "unit", "relation", "adversary", "mechanism"]
    is_noisy = privacy.mode in ("local", "distributed")
    rows = [(name.capitalize(), getattr(privacy, name)) for name in [*names, "sampler"][: None if is_noisy else -1]]
    if is_noisy:
        rows.append(("Signal to noise", f"at most {words.significant(signal)} in each round"))
    said = {name: getattr(privacy, name) for name in ("colluders", "dropouts", "masks", "noise", "delta_beyond")}
    rows += [(name.replace("_", " ").capitalize(), text) for name, text in said.items() if text is not UNSET]
    return rows


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


def _all_runs(n_runs: int, epsilon: float | None, delta: float) -> list[tuple[str, str]]:
    """What all runs of the federation have revealed together, where there are several."""
    if n_runs < 2:
        return []
    bound = "no bound" if epsilon is None else f"ε = {words.epsilon(epsilon)} at δ = {words.scientific(delta)}"
    return [("All runs", f"{bound}, over {n_runs} runs on this ledger, for the participant who spent most")]


def _joined(least: int, most: int) -> str:
    if most == 0:
        return "there were none"
    return f"each participant joined {most}" if least == most else f"participants joined {least} to {most} each"


def _epsilon_words(mode: str, tight: float | None, delta: float, *, is_pure: bool) -> str:
    if mode == "device":
        return "nothing left a device"
    if mode == "plain":
        return "the coordinator is trusted"
    more = f"; {words.epsilon(tight)}" if is_pure else ","
    return f"for the whole run{more} at δ = {words.scientific(delta)}"


def _limit(limits: Mapping[str, int | None]) -> str:
    """What one participant may spend in all runs, as the genesis says it."""
    texts = [f"{name} = {words.epsilon(from_nano(nano))}" for name, nano in limits.items() if nano is not None]
    return f"{' and '.join(texts)} for a participant, in all runs" if texts else "none"

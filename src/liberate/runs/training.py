"""The main job: train a federation into a run folder, and go on with one that was killed."""

from __future__ import annotations

import math
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from liberate.crypto.note import open_checkpoint
from liberate.errors import InvalidRecord, SettingsError
from liberate.federation.coordinator import Coordinator, ModelStore
from liberate.federation.founding import Charter, Federation, open_federation
from liberate.federation.participant import Host
from liberate.federation.transport import InProcessTransport
from liberate.ledger.publish.checkpoints import WitnessAddress, parse_address
from liberate.ledger.records import Model as ModelRecord
from liberate.ledger.records import decode_entry
from liberate.model.factors import Model, fit_devices, predict
from liberate.model.metrics import evaluate, rmse
from liberate.model.ratings import Dataset, Split
from liberate.model.solvers import has_converged
from liberate.runs.folder import (
    Result,
    Run,
    load_dataset,
    load_run,
    relative_to_run,
    save_catalogue,
    split_dataset,
    write_run,
)
from liberate.runs.planning import Plan, plan, public_features
from liberate.settings import LedgerConfig, Settings
from liberate.timing import Stopwatch

Progress = Callable[[str], None]
"""Told one line at each step of long work."""


def train(settings: Settings, out: Path | str, *, progress: Progress = lambda text: None) -> Result:
    """Train a federation and record every step on its ledger; go on with a run that was killed.

    A run that is finished is left as it is.

    Args:
        settings: Resolved settings.
        out: The run folder; made if absent.
        progress: Told each step.

    Returns:
        The figures of the finished run.

    Raises:
        SettingsError: The folder holds a run with other settings or ratings, or no run at all.
        DataError: The ratings cannot be used.
        PrivacyError: The promise cannot be kept with these settings.
        FederationError: A round could not be carried out.
    """
    out = Path(out)
    progress(f"reading {settings.data.source}")
    dataset = load_dataset(settings)
    split = split_dataset(dataset, settings)
    agenda = plan(
        relative_to_run(settings, out),
        split.train.n_users,
        split.train.n_items,
        public_features(settings, dataset).shape[1],
    )
    if _claim(out, agenda.settings, dataset):
        return load_run(out).result
    save_catalogue(out / "model" / "items.parquet", dataset)
    stopwatch = Stopwatch()
    begin = time.perf_counter()
    charter = charter_of(agenda.settings, agenda)
    with open_federation(
        out,
        charter,
        dataset.user_ids,
        split.train,
        run=1,
        chunk=settings.federation.chunk,
        stopwatch=stopwatch,
        progress=progress,
    ) as federation:
        run = _begin(out, agenda.settings, dataset, federation)
        last = _learn(run, agenda, dataset, split, federation, charter, stopwatch, progress)
        seconds = time.perf_counter() - begin
        checkpoint = open_checkpoint(federation.publisher.publish(), run.verifier_key)
    progress("evaluating")
    spent = agenda.spent(last.version)
    result = Result(
        run=str(out),
        **_measure(run, dataset, split, last),
        epsilon=spent.epsilon,
        delta=settings.privacy.delta if spent.rho else 0.0,
        mode=settings.privacy.mode,
        rounds=last.version,
        seconds=seconds,
        entry_count=checkpoint.size,
        root=b64encode(checkpoint.root).decode(),
        verifier_key=run.verifier_key,
    )
    figures = {key: value for key, value in asdict(result).items() if key != "run"}
    ended = {"last_position": checkpoint.size - 1, "seconds": dict(stopwatch.seconds), "result": figures}
    write_run(Run(out, agenda.settings, run.record | ended))
    return result


def charter_of(settings: Settings, agenda: Plan | None = None) -> Charter:
    """Give what the founder of a run's ledger writes down, and people agree to.

    Args:
        settings: Resolved settings.
        agenda: What is going to leave devices; None where nothing is.

    Raises:
        SettingsError: A witness is none, or more are to cosign than there are.
    """
    witnesses, threshold = _witnesses(settings.ledger)
    return Charter(
        origin=settings.ledger.origin,
        seed=settings.run.seed,
        is_simulated=settings.run.simulated,
        mechanism="" if agenda is None else agenda.mechanism_name,
        agreed_epsilon_nano=0 if agenda is None else agenda.spend_nano("epsilon"),
        agreed_rho_nano=0 if agenda is None else agenda.spend_nano("rho"),
        epsilon_nano_limit=_nano(settings.ledger.epsilon_limit),
        witnesses=witnesses,
        witness_threshold=threshold,
    )


def _witnesses(config: LedgerConfig) -> tuple[tuple[WitnessAddress, ...], int]:
    """Read who must cosign, and how many of them: more than half if not said."""
    try:
        witnesses = tuple(parse_address(text) for text in config.witnesses)
    except InvalidRecord as error:
        raise SettingsError(f"ledger.witnesses: {error.message}") from error
    majority = len(witnesses) // 2 + 1 if witnesses else 0
    threshold = majority if config.witness_threshold is None else config.witness_threshold
    if threshold > len(witnesses):
        raise SettingsError(f"ledger.witness_threshold is {threshold}, but there are {len(witnesses)} witnesses")
    return witnesses, threshold


def _nano(epsilon: float | None) -> int | None:
    return None if epsilon is None else math.ceil(epsilon * 10**9)


def _claim(out: Path, settings: Settings, dataset: Dataset) -> bool:
    """Tell whether a folder holds this very run, finished; refuse one that holds something else than its beginning."""
    if not (out / "run.toml").exists():
        if out.exists() and any(out.iterdir()) and not (out / "model").exists():
            raise SettingsError(f"{out} exists and holds no run", hint="choose another --out")
        return False
    run = load_run(out)
    if run.settings != settings or run.record["dataset"] != dataset.digest:
        raise SettingsError(f"{out} holds a run with other settings or ratings", hint="choose another --out")
    return run.is_finished


def _begin(out: Path, settings: Settings, dataset: Dataset, federation: Federation) -> Run:
    """Write down where the run starts, before its first round; or read it, when it goes on."""
    if (out / "run.toml").exists():
        return load_run(out)
    ledger = federation.ledger
    checkpoint = open_checkpoint(ledger.checkpoint(), federation.policy.log_key)
    record: dict[str, Any] = {
        "origin": ledger.origin,
        "verifier_key": federation.policy.log_key,
        "dataset": dataset.digest,
        "dataset_name": dataset.name,
        "run": 1 if ledger.state.run is None else ledger.state.run.number + 1,
        "first_position": ledger.size,
        "first_root": b64encode(checkpoint.root).decode(),
    }
    run = Run(out, settings, record)
    write_run(run)
    return run


def _learn(
    run: Run,
    agenda: Plan,
    dataset: Dataset,
    split: Split,
    federation: Federation,
    charter: Charter,
    stopwatch: Stopwatch,
    progress: Progress,
) -> Model:
    """Carry out the rounds that are left; give the last model."""
    config, ledger, number = agenda.settings.model, federation.ledger, int(run.record["run"])
    secret = charter.randomness().secret("initial model", number)
    store = ModelStore(run.folder / "model")
    previous = None
    current = agenda.first_model(dataset, secret)
    store.save(current)
    if not agenda.stages:
        return current
    randomness = charter.randomness(b64decode(run.record["first_root"]))
    host = Host(federation.devices, federation.policy, split.train.n_items, randomness, stopwatch)
    coordinator = Coordinator(
        ledger=ledger,
        key=federation.coordinator_key,
        number=federation.coordinator,
        transport=InProcessTransport(dict.fromkeys(host.numbers, host)),
        store=store,
        config=agenda.settings.federation,
        fidelity=agenda.fidelity,
        randomness=randomness,
        stopwatch=stopwatch,
        publish=federation.publisher.publish,
    )
    for position in ledger.positions(kind="model")[-2:]:
        record = decode_entry(ledger.entry(position)).record
        if isinstance(record, ModelRecord):
            previous, current = current, store.load(record.version, record.digest)
    while current.version < agenda.rounds:
        if previous is not None and not agenda.is_noisy and has_converged(previous, current, config.tolerance):
            break
        progress(f"round {current.version + 1} of {'' if agenda.is_noisy else 'at most '}{agenda.rounds}")
        rounds = agenda.rounds if agenda.is_noisy else None
        stage = agenda.stage_after(current)
        previous, current = current, coordinator.run_round(current, stage, run=number, rounds=rounds)
    return current


class _Figures(TypedDict):
    rmse: float
    ndcg_at_10: float


def _measure(run: Run, dataset: Dataset, split: Split, last: Model) -> _Figures:
    """Evaluate every version on held-out ratings: the simulator's view, which no participant has."""
    store, users = ModelStore(run.folder / "model"), split.test.users()
    errors = []
    for version in range(last.version + 1):
        model = last if version == last.version else store.load(version)
        profiles = fit_devices(model, split.train)
        if model.predicts_ratings:
            errors.append(rmse(predict(model, profiles, users, split.test.items), split.test.values))
        else:
            errors.append(float("nan"))
    pq.write_table(pa.table({"version": range(last.version + 1), "rmse": errors}), run.folder / "metrics.parquet")
    metrics = evaluate(last, profiles, split, dataset.catalogue)
    return {"rmse": metrics.rmse, "ndcg_at_10": metrics.ndcg_at_10}

"""The main job: train a federation into a run folder, and go on with one that was killed."""

from __future__ import annotations

import math
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from liberate.crypto.note import verify_checkpoint
from liberate.data.dataset import Dataset
from liberate.data.rating_scale import RatingScale
from liberate.data.splits import Split
from liberate.errors import FederationError, StaleModel
from liberate.federation.coordinator.config import RoundMethod
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.participant.host import Host
from liberate.federation.session import RunSession
from liberate.federation.setup import RunParticipation, open_for_run
from liberate.federation.sharing.simulation import SharingSimulation
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.transport import InProcessTransport
from liberate.files import write_atomic
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entry_at
from liberate.ledger.rules.round_state import ModelReference
from liberate.model.metrics import evaluate_model, rmse
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.model.solvers import has_converged
from liberate.model.warm_start import warm_started
from liberate.privacy.gaussian import DistributedGaussian
from liberate.randomness import Randomness
from liberate.runs.federation_access import federation_access, genesis_parameters, participation_terms
from liberate.runs.folder import (
    CATALOGUE,
    POOL_FOLDER,
    PREVIOUSLY_LEARNED,
    UPLOADS_FOLDER,
    Result,
    Run,
    erased_users,
    save_table,
    without_participants,
    write_run,
)
from liberate.runs.pending_requests import request_processor
from liberate.runs.plan import Plan
from liberate.runs.prepare import PreparedRun, prepare
from liberate.settings import Settings
from liberate.timing import Progress, Stopwatch, silent


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a further run starts from.

    Attributes:
        model: The model to go on with, where it fits; None: one of constants.
        version: Of the model on the ledger that it is, or was made of; 0: of none.
    """

    model: Model | None
    version: int


def train(
    settings: Settings,
    out: Path | str,
    *,
    ledger: Path | str | None = None,
    start: StartingPoint | None = None,
    progress: Progress = silent,
) -> Result:
    """Train a federation and record every step on its ledger; go on with a run that was killed.

    A run that is finished is left as it is.

    Args:
        settings: Resolved settings.
        out: The run folder; made if absent.
        ledger: The folder of a federation, or of one of its runs, which goes on with this run: people are found by
            their original ids, new ones are enrolled, ratings and items are added; None: the run founds its own.
        start: What a further run starts from; None: the federation's last model, if it may.
        progress: Told each step.

    Returns:
        The figures of the finished run.

    Raises:
        SettingsError: The folder holds a run with other settings or ratings, or no run at all.
        DataError: The ratings cannot be used.
        PrivacyError: The promise cannot be kept with these settings, or too few people can pay for the run.
        FederationError: A round could not be carried out.
    """
    out = Path(out)
    progress(f"reading {settings.data.source}")
    task = prepare(settings, out, None if ledger is None else Path(ledger))
    if task.begun is not None and task.begun.is_finished:
        return task.begun.result
    plan, dataset = task.plan, task.dataset
    if task.left_out:
        absent, everybody = len(task.left_out), len(dataset.user_ids)
        progress(f"{absent:,} of {everybody:,} people stay out: they cannot pay, have withdrawn, or have no valid key")
    if task.begun is None:
        save_table(out / CATALOGUE, task.items)
    stopwatch = Stopwatch()
    begin = time.perf_counter()
    with (
        stopwatch.running(),
        open_for_run(
            federation_access(task.home.folder, plan.settings),
            genesis_parameters(plan.settings),
            RunParticipation(
                run=task.number,
                user_ids=dataset.user_ids,
                ratings=task.split.train,
                cohort=task.cohort,
                terms=participation_terms(plan),
            ),
            batch_size=settings.federation.batch_size,
            claim=partial(_claim, task),
            progress=progress,
        ) as federation,
        UploadStore(out / UPLOADS_FOLDER) if settings.ledger.keep_uploads else nullcontext() as uploads,
    ):
        run = task.begun or _begin(out, task, federation, start, progress)
        last = _learn(run, task, federation, uploads, progress)
        split = without_participants(task.split, erased_users(federation.devices, dataset))
        seconds = time.perf_counter() - begin
        checkpoint = verify_checkpoint(federation.publisher.publish(), run.verifier_key)
    progress("evaluating")
    rounds = last.version - run.first_version
    spent = plan.spent(rounds)
    result = Result(
        run=str(out),
        **_measure(run, dataset, split, last),
        epsilon=spent.epsilon,
        delta=settings.privacy.delta if spent.rho else 0.0,
        mode=settings.privacy.mode,
        rounds=rounds,
        seconds=seconds,
        entry_count=checkpoint.size,
        root=b64encode(checkpoint.root).decode(),
        verifier_key=run.verifier_key,
    )
    figures = {key: value for key, value in asdict(result).items() if key != "run"}
    ended = {"last_position": checkpoint.size - 1, "seconds": dict(stopwatch.seconds), "result": figures}
    write_run(Run(out, plan.settings, run.record | ended))
    return result


def _claim(task: PreparedRun, ledger: Ledger) -> None:
    """Check that the federation is as it was when the run was prepared, and add the run's items to its catalogue."""
    before = 0 if ledger.state.run is None else ledger.state.run.number
    expected = {task.number - 1} if task.begun is None else {task.number - 1, task.number}
    if before not in expected or not task.home.holds_beginning_of(task.items):
        raise FederationError("the federation has gone on meanwhile with another run", hint="try again after it")
    if task.begun is None:
        save_table(task.home.items_path, task.items)


def _begin(
    out: Path,
    task: PreparedRun,
    federation: RunSession,
    start: StartingPoint | None,
    progress: Progress,
) -> Run:
    """Write down where the run starts, and its first model, before its first round."""
    ledger = federation.ledger
    first, started_from = _first_model(task, federation, start, progress)
    ModelStore(out / "model").save(first)
    if task.moved:
        save_table(out / PREVIOUSLY_LEARNED, pa.table({"row": task.moved}))
    checkpoint = verify_checkpoint(ledger.checkpoint(), federation.policy.log_key)
    record: dict[str, Any] = {
        "origin": ledger.origin,
        "verifier_key": federation.policy.log_key,
        "dataset": task.dataset.digest,
        "dataset_name": task.dataset.name,
        "federation": os.path.relpath(task.home.folder.resolve(), out.resolve()),
        "run": task.number,
        "first_position": ledger.size,
        "first_root": b64encode(checkpoint.root).decode(),
        "first_version": first.version,
        "started_from": started_from,
        "carried": task.carried,
        "left_out": list(task.left_out),
        "pool": task.plan.pool is not None,
    }
    _stand(task, out)
    run = Run(out, task.plan.settings, record)
    write_run(run)
    return run


def _stand(task: PreparedRun, out: Path) -> None:
    """Write down in the federation which run is the last one, and which there were."""

    def name(path: Path) -> str:
        return os.path.relpath(path.resolve(), task.home.folder.resolve())

    folders = {"last_run": out} | ({} if task.last is None else {"run_before": task.last.folder})
    standing: dict[str, str | list[str]] = {which: name(path) for which, path in folders.items()}
    standing["runs"] = sorted({name(path) for path in [*task.home.all_run_folders(), out]})
    write_atomic(task.home.standing_path, tomli_w.dumps(standing).encode())


def _first_model(
    task: PreparedRun, federation: RunSession, start: StartingPoint | None, progress: Progress
) -> tuple[Model, int]:
    """Give the model that the run starts from, and what that goes on with.

    It is what was asked for, or the last one of the federation if it may be, or else one of constants.
    """
    plan, reached = task.plan, federation.ledger.state.model
    fresh = plan.first_model(task.dataset, federation.access.source.randomness().secret("initial model", task.number))
    if reached is None:
        return fresh, 0
    goes_on = start or StartingPoint(_last_model(task, reached), reached.version)
    first, is_warm = warm_started(fresh, reached.version, goes_on.model)
    started_from = goes_on.version if is_warm else 0
    known = "the last model" if start is None else f"what models up to {started_from} say"
    progress(f"starting {f'from {known}' if started_from else 'afresh'}, at version {reached.version}")
    return first, started_from


def _last_model(task: PreparedRun, reached: ModelReference) -> Model | None:
    """Give the federation's last model where the run may go on with it and its file is there."""
    plan = task.plan
    warm_start = plan.settings.model.warm_start
    if plan.stages and task.last is not None and (not plan.is_noisy if warm_start is None else warm_start):
        with suppress(StaleModel):
            return ModelStore(task.last.folder / "model").load(reached.version, reached.digest)
    return None


def _learn(
    run: Run,
    task: PreparedRun,
    federation: RunSession,
    uploads: UploadStore | None,
    progress: Progress,
) -> Model:
    """Carry out the rounds that are left; give the last model."""
    plan, ledger = task.plan, federation.ledger
    store = ModelStore(run.folder / "model")
    previous, current = None, store.load(run.first_version)
    if not plan.rounds:
        return current
    randomness = federation.access.source.randomness(b64decode(run.record["first_root"]))
    _arrange_sharing(run, task, federation, randomness, progress)
    host = Host(federation.devices, federation.policy, task.split.train.n_items, randomness)
    coordinator = Coordinator(
        writer=federation.coordinator,
        transport=InProcessTransport(dict.fromkeys(host.numbers, host)),
        store=store,
        config=plan.settings.federation,
        noise_placement=plan.noise_placement,
        randomness=randomness,
        publish=federation.publisher.publish,
        participants=federation.cohort,
        uploads=uploads,
    )
    made = [position for position in ledger.positions(kind="model") if position >= run.record["first_position"]]
    for position in made[-2:]:
        record = entry_at(ledger, position, ModelRecord).record
        previous, current = current, store.load(record.version, record.digest)
    while (done := current.version - run.first_version) < plan.rounds:
        tolerance = plan.settings.model.tolerance
        if previous is not None and not plan.is_noisy and has_converged(previous, current, tolerance):
            break
        _process_requests(task, federation, host)
        _check_rounds_left(run, ledger, plan.rounds - done)
        progress(f"round {done + 1} of {'' if plan.is_noisy else 'at most '}{plan.rounds}")
        rounds = plan.rounds if plan.is_noisy else None
        if plan.pool is not None and not done:
            with PoolStore(run.home / POOL_FOLDER) as pool:
                following = coordinator.run_pool(current, plan.pool, pool, run=task.number, rounds=rounds)
        else:
            stage = _stage(plan, ledger, current, federation.cohort)
            following = coordinator.run_round(current, stage, run=task.number, rounds=rounds)
        previous, current = current, following
    for reason, count in sorted(coordinator.refused.items()):
        progress(f"{count:,} answers were refused as {reason}")
    _process_requests(task, federation, host)
    return current


def _stage(plan: Plan, ledger: Ledger, model: Model, participants: Sequence[int]) -> RoundMethod:
    """Give the stage of the round that starts from a model; the noise of those who have left is added by the others."""
    stage, current = plan.stage_after(model), ledger.state.open_round
    if not isinstance(stage.mechanism, DistributedGaussian):
        return stage
    if current is not None:
        honest = current.record.mechanism.parameters["honest"]
    else:
        n_active = sum(ledger.state.principals[number].is_active for number in participants)
        honest = math.ceil(Fraction(str(plan.settings.privacy.honest_fraction)) * n_active)
    return replace(stage, mechanism=stage.mechanism.held_by(max(1, honest)))


def _arrange_sharing(
    run: Run, task: PreparedRun, federation: RunSession, randomness: Randomness, progress: Progress
) -> None:
    """Let people of a simulation share as settings say, before the first round."""
    config, ledger = task.plan.settings.sharing, federation.ledger
    has_learned = any(position >= run.record["first_position"] for position in ledger.positions(kind="model"))
    if not config.user_fraction or has_learned or ledger.state.open_round is not None:
        return
    dataset = task.dataset
    with PoolStore(run.home / POOL_FOLDER) as pool:
        simulation = SharingSimulation(
            config=config,
            ledger=ledger,
            devices=federation.devices,
            participants=federation.cohort,
            coordinator=federation.coordinator.number,
            coordinator_key=federation.coordinator.key,
            pool=pool,
            n_items=len(dataset.item_ids),
            scale=RatingScale.of(dataset.values, dataset.low, dataset.high),
            choices=federation.access.source.randomness(),
            randomness=randomness,
        )
        simulation.run(progress)


def _process_requests(task: PreparedRun, federation: RunSession, host: Host) -> None:
    """Do what people want to be done, unless a round is open."""
    if federation.ledger.state.open_round is not None:
        return
    if request_processor(federation, lambda: task.dataset).process_pending():
        host.reload()


def _check_rounds_left(run: Run, ledger: Ledger, wanted: int) -> None:
    """Refuse to go on with a run whose aborted rounds leave it short: people would pay for models that never come.

    Raises:
        FederationError: It announced fewer rounds than it would have to open.
    """
    held = ledger.state.run
    if held is None or held.number != run.record["run"] or held.rounds is None:
        return
    left = held.rounds - held.opened + (ledger.state.open_round is not None)
    if left < wanted:
        raise FederationError(
            f"run {held.number} announced {held.rounds} rounds, and {wanted - left} of them were aborted:"
            f" {left} are left to open, {wanted} models are missing",
            hint=f"give the run up: remove {run.folder / 'run.toml'}, then start another one with --ledger {run.home}"
            " and a new --out; what people have spent stays spent",
        )


class _Figures(TypedDict):
    rmse: float
    ndcg_at_10: float


def _measure(run: Run, dataset: Dataset, split: Split, last: Model) -> _Figures:
    """Evaluate every version on held-out ratings: the simulator's view, which no participant has."""
    store, users = ModelStore(run.folder / "model"), split.test.users()
    errors = []
    versions = range(run.first_version, last.version + 1)
    for version in versions:
        model = last if version == last.version else store.load(version)
        profiles = fit_devices(model, split.train)
        if model.predicts_ratings:
            errors.append(rmse(predict(model, profiles, users, split.test.items), split.test.values))
        else:
            errors.append(float("nan"))
    pq.write_table(pa.table({"version": versions, "rmse": errors}), run.folder / "metrics.parquet")
    metrics = evaluate_model(last, profiles, split, dataset.catalogue)
    return {"rmse": metrics.rmse, "ndcg_at_10": metrics.ndcg_at_10}

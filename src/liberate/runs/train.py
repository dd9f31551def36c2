"""The main job: train a federation into a run folder, and resume a run that was killed."""

from __future__ import annotations

import math
import time
from base64 import b64encode
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import msgspec

from liberate.crypto.note import Checkpoint, verify_checkpoint
from liberate.errors import FederationError
from liberate.federation.setup import RunParticipation, open_for_run
from liberate.federation.store.uploads import UploadStore
from liberate.ledger.interface import Ledger
from liberate.model.metrics import Metrics
from liberate.model.model import Model
from liberate.model.private.evaluation import people_error
from liberate.runs.evaluate import measure_models
from liberate.runs.federation_access import federation_access, genesis_parameters, participation_terms
from liberate.runs.folder import CATALOGUE, UPLOADS_FOLDER, Run, write_run
from liberate.runs.plan import Plan
from liberate.runs.prepare import PreparedRun, prepare
from liberate.runs.run_data import save_table, without_erased
from liberate.runs.run_record import Result
from liberate.runs.start import StartingPoint, begin_run
from liberate.runs.train_rounds import TrainingSession, train_rounds
from liberate.settings import Settings
from liberate.timing import Progress, Stopwatch, silent


def train(
    settings: Settings,
    out: Path | str,
    *,
    ledger: Path | str | None = None,
    start: StartingPoint | None = None,
    progress: Progress = silent,
) -> Result:
    """Train a federation and record every step on its ledger, or resume a run that was killed.

    A run that is finished is left as it is.

    Args:
        settings: Resolved settings.
        out: The run folder; made if absent.
        ledger: The folder of a federation, or of one of its runs, which continues with this run: participants are found
            by their original ids, new ones are enrolled, ratings and items are added; None: the run founds its own.
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
    prepared = prepare(settings, out, None if ledger is None else Path(ledger))
    if prepared.resumed is not None and prepared.resumed.is_finished:
        return prepared.resumed.result

    _announce_left_out(prepared, progress)
    if prepared.resumed is None:
        save_table(out / CATALOGUE, prepared.items)
    return _train(prepared, out, start, progress)


def _announce_left_out(prepared: PreparedRun, progress: Progress) -> None:
    absent, everybody = len(prepared.left_out), len(prepared.dataset.user_ids)
    if absent:
        progress(
            f"{absent:,} of {everybody:,} people stay out: they cannot pay, do not accept the terms,"
            " have withdrawn, or have no valid key"
        )


def _train(prepared: PreparedRun, out: Path, start: StartingPoint | None, progress: Progress) -> Result:
    """Open the federation, carry the rounds out, measure the models, and write down what was reached."""
    settings, dataset = prepared.plan.settings, prepared.dataset
    stopwatch, begin = Stopwatch(), time.perf_counter()
    participation = RunParticipation(
        run=prepared.number,
        user_ids=dataset.user_ids,
        ratings=prepared.split.train,
        held_out=prepared.held_out,
        cohort=prepared.cohort,
        terms=participation_terms(prepared.plan),
    )

    with (
        stopwatch.running(),
        open_for_run(
            federation_access(prepared.federation.folder, settings),
            genesis_parameters(settings, prepared.plan.terms),
            participation,
            batch_size=settings.federation.batch_size,
            claim=partial(_claim, prepared),
            progress=progress,
        ) as federation,
        UploadStore(out / UPLOADS_FOLDER) if settings.ledger.keep_uploads else nullcontext() as uploads,
    ):
        run = prepared.resumed or begin_run(out, prepared, federation, start, progress)
        session = TrainingSession(run=run, prepared=prepared, federation=federation, uploads=uploads, progress=progress)
        last = train_rounds(session)

        split = without_erased(prepared.split, federation.devices, dataset)
        seconds = time.perf_counter() - begin
        checkpoint = verify_checkpoint(federation.publisher.publish(), run.verifier_key)

    metrics = None
    if settings.run.simulated:
        progress("evaluating")
        metrics = measure_models(run, dataset, split, last)
    result = _result(run, prepared.plan, metrics, last, checkpoint, seconds)
    _write_result(run, result, stopwatch)
    return result


def _result(
    run: Run, plan: Plan, metrics: Metrics | None, last: Model, checkpoint: Checkpoint, seconds: float
) -> Result:
    rounds = last.version - run.record.first_version
    spent = plan.spent(rounds)
    return Result(
        run=str(run.folder),
        rmse=_known(metrics.rmse) if metrics else math.nan,
        ndcg_at_10=_known(metrics.ndcg_at_10) if metrics else math.nan,
        evaluation=people_error(last),
        epsilon=spent.epsilon,
        delta=plan.settings.privacy.delta if spent.rho else 0.0,
        mode=plan.settings.privacy.mode,
        rounds=rounds,
        seconds=seconds,
        entry_count=checkpoint.size,
        root=b64encode(checkpoint.root).decode(),
        verifier_key=run.verifier_key,
    )


def _known(figure: float) -> float:
    """Return a figure; of NaN always the one object, so that results that say the same are equal."""
    return math.nan if math.isnan(figure) else figure


def _write_result(run: Run, result: Result, stopwatch: Stopwatch) -> None:
    record = msgspec.structs.replace(
        run.record, last_position=result.entry_count - 1, seconds=dict(stopwatch.seconds), result=result
    )
    write_run(Run(run.folder, run.settings, record))


def _claim(prepared: PreparedRun, ledger: Ledger) -> None:
    """Check that the federation is as it was when the run was prepared, and add the run's items to its catalogue."""
    before = 0 if ledger.state.run is None else ledger.state.run.number
    expected = {prepared.number - 1} if prepared.resumed is None else {prepared.number - 1, prepared.number}
    if before not in expected or not prepared.federation.holds_beginning_of(prepared.items):
        raise FederationError("the federation has continued meanwhile with another run", hint="try again after it")
    if prepared.resumed is None:
        prepared.federation.add_items(prepared.items)

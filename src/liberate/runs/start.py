"""The start of a run: its first model and where it begins on the ledger, written down before the first round."""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from liberate.crypto.note import verify_checkpoint
from liberate.errors import StaleModel
from liberate.federation.session import RunSession
from liberate.ledger.rules.round_state import ModelReference
from liberate.model.model import Model
from liberate.model.warm_start import warm_started
from liberate.runs.folder import PREVIOUSLY_LEARNED, Run, write_run
from liberate.runs.prepare import PreparedRun
from liberate.runs.run_data import save_table
from liberate.runs.run_record import RunRecord
from liberate.timing import Progress


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a further run starts from.

    Attributes:
        model: The model to continue from, where it fits; None: one of constants.
        version: Of the model on the ledger that it is, or was made of; 0: of none.
    """

    model: Model | None
    version: int


def begin_run(
    out: Path, prepared: PreparedRun, federation: RunSession, start: StartingPoint | None, progress: Progress
) -> Run:
    """Write down where a run starts, and its first model, before its first round."""
    first, started_from = _first_model(prepared, federation, start, progress)
    ledger, vkey = federation.ledger, federation.policy.log_key
    record = RunRecord(
        origin=ledger.origin,
        verifier_key=vkey,
        dataset=prepared.dataset.digest,
        dataset_name=prepared.dataset.name,
        federation=os.path.relpath(prepared.federation.folder.resolve(), out.resolve()),
        run=prepared.number,
        first_position=ledger.size,
        first_root=b64encode(verify_checkpoint(ledger.checkpoint(), vkey).root).decode(),
        first_version=first.version,
        started_from=started_from,
        carried=prepared.carried,
        left_out=prepared.left_out,
        pool=prepared.plan.pool is not None,
    )
    run = Run(out, prepared.plan.settings, record)

    run.models.save(first)
    if prepared.previously_learned:
        save_table(out / PREVIOUSLY_LEARNED, pa.table({"row": prepared.previously_learned}))
    prepared.federation.write_last_run(out, None if prepared.last is None else prepared.last.folder)

    # Last: with it the run exists, and a crash before it leaves a first attempt that is begun again.
    write_run(run)
    return run


def _first_model(
    prepared: PreparedRun, federation: RunSession, start: StartingPoint | None, progress: Progress
) -> tuple[Model, int]:
    """Return the model that a run starts from, and the version that this one continues from.

    It is what was asked for, or the last one of the federation if it may be, or else one of constants.
    """
    reached = federation.ledger.state.model
    secret = federation.access.source.randomness().secret("initial model", prepared.number)
    fresh = prepared.plan.first_model(prepared.dataset, secret)
    if reached is None:
        return fresh, 0

    chosen = start or StartingPoint(_last_model(prepared, reached), reached.version)
    first, is_warm = warm_started(fresh, reached.version, chosen.model)
    started_from = chosen.version if is_warm else 0
    known = "the last model" if start is None else f"what models up to {started_from} say"
    progress(f"starting {f'from {known}' if started_from else 'afresh'}, at version {reached.version}")
    return first, started_from


def _last_model(prepared: PreparedRun, reached: ModelReference) -> Model | None:
    """Return the federation's last model where the run may continue from it and its file is there."""
    plan = prepared.plan
    warm_start = plan.settings.model.warm_start
    is_warm = not plan.is_noisy if warm_start is None else warm_start
    if plan.stages and prepared.last is not None and is_warm:
        with suppress(StaleModel):
            return prepared.last.models.load(reached.version, reached.digest)
    return None

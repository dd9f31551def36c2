"""What `run.toml` says of a run beside its settings: where it started, and what it reached."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from liberate.errors import LiberateError
from liberate.model.private.evaluation import PeopleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a finished run reached; the keys of `liberate train --json`.

    Attributes:
        run: The run folder. It may be moved, so it is not written down.
        rmse: On held-out ratings, in rating points; NaN where nothing is held out, and outside a simulation, where
            nothing computed from held-out ratings leaves a device.
        ndcg_at_10: On held-out ratings, 0 to 1; NaN likewise.
        evaluation: The RMSE over people that a noisy release tells; None where none was planned, or noise drowned it.
        epsilon: Spent by each participant in the whole run, by basic composition; None where nothing bounds it.
        delta: Of that epsilon; 0 for pure mechanisms.
        mode: The privacy mode.
        rounds: Rounds behind the last model.
        seconds: From opening the federation to the last model in the ledger.
        entry_count: Entries of the ledger, blocks included.
        root: Root of the ledger's tree, base64.
        verifier_key: Checks the ledger's checkpoints: keep it outside the run folder.
    """

    run: str | None = None
    rmse: float = math.nan
    ndcg_at_10: float = math.nan
    evaluation: PeopleError | None = None
    epsilon: float | None = None
    delta: float
    mode: str
    rounds: int
    seconds: float
    entry_count: int
    root: str
    verifier_key: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run started and, once it is finished, what it reached.

    Attributes:
        origin: Name of the ledger.
        verifier_key: Checks the ledger's checkpoints.
        dataset: Digest of the ratings it learned from, hexadecimal.
        dataset_name: Name of the data set.
        federation: Folder of the federation, relative to the run folder.
        run: Number of the run on the ledger, > 0.
        first_position: Position of the first entry after its start.
        first_root: Root of the ledger's tree at its start, base64; secrets of a simulated run follow from it.
        first_version: Version of the model that its first round started from; 0 in the first run of a federation.
        started_from: Version of the model that it continues from; 0: of none.
        carried: Whether devices hold ratings that the data set lacks.
        left_out: Original ids of participants of the data set who do not take part.
        pool: Whether its first round learns from a pool of copies.
        last_position: Position of the last entry, once it is finished.
        seconds: What its parts took, by name.
        result: What it reached, once it is finished.
    """

    origin: str
    verifier_key: str
    dataset: str = ""
    dataset_name: str = ""
    federation: str = "."
    run: int = 1
    first_position: int = 0
    first_root: str = ""
    first_version: int = 0
    started_from: int = 0
    carried: bool = False
    left_out: tuple[str, ...] = ()
    pool: bool = False
    last_position: int | None = None
    seconds: Mapping[str, float] = msgspec.field(default_factory=dict)
    result: Result | None = None


def record_to_tree(record: RunRecord) -> Mapping[str, object]:
    """Return a record as `run.toml` has it: without what is unset, as TOML has no null, and without the folder."""
    tree = {name: value for name, value in msgspec.to_builtins(record).items() if value is not None}
    if record.result is not None:
        figures = msgspec.to_builtins(replace(record.result, run=None))
        tree["result"] = {name: value for name, value in figures.items() if value is not None and value == value}
    return tree


def record_from_tree(tree: object, folder: Path) -> RunRecord:
    """Read a record as `run.toml` has it.

    Raises:
        LiberateError: It is no record of a run.
    """
    try:
        record = msgspec.convert(tree, RunRecord)
    except msgspec.ValidationError as error:
        raise LiberateError(f"{folder}: run.toml holds no record of a run: {error}") from error
    if record.result is None:
        return record
    return msgspec.structs.replace(record, result=replace(record.result, run=str(folder)))

"""What lies in a run folder, and how it is written so that a crash leaves either the old or the new."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from liberate.data.dataset import Dataset
from liberate.data.splits import Split, learned_before
from liberate.errors import LiberateError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_ratings
from liberate.federation.store.models import ModelStore
from liberate.files import write_atomic
from liberate.ledger.format.parts import Terms
from liberate.ledger.format.records import TermsRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.lookup import entry_at
from liberate.model.model import Model
from liberate.runs.run_data import align_to_catalogue, load_dataset, split_dataset, without_erased
from liberate.runs.run_record import Result, RunRecord, record_from_tree, record_to_tree
from liberate.settings import Settings, from_tree, to_tree

MODEL_FOLDER = "model"
"""The folder of a run's model versions."""

CATALOGUE = "model/items.parquet"
"""The items as a run knew them; a later run of the same federation may know more."""

PREVIOUSLY_LEARNED = "model/learned-before.parquet"
"""Rows of the held-out part of the data set that earlier runs had learned from, where there are any."""

POOL_FOLDER = "pool"
"""The folder of a federation's received copies."""

UPLOADS_FOLDER = "uploads"
"""The folder of a run's retained uploads."""


@dataclass(frozen=True, slots=True)
class RunReader:
    """The stores of a run's federation, open for reading; a training may go on beside it.

    Attributes:
        ledger: The ledger as it was when it was opened.
        devices: The devices as they are, which also take requests.
    """

    ledger: Ledger
    devices: DeviceStore


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, as `run.toml` describes it.

    Attributes:
        folder: The run folder.
        settings: The resolved settings.
        record: Where the run started and, once it is finished, what it reached.
    """

    folder: Path
    settings: Settings
    record: RunRecord

    @property
    def is_finished(self) -> bool:
        return self.record.result is not None

    @property
    def verifier_key(self) -> str:
        """Checks the checkpoints of the run's ledger."""
        return self.record.verifier_key

    @property
    def home(self) -> Path:
        """The folder of the run's federation, with ledger, devices and keys: the run's own, or an earlier run's."""
        return self.folder / self.record.federation

    @property
    def ledger_folder(self) -> Path:
        return self.home / "ledger"

    @property
    def devices_folder(self) -> Path:
        return self.home / "devices"

    @property
    def uploads_folder(self) -> Path:
        """Where the coordinator retains the uploads of this run, if settings say so."""
        return self.folder / UPLOADS_FOLDER

    @property
    def models(self) -> ModelStore:
        """The model versions of this run."""
        return ModelStore(self.folder / MODEL_FOLDER)

    @property
    def result(self) -> Result:
        """The figures of a finished run.

        Raises:
            LiberateError: The run is not finished.
        """
        if self.record.result is None:
            raise LiberateError(
                f"{self.folder}: the run is not finished", hint="the same train command goes on with it"
            )
        return self.record.result

    @property
    def last_version(self) -> int:
        """Version of the last model of a finished run.

        Raises:
            LiberateError: The run is not finished.
        """
        return self.record.first_version + self.result.rounds

    def open_ledger(self) -> SqliteLedger:
        """Open the run's ledger for reading."""
        return SqliteLedger.open(self.ledger_folder)

    @contextmanager
    def open(self) -> Iterator[RunReader]:
        """Open the ledger and the devices of the run's federation for reading, and close them at the end."""
        with closing(self.open_ledger()) as ledger, DeviceStore(self.devices_folder) as devices:
            yield RunReader(ledger, devices)

    def read_terms(self) -> Terms:
        """Read what its promises rest on: the terms in force when it began."""
        with closing(self.open_ledger()) as ledger:
            positions = ledger.positions(kind="terms")
            changes = [position for position in positions if position < self.record.first_position]
            if changes:
                return entry_at(ledger, changes[-1], TermsRecord).record.terms
            return ledger.state.founding.terms

    def model(self, version: int | None = None) -> Model:
        """Read a model version, the last one if None."""
        return self.models.load(self.last_version if version is None else version)

    def catalogue(self) -> pa.Table:
        """Read item_id, title, year and genres of every item, in index order."""
        return pq.read_table(self.folder / CATALOGUE)

    def dataset(self) -> Dataset:
        """Load the ratings the run learned from.

        Raises:
            LiberateError: The source no longer holds the same ratings.
        """
        dataset = load_dataset(self.settings, self.folder)
        if dataset.digest != self.record.dataset:
            raise LiberateError(f"{self.settings.data.source} no longer holds the ratings this run learned from")
        return align_to_catalogue(dataset, self.catalogue())

    def split(self, dataset: Dataset) -> Split:
        """Hold out what the run held out: a part as its settings say, but nothing that earlier runs had learned from.

        Where devices hold ratings that the run's data set lacks, these count among those to learn from, as the devices
        hold them now. Participants who were erased have no ratings any more, whatever the data set says.
        """
        split = split_dataset(dataset, self.settings)
        if (self.folder / PREVIOUSLY_LEARNED).exists():
            is_known = np.zeros(split.test.n_ratings, np.bool_)
            is_known[pq.read_table(self.folder / PREVIOUSLY_LEARNED)["row"].to_numpy()] = True
            split = learned_before(split, split.test.where(is_known))

        with DeviceStore(self.devices_folder) as devices:
            split = without_erased(split, devices, dataset)
            if not self.record.carried:
                return split
            stored = held_ratings(devices, dataset.user_ids, len(dataset.item_ids))
        return Split(train=stored.where(~stored.rated_in(split.test)).updated(split.train), test=split.test)


def load_run(folder: Path | str) -> Run:
    """Read a run folder.

    Raises:
        LiberateError: The folder holds no run.
    """
    path = Path(folder) / "run.toml"
    if not path.exists():
        raise LiberateError(f"{folder}: no run.toml here", hint="give the folder that train wrote")
    tree = tomllib.loads(path.read_text("utf-8"))
    record = record_from_tree(tree.pop("record", {}), path.parent)
    return Run(path.parent, from_tree(tree), record)


def write_run(run: Run) -> None:
    """Write `run.toml`, whole or not at all."""
    text = tomli_w.dumps(to_tree(run.settings) | {"record": record_to_tree(run.record)})
    write_atomic(run.folder / "run.toml", text.encode())


def free_folder(first: Path) -> Path:
    """Return the first of `first`, `first`-2, `first`-3, ... that holds no finished run."""
    folders = chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2)))
    return next(f for f in folders if not (f / "run.toml").exists() or not load_run(f).is_finished)

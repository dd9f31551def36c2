"""What lies in a run folder, and how it is written so that a crash leaves either the old or the new."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from liberate.data.dataset import Catalogue, Dataset
from liberate.data.public_datasets import data_folder, load
from liberate.data.splits import Split, learned_before, leave_last_out, random_split
from liberate.errors import LiberateError, SettingsError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_ratings
from liberate.federation.store.models import ModelStore
from liberate.files import write_atomic
from liberate.ledger.interface import Ledger
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.model.model import Model
from liberate.settings import Settings, from_tree, to_tree

CATALOGUE = "model/items.parquet"
"""The items as a run knew them; a later run of the same federation may know more."""

PREVIOUSLY_LEARNED = "model/learned-before.parquet"
"""Rows of the held-out part of the data set that earlier runs had learned from, where there are any."""

POOL_FOLDER = "pool"
"""The folder of a federation's received copies."""

UPLOADS_FOLDER = "uploads"
"""The folder of a run's kept uploads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a finished run reached; the keys of `liberate train --json`.

    Attributes:
        run: The run folder.
        rmse: On held-out ratings, in rating points.
        ndcg_at_10: On held-out ratings, 0 to 1.
        epsilon: Spent by each participant in the whole run, by basic composition; None where nothing bounds it.
        delta: Of that epsilon; 0 for pure mechanisms.
        mode: The privacy mode.
        rounds: Rounds behind the last model.
        seconds: From opening the federation to the last model on the ledger.
        entry_count: Entries of the ledger, blocks included.
        root: Root of the ledger's tree, base64.
        verifier_key: Checks the ledger's checkpoints: keep it outside the run folder.
    """

    run: str
    rmse: float
    ndcg_at_10: float
    epsilon: float | None
    delta: float
    mode: str
    rounds: int
    seconds: float
    entry_count: int
    root: str
    verifier_key: str


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
        folder: Where it lies.
        settings: The resolved settings.
        record: What the run was: origin, verifier_key, dataset, first_position and, when finished, its figures.
    """

    folder: Path
    settings: Settings
    record: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        return "last_position" in self.record

    @property
    def verifier_key(self) -> str:
        return str(self.record["verifier_key"])

    @property
    def home(self) -> Path:
        """The folder of the run's federation, where ledger, devices and keys lie: its own, or an earlier run's."""
        return self.folder / str(self.record.get("federation", "."))

    @property
    def ledger_folder(self) -> Path:
        return self.home / "ledger"

    @property
    def devices_folder(self) -> Path:
        return self.home / "devices"

    @property
    def uploads_folder(self) -> Path:
        """Where the coordinator keeps the uploads of this run, if settings say so."""
        return self.folder / UPLOADS_FOLDER

    @property
    def first_version(self) -> int:
        """Version of the model that the first round started from; 0 in the first run of a federation."""
        return int(self.record.get("first_version", 0))

    @property
    def result(self) -> Result:
        """The figures of a finished run.

        Raises:
            LiberateError: The run is not finished.
        """
        if not self.is_finished:
            raise LiberateError(
                f"{self.folder}: the run is not finished", hint="the same train command goes on with it"
            )
        figures = {"epsilon": None, **self.record["result"]}
        return Result(run=str(self.folder), **figures)

    def open_ledger(self) -> SqliteLedger:
        """Open the run's ledger for reading."""
        return SqliteLedger.open(self.ledger_folder)

    @contextmanager
    def open(self) -> Iterator[RunReader]:
        """Open the ledger and the devices of the run's federation for reading, and close them at the end."""
        with closing(self.open_ledger()) as ledger, DeviceStore(self.devices_folder) as devices:
            yield RunReader(ledger, devices)

    def model(self, version: int | None = None) -> Model:
        """Read a model version, the last one if None."""
        wanted = self.first_version + self.result.rounds if version is None else version
        return ModelStore(self.folder / "model").load(wanted)

    def catalogue(self) -> pa.Table:
        """Read item_id, title, year and genres of every item, in index order."""
        return pq.read_table(self.folder / CATALOGUE)

    def dataset(self) -> Dataset:
        """Load the ratings the run learned from.

        Raises:
            LiberateError: The source no longer holds the same ratings.
        """
        found = load_dataset(self.settings, self.folder)
        if found.digest != self.record["dataset"]:
            raise LiberateError(f"{self.settings.data.source} no longer holds the ratings this run learned from")
        return align_to_catalogue(found, self.catalogue())

    def split(self, dataset: Dataset) -> Split:
        """Hold out what the run held out: a part as its settings say, but nothing that earlier runs had learned from.

        Where devices hold ratings that the run's data set lacks, these count among those to learn from, as the devices
        hold them now. People who were erased have no ratings any more, whatever the data set says.
        """
        split = split_dataset(dataset, self.settings)
        if (self.folder / PREVIOUSLY_LEARNED).exists():
            moved = np.zeros(split.test.n_ratings, np.bool_)
            moved[pq.read_table(self.folder / PREVIOUSLY_LEARNED)["row"].to_numpy()] = True
            split = learned_before(split, split.test.where(moved))
        with DeviceStore(self.devices_folder) as devices:
            split = without_participants(split, erased_users(devices, dataset))
            if not self.record.get("carried"):
                return split
            held = held_ratings(devices, dataset.user_ids, len(dataset.item_ids))
        return Split(train=held.where(~held.rated_in(split.test)).updated(split.train), test=split.test)


def load_run(folder: Path | str) -> Run:
    """Read a run folder.

    Raises:
        LiberateError: The folder holds no run.
    """
    path = Path(folder) / "run.toml"
    if not path.exists():
        raise LiberateError(f"{folder}: no run.toml here", hint="give the folder that train wrote")
    tree = tomllib.loads(path.read_text("utf-8"))
    return Run(Path(folder), from_tree({k: v for k, v in tree.items() if k != "record"}), tree.get("record", {}))


def load_dataset(settings: Settings, base: Path | None = None) -> Dataset:
    """Load the ratings that settings name.

    Args:
        settings: Resolved settings.
        base: Folder that a path in `data.source` is relative to, the working directory if None.

    Raises:
        SettingsError: No source is named, or only one end of the scale.
        DataError: The source cannot be used.
    """
    data = settings.data
    if not data.source:
        raise SettingsError("data.source is empty", hint="--data ml-100k, --data ratings.csv")
    if (data.rating_min is None) != (data.rating_max is None):
        raise SettingsError("data.rating_min and data.rating_max go together")
    scale = None if data.rating_min is None or data.rating_max is None else (data.rating_min, data.rating_max)
    source: str | Path = data.source
    if base is not None and (base / data.source).exists():
        source = base / data.source
    return load(source, columns=data.columns or None, scale=scale)


def relative_to_run(settings: Settings, folder: Path) -> Settings:
    """Give settings whose `data.source`, where it is a path, is relative to the run folder: both can move together."""
    source = Path(settings.data.source)
    if (data_folder() / source).is_dir() or not source.exists():
        return settings
    relative = os.path.relpath(source.resolve(), folder.resolve())
    return replace(settings, data=replace(settings.data, source=relative))


def free_folder(first: Path) -> Path:
    """Give the first of `first`, `first`-2, `first`-3, ... that holds no finished run."""
    folders = chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2)))
    return next(f for f in folders if not (f / "run.toml").exists() or not load_run(f).is_finished)


def split_dataset(dataset: Dataset, settings: Settings) -> Split:
    """Hold out a part as the settings say."""
    if settings.data.split == "last":
        return leave_last_out(dataset)
    return random_split(dataset, settings.data.split_seed, settings.data.test_fraction)


def erased_users(devices: DeviceStore, dataset: Dataset) -> list[int]:
    """Give the users of a data set who were erased."""
    erased = {device.user_id for device in devices.devices() if device.is_erased}
    return [user for user, name in enumerate(dataset.user_ids) if name in erased] if erased else []


def without_participants(split: Split, users: Sequence[int]) -> Split:
    """Give a split without the ratings of some users, who keep their places."""
    if not users:
        return split
    train, test = (part.where(~np.isin(part.users(), users)) for part in (split.train, split.test))
    return Split(train=train, test=test)


def write_run(run: Run) -> None:
    """Write `run.toml`, whole or not at all."""
    text = tomli_w.dumps(to_tree(run.settings) | {"record": _without_none(run.record)})
    write_atomic(run.folder / "run.toml", text.encode())


def catalogue_of(dataset: Dataset) -> pa.Table:
    """Give item_id, title, year and genres of every item, in index order."""
    known, n = dataset.catalogue, len(dataset.item_ids)
    return pa.table(
        {
            "item_id": list(dataset.item_ids),
            "title": list(known.titles) if known else [""] * n,
            "year": known.years if known else pa.array([0] * n, pa.int32()),
            "genres": pa.array([list(g) for g in known.genres] if known else [[]] * n, pa.list_(pa.string())),
        }
    )


def align_to_catalogue(dataset: Dataset, table: pa.Table) -> Dataset:
    """Give a data set the items of a catalogue, in its order: all of its own, and maybe others."""
    item_ids = tuple(table["item_id"].to_pylist())
    if item_ids == dataset.item_ids:
        return dataset
    titles, genres = table["title"].to_pylist(), tuple(map(tuple, table["genres"].to_pylist()))
    years = table["year"].to_numpy().astype(np.int32)
    known = Catalogue(tuple(titles), years, genres) if any(titles) or years.any() or any(genres) else None
    return dataset.with_items(item_ids, known)


def save_table(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all; it is durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    pq.write_table(table, content)
    write_atomic(path, content.getvalue())


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value

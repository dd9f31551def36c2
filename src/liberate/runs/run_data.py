"""The data set of a run: loaded as its settings say, split, and aligned to the federation's catalogue."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from liberate.arrays import BoolArray, Int32Array
from liberate.data.dataset import Catalogue, Dataset
from liberate.data.public_datasets import data_folder, load
from liberate.data.ratings import Ratings
from liberate.data.splits import Split, last_rows, random_rows, split_rows
from liberate.errors import SettingsError
from liberate.federation.store.devices import DeviceStore
from liberate.files import write_atomic
from liberate.settings import Settings


def load_dataset(settings: Settings, base: Path | None = None) -> Dataset:
    """Load what a run may know of the ratings that settings name: all in a simulation, else what it learns from.

    Outside a simulation everything that a run writes, says or decides follows from the data set returned, so held-out
    ratings leave no trace outside the devices: neither in digests nor in counts, the catalogue or its order.
    Arguments and errors are those of `load_source` and `known_dataset`.
    """
    return known_dataset(load_source(settings, base), settings)


def load_source(settings: Settings, base: Path | None = None) -> Dataset:
    """Load all ratings that settings name, held out or not.

    Args:
        settings: Resolved settings.
        base: Folder that a path in `data.source` is relative to, the working directory if None.

    Raises:
        SettingsError: No source is named, or only one end of the scale.
        DataError: The source cannot be used.
    """
    data, low, high = settings.data, settings.data.rating_min, settings.data.rating_max
    if not data.source:
        raise SettingsError("data.source is empty", hint="--data ml-100k, --data ratings.csv")
    if (low is None) != (high is None):
        raise SettingsError("data.rating_min and data.rating_max go together")

    scale = None if low is None or high is None else (low, high)
    is_beside_run = base is not None and (base / data.source).exists()
    source = base / data.source if base is not None and is_beside_run else data.source
    return load(source, columns=data.columns or None, scale=scale)


def known_dataset(source: Dataset, settings: Settings) -> Dataset:
    """Return what a run may know of a source: see `load_dataset`.

    Raises:
        SettingsError: All ratings are held out.
    """
    if settings.run.simulated:
        return source
    learned = ~_held_out_rows(source, settings)
    if not learned.any():
        raise SettingsError("all ratings are held out: nothing is left to learn from", hint="lower data.test_fraction")
    return source.only(learned)


def relative_to_run(settings: Settings, folder: Path) -> Settings:
    """Return settings whose `data.source`, where it is a path, is relative to the run folder: they move together."""
    source = Path(settings.data.source)
    if (data_folder() / source).is_dir() or not source.exists():
        return settings
    relative = os.path.relpath(source.resolve(), folder.resolve())
    return replace(settings, data=replace(settings.data, source=relative))


def split_dataset(dataset: Dataset, settings: Settings) -> Split:
    """Hold out a part of what a run knows, as the settings say; outside a simulation it does not know that part."""
    if not settings.run.simulated:
        return split_rows(dataset, np.zeros(len(dataset.values), np.bool_))
    return split_rows(dataset, _held_out_rows(dataset, settings))


def held_out_of(source: Dataset, settings: Settings, dataset: Dataset) -> Ratings:
    """Return what devices hold out of a source, by the users and items of the data set that the run knows.

    Ratings of others are left out: no device of the run has them, or no model tells anything of their items.
    """
    held_out = _held_out_rows(source, settings)
    users = _places(source.user_ids, dataset.user_ids)[source.users[held_out]]
    items = _places(source.item_ids, dataset.item_ids)[source.items[held_out]]
    kept = (users >= 0) & (items >= 0)

    values = source.values[held_out][kept]
    return Ratings.from_triples(users[kept], items[kept], values, len(dataset.user_ids), len(dataset.item_ids))


def _places(ids: Sequence[str], known: Sequence[str]) -> Int32Array:
    """Return the place of each id among known ones, shape (n_ids,); -1 of one that is not known."""
    places: Mapping[str, int] = {name: place for place, name in enumerate(known)}
    return np.array([places.get(name, -1) for name in ids], np.int32)


def _held_out_rows(dataset: Dataset, settings: Settings) -> BoolArray:
    if settings.data.split == "last":
        return last_rows(dataset)
    return random_rows(dataset, settings.data.split_seed, settings.test_fraction)


def erased_users(devices: DeviceStore, dataset: Dataset) -> list[int]:
    """Return the users of a data set who were erased."""
    erased = {device.user_id for device in devices.devices() if device.is_erased}
    return [user for user, name in enumerate(dataset.user_ids) if name in erased] if erased else []


def without_erased(split: Split, devices: DeviceStore, dataset: Dataset) -> Split:
    """Return a split of a data set without the ratings of users who were erased; they keep their places."""
    return without_participants(split, erased_users(devices, dataset))


def without_participants(split: Split, users: Sequence[int]) -> Split:
    """Return a split without the ratings of some users, who keep their places."""
    if not users:
        return split
    train, test = (part.where(~np.isin(part.users(), users)) for part in (split.train, split.test))
    return Split(train=train, test=test)


def catalogue_of(dataset: Dataset) -> pa.Table:
    """Return item_id, title, year and genres of every item, in index order."""
    n = len(dataset.item_ids)
    known = dataset.catalogue or Catalogue(("",) * n, np.zeros(n, np.int32), ((),) * n)
    return pa.table(
        {
            "item_id": list(dataset.item_ids),
            "title": list(known.titles),
            "year": known.years,
            "genres": pa.array([list(genres) for genres in known.genres], pa.list_(pa.string())),
        }
    )


def align_to_catalogue(dataset: Dataset, table: pa.Table) -> Dataset:
    """Return a data set the items of a catalogue, in its order: all of its own, and maybe others."""
    item_ids = tuple(table["item_id"].to_pylist())
    if item_ids == dataset.item_ids:
        return dataset

    titles = tuple(table["title"].to_pylist())
    years = table["year"].to_numpy().astype(np.int32)
    genres = tuple(map(tuple, table["genres"].to_pylist()))
    is_known = any(titles) or bool(years.any()) or any(genres)
    known = Catalogue(titles, years, genres) if is_known else None
    return dataset.with_items(item_ids, known)


def save_table(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all; it is durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    pq.write_table(table, content)
    write_atomic(path, content.getvalue())

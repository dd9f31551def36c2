"""Read a data set from files: ratings, and what is known about the items.

| file of ratings | rows | item file beside it | scale |
|---|---|---|---|
| `u.data` | user, item, rating, time between tabs, no header | `u.item` with `u.genre` | 1 to 5 |
| `ratings.dat` | the same between `::` | `movies.dat` | 1 to 5 |
| `ratings.csv`, `.csv.gz` or `.parquet` | named columns | any of these item files | the item file's |
| `NAME.inter` | tabs, header with types such as `user_id:token` | `NAME.item` | 1 to 5 for MovieLens, else as found |
| any other text (also `.gz`) or Parquet file | named columns | none | as found |

Ids are kept as the text they are.
A row that repeats another's user, item and rating is dropped, and counted in the notes; a user who gives one item two
different ratings is refused, because either choice would be a guess.
Nothing is repaired in silence: a row that cannot be used stops the reading, with file, line and reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from liberate.arrays import BoolArray, Float64Array, Int32Array, Int64Array
from liberate.data.columns import RATING_ROLES, choose_columns
from liberate.data.dataset import Catalogue, Dataset
from liberate.data.table import Table, read_table
from liberate.data.text import open_text
from liberate.errors import DataError, SettingsError

_RATING_FILES = ("u.data", "ratings.parquet", "ratings.csv", "ratings.csv.gz", "ratings.dat")
_ITEM_FILES = ("u.item", "movies.dat", "movies.csv")
_SCALE_FLAGS = "--set data.rating_min=1 --set data.rating_max=5"
_SCALES = {
    "u.data": (1.0, 5.0),
    "ratings.dat": (1.0, 5.0),
    "ml-100k.inter": (1.0, 5.0),
    "ml-1m.inter": (1.0, 5.0),
    "u.item": (1.0, 5.0),
    "movies.dat": (1.0, 5.0),
    "movies.csv": (0.5, 5.0),
}
_ITEM_ROLES = {"item": True, "title": False, "year": False, "genres": False}
_YEAR_BEHIND_TITLE = re.compile(r"\s*\(([0-9]{4})\)\s*$", re.ASCII)
_NO_GENRES = ("", "unknown", "(no genres listed)")
_U_ITEM_FLAGS = 5  # fields of u.item before its genre flags
_LARGEST_RATING = float(np.finfo(np.float32).max)
_LARGEST_TIMESTAMP = 2.0**53


def read(path: Path, *, columns: Mapping[str, str] | None = None, scale: tuple[float, float] | None = None) -> Dataset:
    """Read a file of ratings, or a folder that holds one in a known layout.

    Args:
        path: The file or folder.
        columns: Names of the columns for some of user, item, rating and timestamp; the others are found by name.
        scale: Lowest and highest rating possible. Without it the layout's scale holds, or else the lowest and highest
            rating found, and the notes say so.

    Returns:
        The data set, rows in the order of the file.

    Raises:
        DataError: The files cannot be used; the message names file, line (Parquet: row) and reason.
        SettingsError: `columns` has an unknown key, or `scale` is no range.
    """
    if columns and not columns.keys() <= RATING_ROLES.keys():
        raise SettingsError(f"columns names some of {', '.join(RATING_ROLES)}; got {', '.join(columns)}")
    if scale is not None and not -_LARGEST_RATING <= scale[0] < scale[1] <= _LARGEST_RATING:
        raise SettingsError(f"a scale is (low, high) with low < high; got {scale}")

    file = _ratings_file(path)
    item_file = _item_file(file)
    known_scale = scale or _SCALES.get(file.name) or _SCALES.get(item_file.name if item_file else "")
    dataset = _dataset(read_table(file, columns or {}), known_scale, _short_name(path, file))
    return dataset if item_file is None else _with_catalogue(dataset, item_file)


def _dataset(table: Table, known_scale: tuple[float, float] | None, name: str) -> Dataset:
    """Return the ratings of a table, each (user, item) pair once, on the known scale or on the one found."""
    users, user_ids = table.ids("user")
    items, item_ids = table.ids("item")
    values = table.numbers("rating")
    timestamps = _timestamps(table)

    notes = []
    low, high = known_scale or _found_scale(table, values)
    if known_scale is None:
        notes.append(f"the scale, {low:g} to {high:g}, is that of the lowest and highest rating found")
    table.refuse(
        (values < low) | (values > high),
        lambda row: f"the rating {values[row]:g} is outside the scale {low:g} to {high:g}",
        hint=f"say what the scale is, if it is another: {_SCALE_FLAGS}",
    )

    kept = _first_of_each_pair(table, users, items, values, len(item_ids))
    if not kept.all():
        notes.append(f"rows dropped because they repeat another: {int((~kept).sum()):,}")

    dataset = Dataset.of(
        users=users[kept],
        items=items[kept],
        values=values[kept].astype(np.float32),
        timestamps=None if timestamps is None else timestamps[kept],
        user_ids=user_ids,
        item_ids=item_ids,
        low=low,
        high=high,
        name=name,
    )
    return replace(dataset, notes=tuple(notes), has_found_scale=known_scale is None)


# --- which files ------------------------------------------------------------------------------------------------------


def _ratings_file(path: Path) -> Path:
    if not path.exists():
        raise DataError("there is no such file or folder", path=str(path))
    if not path.is_dir():
        return path

    for name in _RATING_FILES:
        if (path / name).is_file():
            return path / name

    atomic = sorted(path.glob("*.inter"))
    if len(atomic) == 1:
        return atomic[0]
    raise DataError(
        f"a folder of ratings holds one of {', '.join(_RATING_FILES)}, or one .inter file; "
        f"this one holds {len(atomic) or 'none'}{' .inter files' if atomic else ''}",
        path=str(path),
        hint="name the file itself",
    )


def _item_file(file: Path) -> Path | None:
    """Find the file that describes the items: only beside ratings whose name belongs to a layout."""
    if file.suffix == ".inter":
        candidates = [file.with_suffix(".item")]
    elif file.name in _RATING_FILES:
        candidates = [*(file.parent / name for name in _ITEM_FILES), *sorted(file.parent.glob("*.item"))]
    else:
        candidates = []
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _short_name(path: Path, file: Path) -> str:
    if path.is_dir():
        return path.resolve().name
    return file.resolve().parent.name if file.name in _RATING_FILES else file.name.split(".")[0]


# --- checks of ratings ------------------------------------------------------------------------------------------------


def _timestamps(table: Table) -> Int64Array | None:
    if "timestamp" not in table.columns:
        return None
    seconds = table.numbers("timestamp")
    table.refuse(np.abs(seconds) > _LARGEST_TIMESTAMP, lambda _: "the timestamp is not a time in seconds")
    return np.floor(seconds).astype(np.int64)


def _found_scale(table: Table, values: Float64Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise DataError(
            f"every rating is {low:g}, which does not determine a scale",
            path=str(table.path),
            hint=f"say what the scale is: {_SCALE_FLAGS}",
        )
    return max(low, -_LARGEST_RATING), min(high, _LARGEST_RATING)


def _first_of_each_pair(
    table: Table, users: Int32Array, items: Int32Array, values: Float64Array, n_items: int
) -> BoolArray:
    """Mark the first row of each (user, item) pair; refuse a pair with two different ratings.

    Returns:
        Whether to keep each row, shape (n_rows,).
    """
    pair = users.astype(np.int64) * n_items + items
    order = np.argsort(pair, kind="stable")
    repeats = pair[order[1:]] == pair[order[:-1]]
    earlier, later = order[:-1][repeats], order[1:][repeats]

    differs = values[earlier] != values[later]
    if differs.any():
        # The first such row of the file, not of the pairs.
        at = np.argmin(np.where(differs, later, len(values)))
        raise table.refusal(
            int(later[at]),
            f"the user rated this item differently on line {table.line_of(int(earlier[at]))}",
            hint="keep one rating per user and item",
        )

    kept = np.ones(len(values), np.bool_)
    kept[later] = False
    return kept


# --- items ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    title: str
    year: int
    genres: tuple[str, ...]


def _with_catalogue(dataset: Dataset, item_file: Path) -> Dataset:
    """Return a data set with what a file says of its items; notes tell which items only one of the two has."""
    described = _read_items(item_file)
    notes = list(dataset.notes)
    if n_unrated := len(described.keys() - set(dataset.item_ids)):
        notes.append(f"{n_unrated:,} of the {len(described):,} items in {item_file.name} have no rating")
    if n_unknown := len(set(dataset.item_ids) - described.keys()):
        notes.append(f"{n_unknown:,} rated items are not in {item_file.name}")

    nothing = _Item("", 0, ())
    items = [described.get(item_id, nothing) for item_id in dataset.item_ids]
    catalogue = Catalogue(
        titles=tuple(item.title for item in items),
        years=np.array([item.year for item in items], np.int32),
        genres=tuple(item.genres for item in items),
    )
    return replace(dataset, catalogue=catalogue, notes=tuple(notes))


def _read_items(path: Path) -> dict[str, _Item]:
    """Read an item file of any layout: what is known about each item, by its id."""
    text = open_text(path, may_be_latin=True)
    place = choose_columns(path, text.names, _ITEM_ROLES, {}, line=1)
    flag_names = _genre_names(path) if path.name == "u.item" else ()

    items: dict[str, _Item] = {}
    for line, fields in text.rows():
        if len(fields) != len(text.names):
            raise DataError(f"the row has {len(fields)} fields, not {len(text.names)}", path=str(path), line=line)
        item_id = fields[place["item"]]
        if item_id in items:
            raise DataError(f"the item {item_id!r} is described twice", path=str(path), line=line)

        known = {role: fields[column].strip() for role, column in place.items()}
        title, year = _title_and_year(known.get("title", ""), known.get("year", ""))
        if path.name == "u.item":
            flags = fields[_U_ITEM_FLAGS:]
            genres = [name for name, flag in zip(flag_names, flags, strict=False) if flag == "1"]
        else:
            # RecBole separates the words of a sequence by blanks, GroupLens by bars.
            genres = re.split(r"\|" if path.suffix != ".item" else r"\s+", known.get("genres", ""))
        items[item_id] = _Item(title, year, tuple(sorted(set(genres).difference(_NO_GENRES))))
    return items


def _title_and_year(title: str, year: str) -> tuple[str, int]:
    """Take the year from its own field, or from behind the title: `Toy Story (1995)`."""
    if year.isascii() and year.isdigit() and len(year) == 4:
        return title, int(year)
    match = _YEAR_BEHIND_TITLE.search(title)
    return (title[: match.start()], int(match[1])) if match else (title, 0)


def _genre_names(item_file: Path) -> list[str]:
    """Read `u.genre`: the names of the genre flags of `u.item`, as `name|flag number`."""
    path = item_file.with_name("u.genre")
    if not path.is_file():
        return []
    lines = path.read_text(encoding="iso-8859-1").splitlines()
    return [line.rpartition("|")[0] for line in lines if line.strip()]

"""A data set: ratings, the names of users and items, and the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from liberate.arrays import BoolArray, Float32Array, Int32Array, Int64Array

_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is publicly known about each item, in item order.

    Attributes:
        titles: Title of each item.
        years: Year of each item, shape (n_items,), 0 where unknown.
        genres: Genres of each item, in alphabetical order; may be empty.
    """

    titles: tuple[str, ...]
    years: Int32Array
    genres: tuple[tuple[str, ...], ...]

    def of(self, items: Int32Array) -> Catalogue:
        """Return what is known of some items, in the order given."""
        places = items.tolist()
        titles = tuple(self.titles[place] for place in places)
        return Catalogue(titles, self.years[items], tuple(self.genres[place] for place in places))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set as read: one row per rating, in the order of the file. Made by `Dataset.of`.

    Attributes:
        users: User index of each rating, shape (n_ratings,).
        items: Item index of each rating, shape (n_ratings,).
        values: The ratings, shape (n_ratings,), low <= value <= high.
        timestamps: Seconds since 1970-01-01 UTC, shape (n_ratings,), or None where the source has none.
        user_ids: Original text of each user's id; numeric order when all are integers, else lexicographic.
        item_ids: The same for items. Every user and every item has a rating, but for items added by `with_items`.
        low: Lowest rating of the scale.
        high: Highest rating of the scale.
        catalogue: Titles, years and genres where the source has them.
        name: Short name of the data set.
        digest: SHA-256 of the content, hexadecimal; see `content_digest`.
        notes: What a person should know about how it was read or what it is, a clause each.
        has_found_scale: Whether low and high are the lowest and highest rating found: facts about people.
    """

    users: Int32Array
    items: Int32Array
    values: Float32Array
    timestamps: Int64Array | None
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    low: float
    high: float
    catalogue: Catalogue | None = None
    name: str
    digest: str
    notes: tuple[str, ...] = ()
    has_found_scale: bool = False

    @classmethod
    def of(
        cls,
        *,
        users: Int32Array,
        items: Int32Array,
        values: Float32Array,
        timestamps: Int64Array | None,
        user_ids: tuple[str, ...],
        item_ids: tuple[str, ...],
        low: float,
        high: float,
        name: str,
    ) -> Dataset:
        """Make a data set and its digest, with its arrays write-protected; a catalogue and notes may be added to it.

        Raises:
            ValueError: The arrays differ in length, ids and indices do not match, or a value is outside the scale.
        """
        columns = [array for array in (users, items, values, timestamps) if array is not None]
        if len({len(array) for array in columns}) > 1:
            raise ValueError("the arrays differ in length")
        _check_index("user", users, user_ids)
        _check_index("item", items, item_ids)
        if not np.all((values >= np.float32(low)) & (values <= np.float32(high))):
            raise ValueError(f"a value is outside the scale [{low}, {high}]")

        for array in columns:
            array.setflags(write=False)
        return cls(
            users=users,
            items=items,
            values=values,
            timestamps=timestamps,
            user_ids=user_ids,
            item_ids=item_ids,
            low=low,
            high=high,
            name=name,
            digest=content_digest(users, items, values, timestamps, user_ids, item_ids),
        )

    def only(self, kept: BoolArray) -> Dataset:
        """Return the data set as if its source had held some of the rows alone, shape (n_ratings,).

        Users and items without a row are gone, the rest is numbered anew, and the digest is that of these rows; only
        the scale is as it was. The notes, which tell of the whole source, are gone too.
        """
        users, user_ids, _ = _numbered(self.users[kept], self.user_ids)
        items, item_ids, places = _numbered(self.items[kept], self.item_ids)
        dataset = Dataset.of(
            users=users,
            items=items,
            values=self.values[kept],
            timestamps=None if self.timestamps is None else self.timestamps[kept],
            user_ids=user_ids,
            item_ids=item_ids,
            low=self.low,
            high=self.high,
            name=self.name,
        )
        catalogue = None if self.catalogue is None else self.catalogue.of(places)
        return replace(dataset, catalogue=catalogue, has_found_scale=self.has_found_scale)

    def with_items(self, item_ids: Sequence[str], catalogue: Catalogue | None) -> Dataset:
        """Return the same ratings with the items of a larger catalogue, in its order; the digest stays.

        Args:
            item_ids: Every item of this data set, and maybe others.
            catalogue: What is known about each of them.
        """
        index = {item: place for place, item in enumerate(item_ids)}
        places = np.array([index[item] for item in self.item_ids], np.int32)
        items = places[self.items]
        items.setflags(write=False)
        return replace(self, items=items, item_ids=tuple(item_ids), catalogue=catalogue)


def ranked_ids(ids: Sequence[str]) -> tuple[Int32Array, tuple[str, ...]]:
    """Put distinct ids in numeric order when all are canonical integers, else in that of code points.

    An integer is canonical when it is written as Python writes it, without a leading zero or plus sign.

    Returns:
        The place of each id in that order, shape (n_ids,), and the ids in that order.
    """
    are_integers = all(_CANONICAL_INTEGER.fullmatch(text) for text in ids)
    order = sorted(range(len(ids)), key=(lambda i: int(ids[i])) if are_integers else ids.__getitem__)
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks, tuple(ids[i] for i in order)


def _numbered(index: Int32Array, ids: Sequence[str]) -> tuple[Int32Array, tuple[str, ...], Int32Array]:
    """Number anew the ids that an index names: return the new index, the ids, and the old number of each."""
    used = np.unique(index)
    ranks, ordered = ranked_ids([ids[number] for number in used])
    places = np.empty(len(used), np.int32)
    places[ranks] = used
    return ranks[np.searchsorted(used, index)], ordered, places


def _check_index(name: str, index: Int32Array, ids: Sequence[str]) -> None:
    """Refuse an index with an id that occurs twice or that no row names, or with a number that has no id."""
    if len(set(ids)) != len(ids):
        raise ValueError(f"a {name} id occurs twice")
    if not np.array_equal(np.unique(index), np.arange(len(ids))):
        raise ValueError(f"the {name} indices are not exactly [0, {len(ids)})")


def content_digest(
    users: Int32Array,
    items: Int32Array,
    values: Float32Array,
    timestamps: Int64Array | None,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
) -> str:
    """Return the SHA-256, hexadecimal, of ratings in the order of the file, whatever format they are written in.

    Hashed are, all numbers little-endian: `liberate dataset 1` and a zero byte; the numbers of users, items and ratings
    (uint64); each user id, then each item id, in index order (byte length as uint32, UTF-8); user indices and item
    indices (int32) and values (float32) of all rows; a byte 1 and the timestamps (int64), or a byte 0.
    """
    content = sha256(b"liberate dataset 1\0")
    for count in (len(user_ids), len(item_ids), len(values)):
        content.update(count.to_bytes(8, "little"))
    for ids in (user_ids, item_ids):
        encoded = [text.encode() for text in ids]
        content.update(b"".join(len(text).to_bytes(4, "little") + text for text in encoded))
    content.update(users.astype("<i4").tobytes() + items.astype("<i4").tobytes() + values.astype("<f4").tobytes())
    content.update(b"\0" if timestamps is None else b"\1" + timestamps.astype("<i8").tobytes())
    return content.hexdigest()

"""Immutable ratings by user, the data set they come from, and how it is split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from liberate.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from liberate.errors import DataError


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings grouped by user (compressed sparse rows).

    User u owns `items[indptr[u]:indptr[u + 1]]`, strictly increasing, and the values beside them.
    The arrays may be shared with other `Ratings` and are never written to.

    Attributes:
        indptr: Ranges of the users, shape (n_users + 1,).
        items: Item index of each rating, shape (n_ratings,), 0 <= item < n_items.
        values: The ratings, shape (n_ratings,), in units of the data set's scale.
        n_items: Size of the catalogue.
    """

    indptr: Int64Array
    items: Int32Array
    values: Float32Array
    n_items: int

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together; that items increase is `from_triples`'s promise.

        Raises:
            ValueError: A type or a shape is wrong.
        """
        if self.indptr.dtype != np.int64 or self.items.dtype != np.int32 or self.values.dtype != np.float32:
            raise ValueError("indptr, items and values are int64, int32 and float32")
        if len(self.indptr) == 0 or self.indptr[0] != 0 or not self.indptr[-1] == len(self.items) == len(self.values):
            raise ValueError("indptr must begin with 0 and end with the number of items and of values")

    @classmethod
    def from_triples(
        cls,
        users: npt.NDArray[np.integer],
        items: npt.NDArray[np.integer],
        values: npt.NDArray[np.floating],
        n_users: int,
        n_items: int,
    ) -> Ratings:
        """Group (user, item, value) triples, given in any order, by user.

        Args:
            users: User index of each rating, shape (n_ratings,), 0 <= user < n_users.
            items: Item index of each rating, shape (n_ratings,), 0 <= item < n_items.
            values: The ratings, shape (n_ratings,).
            n_users: Number of users, also of those without a rating.
            n_items: Size of the catalogue.

        Raises:
            ValueError: An index is out of range, a value is not finite, or a (user, item) pair occurs twice.
        """
        for name, index, size in (("user", users, n_users), ("item", items, n_items)):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise ValueError(f"{name} index outside [0, {size})")
        if not np.isfinite(values).all():
            raise ValueError("a rating is not finite")
        place = users.astype(np.int64) * n_items + items
        order = np.argsort(place, kind="stable")
        if np.any(np.diff(place[order]) == 0):
            raise ValueError("a (user, item) pair occurs twice")
        indptr = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=indptr[1:])
        return cls(indptr, items[order].astype(np.int32), values[order].astype(np.float32), n_items)

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_ratings(self) -> int:
        return len(self.items)

    def users(self) -> Int32Array:
        """Give the user index of each rating, shape (n_ratings,)."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))

    def select(self, users: npt.NDArray[np.integer]) -> Ratings:
        """Give the ratings of some users, who become users 0, 1, ... in the order given. Arrays may be shared."""
        n = len(users)
        if n and int(users[-1]) - int(users[0]) == n - 1 and np.all(np.diff(users) == 1):
            begin, end = self.indptr[users[0]], self.indptr[users[-1] + 1]
            indptr = self.indptr[users[0] : users[-1] + 2] - begin
            return Ratings(indptr, self.items[begin:end], self.values[begin:end], self.n_items)
        begins = self.indptr[users]
        counts = self.indptr[np.asarray(users) + 1] - begins
        indptr = np.zeros(n + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        rows = np.repeat(begins - indptr[:-1], counts) + np.arange(indptr[-1])
        return Ratings(indptr, self.items[rows], self.values[rows], self.n_items)

    @classmethod
    def from_user_bytes(cls, users: Sequence[bytes], n_items: int) -> Ratings:
        """Group what `user_bytes` wrote for each user.

        Raises:
            ValueError: Bytes of another length than their header says, or items out of order or range.
        """
        indptr = np.zeros(len(users) + 1, np.int64)
        items, values = [], []
        for user, data in enumerate(users):
            n = int.from_bytes(data[:4], "little")
            if len(data) != 4 + 8 * n:
                raise ValueError(f"{len(data)} bytes of a user with {n} ratings")
            own = np.frombuffer(data, "<i4", n, 4)
            if n and (own[0] < 0 or own[-1] >= n_items or not (own[1:] > own[:-1]).all()):
                raise ValueError(f"items must increase strictly within 0 <= item < {n_items}")
            items.append(own)
            values.append(np.frombuffer(data, "<f4", n, 4 + 4 * n))
            indptr[user + 1] = indptr[user] + n
        no_items, no_values = np.empty(0, np.int32), np.empty(0, np.float32)
        return cls(indptr, np.concatenate([no_items, *items]), np.concatenate([no_values, *values]), n_items)

    def where(self, kept: BoolArray) -> Ratings:
        """Give the ratings that are marked, shape (n_ratings,), of the same users and catalogue."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        return Ratings(before[self.indptr], self.items[kept], self.values[kept], self.n_items)

    def within(self, n_items: int) -> Ratings:
        """Give the ratings of the first `n_items` items, as of a catalogue of that size."""
        kept = self.where(self.items < n_items)
        return Ratings(kept.indptr, kept.items, kept.values, n_items)

    def rated_in(self, other: Ratings) -> BoolArray:
        """Mark the ratings whose user has rated the item in other ratings too, of the same users and catalogue."""
        return np.isin(self._places(), other._places(), assume_unique=True)

    def updated(self, newer: Ratings) -> Ratings:
        """Add newer ratings, of the same users and catalogue; of two of one item by one user the newer stays."""
        older = self.where(~self.rated_in(newer))
        return Ratings.from_triples(
            np.concatenate([older.users(), newer.users()]),
            np.concatenate([older.items, newer.items]),
            np.concatenate([older.values, newer.values]),
            self.n_users,
            self.n_items,
        )

    def _places(self) -> Int64Array:
        return self.users().astype(np.int64) * self.n_items + self.items

    def user_bytes(self, user: int) -> bytes:
        """Encode one user's ratings: their number, the items (int32) and the values (float32), little-endian."""
        begin, end = int(self.indptr[user]), int(self.indptr[user + 1])
        return (
            (end - begin).to_bytes(4, "little")
            + self.items[begin:end].astype("<i4").tobytes()
            + self.values[begin:end].astype("<f4").tobytes()
        )


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
    catalogue: Catalogue | None
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
        catalogue: Catalogue | None = None,
        name: str,
        notes: tuple[str, ...] = (),
    ) -> Dataset:
        """Make a data set and its digest, with its arrays write-protected.

        Raises:
            ValueError: The arrays differ in length, an id occurs twice, an index names no id or none names an id, or a
                value is outside the scale.
        """
        for name_, index, ids in (("user", users, user_ids), ("item", items, item_ids)):
            if len(set(ids)) != len(ids):
                raise ValueError(f"a {name_} id occurs twice")
            if not np.array_equal(np.unique(index), np.arange(len(ids))):
                raise ValueError(f"the {name_} indices are not exactly [0, {len(ids)})")
        if not len(users) == len(items) == len(values) or (timestamps is not None and len(timestamps) != len(values)):
            raise ValueError("the arrays differ in length")
        if not np.all((values >= np.float32(low)) & (values <= np.float32(high))):
            raise ValueError(f"a value is outside the scale [{low}, {high}]")
        digest = content_digest(users, items, values, timestamps, user_ids, item_ids)
        for array in (users, items, values, timestamps):
            if array is not None:
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
            catalogue=catalogue,
            name=name,
            digest=digest,
            notes=notes,
        )

    def with_items(self, item_ids: Sequence[str], catalogue: Catalogue | None) -> Dataset:
        """Give the same ratings with the items of a larger catalogue, in its order; the digest stays.

        Args:
            item_ids: Every item of this data set, and maybe others.
            catalogue: What is known about each of them.
        """
        index = {item: place for place, item in enumerate(item_ids)}
        places = np.array([index[item] for item in self.item_ids], np.int32)
        items = places[self.items]
        items.setflags(write=False)
        return replace(self, items=items, item_ids=tuple(item_ids), catalogue=catalogue)


def content_digest(
    users: Int32Array,
    items: Int32Array,
    values: Float32Array,
    timestamps: Int64Array | None,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
) -> str:
    """Give the SHA-256, hexadecimal, of ratings in the order of the file; the same content in any format has the same.

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


@dataclass(frozen=True, slots=True)
class Split:
    """Ratings to learn from, and ratings held out to judge what was learned. Both have all users and items."""

    train: Ratings
    test: Ratings


def random_split(dataset: Dataset, seed: int = 42, fraction: float = 0.2) -> Split:
    """Hold out a random part: the first round(fraction * n) rows of a seeded permutation of the file's rows.

    Args:
        dataset: What to split.
        seed: Fixes the permutation, `numpy.random.default_rng(seed).permutation(n)`.
        fraction: Part to hold out, 0 < fraction < 1.

    Raises:
        ValueError: fraction is out of range.
    """
    return _split(dataset, _random_mask(len(dataset.values), seed, fraction))


def leave_last_out(dataset: Dataset) -> Split:
    """Hold out each user's last rating by time; of several at that time, the last in the file.

    A user with a single rating keeps it to learn from, and has none held out.

    Raises:
        DataError: The data set has no timestamps.
    """
    if dataset.timestamps is None:
        raise DataError(f"{dataset.name} has no timestamps, so no rating is the last", hint="split at random")
    order = np.lexsort((dataset.timestamps, dataset.users))
    counts = np.bincount(dataset.users)
    last = order[np.cumsum(counts) - 1]
    held_out = np.zeros(len(dataset.values), np.bool_)
    held_out[last[counts > 1]] = True
    return _split(dataset, held_out)


def learned_before(split: Split, known: Ratings) -> Split:
    """Hold out nothing that was learned from before: such ratings are moved to those to learn from."""
    moved = split.test.rated_in(known)
    return Split(train=split.train.updated(split.test.where(moved)), test=split.test.where(~moved))


def random_split_of(ratings: Ratings, seed: int = 7, fraction: float = 0.1) -> Split:
    """Hold out a random part of the ratings to learn from, to tune on: the test part stays unseen.

    Args:
        ratings: What to split.
        seed: Fixes the permutation of the ratings, in their order by user and item.
        fraction: Part to hold out, 0 < fraction < 1.

    Raises:
        ValueError: fraction is out of range.
    """
    held_out = _random_mask(ratings.n_ratings, seed, fraction)
    return Split(train=ratings.where(~held_out), test=ratings.where(held_out))


def _random_mask(n: int, seed: int, fraction: float) -> BoolArray:
    if not 0 < fraction < 1:
        raise ValueError(f"the part to hold out is a fraction between 0 and 1; got {fraction}")
    chosen = np.zeros(n, np.bool_)
    chosen[np.random.default_rng(seed).permutation(n)[: round(fraction * n)]] = True
    return chosen


def _split(dataset: Dataset, held_out: BoolArray) -> Split:
    return Split(train=_part(dataset, ~held_out), test=_part(dataset, held_out))


def _part(dataset: Dataset, kept: BoolArray) -> Ratings:
    return Ratings.from_triples(
        dataset.users[kept],
        dataset.items[kept],
        dataset.values[kept],
        len(dataset.user_ids),
        len(dataset.item_ids),
    )

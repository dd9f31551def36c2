"""Immutable ratings by user, the data set they come from, and how it is split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from liberate.arrays import Float32Array, Int32Array, Int64Array


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings grouped by user (compressed sparse rows).

    User u owns `items[indptr[u]:indptr[u + 1]]`, strictly increasing, and the values beside them.

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

        Raises:
            ValueError: an index is out of range, or a (user, item) pair occurs twice.
        """
        for name, index, size in (("user", users, n_users), ("item", items, n_items)):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise ValueError(f"{name} index outside [0, {size})")
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
    """A data set as read: one row per rating, in the order of the file.

    Attributes:
        users: User index of each rating, shape (n_ratings,).
        items: Item index of each rating, shape (n_ratings,).
        values: The ratings, shape (n_ratings,), low <= value <= high.
        timestamps: Seconds since 1970-01-01 UTC, shape (n_ratings,), or None where the source has none.
        user_ids: Original text of each user's id; numeric order when all are integers, else lexicographic.
        item_ids: The same for items.
        low: Lowest rating of the scale.
        high: Highest rating of the scale.
        catalogue: Titles, years and genres where the source has them.
        name: Short name of the data set.
        digest: SHA-256 of the content, hexadecimal.
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


@dataclass(frozen=True, slots=True)
class Split:
    """Ratings to learn from, and ratings held out to judge what was learned. Both have all users and items."""

    train: Ratings
    test: Ratings


def random_split(dataset: Dataset, seed: int = 42, fraction: float = 0.2) -> Split:
    """Hold out a random part: the first round(fraction * n) rows of a seeded permutation of the file's rows."""
    n = len(dataset.values)
    rows = np.random.default_rng(seed).permutation(n)
    n_test = round(fraction * n)
    return Split(train=_part(dataset, rows[n_test:]), test=_part(dataset, rows[:n_test]))


def _part(dataset: Dataset, rows: Int64Array) -> Ratings:
    return Ratings.from_triples(
        dataset.users[rows],
        dataset.items[rows],
        dataset.values[rows],
        len(dataset.user_ids),
        len(dataset.item_ids),
    )

"""Immutable ratings by user, the data set they come from, and how it is split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from liberate.arrays import BoolArray, Float32Array, Int32Array, Int64Array


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
        """Return the user index of each rating, shape (n_ratings,)."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))

    def select(self, users: npt.NDArray[np.integer]) -> Ratings:
        """Return the ratings of some users, who become users 0, 1, ... in the order given. Arrays may be shared."""
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
        items, values = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        for user, data in enumerate(users):
            n = int.from_bytes(data[:4], "little")
            if len(data) != 4 + 8 * n:
                raise ValueError(f"{len(data)} bytes of a user with {n} ratings")
            rated = np.frombuffer(data, "<i4", n, 4)
            if n and (rated[0] < 0 or rated[-1] >= n_items or not (rated[1:] > rated[:-1]).all()):
                raise ValueError(f"items must increase strictly within 0 <= item < {n_items}")

            items.append(rated)
            values.append(np.frombuffer(data, "<f4", n, 4 + 4 * n))
            indptr[user + 1] = indptr[user] + n

        return cls(indptr, np.concatenate(items), np.concatenate(values), n_items)

    def where(self, kept: BoolArray) -> Ratings:
        """Return the ratings that are marked, shape (n_ratings,), of the same users and catalogue."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        return Ratings(before[self.indptr], self.items[kept], self.values[kept], self.n_items)

    def within(self, n_items: int) -> Ratings:
        """Return the ratings of the first `n_items` items, as of a catalogue of that size."""
        return replace(self.where(self.items < n_items), n_items=n_items)

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

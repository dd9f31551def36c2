"""Rows that leaked, compared with copies: which base copies they are of, and how likely each recipient is their source.

Rows are matched with base copies, which know nothing of the fingerprints that tell recipients apart; so the bound on
false accusations holds whatever somebody has done to ids and ratings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from liberate.arrays import Float64Array, Int32Array, Int64Array
from liberate.data.columns import RATING_ROLES
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.data.table import read_table
from liberate.errors import DataError
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.sharing.handover import HandedOverCopy
from liberate.federation.store.sharing_rows import BaseCopy
from liberate.privacy.fingerprinting import FALSE_ACCUSATION, score_recipient

_ROLES = {**RATING_ROLES, "user": False}
"""What a column of rows that leaked can be: whoever spreads them may have left the users out."""

_CELLS = 20_000_000
"""Levels of candidates' copies that are weighed at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakedRows:
    """Rows that leaked, as far as the catalogue knows their items.

    Attributes:
        digest: SHA-256 of the file, hexadecimal.
        n_rows: Rows of the file.
        n_items: Size of the catalogue.
        user_ids: As the file calls the users.
        users: Which of them each row is of, shape (n,).
        items: Item of each row, shape (n,), 0 <= item < n_items.
        values: Rating of each row, shape (n,).
    """

    digest: str
    n_rows: int
    n_items: int
    user_ids: tuple[str, ...]
    users: Int32Array
    items: Int32Array
    values: Float64Array


class BaseCopyIndex:
    """Base copies side by side.

    Args:
        bases: At least one.
        n_items: Size of the catalogue.
    """

    def __init__(self, bases: Sequence[BaseCopy], n_items: int) -> None:
        self.bases = tuple(bases)
        self._ratings = as_ratings([base.ratings for base in bases], n_items)
        self._owners = self._ratings.users()
        self._low, self._step, n_levels = np.array([base.scale for base in bases], np.float64).T
        self._top = n_levels - 1
        self._places = self._levels(self._owners, self._ratings.values.astype(np.float64))

    def near(self, leak: LeakedRows, user: int) -> Int64Array:
        """Count the rows of one of the leak's users that each base copy has, a level more or less, shape (n_bases,)."""
        value = _by_item(leak, user)[self._ratings.items]
        known = np.flatnonzero(~np.isnan(value))
        leaked = self._levels(self._owners[known], value[known])
        is_near = np.abs(leaked - self._places[known]) <= 1
        return np.bincount(self._owners[known][is_near], minlength=len(self.bases)).astype(np.int64)

    def rows(self, leak: LeakedRows, user: int, index: int) -> tuple[Int32Array, Int32Array, Int32Array]:
        """Return items, leaked levels and levels of one user's rows that one base copy has, shape (n,) each."""
        copy = slice(*self._ratings.indptr[index : index + 2])
        value = _by_item(leak, user)[self._ratings.items[copy]]
        known = ~np.isnan(value)
        leaked = self._levels(self._owners[copy][known], value[known])
        return self._ratings.items[copy][known], leaked, self._places[copy][known]

    def _levels(self, owners: Int32Array, values: Float64Array) -> Int32Array:
        places = np.rint((values - self._low[owners]) / self._step[owners])
        return np.asarray(np.clip(places, 0, self._top[owners]), np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRows:
    """Rows that were found in base copies, each row of a base copy once.

    Attributes:
        bases: The base copies; all have one scale.
        owners: Which of them each row is of, shape (n_rows,), increasing.
        items: Shape (n_rows,), increasing for each of them.
        leaked: Level that leaked, shape (n_rows,).
        base: Level in the base copy, shape (n_rows,).
    """

    bases: tuple[BaseCopy, ...]
    owners: Int32Array
    items: Int32Array
    leaked: Int32Array
    base: Int32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCandidate:
    """A candidate.

    Attributes:
        number: Of the recipient.
        log10_likelihood: As of `Attribution`.
        bound: As of `Attribution`.
        fingerprint: The same for all who hold the same levels of the rows that leaked.
        copies: The recipient's copies of the base copies that leaked.
    """

    number: int
    log10_likelihood: float
    bound: float
    fingerprint: bytes
    copies: tuple[HandedOverCopy, ...]

    @property
    def is_accused(self) -> bool:
        """Whether the bound on a false accusation is small enough."""
        return self.bound <= FALSE_ACCUSATION


def read_leak(file: Path, item_ids: Sequence[str]) -> LeakedRows:
    """Read rows that leaked.

    Args:
        file: CSV or Parquet, with item and rating; without a column of users all rows are taken for one person's.
        item_ids: The catalogue.

    Raises:
        DataError: The file cannot be used.
    """
    table = read_table(file, {}, _ROLES)
    items, leaked_ids = table.ids("item")
    users, user_ids = table.ids("user") if "user" in table.columns else (np.zeros_like(items), ("",))
    index = {item: place for place, item in enumerate(item_ids)}
    places = np.array([index.get(item, -1) for item in leaked_ids], np.int32)[items]
    known = places >= 0
    if not known.any():
        raise DataError(
            "no row is of an item of this run",
            path=str(file),
            hint="items are called as in the data set that the run was trained on",
        )
    return LeakedRows(
        digest=sha256(file.read_bytes()).hexdigest(),
        n_rows=len(users),
        n_items=len(item_ids),
        user_ids=user_ids,
        users=users[known],
        items=places[known],
        values=table.numbers("rating")[known],
    )


def match(leak: LeakedRows, bases: BaseCopyIndex, chosen: Sequence[int | None]) -> MatchedRows:
    """Find rows in base copies. Of base copies on several scales, those with the scale of most rows are taken.

    Args:
        leak: The rows.
        bases: The base copies.
        chosen: For each of the leak's users, which base copy the rows are of; None: of none.
    """
    parts_of = [(index, *bases.rows(leak, user, index)) for user, index in enumerate(chosen) if index is not None]
    counts: Counter[tuple[float, float, int]] = Counter()
    for index, items, *_ in parts_of:
        counts[bases.bases[index].scale] += len(items)
    commonest = max(counts, key=counts.__getitem__, default=None)
    parts_of = [part for part in parts_of if bases.bases[part[0]].scale == commonest]

    order = sorted({index for index, *_ in parts_of})
    parts = [np.stack([np.full(len(items), order.index(index), np.int32), items, *levels])
             for index, items, *levels in parts_of]  # fmt: skip
    rows = np.concatenate([np.empty((4, 0), np.int32), *parts], axis=1)
    _, first = np.unique(rows[0].astype(np.int64) * leak.n_items + rows[1], return_index=True)
    owners, items, leaked, base = rows[:, first]
    return MatchedRows(
        bases=tuple(bases.bases[index] for index in order), owners=owners, items=items, leaked=leaked, base=base
    )


def rank_candidates(matched: MatchedRows, copies: Sequence[HandedOverCopy]) -> list[RankedCandidate]:
    """Rank everybody who got a copy of the base copies that leaked, likeliest first.

    Args:
        matched: The rows.
        copies: All copies that were made of these base copies.
    """
    owner = {base.commitment: index for index, base in enumerate(matched.bases)}
    by_recipient: dict[int, list[HandedOverCopy]] = {}
    for copy in copies:
        by_recipient.setdefault(copy.share.recipient, []).append(copy)
    recipients = sorted(by_recipient)

    step = max(1, _CELLS // max(1, len(matched.items)))
    ranked: list[RankedCandidate] = []
    for begin in range(0, len(recipients), step):
        some = recipients[begin : begin + step]
        # A row of which somebody has no copy came from somebody else: no level is the one that leaked.
        levels = np.full((len(some), len(matched.items)), -1, np.int32)
        for row, number in enumerate(some):
            for copy in by_recipient[number]:
                index = owner[copy.share.base]
                rows = slice(*np.searchsorted(matched.owners, [index, index + 1]))
                levels[row, rows] = _levels_of(copy, matched.items[rows])

        # The bound counts the candidates of a batch; all of them are candidates.
        attribution = score_recipient(matched.leaked, matched.base, levels, matched.bases[0].scale[2])
        bounds = np.minimum(attribution.bound * (len(recipients) / len(some)), 1.0)
        ranked += [
            RankedCandidate(
                number=number,
                log10_likelihood=float(attribution.log10_likelihood[row]),
                bound=float(bounds[row]),
                fingerprint=sha256(levels[row].tobytes()).digest(),
                copies=tuple(by_recipient[number]),
            )
            for row, number in enumerate(some)
        ]
    return sorted(ranked, key=lambda other: (other.bound, -other.log10_likelihood, other.number))


def _by_item(leak: LeakedRows, user: int) -> Float64Array:
    """Return one user's rating of each item in the leak, shape (n_items,); NaN without, of several the first."""
    values = np.full(leak.n_items, np.nan)
    mine = np.flatnonzero(leak.users == user)[::-1]
    values[leak.items[mine]] = leak.values[mine]
    return values


def _levels_of(copy: HandedOverCopy, items: Int32Array) -> Int32Array:
    """Return the levels of some items in a copy, all of which it has, shape (n,)."""
    low, step, n_levels = copy.base.scale
    ratings = Ratings.from_user_bytes([copy.copy], 2**31 - 1)
    places = RatingScale(low=low, step=step, n_levels=n_levels).places(ratings.values)
    return places[np.searchsorted(ratings.items, items)]

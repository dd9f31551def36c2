"""What is held out of a data set: at random, or each person's last rating."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liberate.arrays import BoolArray
from liberate.data.dataset import Dataset
from liberate.data.ratings import Ratings
from liberate.errors import DataError


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
        fraction: Part to hold out, 0 <= fraction < 1.

    Raises:
        ValueError: fraction is out of range.
    """
    return split_rows(dataset, random_rows(dataset, seed, fraction))


def random_rows(dataset: Dataset, seed: int, fraction: float) -> BoolArray:
    """Mark what `random_split` holds out, shape (n_ratings,)."""
    if not 0 <= fraction < 1:
        raise ValueError(f"the part to hold out is 0 <= fraction < 1; got {fraction}")
    n = len(dataset.values)
    held_out = np.zeros(n, np.bool_)
    held_out[np.random.default_rng(seed).permutation(n)[: round(fraction * n)]] = True
    return held_out


def leave_last_out(dataset: Dataset) -> Split:
    """Hold out each user's last rating by time; of several at that time, the last in the file.

    A user with a single rating keeps it to learn from, and has none held out.

    Raises:
        DataError: The data set has no timestamps.
    """
    return split_rows(dataset, last_rows(dataset))


def last_rows(dataset: Dataset) -> BoolArray:
    """Mark what `leave_last_out` holds out, shape (n_ratings,)."""
    if dataset.timestamps is None:
        raise DataError(f"{dataset.name} has no timestamps, so no rating is the last", hint="split at random")
    order = np.lexsort((dataset.timestamps, dataset.users))
    counts = np.bincount(dataset.users)
    last = order[np.cumsum(counts) - 1]
    held_out = np.zeros(len(dataset.values), np.bool_)
    held_out[last[counts > 1]] = True
    return held_out


def learned_before(split: Split, known: Ratings) -> Split:
    """Hold out nothing that was learned from before: such ratings are moved to those to learn from."""
    moved = split.test.rated_in(known)
    return Split(train=split.train.updated(split.test.where(moved)), test=split.test.where(~moved))


def split_rows(dataset: Dataset, held_out: BoolArray) -> Split:
    """Hold out the rows that are marked, shape (n_ratings,)."""
    return Split(train=_part(dataset, ~held_out), test=_part(dataset, held_out))


def _part(dataset: Dataset, kept: BoolArray) -> Ratings:
    return Ratings.from_triples(
        dataset.users[kept],
        dataset.items[kept],
        dataset.values[kept],
        len(dataset.user_ids),
        len(dataset.item_ids),
    )

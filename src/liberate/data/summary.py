"""What is in a data set, counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liberate.data.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """How something is spread."""

    min: float
    p25: float
    median: float
    p75: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is in a data set.

    Attributes:
        scale: The lowest and the highest rating possible.
        density: Part of all pairs of a user and an item that is rated, 0 < density <= 1.
        ratings_per_user: How many ratings users have.
        note: What a person should know about the data set, clauses with semicolons between; may be empty.
        digest: See `dataset.content_digest`.
    """

    name: str
    users: int
    items: int
    ratings: int
    scale: tuple[float, float]
    density: float
    ratings_per_user: Quantiles
    has_timestamps: bool
    has_titles: bool
    note: str
    digest: str


def summary(dataset: Dataset) -> Summary:
    """Count what is in a data set."""
    n_users, n_items, n_ratings = len(dataset.user_ids), len(dataset.item_ids), len(dataset.values)
    low, p25, median, p75, high = np.quantile(np.bincount(dataset.users), [0, 0.25, 0.5, 0.75, 1]).tolist()

    return Summary(
        name=dataset.name,
        users=n_users,
        items=n_items,
        ratings=n_ratings,
        scale=(dataset.low, dataset.high),
        density=n_ratings / (n_users * n_items),
        ratings_per_user=Quantiles(min=low, p25=p25, median=median, p75=p75, max=high),
        has_timestamps=dataset.timestamps is not None,
        has_titles=dataset.catalogue is not None and any(dataset.catalogue.titles),
        note="; ".join(dataset.notes),
        digest=dataset.digest,
    )

"""What is publicly known about items, as numbers that a device can fit its taste to."""

from __future__ import annotations

import math

import numpy as np

from liberate.arrays import Float32Array
from liberate.data.dataset import Catalogue

_FIRST_DECADE = 1920


def item_features(catalogue: Catalogue | None, n_items: int) -> Float32Array:
    """Turn a catalogue into one row of numbers per item: one column per genre, then one per decade.

    An item of g genres has 1 / sqrt(g) in the column of each, so that many genres do not weigh more than one. It has 1
    in the column of its decade; years before 1920 count with the 1920s. Columns are the genres and decades that occur,
    in alphabetical and numeric order. What is unknown is zero, and a catalogue that knows neither gives no column.

    Args:
        catalogue: What the data set's source says about its items; None where it says nothing.
        n_items: Size of the catalogue.

    Returns:
        Shape (n_items, n_columns); follows from the catalogue alone.
    """
    if catalogue is None:
        return np.zeros((n_items, 0), np.float32)

    genres = sorted({genre for genres in catalogue.genres for genre in genres})
    by_genre = np.zeros((n_items, len(genres)), np.float32)
    for item, its_genres in enumerate(catalogue.genres):
        for genre in its_genres:
            by_genre[item, genres.index(genre)] = 1 / math.sqrt(len(its_genres))

    decades = np.maximum(catalogue.years // 10 * 10, _FIRST_DECADE)
    known = np.unique(decades[catalogue.years > 0])
    by_decade = (decades[:, None] == known) & (catalogue.years > 0)[:, None]
    return np.concatenate([by_genre, by_decade.astype(np.float32)], axis=1)

"""A release with every row of the statistic's table, so that it hides which rows a person has."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

import numpy as np

from liberate.arrays import FixedPointStatistics, Int32Array, Int64Array, RealStatistics

AddNoise = Callable[[Int32Array, Sequence[bytes]], None]
"""Adds noise in place to integers of shape (n, size), with one key per row."""


def release_dense(
    batch: RealStatistics,
    row_units: Int32Array,
    tail_units: Int64Array,
    n_rows: int,
    noise_keys: Sequence[bytes],
    add_noise: AddNoise,
) -> FixedPointStatistics:
    """Lay clipped integers out for every row and add noise; rows take a device's key, its tail one derived from it.

    Args:
        batch: Whose rows they are.
        row_units, tail_units: Its numbers on the grid.
        n_rows: Rows of the statistic's table.
        noise_keys: One key of 32 bytes per device.
        add_noise: Adds noise of the mechanism's size.
    """
    n_devices, width = len(batch.tails), batch.rows.shape[1]

    rows = np.zeros((n_devices, n_rows, width), np.int32)
    rows[np.repeat(np.arange(n_devices), np.diff(batch.indptr)), batch.indices] = row_units
    tails = tail_units.astype(np.int32)
    add_noise(rows.reshape(n_devices, n_rows * width), noise_keys)
    add_noise(tails, [tail_key(key) for key in noise_keys])

    return FixedPointStatistics(
        indptr=np.arange(n_devices + 1, dtype=np.int64) * n_rows,
        indices=np.tile(np.arange(n_rows, dtype=np.int32), n_devices),
        rows=rows.reshape(n_devices * n_rows, width),
        tails=tails.astype(np.int64),
    )


def tail_key(key: bytes) -> bytes:
    """Derive the key of the noise on a tail."""
    return hmac.digest(key, b"tail", "sha256")

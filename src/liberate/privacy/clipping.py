"""Clipping to a norm on the integer grid: what bounds a person's influence is checked on the integers themselves.

A device's rows and tail are clipped together. Numbers inside the norm are truncated toward zero; others are scaled
first, and once more by a hair for as long as rounding leaves the integers outside. Truncation never enlarges a number.
A device's integers follow from its own numbers alone: the batch does not matter. Whatever those are, there are some:
a model can be made so that only who rated one item has a number that is none, and a failure would tell who that is.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from liberate.arrays import Float32Array, Float64Array, Int32Array, Int64Array, RealStatistics
from liberate.compilation import serial_kernel

Numbers = Float32Array | Float64Array

_HAIR = 1.0 - 2.0**-40


def clip_to_grid(
    batch: RealStatistics, clip_units: int, fraction_bits: int, norm: Literal["l1", "l2"]
) -> tuple[Int32Array, Int64Array]:
    """Clip each device's rows and tail together to a norm, and truncate toward zero to the integer grid.

    Args:
        batch: What the devices computed.
        clip_units: Largest norm, in grid units, 0 < clip_units <= 2**29.
        fraction_bits: A unit is 2**-fraction_bits, 0 <= fraction_bits <= 64.
        norm: Sum of absolute values, or root of the sum of squares.

    Returns:
        Rows, shape (n_rows, width), and tails, shape (n_devices, n_tail), in grid units; the norm of a device's
        integers is at most `clip_units`. Who has a number that is NaN or infinite gets zeros.
    """
    rows = np.ascontiguousarray(batch.rows)
    tails = np.ascontiguousarray(batch.tails, dtype=np.float64)
    row_units = np.empty(rows.shape, np.int32)
    tail_units = np.empty(tails.shape, np.int64)

    _clip(
        batch.indptr * rows.shape[1],
        rows.reshape(-1),
        tails,
        clip_units,
        math.ldexp(1.0, fraction_bits),
        norm == "l2",
        row_units.reshape(-1),
        tail_units,
    )
    return row_units, tail_units


@serial_kernel
def _clip(
    ends: Int64Array,
    rows: Float32Array,
    tails: Float64Array,
    clip: int,
    scale: float,
    squared: bool,
    row_units: Int32Array,
    tail_units: Int64Array,
) -> None:
    for d in range(len(tails)):
        row, tail = rows[ends[d] : ends[d + 1]], tails[d]
        row_out, tail_out = row_units[ends[d] : ends[d + 1]], tail_units[d]

        largest = max(_largest(row), _largest(tail))
        if largest == np.inf or largest == 0.0:
            row_out[:] = 0
            tail_out[:] = 0
            continue

        if largest * scale < clip + 1.0 and _fill(row, tail, 1.0, scale, squared, clip, row_out, tail_out):
            continue

        # Numbers are divided by the largest before they are added up, so that they neither overflow nor vanish.
        total = _norm(row, largest, squared) + _norm(tail, largest, squared)
        factor = clip / (math.sqrt(total) if squared else total)
        while not _fill(row, tail, largest, factor, squared, clip, row_out, tail_out):
            factor *= _HAIR


@serial_kernel
def _largest(numbers: Numbers) -> float:
    """Return the largest absolute value, 0 of none; infinite where a number is NaN."""
    largest = 0.0
    for number in numbers:
        size = abs(np.float64(number))
        if not size <= largest:
            largest = size if size == size else np.inf
    return largest


@serial_kernel
def _norm(numbers: Numbers, largest: float, squared: bool) -> float:
    """Return the sum of absolute values or of squares of numbers divided by the largest."""
    total = 0.0
    for number in numbers:
        size = abs(number / largest)
        total += size * size if squared else size
    return total


@serial_kernel
def _fill(
    row: Numbers,
    tail: Float64Array,
    divisor: float,
    factor: float,
    squared: bool,
    clip: int,
    row_out: Int32Array,
    tail_out: Int64Array,
) -> bool:
    """Write numbers / divisor * factor, truncated toward zero; false as soon as their norm exceeds the clip."""
    left = _fill_part(row, divisor, factor, squared, np.int64(clip * clip if squared else clip), row_out)
    return bool(left >= 0 and _fill_part(tail, divisor, factor, squared, left, tail_out) >= 0)


@serial_kernel
def _fill_part(
    numbers: Numbers, divisor: float, factor: float, squared: bool, left: np.int64, out: Int32Array | Int64Array
) -> np.int64:
    """Write numbers as `_fill` does; return how much of the norm they leave, below 0 as soon as that is exceeded."""
    for i in range(len(numbers)):
        unit = np.int64(numbers[i] / divisor * factor)
        left -= unit * unit if squared else abs(unit)
        if left < 0:
            return left
        out[i] = unit
    return left

"""Plain twin of `clipping.clip_to_grid`: rational numbers and Python's own integers, one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def clip_to_grid(numbers: Sequence[float], clip_units: int, fraction_bits: int, power: int) -> list[int]:
    """Drop the fractions of units of 2**-fraction_bits; where the norm is beyond `clip_units`, scale to it before."""
    units = [Fraction(number) * 2**fraction_bits for number in numbers]
    whole = [math.trunc(unit) for unit in units]
    if sum(abs(unit) ** power for unit in whole) <= clip_units**power:
        return whole
    total = sum(abs(unit) ** power for unit in units)
    factor = clip_units / total if power == 1 else clip_units / (Fraction(math.isqrt(int(total * 4**64))) / 2**64)
    return [math.trunc(unit * factor) for unit in units]

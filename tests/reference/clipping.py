"""Plain twin of `mechanism.clip_to_grid`: rational numbers, one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def clip_to_grid(numbers: Sequence[float], clip_units: int, grid_bits: int) -> list[int]:
    """Scale numbers to an L1 norm of at most `clip_units` units of 2**-grid_bits, then drop the fractions."""
    units = [Fraction(number) * 2**grid_bits for number in numbers]
    norm = sum(map(abs, units))
    factor = Fraction(1) if norm <= clip_units else clip_units / norm
    return [math.trunc(unit * factor) for unit in units]

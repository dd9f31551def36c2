"""Exact integer arithmetic that calibrations need: logarithms, roots and sums of squares."""

from __future__ import annotations

import math
from fractions import Fraction


def floor_log2(x: Fraction) -> int:
    """Return the largest n with 2**n <= x, x > 0, exactly."""
    n = x.numerator.bit_length() - x.denominator.bit_length()
    return n if Fraction(2) ** n <= x else n - 1


def root_above(x: int) -> int:
    """Return the smallest integer whose square is at least x >= 1."""
    return math.isqrt(x - 1) + 1


def four_squares(n: int) -> tuple[int, ...]:
    """Return at most four positive integers whose squares add up to n >= 0, the fewest there are (Lagrange, 1770)."""
    return next(roots for count in range(5) if (roots := _squares(n, count)) is not None)


def _squares(n: int, count: int) -> tuple[int, ...] | None:
    if count == 0 or n == 0:
        return () if n == count == 0 else None
    if count == 3 and n // (n & -n) % 8 == 7 and (n & -n).bit_length() % 2 == 1:
        return None  # 4**a * (8 b + 7): never a sum of three squares (Legendre, 1797); spares a long search
    root = math.isqrt(n)
    if count == 1:
        return (root,) if root * root == n else None
    while count * root * root >= n and root > 0:  # the largest of `count` roots
        rest = _squares(n - root * root, count - 1)
        if rest is not None:
            return root, *rest
        root -= 1
    return None

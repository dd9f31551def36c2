"""The integer grid: an integer v stands for v * 2**-fraction_bits, and prices are whole billionths."""

from __future__ import annotations

from fractions import Fraction

from liberate.units import NANO

LARGEST_CLIP_UNITS = 2**29
LARGEST_FRACTION_BITS = 64


def check_clip(fraction_bits: int, clip_units: int) -> None:
    """Refuse a grid or a clip out of range.

    Raises:
        ValueError: One is.
    """
    if not 0 <= fraction_bits <= LARGEST_FRACTION_BITS:
        raise ValueError(f"fraction_bits is {fraction_bits}, wanted 0 <= fraction_bits <= 64")
    if not 0 < clip_units <= LARGEST_CLIP_UNITS:
        raise ValueError(f"clip_units is {clip_units}, wanted 0 < clip_units <= 2**29")


def check_trimmed(trimmed_nano: int) -> None:
    """Refuse to trim a sum of everything, or of less than nothing.

    Raises:
        ValueError: It would.
    """
    if not 0 <= trimmed_nano < NANO // 2:
        raise ValueError(f"trimmed_nano is {trimmed_nano}, wanted 0 <= trimmed_nano < 500,000,000")


def trimmed_parameters(trimmed_nano: int) -> dict[str, int]:
    """Return what a round entry says of trimming: nothing where nothing is trimmed."""
    return {"trimmed_nano": trimmed_nano} if trimmed_nano else {}


def floor_log2(x: Fraction) -> int:
    """Return the largest n with 2**n <= x, x > 0, exactly."""
    n = x.numerator.bit_length() - x.denominator.bit_length()
    return n if Fraction(2) ** n <= x else n - 1

"""The integer grid: an integer v means v * 2**-fraction_bits, and prices are whole billionths."""

from __future__ import annotations

from liberate.units import NANO

LARGEST_CLIP_UNITS = 2**29
LARGEST_FRACTION_BITS = 64


def check_fraction_bits(fraction_bits: int) -> None:
    """Refuse a grid out of range.

    Raises:
        ValueError: It is.
    """
    if not 0 <= fraction_bits <= LARGEST_FRACTION_BITS:
        raise ValueError(f"fraction_bits is {fraction_bits}, wanted 0 <= fraction_bits <= 64")


def check_clip(fraction_bits: int, clip_units: int) -> None:
    """Refuse a grid or a clip out of range.

    Raises:
        ValueError: One is.
    """
    check_fraction_bits(fraction_bits)
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

"""The fixed-point unit of whatever is recorded or agreed on: one billionth."""

from __future__ import annotations

from typing import overload

NANO = 10**9
"""How many units make one."""


@overload
def to_nano(value: float) -> int: ...
@overload
def to_nano(value: float | None) -> int | None: ...
def to_nano(value: float | None) -> int | None:
    """Return a number in units of 1e-9, rounded to the nearest; None (no value) stays None."""
    return None if value is None else round(value * NANO)


@overload
def from_nano(nano: int) -> float: ...
@overload
def from_nano(nano: int | None) -> float | None: ...
def from_nano(nano: int | None) -> float | None:
    """Return the number that is so many units of 1e-9; None (no value) stays None."""
    return None if nano is None else nano / NANO

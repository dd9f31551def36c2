"""The one place where typed answers become values as JSON has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


def to_json(value: object) -> Any:
    """Return a typed answer as plain dicts, lists, strings and numbers.

    A frozen dataclass or msgspec struct becomes a dict whose keys are its fields, inherited ones first; bytes become
    base64, enums their values, tuples and arrays lists, and keys strings. What is not finite becomes None.

    Raises:
        TypeError: Something in it has no form in JSON.
    """
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_plain))


def _plain(value: Any) -> Any:
    """Return what msgspec does not know: numbers and arrays of NumPy as lists, and paths as text."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

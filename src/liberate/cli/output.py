"""How commands print: one JSON object on stdout, or tables for a person; progress goes to stderr."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


SIMULATED = "simulated: keys, noise and time follow from a seed, so this protects nobody and proves nothing"
"""The last line of whatever a command says about a simulation."""


@dataclass(slots=True)
class _Subject:
    """What the present command is about.

    Attributes:
        is_known: Whether the command has said what it is about.
        is_simulated: Whether that is a simulation; None: it cannot be read.
        has_json: Whether JSON was printed.
    """

    is_known: bool = False
    is_simulated: bool | None = None
    has_json: bool = False


_subject = _Subject()


def tell_simulated(is_simulated: bool | None) -> None:
    """Let the present command say whether what it is about is a simulation; None: that cannot be read.

    JSON gets a field `simulated`, text a last line where it is one.
    """
    _subject.is_known, _subject.is_simulated = True, is_simulated


def tell_folder(folder: Path) -> Path:
    """Let the present command say whether a run, or a ledger, is a simulation, by its genesis; returns the folder."""
    from liberate.runs.federation_folder import is_simulated, ledger_folder_of

    if (ledger_folder_of(folder) / "ledger.sqlite").is_file():
        tell_simulated(is_simulated(folder))
    return folder


@contextmanager
def telling() -> Iterator[None]:
    """Carry a command out, and end its text with a line where it is about a simulation; errors have their own line."""
    _subject.is_known = _subject.has_json = False
    try:
        yield
    finally:
        error = sys.exc_info()[1]
        is_misused = isinstance(error, SystemExit) and error.code == 2
        has_failed = isinstance(error, Exception) or is_misused
        if _subject.is_known and _subject.is_simulated and not _subject.has_json and not has_failed:
            print_text(SIMULATED)


def print_json(value: object) -> None:
    """Print one JSON object. Numbers that are not finite become null."""
    fields = fields_of(value)
    if _subject.is_known:
        fields.setdefault("simulated", _subject.is_simulated)
    _subject.has_json = True
    print(json.dumps(fields, ensure_ascii=False))


def fields_of(value: object) -> dict[str, Any]:
    """Return the fields of an answer by name, as JSON has them."""
    from liberate.json_edge import to_json

    fields: dict[str, Any] = to_json(value)
    return fields


def print_result(value: object, *, as_json: bool) -> None:
    """Print an answer: as JSON, or as names and values in two columns."""
    if as_json:
        print_json(value)
    else:
        print_pairs(fields_of(value))


def print_text(line: str, *, indent: int = 0) -> None:
    """Print a line; a terminal gets it broken between words at its width, the later lines set in by so many columns."""
    if sys.stdout.isatty():
        columns, later = shutil.get_terminal_size().columns, " " * indent
        line = textwrap.fill(line, columns, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
    print(line)


def print_pairs(values: Mapping[str, Any]) -> None:
    """Print names and values in two columns; on a terminal, long texts are broken inside theirs."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print_text(f"{name:<{width}}  {show(value)}", indent=width + 2)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under a header; numbers are set to the right."""
    lines = [list(columns), *([show(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligns = [">" if rows and all(value is None or isinstance(value, int | float) for value in column) else "<"
              for column in zip(*rows, strict=True)] or ["<"] * len(columns)  # fmt: skip
    for line in lines:
        cells = (f"{text:{align}{width}}" for text, align, width in zip(line, aligns, widths, strict=True))
        print("  ".join(cells).rstrip())


def count(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    from liberate.report import words

    return words.count(number, one, many)


def show(value: Any) -> str:
    """Write a value for a person: whole numbers as such, others to four digits, None and NaN as a dash."""
    match value:
        case None:
            return "-"
        case float() if math.isnan(value):
            return "-"
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer():
            return f"{value:.0f}"
        case float():
            return f"{value:,.4f}" if abs(value) >= 1e-3 else f"{value:.3g}"
        case int():
            return str(value)
        case list() | tuple():
            return ", ".join(map(show, value))
        case Mapping():
            return ", ".join(f"{name} {show(inner)}" for name, inner in value.items())
        case _:
            return str(value)


@contextmanager
def progress_lines() -> Iterator[Any]:
    """Yield a function that shows each step on stderr: in place on a terminal, else a line each."""
    begin = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda text: print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update

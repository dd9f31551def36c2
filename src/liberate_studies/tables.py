"""Markdown of the studies' pages: tables, numbers, and how every page begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from liberate_studies.worlds import SEED, Accuracy, World

R = TypeVar("R")


def table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; all but the first are set to the right."""
    widths = [max(3, *map(len, column)) for column in zip(titles, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        + " |"
        for line in [titles, rule, *lines]
    )


def table_of(rows: Sequence[R], *columns: tuple[str, Callable[[R], str]]) -> str:
    """Return the table of rows in which each column has a title and a function that writes a row's cell."""
    return table([title for title, _ in columns], [[cell(row) for _, cell in columns] for row in rows])


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as text, or a dash for none (None or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share as text in per cent, or a dash for none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def words(epsilon: float | None) -> str:
    """Return what one says of a privacy parameter; None is no protection."""
    return "open" if epsilon is None else f"ε = {epsilon:g}"


def header(title: str, world: World) -> str:
    """Return the beginning of a page: what it is about, and which ratings were used how."""
    return (
        f"# {title}\n\n{world.sentence}\n"
        f"A random fifth is held out; noise, keys and starting values follow from seed {SEED}."
    )


def free_lines(baselines: Iterable[Accuracy], n_columns: int) -> list[list[str]]:
    """Return what costs nothing as lines of a table: name, dash, RMSE, NDCG@10, dashes."""
    dashes = ["-"] * (n_columns - 4)
    return [[each.name, "-", number(each.rmse), number(each.ndcg_at_10), *dashes] for each in baselines]

"""What every benchmark shares: a figure beside its limit, how it is printed, repetitions, and where data sets are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that was measured.

    Attributes:
        name: What was measured.
        value: What came out.
        unit: Of the value and the limits; empty for a ratio.
        at_least: Least value wanted, if one is.
        at_most: Largest value wanted, if one is.
    """

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """The limit, and whether it is met; a dash where there is none."""
        if self.at_least is not None:
            return f"at least {self.at_least:,g}: {'met' if self.value >= self.at_least else 'MISSED'}"
        if self.at_most is not None:
            return f"at most {self.at_most:,g}: {'met' if self.value <= self.at_most else 'MISSED'}"
        return "-"

    def __str__(self) -> str:
        return f"{self.name:<62} {self.value:>14,.5g} {self.unit:<9} {self.verdict}"


def show(figures: Iterable[Figure]) -> list[Figure]:
    """Print each figure in a line as soon as it is there, and return all."""
    shown = []
    for figure in figures:
        print(figure, flush=True)
        shown.append(figure)
    return shown


def seconds(act: Callable[[], object], repetitions: int = 5) -> float:
    """Return the shortest wall-clock time of an act; with several repetitions the first may also compile."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return min(times)


def data_sets(*names: str) -> Iterator[tuple[str, str]]:
    """Return what `data.source` should say, by name: the folder beside the repository where there is one."""
    for name in names:
        beside = REPOSITORY.parent / "shared" / "data" / name
        yield name, str(beside) if beside.exists() else name

"""Where the marks of the report's charts stand; the template draws them.

Coordinates are CSS pixels of an SVG view box, y downwards. Nothing here knows colours or HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

_LABEL_GAP = 17.0
"""Least distance between the base lines of two labels."""

_LABEL_PITCH = 30.0
"""Least distance between the middles of two labels in one line."""

_MARGIN = 14.0
"""Room beside the ends of a ledger."""

_MARK = 8.0
"""Largest size of a mark on a ledger."""

_MARK_SHARE = 0.65
"""Largest size of a mark as a share of the distance between two."""

_SLACK = 0.07
"""Room above the highest and below the lowest value, as a share of their distance."""

_LABEL_WIDTH = 158.0
"""Room for the labels to the right of a curve."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Label:
    """A name and value at the right end of a line, moved from `y` to `label_y` where others would be too near."""

    name: str
    value: float
    y: float
    label_y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """A learning curve and the free baselines beside it.

    Attributes:
        width: Of the view box.
        height: Of the view box.
        left: Where the plot begins; it ends at `right`, and runs from `top` down to `bottom`.
        points: Place, version and value of each model.
        run: The label of the curve's end.
        baselines: Horizontal lines with their labels.
        x_ticks: Versions.
        y_ticks: Values.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    points: tuple[tuple[float, float, int, float], ...]
    run: Label
    baselines: tuple[Label, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class EntryTrack:
    """Where one of a participant's entries, its block and the model it entered, if any, stand; and the model's name.

    Positions on a ledger; once laid out, places in a view box.
    """

    entry: float
    block: float
    model: float | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A ledger from its first entry to its last, and one participant's way along it.

    Attributes:
        width: Of the view box.
        begin: Where entry 0 stands; the last entry stands at `end`.
        mark: Size of a mark, so that marks of one row stay apart.
        blocks: Where the blocks stand.
        ways: Of the participant's entries.
        labels: Under the models, where there is room.
    """

    width: float
    begin: float
    end: float
    mark: float
    blocks: tuple[float, ...]
    ways: tuple[EntryTrack, ...]
    labels: tuple[Tick, ...]


def curve(
    values: Sequence[tuple[int, float]], baselines: Mapping[str, float], *, width: float, height: float
) -> LineChart | None:
    """Lay out a learning curve.

    Args:
        values: Version and value of each model, versions increasing.
        baselines: Value by name.
        width: Of the view box, > 250.
        height: Of the view box, > 100.

    Returns:
        None when no model has a finite value.
    """
    finite = [(version, value) for version, value in values if math.isfinite(value)]
    if not finite:
        return None
    references = {name: value for name, value in baselines.items() if math.isfinite(value)}
    left, right, top, bottom = 52.0, width - _LABEL_WIDTH, 12.0, height - 46.0
    first, last = finite[0][0], finite[-1][0]
    everything = [value for _, value in finite] + list(references.values())
    slack = _SLACK * (max(everything) - min(everything)) or 0.5
    low, high = min(everything) - slack, max(everything) + slack
    y_values = ticks(low, high)

    def x(version: float) -> float:
        return (left + right) / 2 if first == last else left + (right - left) * (version - first) / (last - first)

    def y(value: float) -> float:
        return min(bottom, max(top, bottom - (bottom - top) * (value - low) / (high - low)))  # but for rounding, inside

    versions = _versions(first, last, int((right - left) / _LABEL_PITCH))
    names = ["this run", *references]
    ends = [finite[-1][1], *references.values()]
    places = spread([y(value) for value in ends], bottom)
    labels = [Label(name, value, y(value), at) for name, value, at in zip(names, ends, places, strict=True)]
    return LineChart(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        points=tuple((x(version), y(value), version, value) for version, value in finite),
        run=labels[0],
        baselines=tuple(labels[1:]),
        x_ticks=tuple(Tick(x(version), str(version)) for version in versions),
        y_ticks=tuple(Tick(y(value), _tick_text(value, y_values[1] - y_values[0])) for value in y_values),
    )


def strip(size: int, blocks: Sequence[int], ways: Sequence[EntryTrack], *, width: float) -> Strip:
    """Lay out a participant's way along a ledger.

    Args:
        size: Entries of the ledger, > 0.
        blocks: Positions of the block entries.
        ways: Of the participant's entries, in ledger order.
        width: Of the view box, > 100.
    """
    begin, end = _MARGIN, width - _MARGIN

    def x(position: float) -> float:
        return begin + (end - begin) * position / max(size - 1, 1)

    placed = [EntryTrack(x(w.entry), x(w.block), None if w.model is None else x(w.model), w.text) for w in ways]
    labels: list[Tick] = []
    for way in placed:
        if way.model is not None and (not labels or way.model - labels[-1].at >= _LABEL_PITCH):
            labels.append(Tick(way.model, way.text))
    return Strip(
        width=width,
        begin=begin,
        end=end,
        mark=max(2.0, min(_MARK, _MARK_SHARE * (end - begin) / max(len(ways), 1))),
        blocks=tuple(map(x, blocks)),
        ways=tuple(placed),
        labels=tuple(labels),
    )


def ticks(low: float, high: float) -> list[float]:
    """Give the multiples of a round number within [low, high], low < high: two to seven of them."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def spread(wanted: Sequence[float], end: float) -> list[float]:
    """Move places as little as is simple, so that none is nearer to another than a label is high.

    Args:
        wanted: Where each should be.
        end: None goes beyond.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = list(wanted)
    for before, this in pairwise(order):
        places[this] = max(places[this], places[before] + _LABEL_GAP)
    limit = end
    for this in reversed(order):
        places[this] = min(places[this], limit)
        limit = places[this] - _LABEL_GAP
    return places


def _versions(first: int, last: int, most: int) -> list[int]:
    step = next(f * 10**k for k in range(9) for f in (1, 2, 5) if (last - first) / (f * 10**k) <= most)
    return list(range(first, last + 1, step))


def _tick_text(value: float, step: float) -> str:
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"

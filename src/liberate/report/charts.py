"""Where the marks of the report's charts are; the template draws them.

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

_SAME = 1e-9
"""Values are the same that differ by no more than this share of their size."""

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


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Where a plot is in its view box, and what its axes measure.

    Attributes:
        width, height: Of the view box.
        left, right, top, bottom: Where the plot begins and ends.
        versions: The first and the last version.
        values: The lowest and the highest value.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    versions: tuple[int, int]
    values: tuple[float, float]

    def x(self, version: float) -> float:
        """Return the place of a version; a single one is in the middle."""
        first, last = self.versions
        share = 0.5 if first == last else (version - first) / (last - first)
        return self.left + (self.right - self.left) * share

    def y(self, value: float) -> float:
        """Return the place of a value."""
        low, high = self.values
        place = self.bottom - (self.bottom - self.top) * (value - low) / (high - low)
        # Rounding may lead out of the frame.
        return min(self.bottom, max(self.top, place))


@dataclass(frozen=True, kw_only=True)
class LineChart(Axes):
    """A learning curve and the free baselines beside it.

    Attributes:
        points: Place, version and value of each model.
        run: The label of the curve's end.
        baselines: Horizontal lines with their labels.
        x_ticks: Versions.
        y_ticks: Values.
    """

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
    axes = Axes(
        width=width,
        height=height,
        left=52.0,
        right=width - _LABEL_WIDTH,
        top=12.0,
        bottom=height - 46.0,
        versions=(finite[0][0], finite[-1][0]),
        values=_range([value for _, value in finite] + list(references.values())),
    )

    run, *others = _labels({"this run": finite[-1][1]} | references, axes)
    versions = _versions(*axes.versions, int((axes.right - axes.left) / _LABEL_PITCH))
    return LineChart(
        **vars(axes),
        points=tuple((axes.x(version), axes.y(value), version, value) for version, value in finite),
        run=run,
        baselines=tuple(others),
        x_ticks=tuple(Tick(axes.x(version), str(version)) for version in versions),
        y_ticks=tuple(Tick(axes.y(value), text) for value, text in _tick_texts(ticks(*axes.values))),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest place of an axis, with room beside the values."""
    low, high = min(values), max(values)
    # Values that differ by rounding alone have no range that ticks could divide.
    is_flat = high - low <= _SAME * max(abs(low), abs(high))
    slack = 0.5 if is_flat else _SLACK * (high - low)
    return low - slack, high + slack


def _labels(values: Mapping[str, float], axes: Axes) -> list[Label]:
    heights = [axes.y(value) for value in values.values()]
    rows = zip(values.items(), heights, spread(heights, axes.bottom), strict=True)
    return [Label(name, value, height, place) for (name, value), height, place in rows]


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
    """Return the multiples of a round number within [low, high], low < high: two to seven of them."""
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


def _tick_texts(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return ticks with as many digits as tell one from the next."""
    digits = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    return [(value, f"{value:.{digits}f}") for value in values]

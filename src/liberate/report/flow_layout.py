"""Layered drawings: things in columns, and links from one column to the next.

Coordinates are CSS pixels of an SVG view box, y downwards; the template draws them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_BOX_WIDTH, _BOX_HEIGHT = 160.0, 42.0
_PITCH_X, _PITCH_Y = 218.0, 54.0
_MARGIN, _HEAD = 24.0, 44.0
_BULGE = 34.0
"""How far a line between two of one column reaches out of it."""

MOST = 24
"""Things in a column; of more, the middle ones become one."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A box in a column.

    Attributes:
        key: Its name, unique in the drawing.
        text: What it is; empty: there is no box, a line passes.
        note: What else there is to say, in smaller letters.
        is_ended: Whether it is no longer valid, or was not used.
        is_marked: Whether the answer is about it.
    """

    key: str
    text: str
    note: str = ""
    is_ended: bool = False
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class FlowGraph:
    """What is to be drawn.

    Attributes:
        title: The question, as a statement.
        columns: Heading and things of each, from left to right.
        links: Keys of two things in one column, or in neighbouring ones from left to right.
    """

    title: str
    columns: tuple[tuple[str, tuple[Thing, ...]], ...]
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A thing with its place: the upper left corner."""

    thing: Thing
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Link:
    """A curve from (x, y) to (to_x, to_y) that leaves the first by `out` and enters the second by `back`.

    Those are the distances of its control points, along x.
    """

    x: float
    y: float
    to_x: float
    to_y: float
    out: float
    back: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A drawing.

    Attributes:
        title: As in the graph.
        width: Of the view box.
        height: Of the view box.
        box_width: Of each box; `box_height` likewise.
        heads: Heading of each column and where it begins.
        boxes: What is seen.
        links: Below them.
    """

    title: str
    width: float
    height: float
    box_width: float
    box_height: float
    heads: tuple[tuple[str, float], ...]
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]


def lay_out(graph: FlowGraph) -> Flow:
    """Place everything: columns side by side, each centred, its things in the order given."""
    graph = _folded(graph)
    rows = max((len(things) for _, things in graph.columns), default=0)

    boxes: dict[str, Box] = {}
    for column, (_, things) in enumerate(graph.columns):
        top = _HEAD + (rows - len(things)) * _PITCH_Y / 2
        for row, thing in enumerate(things):
            boxes[thing.key] = Box(thing, _MARGIN + column * _PITCH_X, top + row * _PITCH_Y)

    return Flow(
        title=graph.title,
        width=2 * _MARGIN + _PITCH_X * (len(graph.columns) - 1) + _BOX_WIDTH + _BULGE,
        height=_HEAD + rows * _PITCH_Y + _MARGIN,
        box_width=_BOX_WIDTH,
        box_height=_BOX_HEIGHT,
        heads=tuple((head, _MARGIN + column * _PITCH_X) for column, (head, _) in enumerate(graph.columns)),
        boxes=tuple(box for box in boxes.values() if box.thing.text),
        links=tuple(_link(boxes[begin], boxes[end]) for begin, end in graph.links)
        + tuple(_through(box) for box in boxes.values() if not box.thing.text),
    )


def _link(begin: Box, end: Box) -> Link:
    from_x = begin.x + _BOX_WIDTH
    middle, to_middle = begin.y + _BOX_HEIGHT / 2, end.y + _BOX_HEIGHT / 2
    if begin.x == end.x:
        return Link(from_x, middle, from_x, to_middle, _BULGE, _BULGE)
    half = (end.x - from_x) / 2
    return Link(from_x, middle, end.x, to_middle, half, -half)


def _through(lane: Box) -> Link:
    middle = lane.y + _BOX_HEIGHT / 2
    return Link(lane.x, middle, lane.x + _BOX_WIDTH, middle, 0.0, 0.0)


def _folded(graph: FlowGraph) -> FlowGraph:
    """Put the middle of each long column into one thing, and let all its links lead there."""
    instead: dict[str, str] = {}
    columns = []

    for index, (head, things) in enumerate(graph.columns):
        shown = things
        if len(things) > MOST:
            begin, end = MOST // 2, len(things) - (MOST - MOST // 2 - 1)
            rest = Thing(f"rest {index}", f"{end - begin:,} more", f"up to {things[end - 1].text}")
            instead |= {thing.key: rest.key for thing in things[begin:end]}
            shown = (*things[:begin], rest, *things[end:])
        columns.append((head, shown))

    links = ((instead.get(begin, begin), instead.get(end, end)) for begin, end in graph.links)
    known = dict.fromkeys((begin, end) for begin, end in links if begin != end)
    return replace(graph, columns=tuple(columns), links=tuple(known))

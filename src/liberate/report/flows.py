"""Answers about data and models as layered drawings: who stands in which column, and what leads from one to another.

Coordinates are CSS pixels of an SVG view box, y downwards; the template draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from liberate.report.words import count

_BOX_WIDTH, _BOX_HEIGHT = 160.0, 42.0
_PITCH_X, _PITCH_Y = 218.0, 54.0
_MARGIN, _HEAD = 24.0, 44.0
_BULGE = 34.0
"""How far a line between two of one column reaches out of it."""

MOST = 24
"""Things in a column; of more, the middle ones become one."""

_MANY = 8
"""More models than this that the same answers have shaped become one."""

_FEW = 4
"""People whose numbers stand in a box."""

_LANE = "lane"


@dataclass(frozen=True, slots=True)
class Thing:
    """What stands in a column.

    Attributes:
        key: Its name among all of the drawing.
        text: What it is; empty: nothing stands there, a line passes.
        note: What else there is to say, in smaller letters.
        is_ended: Whether it holds no more, or was not used.
        is_marked: Whether the answer points at it.
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
        links: Keys of things that are in one column, or in neighbouring ones from left to right.
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
    """Give everything its place: columns side by side, each centred, its things in the order given."""
    graph = _folded(graph)
    rows = max((len(things) for _, things in graph.columns), default=0)
    height = _HEAD + rows * _PITCH_Y + _MARGIN
    width = 2 * _MARGIN + _PITCH_X * (len(graph.columns) - 1) + _BOX_WIDTH + _BULGE
    boxes: dict[str, Box] = {}
    for column, (_, things) in enumerate(graph.columns):
        top = _HEAD + (rows - len(things)) * _PITCH_Y / 2
        for row, thing in enumerate(things):
            boxes[thing.key] = Box(thing, _MARGIN + column * _PITCH_X, top + row * _PITCH_Y)
    return Flow(
        title=graph.title,
        width=width,
        height=height,
        box_width=_BOX_WIDTH,
        box_height=_BOX_HEIGHT,
        heads=tuple((head, _MARGIN + column * _PITCH_X) for column, (head, _) in enumerate(graph.columns)),
        boxes=tuple(box for box in boxes.values() if box.thing.text),
        links=tuple(_link(boxes[begin], boxes[end]) for begin, end in graph.links)
        + tuple(_through(box) for box in boxes.values() if not box.thing.text),
    )


def flow_of(found: Mapping[str, Any]) -> Flow:
    """Give the drawing of an answer of `liberate trace`.

    Args:
        found: As `--json` has it.
    """
    if "candidates" in found:
        return lay_out(_leak(found))
    if "version" in found:
        return lay_out(_version(found))
    if "senders" in found:
        return lay_out(_received(found))
    return lay_out(_person(found))


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
    """Put the middle of each long column into one thing."""
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


def _person(found: Mapping[str, Any]) -> FlowGraph:
    """Draw where a person's data went, or one share of it."""
    is_share = "sender" in found
    person = found["sender"] if is_share else found
    number, (own, shares) = person["number"], (() if is_share else found["updates"], found["shares"])
    copies = [_copy(each) for each in shares]
    recipients = [_party(each) for each in sorted(found["recipients"], key=lambda each: min(each["shares"]))]
    links = [("person", f"entry {each['position']}") for each in shares]
    links += [(f"entry {each['position']}", f"party {each['recipient']}") for each in shares]
    if own:
        copies.insert(0, Thing(_LANE, ""))
        recipients.insert(0, Thing("device", "own device"))
        links += [("person", _LANE), (_LANE, "device")]
    answers = _answers(own, found["uses"], [each.key for each in recipients])
    links += [(source, key) for key, answer in answers.items() for source in answer.sources]
    models: dict[str, Thing] = {}
    for versions, keys in _models(answers, [each["version"] for each in found["models"]]):
        thing = Thing(f"model {versions[0]}", _span("model", versions))
        models[thing.key] = thing
        links += [(key, thing.key) for key in keys]
    columns = [
        ("participant", [Thing("person", f"participant {number}", is_marked=not is_share)]),
        ("copies", copies),
        ("received by", recipients),
        ("used in", [answer.thing for answer in answers.values()]),
        ("models", list(models.values())),
    ]
    if found["descendants"]:
        later = [each["version"] for each in found["descendants"]]
        columns.append(("built on these", [Thing("later", _span("model", later))]))
        links.append((list(models)[-1], "later"))
    what = f"copy of entry {shares[0]['position']}" if is_share else f"data of participant {number}"
    return _graph(f"Where the {what} went", columns, links)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer or pool, or several of one source: where the data came from, and the versions that they shaped."""

    thing: Thing
    sources: tuple[str, ...]
    versions: frozenset[int]


def _answers(
    own: Sequence[Mapping[str, Any]], uses: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> dict[str, _Answer]:
    """Give answers and pools by key, in ledger order; of too many, those of one source as one, in their order."""
    entries = {each["position"]: each for each in (*uses, *own)}
    sources: dict[int, list[str]] = {at: [] for at in sorted(entries)}
    for each in own:
        sources[each["position"]].append("device")
    for each in uses:
        sources[each["position"]].append(f"party {each['by']}")
    groups: dict[tuple[object, ...], list[int]] = {}
    are_many = len(entries) > MOST
    for at in sorted(sources, key=lambda at: order.index(sources[at][0])) if are_many else sources:
        group = (*sources[at], entries[at]["kind"], entries[at]["outcome"]) if are_many else (at,)
        groups.setdefault(group, []).append(at)
    answers = {}
    for positions in groups.values():
        some = [entries[at] for at in positions]
        versions = frozenset(each["version"] for each in some if each["version"] is not None)
        thing = _answer(some)
        answers[thing.key] = _Answer(thing, tuple(sources[positions[0]]), versions)
    return answers


def _models(answers: Mapping[str, _Answer], versions: Sequence[int]) -> list[tuple[list[int], tuple[str, ...]]]:
    """Give models with what shaped them; of too many, those shaped by the same as one."""
    groups: dict[tuple[object, ...], tuple[list[int], tuple[str, ...]]] = {}
    for version in versions:
        keys = tuple(key for key, answer in answers.items() if version in answer.versions)
        groups.setdefault(keys if len(versions) > _MANY else (version,), ([], keys))[0].append(version)
    return list(groups.values())


def _version(found: Mapping[str, Any]) -> FlowGraph:
    """Draw who shaped a model, its parents above it."""
    sources, answers, models = [], [], []
    links = []
    for kind, words in (("answers", "own answers"), ("copies", "copies others used"), ("pooled", "copies in the pool")):
        participants = [each["number"] for each in found["participants"] if each[kind]]
        if participants:
            sources.append(Thing(kind, words, _participants(participants)))
    for step in reversed(found["models"]):
        version = f"model {step['version']}"
        models.append(Thing(version, version, f"round {step['round']}", is_marked=step["version"] == found["version"]))
        parts = {"answers": step["participants"], "copies": step["senders"], "pooled": step["pooled"]}
        for kind, of in parts.items():
            if of:
                key = f"{kind} {step['version']}"
                answers.append(Thing(key, f"{kind}, round {step['round']}", count(len(of), "participant")))
                links += [(kind, key), (key, version)]
    links += [(before.key, after.key) for before, after in pairwise(models)]
    columns = [("participants", sources), ("used in", answers), ("models", models)]
    return _graph(f"Who shaped model {found['version']}", columns, links)


def _received(found: Mapping[str, Any]) -> FlowGraph:
    """Draw what somebody received from whom."""
    links = [(f"party {each['sender']}", f"entry {each['position']}") for each in found["shares"]]
    links += [(f"entry {each['position']}", "recipient") for each in found["shares"]]
    recipient = Thing("recipient", f"{found['role']} {found['number']}", is_marked=True)
    columns = [
        ("senders", [_party(each) for each in found["senders"]]),
        ("copies", [_copy(each) for each in found["shares"]]),
        ("received by", [recipient]),
    ]
    return _graph(f"What {found['role']} {found['number']} received", columns, links)


def _leak(found: Mapping[str, Any]) -> FlowGraph:
    """Draw whose copies rows that leaked may be: everybody who got copies, the accused joined to the leak."""
    links = [(f"owner {owner}", f"party {each['number']}") for each in found["candidates"] for owner in each["senders"]]
    links += [(f"party {each['number']}", "leak") for each in found["candidates"] if each["accused"]]
    candidates = [
        replace(_party(each), note=f"false at most {each['bound']:.1g}", is_marked=each["accused"])
        for each in found["candidates"]
    ]
    owners = dict.fromkeys(each["number"] for each in found["owners"])
    columns = [
        ("senders", [Thing(f"owner {owner}", f"participant {owner}") for owner in owners]),
        ("candidates", candidates),
        ("leak", [Thing("leak", f"{found['leak']['rows']:,} rows", f"{found['leak']['matched']:,} of known copies")]),
    ]
    return _graph("Whose copies leaked", columns, links)


def _graph(title: str, columns: Iterable[tuple[str, Sequence[Thing]]], links: Iterable[tuple[str, str]]) -> FlowGraph:
    return FlowGraph(title, tuple((head, tuple(things)) for head, things in columns), tuple(links))


def _copy(share: Mapping[str, Any]) -> Thing:
    protection = "open" if share["epsilon"] is None else f"ε = {share['epsilon']:g} each"
    standing = "" if share["is_active"] else ", withdrawn" if share["withdrawn"] is not None else ", expired"
    key = f"entry {share['position']}"
    return Thing(key, f"share {share['position']}", protection + standing, is_ended=not share["is_active"])


def _party(party: Mapping[str, Any]) -> Thing:
    key = f"party {party['number']}"
    return Thing(key, f"{party['role']} {party['number']}", "pool" if party["role"] == "coordinator" else "")


def _answer(some: Sequence[Mapping[str, Any]]) -> Thing:
    first, is_used = some[0], some[0]["outcome"] == "used"
    rounds = _span("round", [each["round"] for each in some]) + ("" if is_used else f", {first['outcome']}")
    text = f"{first['kind']} {first['position']}" if len(some) == 1 else f"{len(some)} {first['kind']}s"
    return Thing(f"entry {first['position']}", text, rounds, is_ended=not is_used)


def _span(name: str, numbers: Sequence[int]) -> str:
    """Name one thing, or several by the first and the last."""
    return f"{name} {numbers[0]}" if len(numbers) == 1 else f"{name}s {numbers[0]} to {numbers[-1]}"


def _participants(numbers: Sequence[int]) -> str:
    if len(numbers) > _FEW:
        return count(len(numbers), "participant")
    return f"of {', '.join(map(str, numbers))}"

"""Answers are drawn: what the answer names stands in its column, and what leads to it is joined to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate import report
from liberate.identifiers import Digest, KeyId
from liberate.report.flow_layout import MOST, Flow, FlowGraph, Thing, lay_out
from liberate.report.flows import flow_of
from liberate.runs.folder import Run
from liberate.tracing.entry_answers import UseAnswer
from liberate.tracing.leak.answers import BaseOwner, CandidateAnswer, LeakAnswer, LeakSummary
from liberate.tracing.model_trace import trace_model
from liberate.tracing.parties import Party
from liberate.tracing.traces import trace_participant, trace_recipient, trace_share
from tests.runs.sharing import sharing_run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sharing_run(tmp_path_factory.mktemp("run"))


def columns(flow: Flow) -> dict[str, list[str]]:
    """What stands under each heading."""
    return {head: [box.thing.text for box in flow.boxes if box.x == x] for head, x in flow.heads}


def joined(flow: Flow, begin: str, end: str) -> bool:
    """Whether a line leads from one box to another."""
    (source,), (target,) = ([box for box in flow.boxes if box.thing.text == text] for text in (begin, end))
    ends = {(link.x, link.y, link.to_x, link.to_y) for link in flow.links}
    half = flow.box_height / 2
    to_x = target.x + (flow.box_width if source.x == target.x else 0)
    return (source.x + flow.box_width, source.y + half, to_x, target.y + half) in ends


def test_a_person_is_joined_to_models_through_copies_and_recipients(run: Run) -> None:
    flow = flow_of(trace_participant(run, "3"))

    found = columns(flow)
    assert found["participant"] == ["participant 3"]
    assert found["copies"] == ["share 16", "share 20", "share 24"]
    assert found["received by"] == ["own device", "participant 4", "participant 5", "coordinator 2"]
    assert found["used in"] == ["pool 44", "update 46", "update 47", "update 48", "update 63"]
    assert found["models"] == ["model 1", "model 2"]
    for begin, end in [
        ("participant 3", "share 16"),
        ("share 16", "participant 4"),
        ("participant 4", "update 47"),
        ("update 47", "model 1"),
        ("own device", "update 63"),
        ("coordinator 2", "pool 44"),
    ]:
        assert joined(flow, begin, end), (begin, end)
    assert not joined(flow, "participant 4", "update 48")
    assert all(box.thing.is_ended for box in flow.boxes if box.thing.text.startswith("share"))
    assert flow.title == "Where the data of participant 3 went"


def test_many_answers_of_one_source_are_drawn_as_one(run: Run) -> None:
    """30 updates and 30 uses of a copy, of which the last one shaped no model."""
    found = trace_participant(run, "5")
    updates = [replace(found.updates[0], position=100 + 2 * i, round=i, version=i) for i in range(1, 31)]
    uses = [UseAnswer(**vars(update) | {"position": update.position + 1}, by=3, shares=(1,)) for update in updates[:-1]]
    lost = replace(uses[0], position=999, round=31, version=None, outcome="aborted")
    models = tuple(replace(found.models[0], version=i) for i in range(1, 31))

    flow = flow_of(replace(found, updates=tuple(updates), uses=(*uses, lost), models=models, descendants=()))

    notes = {box.thing.text: box.thing.note for box in flow.boxes}
    assert columns(flow)["used in"] == ["30 updates", "29 updates", "update 999"]
    assert [notes[text] for text in columns(flow)["used in"]] == [
        "rounds 1 to 30",
        "rounds 1 to 29",
        "round 31, aborted",
    ]
    assert columns(flow)["models"] == ["models 1 to 29", "model 30"]
    assert joined(flow, "29 updates", "models 1 to 29")
    assert joined(flow, "30 updates", "model 30")
    assert not joined(flow, "29 updates", "model 30")
    assert joined(flow, "participant 3", "29 updates")


def test_one_share_is_drawn_alone(run: Run) -> None:
    found = columns(flow_of(trace_share(run, 16)))

    assert list(found.values()) == [
        ["participant 3"], ["share 16"], ["participant 4"], ["update 47"], ["model 1"], ["model 2"],
    ]  # fmt: skip


def test_a_model_is_joined_to_its_parent_and_to_whoever_shaped_it(run: Run) -> None:
    flow = flow_of(trace_model(run, 2))

    assert columns(flow)["participants"] == ["own updates", "copies others used", "copies in the pool"]
    assert joined(flow, "model 1", "model 2")
    assert joined(flow, "pooled, round 2", "model 2")
    assert [box.thing.text for box in flow.boxes if box.thing.is_marked] == ["model 2"]


def test_what_was_received_is_joined_to_its_senders(run: Run) -> None:
    flow = flow_of(trace_recipient(run, "2"))

    assert columns(flow) == {
        "senders": ["participant 3", "participant 4"],
        "copies": ["share 24", "share 30"],
        "received by": ["coordinator 2"],
    }
    assert joined(flow, "participant 4", "share 30")


def test_only_the_accused_are_joined_to_a_leak() -> None:
    def party(number: int) -> Party:
        return Party(number=number, role="participant", key_id=KeyId(""), user_id=None)

    def candidate(number: int, *, accused: bool) -> CandidateAnswer:
        return CandidateAnswer(
            **vars(party(number)),
            log10_likelihood=4.0,
            bound=0.0001,
            accused=accused,
            senders=(3, 4),
            also_held_by=(),
            evidence=(),
        )

    flow = flow_of(
        LeakAnswer(
            format="liberate-leak/1",
            leak=LeakSummary(sha256="", rows=1200, users=2, matched=900),
            disclosures=(),
            owners=tuple(
                BaseOwner(**vars(party(number)), base=Digest(bytes(32)), rows=300, epsilon=None) for number in (3, 4, 3)
            ),
            candidates=(candidate(8, accused=True), candidate(9, accused=False)),
            unopened=(),
            proofs=0,
            entry_count=0,
            root=Digest(bytes(32)),
            checkpoint="",
        )
    )

    assert columns(flow) == {
        "senders": ["participant 3", "participant 4"],
        "candidates": ["participant 8", "participant 9"],
        "leak": ["1,200 rows"],
    }
    assert joined(flow, "participant 8", "1,200 rows")
    assert not joined(flow, "participant 9", "1,200 rows")
    assert joined(flow, "participant 3", "participant 9")
    assert [box.thing.text for box in flow.boxes if box.thing.is_marked] == ["participant 8"]


@given(st.lists(st.integers(1, 3 * MOST), min_size=1, max_size=5), st.data())
def test_every_mark_lies_inside_the_drawing(sizes: list[int], data: st.DataObject) -> None:
    things = [tuple(Thing(f"{c} {i}", f"thing {i}") for i in range(size)) for c, size in enumerate(sizes)]
    links = [
        (f"{c} {data.draw(st.integers(0, sizes[c] - 1))}", f"{c + 1} {data.draw(st.integers(0, sizes[c + 1] - 1))}")
        for c in range(len(sizes) - 1)
    ]

    flow = lay_out(FlowGraph("title", tuple((f"column {c}", each) for c, each in enumerate(things)), tuple(links)))

    assert len(flow.boxes) == sum(min(size, MOST) for size in sizes)
    assert len({(box.x, box.y) for box in flow.boxes}) == len(flow.boxes)
    for box in flow.boxes:
        assert 0 <= box.x <= flow.width - flow.box_width
        assert 30 <= box.y <= flow.height - flow.box_height
    assert len(flow.links) <= len(set(links))
    for link in flow.links:
        assert 0 <= link.x < link.to_x <= flow.width


def test_the_middle_of_a_long_column_becomes_one_thing_with_all_its_links() -> None:
    many = tuple(Thing(f"u{i}", f"update {i}") for i in range(100))
    links = tuple((each.key, "model") for each in many)

    flow = lay_out(FlowGraph("title", (("used in", many), ("models", (Thing("model", "model 1"),))), links))

    assert len(flow.boxes) == MOST + 1
    rest = next(box.thing for box in flow.boxes if "more" in box.thing.text)
    assert (rest.text, rest.note) == ("77 more", "up to update 88")
    assert len(flow.links) == MOST


def test_the_file_is_an_svg_that_loads_nothing_and_keeps_text_text(run: Run, tmp_path: Path) -> None:
    found = trace_participant(run, "3")
    hostile = replace(found.recipients[0], role="<script>&")  # type: ignore[arg-type]  # no role, and so the worst one

    report.draw(replace(found, recipients=(hostile, *found.recipients[1:])), tmp_path / "trace.svg")

    drawing = ElementTree.parse(tmp_path / "trace.svg").getroot()
    assert drawing.tag == f"{SVG}svg"
    assert not drawing.findall(f".//{SVG}script")
    assert any("<script>&" in (each.text or "") for each in drawing.iter(f"{SVG}text"))
    text = (tmp_path / "trace.svg").read_text("utf-8")
    assert "href" not in text
    assert text.count("http") == 1, "the namespace alone"

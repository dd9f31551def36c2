"""Charts: every mark inside its frame, every label readable."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from liberate.report.charts import EntryTrack, curve, spread, strip, ticks

BASELINES = {"global mean": 1.12, "user mean": 1.04, "damped biases": 0.94}

values = st.floats(0.01, 100.0)


def test_curve_falls_as_the_error_falls_and_meets_the_frame_at_its_versions() -> None:
    chart = curve([(0, 1.05), (1, 0.95), (2, 0.90)], BASELINES, width=800, height=300)

    assert chart is not None
    xs, ys = [x for x, *_ in chart.points], [y for _, y, *_ in chart.points]
    assert (xs[0], xs[-1]) == (chart.left, chart.right)
    assert ys == sorted(ys)
    assert chart.run.y == ys[-1]
    assert [line.name for line in chart.baselines] == list(BASELINES)
    assert chart.baselines[0].y < chart.baselines[1].y < chart.baselines[2].y < chart.run.y
    assert [tick.text for tick in chart.x_ticks] == ["0", "1", "2"]
    assert [tick.text for tick in chart.y_ticks] == ["0.90", "0.95", "1.00", "1.05", "1.10"]


@example(errors=[6.3], references=[], width=400.0)  # a tick at 34 * 0.2 is above 6.8
@example(errors=[100.0], references=[99.99999999999999], width=400.0)  # a range below the resolution of floats
@given(st.lists(values, min_size=1, max_size=90), st.lists(values, max_size=3), st.sampled_from([400.0, 880.0]))
def test_all_marks_of_a_curve_lie_within_its_frame(errors: list[float], references: list[float], width: float) -> None:
    named = {f"baseline {i}": value for i, value in enumerate(references)}

    chart = curve(list(enumerate(errors)), named, width=width, height=300)

    assert chart is not None
    labels = [chart.run, *chart.baselines]
    heights = [y for _, y, *_ in chart.points] + [tick.at for tick in chart.y_ticks] + [label.y for label in labels]
    assert all(chart.top <= y <= chart.bottom for y in heights)
    assert all(chart.left <= x <= chart.right for x in [x for x, *_ in chart.points] + [t.at for t in chart.x_ticks])
    assert all(0 < label.label_y <= chart.bottom for label in labels)
    assert all(abs(b.label_y - a.label_y) >= 16.9 for a in labels for b in labels if a is not b)
    assert len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks) >= 2


def test_a_single_model_stands_in_the_middle() -> None:
    chart = curve([(0, 1.0)], {}, width=800, height=300)

    assert chart is not None
    assert chart.points[0][0] == (chart.left + chart.right) / 2
    assert [tick.text for tick in chart.x_ticks] == ["0"]


def test_nothing_held_out_makes_no_curve() -> None:
    assert curve([(0, math.nan), (1, math.nan)], {"user mean": math.nan}, width=800, height=300) is None


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_few_evenly_spaced_and_inside(low: float, length: float) -> None:
    found = ticks(low, low + length)

    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= low + length + 1e-9 for tick in found)
    assert all(math.isclose(b - a, found[1] - found[0], rel_tol=1e-6) for a, b in pairwise(found))


def test_labels_that_are_far_apart_stay_where_they_are() -> None:
    assert spread([100.0, 20.0, 60.0], 200.0) == [100.0, 20.0, 60.0]


def test_labels_at_the_end_make_room_upwards() -> None:
    assert spread([200.0, 199.0], 200.0) == [200.0, 183.0]


def test_strip_joins_an_entry_to_its_block_and_model() -> None:
    chart = strip(101, [50, 100], [EntryTrack(0, 50, None, ""), EntryTrack(60, 100, 80, "v1")], width=228)

    assert chart.blocks == (114.0, 214.0)
    assert chart.ways == (EntryTrack(14.0, 114.0, None, ""), EntryTrack(134.0, 214.0, 174.0, "v1"))
    assert [label.text for label in chart.labels] == ["v1"]


@pytest.mark.parametrize(("width", "shown"), [(880.0, 80), (400.0, 80), (400.0, 3)])
def test_marks_and_labels_of_a_strip_do_not_overlap(width: float, shown: int) -> None:
    ways = [EntryTrack(10 * i, 10 * i + 5, 10 * i + 6, f"v{i}") for i in range(shown)]

    chart = strip(10 * shown, [10 * i + 5 for i in range(shown)], ways, width=width)

    assert len(chart.ways) == shown
    assert all(b.at - a.at >= 30 for a, b in pairwise(chart.labels))
    assert len(chart.labels) >= min(shown, width / 60)
    places = [way.entry for way in chart.ways]
    assert all(b - a > chart.mark for a, b in pairwise(places))

"""Names beside lines do not overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from liberate_studies.drawing import apart, name_beside

GAP = 0.1


@given(st.lists(st.floats(0, 1), max_size=8).map(sorted))
def test_heights_are_apart_and_in_order(heights: list[float]) -> None:
    found = apart(heights, GAP)

    assert len(found) == len(heights)
    assert all(above - below >= GAP * (1 - 1e-9) for below, above in pairwise(found))
    assert sum(found) == pytest.approx(sum(heights))


@given(st.lists(st.integers(0, 9), unique=True).map(sorted))
def test_heights_that_are_apart_stay(heights: list[int]) -> None:
    assert apart([0.2 * height for height in heights], GAP) == pytest.approx([0.2 * height for height in heights])


def test_name_stands_at_the_height_of_its_line() -> None:
    axes = Figure().subplots()
    axes.axhline(0.25)
    axes.set_ylim(0, 1)

    name_beside(axes, [(0.25, "a quarter", "black")])

    assert axes.texts[0].get_position() == pytest.approx((1.02, 0.25))

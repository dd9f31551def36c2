"""Ratings perturbed once each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.privacy.randomised_response import LARGEST_EPSILON, respond

KEY = bytes(range(32))


@pytest.mark.parametrize("n_levels", [2, 5, 10])
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_each_answer_is_as_likely_as_epsilon_allows(n_levels: int, epsilon: float) -> None:
    n = 200_000
    items = np.arange(n, dtype=np.int32)

    for place in (0, n_levels - 1):
        answers = respond(np.full(n, place, np.int32), items, n_levels, epsilon, KEY)

        weights = np.where(np.arange(n_levels) == place, math.exp(epsilon), 1.0)
        expected = weights / weights.sum()
        found = np.bincount(answers, minlength=n_levels) / n
        assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / n))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 300)), unique_by=lambda row: row[1]), st.data())
def test_an_item_is_answered_once_for_good(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    places, items = (np.array([row[i] for row in rows], np.int32) for i in (0, 1))
    some = np.array(data.draw(st.permutations(range(len(rows)))), np.int32)[: len(rows) // 2]

    answers = respond(places, items, 5, 1.0, KEY)

    assert np.all((answers >= 0) & (answers < 5))
    np.testing.assert_array_equal(respond(places[some], items[some], 5, 1.0, KEY), answers[some])


def test_the_largest_epsilon_keeps_every_rating_and_another_key_answers_otherwise() -> None:
    places, items = np.arange(1000, dtype=np.int32) % 5, np.arange(1000, dtype=np.int32)

    np.testing.assert_array_equal(respond(places, items, 5, LARGEST_EPSILON, KEY), places)
    assert (respond(places, items, 5, 1.0, KEY) != respond(places, items, 5, 1.0, bytes(32))).any()


@pytest.mark.parametrize(
    ("place", "n_levels", "epsilon", "key"),
    [(5, 5, 1.0, KEY), (-1, 5, 1.0, KEY), (0, 1, 1.0, KEY), (0, 5, 0.0, KEY), (0, 5, math.nan, KEY), (0, 5, 1.0, b"")],
)
def test_what_cannot_be_answered_is_refused(place: int, n_levels: int, epsilon: float, key: bytes) -> None:
    with pytest.raises(ValueError, match=r"outside|wanted"):
        respond(np.array([place], np.int32), np.zeros(1, np.int32), n_levels, epsilon, key)

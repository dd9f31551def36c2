"""Neighbours follow from a committed seed alone, and every set of others is as likely."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from liberate.errors import PrivacyError
from liberate.privacy.mask_parameters import MaskAssumptions, mask_parameters
from liberate.privacy.neighbour_graph import NeighbourGraph, draw_graph, draw_neighbours, seed_commitment
from tests.privacy.mask_worlds import components, exposed_sums

CONTEXT = bytes(range(32))


def seed_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def graph_of(size: int, degree: int) -> NeighbourGraph:
    participants = [3 * i + 5 for i in range(size)]
    return draw_graph({number: seed_of(number) for number in participants}, CONTEXT, participants, degree)


@pytest.mark.parametrize(("size", "degree"), [(20, 3), (50, 48), (100, 61), (300, 40)])
def test_everybody_chooses_as_many_others_and_is_known_to_whom_it_chose(size: int, degree: int) -> None:
    graph = graph_of(size, degree)

    for number in graph.participants.tolist():
        out = graph.out_neighbours(number)
        assert len({*out} - {number}) == degree
        assert list(out) == sorted(out)
        assert all(number in graph.in_neighbours(other) for other in out)
        assert all(number in graph.out_neighbours(other) for other in graph.in_neighbours(number))
        assert graph.neighbours(number) == tuple(sorted({*out, *graph.in_neighbours(number)}))


@pytest.mark.parametrize(("size", "degree"), [(1, 0), (2, 1), (7, 6), (7, 9)])
def test_in_the_complete_graph_everybody_is_a_neighbour(size: int, degree: int) -> None:
    graph = graph_of(size, degree)

    assert graph.is_complete
    for number in graph.participants.tolist():
        others = tuple(other for other in graph.participants.tolist() if other != number)
        assert graph.out_neighbours(number) == graph.in_neighbours(number) == graph.neighbours(number) == others


@pytest.mark.parametrize(("size", "degree"), [(943, 54), (60, 57)])
def test_one_draw_alone_is_that_of_the_graph(size: int, degree: int) -> None:
    graph = graph_of(size, degree)
    participants = graph.participants.tolist()

    for number in participants[::7]:
        drawn = draw_neighbours(seed_of(number), CONTEXT, participants, number, degree)
        assert drawn == graph.out_neighbours(number)


def test_who_revealed_no_seed_chooses_nobody_and_may_be_chosen() -> None:
    participants = list(range(30))
    seeds = {number: seed_of(number) for number in participants if number != 7}

    graph = draw_graph(seeds, CONTEXT, participants, 10)

    assert graph.out_neighbours(7) == ()
    assert graph.neighbours(7) == graph.in_neighbours(7) != ()
    assert graph.out_neighbours(8) == draw_neighbours(seed_of(8), CONTEXT, participants, 8, 10)


def test_who_advertised_nothing_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="did not advertise"):
        graph_of(10, 3).out_neighbours(6)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_every_set_of_others_is_as_likely(degree: int) -> None:
    """Chi-square over all sets, at a level that a right draw misses once in a million."""
    participants, drawn = list(range(7)), 1500
    seen = Counter(draw_neighbours(seed_of(i), CONTEXT, participants, 3, degree) for i in range(drawn))
    sets = list(combinations([0, 1, 2, 4, 5, 6], degree))

    expected = drawn / len(sets)
    statistic = sum((seen[s] - expected) ** 2 / expected for s in sets)
    assert set(seen) <= set(sets)
    assert statistic < chi2.isf(1e-6, len(sets) - 1)


def test_a_draw_depends_on_seed_context_and_participants_alone() -> None:
    participants = list(range(100))
    drawn = draw_neighbours(seed_of(1), CONTEXT, participants, 50, 10)

    assert draw_neighbours(seed_of(1), CONTEXT, participants, 50, 10) == drawn
    assert draw_neighbours(seed_of(2), CONTEXT, participants, 50, 10) != drawn
    assert draw_neighbours(seed_of(1), bytes(32), participants, 50, 10) != drawn
    assert draw_neighbours(seed_of(1), CONTEXT, list(range(101)), 50, 10) != drawn


def test_a_person_buried_under_neighbours_is_told() -> None:
    participants = list(range(200))
    seeds = {}
    for number in range(1, 10):
        tried = map(seed_of, range(100_000))
        seeds[number] = next(s for s in tried if 0 in draw_neighbours(s, CONTEXT, participants, number, 2))

    graph = draw_graph(seeds, CONTEXT, participants, 2)

    assert graph.in_neighbours(0) == tuple(range(1, 10))
    with pytest.raises(PrivacyError, match="9 people chose 0"):
        graph.verify_in_degree(0)
    graph.verify_in_degree(100)


def test_a_commitment_is_another_for_every_seed() -> None:
    assert seed_commitment(bytes(32)) != seed_commitment(seed_of(1))
    assert seed_commitment(bytes(32)) == seed_commitment(bytes(32))


# --- what follows for a coordinator -----------------------------------------------------------------------------------


def among(people: set[int], graph: NeighbourGraph) -> dict[int, set[int]]:
    return {number: {*graph.neighbours(number)} & people for number in people}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exactly_one_sum_of_each_connected_part_of_the_honest_follows(data: st.DataObject) -> None:
    """Whoever the coordinator declares gone, and whatever its accomplices know."""
    size, colluders = data.draw(st.integers(4, 9)), data.draw(st.integers(0, 2))
    seeds = {number: data.draw(st.binary(min_size=32, max_size=32)) for number in range(size)}
    graph = draw_graph(seeds, CONTEXT, range(size), data.draw(st.integers(1, size - 1)))
    shared = data.draw(st.sets(st.integers(colluders, size - 1), min_size=1))
    survivors = {number for number in shared if data.draw(st.booleans())}

    told = among(shared, graph)

    assert exposed_sums(shared, told, survivors) == len(components(survivors, told))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_sum_of_enough_honest_people_follows_from_a_small_cohort(data: st.DataObject) -> None:
    colluders, dropouts = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    size = data.draw(st.integers(colluders + dropouts + 2, colluders + dropouts + 4))
    assumptions = MaskAssumptions(
        n_participants=size,
        max_colluders=colluders,
        max_dropouts=dropouts,
        max_late_dropouts=dropouts,
        max_attempts=64,
    )
    seeds = {number: seed_of(number) for number in range(size)}
    graph = draw_graph(seeds, CONTEXT, range(size), mask_parameters(assumptions).degree)
    gone = data.draw(st.sets(st.integers(0, size - 1), max_size=dropouts))
    honest = set(range(colluders, size))

    survivors = honest - gone

    assert exposed_sums(honest, among(honest, graph), survivors) == 1
    assert len(survivors) >= assumptions.honest_survivors


def test_lists_told_to_each_device_alone_would_expose_more_than_one_sum() -> None:
    """Why a device masks with exactly the neighbours on record."""
    people = set(range(6))
    graph = draw_graph({number: seed_of(number) for number in people}, CONTEXT, range(6), 5)
    told = {number: {other for other in graph.neighbours(number) if (other < 3) == (number < 3)} for number in people}

    assert exposed_sums(people, among(people, graph), people) == 1
    assert exposed_sums(people, told, people) == 2


def test_edges_that_only_the_chooser_knows_would_expose_whom_it_chose() -> None:
    """Why a device masks with whoever chose it, too."""
    told: dict[int, set[int]] = {0: {1, 2, 3, 4}, 1: set(), 2: set(), 3: set(), 4: set()}

    assert exposed_sums(set(told), told, set(told)) == 4

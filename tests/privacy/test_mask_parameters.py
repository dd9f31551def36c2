"""Masks bear what they are said to bear: known parameters, exact sums, and adversaries who try every move."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import assume as suppose
from hypothesis import given, settings
from hypothesis import strategies as st

from liberate.errors import PrivacyError
from liberate.privacy.mask_parameters import (
    MaskAssumptions,
    MaskParameters,
    complete_thresholds,
    log2_failure,
    mask_parameters,
    masks_bear,
    most_colluders,
    strays,
    verify_masks,
)
from scripts import describe_masks
from tests.privacy.mask_worlds import play_dropouts


def assume(n: int, colluders: int, dropouts: int, *, late: int | None = None, attempts: int = 64) -> MaskAssumptions:
    return MaskAssumptions(
        n_participants=n,
        max_colluders=colluders,
        max_dropouts=dropouts,
        max_late_dropouts=dropouts if late is None else late,
        max_attempts=attempts,
    )


@pytest.mark.parametrize(
    ("assumptions", "degree", "threshold"),
    [
        (assume(100, 10, 10), 21, 11),
        (assume(943, 95, 95), 54, 31),
        (assume(943, 283, 95), 115, 80),
        (assume(943, 95, 189, late=19), 38, 27),
        (assume(6040, 604, 604), 63, 36),
        (assume(10**6, 10**5, 10**5), 75, 42),
    ],
)
def test_known_parameters(assumptions: MaskAssumptions, degree: int, threshold: int) -> None:
    parameters = mask_parameters(assumptions)

    assert parameters == MaskParameters(degree=degree, threshold=threshold)
    verify_masks(parameters, assumptions)
    assert not masks_bear(replace(parameters, threshold=threshold - 2), assumptions)


def test_a_complete_graph_exists_exactly_if_two_more_than_colluders_and_dropouts_are_named() -> None:
    for n in range(1, 14):
        for colluders in range(n):
            for dropouts in range(n):
                assumptions = assume(n, colluders, dropouts)
                if n >= colluders + dropouts + 2:
                    verify_masks(mask_parameters(assumptions), assumptions)
                else:
                    with pytest.raises(PrivacyError, match="no masks bear"):
                        mask_parameters(assumptions)


def test_the_complete_graph_bears_colluders_below_its_threshold_for_certain() -> None:
    parameters = mask_parameters(assume(5, 1, 1))

    assert parameters == MaskParameters(degree=4, threshold=2)
    assert log2_failure(parameters, assume(5, 1, 1)) == float("-inf")
    assert strays(parameters, assume(5, 1, 1)) == 0
    assert not masks_bear(parameters, assume(5, 2, 1))


@pytest.mark.parametrize(("n", "colluders", "dropouts"), [(5, 1, 1), (100, 10, 5), (943, 95, 48)])
def test_masks_bear_as_many_colluders_as_they_say_and_no_more(n: int, colluders: int, dropouts: int) -> None:
    assumptions = assume(n, colluders, dropouts)
    parameters = mask_parameters(assumptions)

    most = most_colluders(parameters, assumptions)

    assert most >= colluders
    assert masks_bear(parameters, replace(assumptions, max_colluders=most))
    assert not masks_bear(parameters, replace(assumptions, max_colluders=most + 1))


def test_three_parties_bear_one_colluder_if_nobody_drops_out() -> None:
    assert list(complete_thresholds(assume(3, 1, 0))) == [2]
    assert not complete_thresholds(assume(3, 1, 1))
    assert not complete_thresholds(assume(3, 2, 0))
    assert list(complete_thresholds(assume(5, 1, 1))) == [2, 3]


def test_twenty_neighbours_bear_no_tenth_of_colluders() -> None:
    with pytest.raises(PrivacyError, match="do not bear 95 colluders"):
        verify_masks(MaskParameters(degree=20, threshold=14), assume(943, 95, 95))


def test_the_page_of_tables_says_what_the_code_computes() -> None:
    page = describe_masks.PAGE.read_text("utf-8")

    for n, colluders, dropouts in ((100, 10, 5), (100, 40, 20), (943, 10, 5), (6_040, 20, 10)):
        section = page.partition(f"### {n:,} people\n")[2].partition("###")[0]
        assert describe_masks.people_row(n, colluders, dropouts) in section
    assert all(describe_masks.party_row(n) in page for n in describe_masks.PARTIES)


# --- against an exact sum ---------------------------------------------------------------------------------------------


@cache
def exact_tail(least: int, population: int, marked: int, draws: int) -> Fraction:
    hits = range(least, min(draws, marked) + 1)
    ways = sum(math.comb(marked, j) * math.comb(population - marked, draws - j) for j in hits)
    return Fraction(ways, math.comb(population, draws))


def exact_failure(parameters: MaskParameters, assumptions: MaskAssumptions) -> Fraction:
    """Sum the union bound with nothing rounded, for the worst number of people who advertise."""
    degree, threshold, colluders = parameters.degree, parameters.threshold, assumptions.max_colluders
    worst = Fraction(0)
    for spare in range(assumptions.max_dropouts + 1):
        others = assumptions.n_participants - assumptions.max_dropouts + spare - 1
        gone = min(spare, assumptions.max_late_dropouts)
        honest = others + 1 - colluders
        chance = honest * exact_tail(threshold, others, colluders, degree)

        for size in range(1, honest // 2 + 1):
            within = exact_tail(threshold, others, min(others, size - 1 + colluders), degree)
            term = within**size
            rest = honest - size - gone
            if rest >= 1:
                avoiding = Fraction(math.comb(others - rest, degree), math.comb(others, degree))
                avoided = Fraction(math.comb(others - size, degree), math.comb(others, degree))
                term = min(term, math.comb(honest - size, gone) * min(within, avoiding) ** size * avoided**rest)
            chance += math.comb(honest, size) * term
        worst = max(worst, chance)
    return min(Fraction(1), assumptions.max_attempts * worst)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_bound_is_never_below_the_exact_sum(data: st.DataObject) -> None:
    n = data.draw(st.integers(20, 60))
    colluders, dropouts = data.draw(st.integers(0, n // 4)), data.draw(st.integers(0, n // 4))
    assumptions = assume(n, colluders, dropouts, late=data.draw(st.integers(0, dropouts)))
    degree = data.draw(st.integers(8, n - dropouts - 1))
    parameters = MaskParameters(degree=degree, threshold=data.draw(st.integers(1, degree)))
    suppose(degree < n - 1)

    exact, bound = exact_failure(parameters, assumptions), log2_failure(parameters, assumptions)

    if exact:
        exact_log2 = math.log2(exact.numerator) - math.log2(exact.denominator)
        assert exact_log2 - 1e-6 <= bound
        assert not masks_bear(parameters, assumptions) or exact_log2 <= -40


@pytest.mark.parametrize(("colluders", "dropouts"), [(2, 2), (4, 3), (6, 3), (3, 6), (12, 3)])
def test_planned_masks_hold_by_the_exact_sum(colluders: int, dropouts: int) -> None:
    assumptions = assume(60, colluders, dropouts)
    parameters = mask_parameters(assumptions)

    assert parameters.degree < 59
    assert exact_failure(parameters, assumptions) <= Fraction(1, 2**40)


def test_more_colluders_dropouts_or_attempts_never_fail_less() -> None:
    parameters = MaskParameters(degree=54, threshold=31)
    base = assume(943, 40, 90, late=20)

    for harder in (assume(943, 60, 90, late=20), assume(943, 40, 120, late=20), assume(943, 40, 90, late=60)):
        assert log2_failure(parameters, harder) >= log2_failure(parameters, base)
        assert strays(parameters, harder) >= strays(parameters, base)
    assert log2_failure(parameters, replace(base, max_attempts=128)) == pytest.approx(
        log2_failure(parameters, base) + 1
    )
    by_colluders = [log2_failure(parameters, assume(943, colluders, 95)) for colluders in range(0, 300, 7)]
    assert by_colluders == sorted(by_colluders)


# --- against an adversary who tries everything ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "colluders", "dropouts", "early", "degree", "threshold"),
    [(18, 2, 3, 0, 4, 3), (18, 2, 3, 1, 5, 3), (24, 4, 2, 0, 5, 3), (24, 3, 3, 2, 5, 3), (30, 6, 2, 0, 7, 4)],
)
def test_no_choice_of_who_vanishes_beats_the_bound(
    n: int, colluders: int, dropouts: int, early: int, degree: int, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liberate.privacy.mask_parameters.MIN_DEGREE", 1)
    assumptions = assume(n, colluders, dropouts, attempts=1)
    parameters = MaskParameters(degree=degree, threshold=threshold)
    rng, worlds = np.random.default_rng(7), 120

    failures, stray_counts = 0, []
    for _ in range(worlds):
        people = range(n - early)
        out = {}
        for number in people[colluders:]:
            others = np.delete(np.arange(len(people)), number)
            out[number] = rng.choice(others, degree, replace=False).tolist()
        failed, most_strays = play_dropouts(out, range(colluders), dropouts - early, threshold)
        failures += failed
        stray_counts.append(most_strays)

    log2_failure.cache_clear()
    bound = 2 ** log2_failure(parameters, assumptions)
    log2_failure.cache_clear()
    assert failures / worlds <= bound + 4 * math.sqrt(max(bound * (1 - bound), 1e-3) / worlds)
    for bits in (1, 2, 3):
        beyond = sum(count > strays(parameters, assumptions, bits=bits) for count in stray_counts) / worlds
        assert beyond <= 2**-bits + 4 * math.sqrt(2**-bits / worlds)

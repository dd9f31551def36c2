"""The printed epsilon against an exact one, in worlds small enough to try everything.

An independent accountant: who drops out, who colludes and what the victim sends are enumerated, noise is convolved, and
delta is summed over all outcomes. What others send shifts the sum by a known amount and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, reduce
from itertools import combinations, product

import numpy as np
import pytest

from liberate.arrays import Float64Array
from liberate.errors import PrivacyError
from liberate.federation.participant.noise_checks import check_shared_noise
from liberate.federation.participant.refusals import Refused
from liberate.federation.terms import smallest_sum
from liberate.ledger.format.parts import Terms
from liberate.privacy.accounting import privacy_loss
from liberate.privacy.gaussian import DistributedGaussian
from liberate.runs.terms import counted_noise, founding_terms
from liberate.settings import resolve
from tests.federation.participant.test_terms import round_of

DELTA = 1e-3
CLIP, SHARE = 4, 3
REACH = 14 * SHARE
VICTIM = 0


def terms_of(people: int, colluders: int, dropouts: float) -> Terms:
    chosen = [f"privacy.max_colluders={colluders}", f"privacy.max_dropouts={dropouts}", "federation.min_cohort=1"]
    return founding_terms(resolve(None, chosen, environment={}), people)


@cache
def noise(holders: int) -> Float64Array:
    """Probabilities of the sum of so many shares, from the lowest outcome to the highest."""
    x = np.arange(-REACH, REACH + 1)
    share = np.exp(-(x**2) / (2.0 * SHARE**2))
    return reduce(np.convolve, [share / share.sum()] * holders)


@cache
def losses(holders: int, shift: int) -> tuple[Float64Array, Float64Array]:
    """Losses and probabilities of what is read of a sum that one person moves by `shift`."""
    p, q = np.pad(noise(holders), (0, abs(shift))), np.pad(noise(holders), (abs(shift), 0))
    seen = p > 0
    with np.errstate(divide="ignore"):
        return np.log(p[seen]) - np.log(q[seen]), p[seen]


def exact_delta(epsilon: float, rounds: tuple[tuple[int, int], ...]) -> float:
    """The least delta at an epsilon after rounds, each with its unknown shares and what the victim's part is."""
    total, mass = np.zeros(1), np.ones(1)
    for holders, shift in rounds:
        loss, probability = losses(holders, shift)
        total = np.add.outer(total, loss).ravel()
        mass = np.multiply.outer(mass, probability).ravel()
    return float(mass @ np.maximum(0.0, -np.expm1(np.minimum(epsilon - total, 700.0))))


def unknown_in_any_sum(terms: Terms, people: int, minimum: int) -> Iterator[int]:
    """How many shares are unknown, for every survivor set that may be read and every set of its members who collude."""
    for size in range(minimum, people + 1):
        for survivors in combinations(range(people), size):
            if VICTIM not in survivors:
                continue
            others = [person for person in survivors if person != VICTIM]
            for count in range(min(terms.max_colluders, len(others)) + 1):
                for colluders in combinations(others, count):
                    yield size - len(colluders)


def worlds() -> Iterator[tuple[int, int, float]]:
    for people, colluders, dropouts in product(range(3, 9), range(4), (0.0, 0.2, 0.34)):
        try:
            counted_noise(terms_of(people, colluders, dropouts), people, 0.1)
        except PrivacyError:
            continue
        yield people, colluders, dropouts


WORLDS = list(worlds())


def printed(honest: int, rounds: int) -> tuple[DistributedGaussian, float]:
    """The mechanism that counts on so many shares, and the epsilon that is printed for some rounds."""
    mechanism = DistributedGaussian(fraction_bits=0, clip_units=CLIP, share_units=SHARE, honest=honest, masked=1)
    epsilon = privacy_loss([(mechanism.event(), rounds)], DELTA).epsilon
    assert epsilon is not None
    return mechanism, epsilon


def test_there_are_worlds_of_all_sizes_with_colluders_and_dropouts() -> None:
    assert {people for people, *_ in WORLDS} == set(range(3, 9))
    assert {colluders for _, colluders, _ in WORLDS} == {0, 1, 2, 3}
    assert any(terms_of(*world).dropouts(world[0]) and world[1] for world in WORLDS)


@pytest.mark.parametrize(("people", "colluders", "dropouts"), WORLDS)
def test_no_coalition_and_no_dropouts_learn_more_than_is_printed(people: int, colluders: int, dropouts: float) -> None:
    terms = terms_of(people, colluders, dropouts)
    minimum, honest = smallest_sum(terms, people, 0.1), counted_noise(terms, people, 0.1)
    mechanism, epsilon = printed(honest, 1)
    check_shared_noise(terms, round_of(people, minimum, mechanism), mechanism)

    unknown = set(unknown_in_any_sum(terms, people, minimum))

    assert min(unknown) >= honest
    for holders, part in product(unknown, range(-CLIP, CLIP + 1)):
        assert exact_delta(epsilon, ((holders, part),)) <= DELTA


@pytest.mark.parametrize(("people", "colluders", "dropouts"), [(5, 1, 0.2), (6, 2, 0.2), (8, 3, 0.2)])
def test_two_rounds_with_other_dropouts_and_colluders_learn_no_more(
    people: int, colluders: int, dropouts: float
) -> None:
    terms = terms_of(people, colluders, dropouts)
    honest = counted_noise(terms, people, 0.1)
    _, epsilon = printed(honest, 2)
    unknown = sorted(set(unknown_in_any_sum(terms, people, smallest_sum(terms, people, 0.1))))

    for first, second in product(unknown[:2], unknown[:2]):
        for a, b in ((CLIP, CLIP), (CLIP, -CLIP), (CLIP, 0), (1, 2)):
            assert exact_delta(epsilon, ((first, a), (second, b))) <= DELTA


@pytest.mark.parametrize(("people", "colluders", "dropouts"), [(5, 1, 0.2), (6, 2, 0.2), (8, 3, 0.34)])
def test_a_round_that_counts_on_one_more_breaks_its_epsilon_and_is_refused(
    people: int, colluders: int, dropouts: float
) -> None:
    """What the device refuses is no formality: with one share more than is unknown, epsilon does not hold."""
    terms = terms_of(people, colluders, dropouts)
    minimum = smallest_sum(terms, people, 0.1)
    least = min(unknown_in_any_sum(terms, people, minimum))
    mechanism, epsilon = printed(least + 1, 1)

    assert exact_delta(epsilon, ((least, CLIP),)) > DELTA
    with pytest.raises(Refused) as refused:
        check_shared_noise(terms, round_of(people, minimum, mechanism), mechanism)
    assert refused.value.reason == "honest"
    assert math.isfinite(epsilon)

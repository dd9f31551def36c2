from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.runs.budget import BudgetAllocation, Objective, allocate_budget


def chosen(
    epsilon: float,
    n_participants: int,
    objective: Objective = "explicit",
    n_items: int = 3_000,
    n_features: int = 25,
    n_senders: int = 0,
) -> BudgetAllocation:
    return allocate_budget(
        objective,
        n_participants=n_participants,
        n_items=n_items,
        n_features=n_features,
        epsilon=epsilon,
        delta=1e-5,
        honest=math.ceil(0.9 * n_participants),
        n_senders=n_senders,
    )


@given(
    epsilon=st.floats(0.01, 50),
    n_participants=st.integers(1, 200_000),
    n_items=st.integers(1, 50_000),
    objective=st.sampled_from(["explicit", "implicit"]),
)
def test_shares_are_the_whole_budget_and_every_choice_has_a_reason(
    epsilon: float, n_participants: int, n_items: int, objective: Objective
) -> None:
    design = chosen(epsilon, n_participants, objective, n_items)

    assert sum(design.shares.values()) == pytest.approx(1)
    assert ("gram" in design.shares) == (design.gram_items > 0)
    assert ("moments" in design.shares) == (design.moments_rounds > 0)
    assert design.gram_items <= n_items
    assert design.reasons


@pytest.mark.parametrize("epsilon", [0.05, 1, 4])
def test_with_few_people_and_a_small_epsilon_item_biases_get_everything(epsilon: float) -> None:
    design = chosen(epsilon, 1_000)

    assert set(design.shares) == {"bias", "residuals"}
    assert design.reasons[0].startswith("no Gram")


@pytest.mark.parametrize("objective", ["explicit", "implicit"])
def test_a_gram_grows_with_people_and_with_epsilon(objective: Objective) -> None:
    by_epsilon = [chosen(epsilon, 6_000, objective).gram_items for epsilon in (0.05, 1, 4, 8, 16)]
    by_participants = [chosen(4, n, objective).gram_items for n in (20, 1_000, 10_000, 100_000)]

    assert by_epsilon == sorted(by_epsilon)
    assert by_participants == sorted(by_participants)
    assert by_epsilon[0] == by_participants[0] == 0
    assert 800 <= by_epsilon[-1] <= by_participants[-1] == 1_200


def test_noise_that_only_moments_cannot_bear_leaves_them_out() -> None:
    few, many = (chosen(2, 6_000, n_features=n) for n in (20, 1_000))

    assert few.moments_rounds > 0
    assert many.gram_items > 0
    assert many.moments_rounds == 0
    assert many.reasons[-1].startswith("no moments")


def test_implicit_below_all_signal_ranks_by_popularity() -> None:
    design = chosen(1, 50, "implicit")

    assert design.shares == {"popularity": 1.0}


@pytest.mark.parametrize(("epsilon", "just_below", "enough"), [(1, 5, 60), (4, 100, 300), (16, 1_000, 2_000)])
def test_a_pool_that_says_more_than_noisy_sums_is_only_corrected(epsilon: float, just_below: int, enough: int) -> None:
    beside, alone = chosen(epsilon, 6_040, n_senders=just_below), chosen(epsilon, 6_040, n_senders=enough)

    assert beside == chosen(epsilon, 6_040)
    assert set(alone.shares) <= {"moments", "residuals"}
    assert sum(alone.shares.values()) == pytest.approx(1)
    assert ("moments" in alone.shares) == (alone.moments_rounds > 0)
    assert alone.gram_items == 0
    assert alone.reasons[0].startswith("no bias sums")


def test_a_pool_changes_nothing_for_lists() -> None:
    assert chosen(4, 6_040, "implicit", n_senders=6_000) == chosen(4, 6_040, "implicit")

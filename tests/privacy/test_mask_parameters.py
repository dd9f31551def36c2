"""Masks bear what they are said to bear: known parameters, and the conditions of small graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liberate.errors import PrivacyError
from liberate.privacy.mask_parameters import (
    MaskAssumptions,
    MaskParameters,
    log2_failure,
    mask_parameters,
    masks_bear,
    strays,
    verify_masks,
)


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


def test_twenty_neighbours_bear_no_tenth_of_colluders() -> None:
    with pytest.raises(PrivacyError, match="do not bear 95 colluders"):
        verify_masks(MaskParameters(degree=20, threshold=14), assume(943, 95, 95))

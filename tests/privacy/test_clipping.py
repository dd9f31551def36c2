"""Clipping to a norm on the integer grid."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from liberate.arrays import Int64Array, RealStatistics
from liberate.privacy.clipping import clip_to_grid
from liberate.privacy.grid import LARGEST_CLIP_UNITS
from tests.reference import clipping as reference
from tests.strategies import device, real_rows

Norm = Literal["l1", "l2"]
NORMS: tuple[Norm, ...] = ("l1", "l2")
CLIPS = st.integers(1, LARGEST_CLIP_UNITS)
GRIDS = st.integers(0, 64)
POWER = {"l1": 1, "l2": 2}
EITHER = pytest.mark.parametrize("norm", NORMS)


def tail_of(numbers: npt.ArrayLike) -> RealStatistics:
    """One device whose numbers are all in its tail."""
    return RealStatistics(
        indptr=np.zeros(2, np.int64),
        indices=np.empty(0, np.int32),
        rows=np.empty((0, 1), np.float32),
        tails=np.array([numbers], np.float64),
    )


def integers_of(rows: npt.NDArray[np.int32], tails: Int64Array, indptr: Int64Array) -> list[list[int]]:
    """Each device's numbers as Python's own integers."""
    return [rows[indptr[d] : indptr[d + 1]].ravel().tolist() + tail.tolist() for d, tail in enumerate(tails)]


@EITHER
@given(batch=real_rows(), clip_units=CLIPS, fraction_bits=GRIDS)
def test_integer_norm_never_exceeds_the_clip(
    norm: Norm, batch: RealStatistics, clip_units: int, fraction_bits: int
) -> None:
    units = clip_to_grid(batch, clip_units, fraction_bits, norm)

    for numbers in integers_of(*units, batch.indptr):
        assert sum(abs(x) ** POWER[norm] for x in numbers) <= clip_units ** POWER[norm]


@given(st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=30), CLIPS)
@example([3 * 2**27, 4 * 2**27, 1], 5 * 2**26)
@example([2**29, 1], 2**29)
@example([2**30 + 1, 2**30 - 1], 2**29)
def test_a_vector_of_the_greatest_norm_stays_within_it(numbers: list[int], clip_units: int) -> None:
    """Squares of 29 bits do not fit float64, so that rounding could carry the integers beyond the clip."""
    _, tail = clip_to_grid(tail_of(numbers), clip_units, 0, "l2")

    found = sum(x * x for x in tail[0].tolist())

    assert found <= clip_units**2
    if sum(x * x for x in numbers) > clip_units**2:
        assert found >= (clip_units - len(numbers) ** 0.5 - 1) * abs(clip_units - len(numbers) ** 0.5 - 1)


@EITHER
@given(batch=real_rows(largest=100.0), clip_units=CLIPS, fraction_bits=st.integers(0, 24))
def test_clip_agrees_with_its_plain_twin_to_a_unit(
    norm: Norm, batch: RealStatistics, clip_units: int, fraction_bits: int
) -> None:
    units = clip_to_grid(batch, clip_units, fraction_bits, norm)

    for d, found in enumerate(integers_of(*units, batch.indptr)):
        begin, end = batch.indptr[d : d + 2]
        numbers = [*batch.rows[begin:end].ravel().tolist(), *batch.tails[d].tolist()]
        expected = reference.clip_to_grid(numbers, clip_units, fraction_bits, POWER[norm])
        assert all(abs(x - y) <= 1 for x, y in zip(found, expected, strict=True))


@EITHER
@given(batch=real_rows(), clip_units=CLIPS, fraction_bits=GRIDS)
def test_clipping_twice_is_clipping_once(
    norm: Norm, batch: RealStatistics, clip_units: int, fraction_bits: int
) -> None:
    once = clip_to_grid(batch, clip_units, fraction_bits, norm)
    again = RealStatistics(
        indptr=batch.indptr,
        indices=batch.indices,
        rows=np.ldexp(once[0].astype(np.float64), -fraction_bits),  # float32 would hold 24 bits only
        tails=np.ldexp(once[1].astype(np.float64), -fraction_bits),
    )

    twice = clip_to_grid(again, clip_units, fraction_bits, norm)

    np.testing.assert_array_equal(twice[0], once[0])
    np.testing.assert_array_equal(twice[1], once[1])


@EITHER
@given(batch=real_rows(), clip_units=CLIPS, fraction_bits=GRIDS)
def test_clipping_a_device_does_not_depend_on_the_batch(
    norm: Norm, batch: RealStatistics, clip_units: int, fraction_bits: int
) -> None:
    row_units, tail_units = clip_to_grid(batch, clip_units, fraction_bits, norm)

    for d in range(len(batch.tails)):
        alone = clip_to_grid(device(batch, d), clip_units, fraction_bits, norm)
        np.testing.assert_array_equal(row_units[batch.indptr[d] : batch.indptr[d + 1]], alone[0])
        np.testing.assert_array_equal(tail_units[d : d + 1], alone[1])


@EITHER
def test_clipping_a_wide_device_does_not_depend_on_the_batch(norm: Norm) -> None:
    rng = np.random.default_rng(1)
    batch = RealStatistics(
        indptr=np.array([0, 1, 300, 301], np.int64),
        indices=np.concatenate([[0], np.arange(299), [7]]).astype(np.int32),
        rows=rng.standard_cauchy((301, 561)).astype(np.float32),
        tails=rng.normal(size=(3, 40)),
    )

    together = clip_to_grid(batch, 2**29, 20, norm)
    apart = [clip_to_grid(device(batch, d), 2**29, 20, norm) for d in range(3)]

    np.testing.assert_array_equal(together[0], np.concatenate([one[0] for one in apart]))
    np.testing.assert_array_equal(together[1], np.concatenate([one[1] for one in apart]))


def test_clipping_keeps_what_is_inside_and_scales_what_is_outside() -> None:
    assert clip_to_grid(tail_of([0.5, -0.25, 0.25]), 256, 8, "l1")[1].tolist() == [[128, -64, 64]]
    assert clip_to_grid(tail_of([30.0, -10.0, 40.0]), 256, 8, "l1")[1].tolist() == [[96, -32, 128]]
    assert clip_to_grid(tail_of([0.75, -1.0]), 320, 8, "l2")[1].tolist() == [[192, -256]]
    assert clip_to_grid(tail_of([30.0, -40.0]), 1280, 8, "l2")[1].tolist() == [[768, -1024]]


def test_rows_and_tail_are_clipped_together() -> None:
    one = RealStatistics(
        indptr=np.array([0, 1], np.int64),
        indices=np.array([4], np.int32),
        rows=np.array([[6.0, 0.0]], np.float32),
        tails=np.array([[8.0]]),
    )

    rows, tails = clip_to_grid(one, 5, 0, "l2")

    assert (rows.tolist(), tails.tolist()) == ([[3, 0]], [[4]])
    assert (rows.dtype.name, tails.dtype.name) == ("int32", "int64")


@EITHER
def test_truncation_goes_toward_zero(norm: Norm) -> None:
    assert clip_to_grid(tail_of([1.99, -1.99, -0.99]), 10, 0, norm)[1].tolist() == [[1, -1, 0]]


@EITHER
def test_clipping_loses_less_than_a_unit_per_number(norm: Norm) -> None:
    numbers = np.random.default_rng(3).laplace(size=3600)

    _, tails = clip_to_grid(tail_of(numbers), 2**20, 20, norm)

    found = float(np.linalg.norm(tails[0], ord=POWER[norm]))
    assert 2**20 - (3600 if norm == "l1" else 60) < found <= 2**20


@EITHER
@pytest.mark.parametrize("largest", [5e-324, 1e-310, 1e-45, 3.4e38, 1e300, 1.7e308])
def test_clipping_takes_numbers_of_any_size(norm: Norm, largest: float) -> None:
    halves = [largest / 2, -largest / 2]

    _, units = clip_to_grid(tail_of([largest] * 3 + halves * 2), {"l1": 2000, "l2": 800}[norm], 64, norm)

    expected = [400] * 3 + [200, -200] * 2
    assert units.tolist() == [[0] * 7 if largest < 1 else expected]


@EITHER
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["row", "tail"])
def test_who_has_a_number_that_is_none_sends_zeros(norm: Norm, number: float, place: str) -> None:
    one = RealStatistics(
        indptr=np.array([0, 1, 2], np.int64),
        indices=np.zeros(2, np.int32),
        rows=np.array([[1.0], [number if place == "row" else 1.0]], np.float32),
        tails=np.array([[1.0], [number if place == "tail" else 1.0]]),
    )

    rows, tails = clip_to_grid(one, 10, 8, norm)

    assert np.all(rows[0] > 0)
    assert np.all(tails[0] > 0)
    assert not rows[1].any()
    assert not tails[1].any()


def test_devices_without_anything_are_clipped() -> None:
    nothing = RealStatistics(
        indptr=np.zeros(3, np.int64),
        indices=np.empty(0, np.int32),
        rows=np.empty((0, 4), np.float32),
        tails=np.empty((2, 0)),
    )

    rows, tails = clip_to_grid(nothing, 10, 8, "l2")

    assert (rows.shape, tails.shape) == ((0, 4), (2, 0))

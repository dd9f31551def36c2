"""Clipping, the integer grid and calibration."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from liberate.arrays import Float64Array, Int64Array, RealRows
from liberate.errors import PrivacyError, UnaccountableEvent
from liberate.privacy.mechanism import (
    LARGEST_CLIP_UNITS,
    LARGEST_SCALE_UNITS,
    NANO,
    DiscreteLaplaceRelease,
    Laplace,
    Plain,
    PrivacyConfig,
    clip_to_grid,
    design,
    mechanism_from,
)
from tests.reference import clipping as reference
from tests.strategies import device, real_rows

CLIPS = st.integers(1, LARGEST_CLIP_UNITS)
GRIDS = st.integers(0, 64)
KEY = bytes(range(32))


def batch(rows: list[list[float]], tail: list[float], dtype: type = np.float32) -> RealRows:
    """One device that rated items 0, 1, ..."""
    return RealRows(
        indptr=np.array([0, len(rows)], np.int64),
        indices=np.arange(len(rows), dtype=np.int32),
        rows=np.array(rows, dtype),
        tails=np.array([tail], np.float64),
    )


def norms(rows: Int64Array, tails: Int64Array, indptr: Int64Array) -> list[int]:
    """Each device's L1 norm with Python's own integers."""
    return [
        sum(abs(x) for x in rows[indptr[d] : indptr[d + 1]].ravel().tolist()) + sum(abs(x) for x in tail.tolist())
        for d, tail in enumerate(tails)
    ]


def local(epsilon: float, rounds: int, clip_norm: float = 1.0) -> Laplace:
    config = PrivacyConfig(mode="local", epsilon=epsilon, clip_norm=clip_norm)
    mechanism = design(config, rounds=rounds)
    assert isinstance(mechanism, Laplace)
    return mechanism


# --- clipping ---------------------------------------------------------------------------------------------------------


@given(real_rows(), CLIPS, GRIDS)
def test_integer_norm_never_exceeds_the_clip(rows: RealRows, clip_units: int, grid_bits: int) -> None:
    row_units, tail_units = clip_to_grid(rows, clip_units, grid_bits)

    assert max(norms(row_units, tail_units, rows.indptr)) <= clip_units


@given(real_rows(largest=100.0), CLIPS, st.integers(0, 24))
def test_clip_agrees_with_its_plain_twin_to_a_unit(rows: RealRows, clip_units: int, grid_bits: int) -> None:
    row_units, tail_units = clip_to_grid(rows, clip_units, grid_bits)

    for d in range(len(rows.tails)):
        begin, end = rows.indptr[d : d + 2]
        numbers = [*rows.rows[begin:end].ravel().tolist(), *rows.tails[d].tolist()]
        found = [*row_units[begin:end].ravel().tolist(), *tail_units[d].tolist()]
        expected = reference.clip_to_grid(numbers, clip_units, grid_bits)
        assert all(abs(x - y) <= 1 for x, y in zip(found, expected, strict=True))


@given(real_rows(), CLIPS, GRIDS)
def test_clipping_twice_is_clipping_once(rows: RealRows, clip_units: int, grid_bits: int) -> None:
    once = clip_to_grid(rows, clip_units, grid_bits)
    again = RealRows(
        indptr=rows.indptr,
        indices=rows.indices,
        rows=np.ldexp(once[0].astype(np.float64), -grid_bits),  # float32 would hold 24 bits only
        tails=np.ldexp(once[1].astype(np.float64), -grid_bits),
    )

    twice = clip_to_grid(again, clip_units, grid_bits)

    np.testing.assert_array_equal(twice[0], once[0])
    np.testing.assert_array_equal(twice[1], once[1])


@given(real_rows(), CLIPS, GRIDS)
def test_clipping_a_device_does_not_depend_on_the_batch(rows: RealRows, clip_units: int, grid_bits: int) -> None:
    row_units, tail_units = clip_to_grid(rows, clip_units, grid_bits)

    for d in range(len(rows.tails)):
        alone = clip_to_grid(device(rows, d), clip_units, grid_bits)
        np.testing.assert_array_equal(row_units[rows.indptr[d] : rows.indptr[d + 1]], alone[0])
        np.testing.assert_array_equal(tail_units[d : d + 1], alone[1])


def test_clipping_a_wide_device_does_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(1)
    rows = RealRows(
        indptr=np.array([0, 1, 300, 301], np.int64),
        indices=np.concatenate([[0], np.arange(299), [7]]).astype(np.int32),
        rows=rng.standard_cauchy((301, 561)).astype(np.float32),
        tails=rng.normal(size=(3, 40)),
    )

    together = clip_to_grid(rows, 2**29, 20)
    apart = [clip_to_grid(device(rows, d), 2**29, 20) for d in range(3)]

    np.testing.assert_array_equal(together[0], np.concatenate([one[0] for one in apart]))
    np.testing.assert_array_equal(together[1], np.concatenate([one[1] for one in apart]))


def test_clipping_keeps_what_is_inside_and_scales_what_is_outside() -> None:
    inside = clip_to_grid(batch([[0.5, -0.25]], [0.25]), 256, 8)
    outside = clip_to_grid(batch([[30.0, -10.0]], [40.0]), 256, 8)

    assert (inside[0].tolist(), inside[1].tolist()) == ([[128, -64]], [[64]])
    assert (outside[0].tolist(), outside[1].tolist()) == ([[96, -32]], [[128]])


def test_truncation_goes_toward_zero() -> None:
    rows, tails = clip_to_grid(batch([[1.99, -1.99]], [-0.99]), 10, 0)

    assert (rows.tolist(), tails.tolist()) == ([[1, -1]], [[0]])


def test_clipping_loses_less_than_a_unit_per_number() -> None:
    numbers = np.random.default_rng(3).laplace(size=(400, 9))
    rows, _ = clip_to_grid(batch(numbers.tolist(), [], np.float64), 2**20, 20)

    assert 2**20 - numbers.size < np.abs(rows).sum() <= 2**20


@pytest.mark.parametrize("largest", [5e-324, 1e-310, 1e-45, 3.4e38, 1e300, 1.7e308])
def test_clipping_takes_numbers_of_any_size(largest: float) -> None:
    tails = np.array([largest, -largest / 2, largest / 4, largest])
    rows = batch([], [])
    whole = RealRows(indptr=rows.indptr, indices=rows.indices, rows=np.empty((0, 2), np.float32), tails=tails[None])

    _, units = clip_to_grid(whole, 1100, 64)

    if largest < 1:
        assert not units.any()
    else:
        assert units.tolist() == [[400, -200, 100, 400]]


@pytest.mark.parametrize("mechanism", [Plain(), Laplace(grid_bits=8, clip_units=256, scale_units=64)])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("in_tail", [False, True])
def test_numbers_that_are_none_are_refused(mechanism: Plain | Laplace, number: float, in_tail: bool) -> None:
    one = batch([[1.0, 1.0 if in_tail else number]], [number if in_tail else 1.0])

    with pytest.raises(ValueError, match="NaN or infinite"):
        mechanism.release(one, 3, [KEY], exact=True)


def test_a_norm_beyond_the_clip_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "trunc", lambda x: np.ceil(np.abs(x)))

    with pytest.raises(PrivacyError, match="L1 norm 11 units, wanted at most 10"):
        clip_to_grid(batch([[1.0, 1.0, 1.0]], [3.0]), 10, 8)


# --- plain ------------------------------------------------------------------------------------------------------------


def test_plain_rounds_half_to_even() -> None:
    unit = 2.0**-20
    release = Plain().release(batch([[0.5 * unit, 1.5 * unit, -2.5 * unit]], [3.5 * unit]), 1, [], exact=True)

    assert (release.rows.tolist(), release.tails.tolist()) == ([[0, 2, -2]], [[4]])
    assert (release.rows.dtype.name, release.tails.dtype.name) == ("int32", "int64")


def test_plain_reaches_to_the_end_of_int32_and_refuses_the_rest() -> None:
    largest = 2.0**31 - 2**7  # the last float32 inside
    release = Plain(grid_bits=0).release(batch([[largest, -largest]], [2.0**44]), 1, [], exact=True)

    assert release.rows.tolist() == [[2**31 - 2**7, -(2**31) + 2**7]]
    for rows, tail in ([[2.0**31]], [0.0]), ([[-(2.0**31)]], [0.0]), ([[0.0]], [2.0**45]), ([[3e38]], [1e308]):
        with pytest.raises(PrivacyError, match="the grid of 20 bits reaches"):
            Plain().release(batch(rows, tail), 1, [], exact=True)


# --- calibration ------------------------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e6), st.integers(1, 10_000), st.floats(1e-6, 1e6))
def test_all_rounds_together_never_exceed_epsilon(epsilon: float, rounds: int, clip_norm: float) -> None:
    try:
        mechanism = local(epsilon, rounds, clip_norm)
    except PrivacyError:
        assume(False)

    total = Fraction(str(epsilon))

    assert mechanism.event() == DiscreteLaplaceRelease(
        sensitivity=2 * mechanism.clip_units, scale=mechanism.scale_units
    )
    assert mechanism.event().epsilon == Fraction(2 * mechanism.clip_units, mechanism.scale_units)
    assert mechanism.event().epsilon * NANO <= mechanism.spend_nano < mechanism.event().epsilon * NANO + 1
    assert mechanism.spend_nano * rounds <= total * NANO
    assert float(mechanism.event().epsilon * rounds) <= epsilon
    assert Fraction(mechanism.clip_units, 2**mechanism.grid_bits) <= Fraction(clip_norm)
    assert mechanism.scale_units <= LARGEST_SCALE_UNITS


@given(st.floats(0.05, 128), st.integers(1, 100), st.floats(0.01, 1000))
def test_calibration_wastes_next_to_nothing(epsilon: float, rounds: int, clip_norm: float) -> None:
    mechanism = local(epsilon, rounds, clip_norm)

    assert float(mechanism.event().epsilon) * rounds > 0.9999 * epsilon
    assert mechanism.clip_units / 2**mechanism.grid_bits > 0.99 * clip_norm
    assert mechanism.scale_units > 2**22 or mechanism.clip_units > 2**27


def test_unused_fineness_is_bounded_by_int32() -> None:
    mechanism = local(1e6, 1)

    assert mechanism.clip_units == LARGEST_CLIP_UNITS
    assert mechanism.scale_units == 1074


@pytest.mark.parametrize(("epsilon", "rounds", "clip_norm"), [(1e-6, 1001, 1.0), (0.01, 100, 1e5), (1e-6, 100, 1.0)])
def test_calibration_beyond_the_grid_is_refused(epsilon: float, rounds: int, clip_norm: float) -> None:
    with pytest.raises(PrivacyError, match=f"over {rounds} rounds is too little"):
        local(epsilon, rounds, clip_norm)


def test_plain_needs_no_calibration_and_device_has_no_mechanism() -> None:
    assert design(PrivacyConfig(), rounds=3) == Plain()
    with pytest.raises(ValueError, match="nothing is released"):
        design(PrivacyConfig(mode="device"), rounds=3)
    with pytest.raises(ValueError, match="rounds is 0"):
        design(PrivacyConfig(), rounds=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "local"}, "needs an epsilon"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"epsilon": 1e7}, "epsilon is"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"clip_norm": float("inf")}, "clip_norm is inf"),
    ],
)
def test_a_promise_out_of_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrivacyConfig(**settings)  # type: ignore[arg-type]  # a mode among numbers


# --- release ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_noise_lies_on_every_coordinate_of_every_item_and_on_the_tail(exact: bool) -> None:
    mechanism = Laplace(grid_bits=8, clip_units=2560, scale_units=2**20)
    release = mechanism.release(batch([[1.0, -1.0], [2.0, 3.0]], [1.0, 2.0]), 40, [KEY], exact)

    assert (release.rows != 0).all()
    assert (release.tails != 0).all()
    assert len({*release.rows.ravel().tolist(), *release.tails.ravel().tolist()}) == 82


@pytest.mark.parametrize("exact", [True, False])
def test_noise_is_added_to_the_clipped_numbers(exact: bool) -> None:
    mechanism = Laplace(grid_bits=8, clip_units=2560, scale_units=1000)
    full, nothing = batch([[1.0, -1.0], [2.0, 3.0]], [1.0, 2.0]), batch([[0.0, 0.0]], [0.0, 0.0])

    noisy = mechanism.release(full, 40, [KEY], exact)
    noise = mechanism.release(nothing, 40, [KEY], exact)

    assert (noisy.rows - noise.rows)[:2].tolist() == [[256, -256], [512, 768]]
    assert not (noisy.rows - noise.rows)[2:].any()
    assert (noisy.tails - noise.tails).tolist() == [[256, 512]]


@pytest.mark.parametrize("exact", [True, False])
def test_noise_has_the_variance_of_its_scale(exact: bool) -> None:
    mechanism = Laplace(grid_bits=8, clip_units=2560, scale_units=1000)
    release = mechanism.release(batch([[1.0, -1.0]], [0.0]), 100_000, [KEY], exact)

    assert variance(release.rows.astype(np.float64)) == pytest.approx(2e6, rel=0.03)


def variance(numbers: Float64Array) -> float:
    return float(numbers.var())


def test_rows_and_tail_of_a_device_use_different_noise() -> None:
    mechanism = Laplace(grid_bits=8, clip_units=2560, scale_units=2**20)
    release = mechanism.release(batch([[0.0]], [0.0] * 50), 50, [KEY], exact=True)

    assert not set(release.rows.ravel().tolist()) & set(release.tails.ravel().tolist())


# --- round entries ----------------------------------------------------------------------------------------------------


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(UnaccountableEvent, match="'gauss' is unknown"):
        mechanism_from("gauss", 20, {})


@pytest.mark.parametrize(
    ("name", "grid_bits", "parameters", "message"),
    [
        ("none", 20, {"clip_units": 1}, "none does not take"),
        ("none", 65, {}, "none does not take"),
        ("laplace", 20, {}, "laplace does not take"),
        ("laplace", 20, {"clip_units": 1}, "laplace does not take"),
        ("laplace", 20, {"clip_units": 1, "scale_units": 1, "extra": 1}, "laplace does not take"),
        ("laplace", 20, {"clip_units": 0, "scale_units": 1}, "clip_units is 0"),
        ("laplace", 20, {"clip_units": 2**29 + 1, "scale_units": 1}, "clip_units is"),
        ("laplace", 20, {"clip_units": 1, "scale_units": 0}, "scale_units is 0"),
        ("laplace", 20, {"clip_units": 1, "scale_units": 2**24 + 1}, "scale_units is"),
        ("laplace", -1, {"clip_units": 1, "scale_units": 1}, "grid_bits is -1"),
        ("laplace", 65, {"clip_units": 1, "scale_units": 1}, "grid_bits is 65"),
    ],
)
def test_parameters_that_make_no_mechanism_are_refused(
    name: str, grid_bits: int, parameters: dict[str, int], message: str
) -> None:
    with pytest.raises(PrivacyError, match=message):
        mechanism_from(name, grid_bits, parameters)

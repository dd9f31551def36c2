"""Clipping, the integer grid and calibration."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from liberate.arrays import Float64Array, RealStatistics
from liberate.errors import PrivacyError, UnaccountableEvent
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.events import DiscreteLaplaceRelease
from liberate.privacy.grid import LARGEST_CLIP_UNITS
from liberate.privacy.laplace import LARGEST_SCALE_UNITS, Laplace
from liberate.privacy.mechanism_base import Plain
from liberate.privacy.mechanisms import calibrated_mechanism, mechanism_from
from liberate.units import NANO

KEY = bytes(range(32))


def batch(rows: list[list[float]], tail: list[float], dtype: type = np.float32) -> RealStatistics:
    """One device that rated items 0, 1, ..."""
    return RealStatistics(
        indptr=np.array([0, len(rows)], np.int64),
        indices=np.arange(len(rows), dtype=np.int32),
        rows=np.array(rows, dtype),
        tails=np.array([tail], np.float64),
    )


def local(epsilon: float, rounds: int, clip_norm: float = 1.0) -> Laplace:
    config = PrivacyConfig(mode="local", epsilon=epsilon, clip_norm=clip_norm)
    mechanism = calibrated_mechanism(config, rounds=rounds)
    assert isinstance(mechanism, Laplace)
    return mechanism


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("in_tail", [False, True])
def test_plain_refuses_numbers_that_are_none(number: float, in_tail: bool) -> None:
    one = batch([[1.0, 1.0 if in_tail else number]], [number if in_tail else 1.0])

    with pytest.raises(ValueError, match="NaN or infinite"):
        Plain().release(one, 3, [KEY], exact=True)


# --- plain ------------------------------------------------------------------------------------------------------------


def test_plain_rounds_half_to_even() -> None:
    unit = 2.0**-20
    release = Plain().release(batch([[0.5 * unit, 1.5 * unit, -2.5 * unit]], [3.5 * unit]), 1, [], exact=True)

    assert (release.rows.tolist(), release.tails.tolist()) == ([[0, 2, -2]], [[4]])
    assert (release.rows.dtype.name, release.tails.dtype.name) == ("int32", "int64")


def test_plain_reaches_to_the_end_of_int32_and_refuses_the_rest() -> None:
    largest = 2.0**31 - 2**7  # the last float32 inside
    release = Plain(fraction_bits=0).release(batch([[largest, -largest]], [2.0**44]), 1, [], exact=True)

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
    assert Fraction(mechanism.clip_units, 2**mechanism.fraction_bits) <= Fraction(clip_norm)
    assert mechanism.scale_units <= LARGEST_SCALE_UNITS


@given(st.floats(0.05, 128), st.integers(1, 100), st.floats(0.01, 1000))
def test_calibration_wastes_next_to_nothing(epsilon: float, rounds: int, clip_norm: float) -> None:
    mechanism = local(epsilon, rounds, clip_norm)

    assert float(mechanism.event().epsilon) * rounds > 0.9999 * epsilon
    assert mechanism.clip_units / 2**mechanism.fraction_bits > 0.99 * clip_norm
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
    assert calibrated_mechanism(PrivacyConfig(), rounds=3) == Plain()
    with pytest.raises(ValueError, match="nothing is released"):
        calibrated_mechanism(PrivacyConfig(mode="device"), rounds=3)
    with pytest.raises(ValueError, match="depends on the stage"):
        calibrated_mechanism(PrivacyConfig(mode="distributed", epsilon=1.0), rounds=3)
    with pytest.raises(ValueError, match="rounds is 0"):
        calibrated_mechanism(PrivacyConfig(), rounds=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "local"}, "local needs an epsilon for the whole run, such as privacy.epsilon=8"),
        ({"mode": "distributed"}, "distributed needs an epsilon"),
        ({"max_colluders": -1}, "max_colluders is -1"),
        ({"max_dropouts": 1.0}, "max_dropouts is 1.0"),
        ({"max_dropouts": -0.01}, "max_dropouts is -0.01"),
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
    mechanism = Laplace(fraction_bits=8, clip_units=2560, scale_units=2**20)
    release = mechanism.release(batch([[1.0, -1.0], [2.0, 3.0]], [1.0, 2.0]), 40, [KEY], exact)

    assert (release.rows != 0).all()
    assert (release.tails != 0).all()
    assert len({*release.rows.ravel().tolist(), *release.tails.ravel().tolist()}) == 82


@pytest.mark.parametrize("exact", [True, False])
def test_noise_is_added_to_the_clipped_numbers(exact: bool) -> None:
    mechanism = Laplace(fraction_bits=8, clip_units=2560, scale_units=1000)
    full, nothing = batch([[1.0, -1.0], [2.0, 3.0]], [1.0, 2.0]), batch([[0.0, 0.0]], [0.0, 0.0])

    noisy = mechanism.release(full, 40, [KEY], exact)
    noise = mechanism.release(nothing, 40, [KEY], exact)

    assert (noisy.rows - noise.rows)[:2].tolist() == [[256, -256], [512, 768]]
    assert not (noisy.rows - noise.rows)[2:].any()
    assert (noisy.tails - noise.tails).tolist() == [[256, 512]]


@pytest.mark.parametrize("exact", [True, False])
def test_noise_has_the_variance_of_its_scale(exact: bool) -> None:
    mechanism = Laplace(fraction_bits=8, clip_units=2560, scale_units=1000)
    release = mechanism.release(batch([[1.0, -1.0]], [0.0]), 100_000, [KEY], exact)

    assert variance(release.rows.astype(np.float64)) == pytest.approx(2e6, rel=0.03)


def variance(numbers: Float64Array) -> float:
    return float(numbers.var())


def test_rows_and_tail_of_a_device_use_different_noise() -> None:
    mechanism = Laplace(fraction_bits=8, clip_units=2560, scale_units=2**20)
    release = mechanism.release(batch([[0.0]], [0.0] * 50), 50, [KEY], exact=True)

    assert not set(release.rows.ravel().tolist()) & set(release.tails.ravel().tolist())


# --- round entries ----------------------------------------------------------------------------------------------------


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(UnaccountableEvent, match="'gauss' is unknown"):
        mechanism_from("gauss", 20, {})


@pytest.mark.parametrize(
    ("name", "fraction_bits", "parameters", "message"),
    [
        ("none", 20, {"clip_units": 1}, "none does not take"),
        ("none", 65, {}, "fraction_bits is 65"),
        ("laplace", 20, {}, "laplace does not take"),
        ("laplace", 20, {"clip_units": 1}, "laplace does not take"),
        ("laplace", 20, {"clip_units": 1, "scale_units": 1, "extra": 1}, "laplace does not take"),
        ("laplace", 20, {"clip_units": 0, "scale_units": 1}, "clip_units is 0"),
        ("laplace", 20, {"clip_units": 2**29 + 1, "scale_units": 1}, "clip_units is"),
        ("laplace", 20, {"clip_units": 1, "scale_units": 0}, "scale_units is 0"),
        ("laplace", 20, {"clip_units": 1, "scale_units": 2**24 + 1}, "scale_units is"),
        ("laplace", -1, {"clip_units": 1, "scale_units": 1}, "fraction_bits is -1"),
        ("laplace", 65, {"clip_units": 1, "scale_units": 1}, "fraction_bits is 65"),
    ],
)
def test_parameters_that_make_no_mechanism_are_refused(
    name: str, fraction_bits: int, parameters: dict[str, int], message: str
) -> None:
    with pytest.raises(PrivacyError, match=message):
        mechanism_from(name, fraction_bits, parameters)

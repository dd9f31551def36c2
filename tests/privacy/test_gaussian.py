"""Gaussian mechanisms: what a sum of shares is, and what a calibration keeps to."""

from __future__ import annotations

import math
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from liberate.arrays import Int64Array, RealStatistics
from liberate.errors import PrivacyError
from liberate.privacy.accounting import privacy_loss
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.gaussian import LARGEST_SUM, DistributedGaussian, Gaussian
from liberate.privacy.gaussian_calibration import distributed
from liberate.privacy.gaussian_tradeoff import epsilon_of, gaussian_calibration, log_delta, rho_nano_limit
from liberate.privacy.grid import LARGEST_CLIP_UNITS
from liberate.privacy.integers import four_squares
from liberate.privacy.mechanisms import calibrated_mechanism, mechanism_from
from liberate.units import NANO

DELTA = 1e-5
SHARES = DistributedGaussian(fraction_bits=10, clip_units=4096, share_units=100, honest=20, masked=0)
EPSILONS = st.floats(0.01, 50)
DELTAS = st.sampled_from([1e-12, 1e-6, 1e-5, 1e-2])


def keys(n: int) -> list[bytes]:
    return [sha256(bytes([i])).digest() for i in range(n)]


def participants(n_devices: int, n_rows: int, width: int, n_tail: int) -> RealStatistics:
    """Devices with half of the rows each."""
    rng = np.random.default_rng(5)
    indices = [np.sort(rng.permutation(n_rows)[: n_rows // 2]) for _ in range(n_devices)]
    return RealStatistics(
        indptr=np.arange(n_devices + 1, dtype=np.int64) * (n_rows // 2),
        indices=np.concatenate(indices).astype(np.int32),
        rows=rng.normal(size=(n_devices * (n_rows // 2), width)).astype(np.float32),
        tails=rng.normal(size=(n_devices, n_tail)),
    )


def stage(**changes: Any) -> DistributedGaussian:
    """A round with the Gram of MovieLens-1M, half of the budget."""
    n_participants = changes.get("n_participants", 6040)
    usual = {
        "clip_norm": 1.0,
        "share_of_budget": 0.5,
        "epsilon": 8.0,
        "delta": DELTA,
        "n_participants": n_participants,
        "honest": math.ceil(Fraction(9, 10) * n_participants),
        "n_coordinates": 720_600,
    }
    return distributed(**usual | changes)


# --- sums and shares --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_a_sum_of_noisy_uploads_is_as_noisy_as_a_noisy_sum(exact: bool) -> None:
    """The two fidelities of a simulation agree: the same clipped statistics, the same variance."""
    n_devices, n_rows, width, n_tail = 23, 3_000, 2, 4
    batch = participants(n_devices, n_rows, width, n_tail)
    clipped = SHARES.clip(batch)
    true_sum = np.zeros((n_rows, width), np.int64)
    np.add.at(true_sum, clipped.indices, clipped.rows)
    rows, tail = true_sum.copy(), clipped.tails.sum(axis=0)

    uploads = SHARES.release(batch, n_rows, keys(n_devices), exact)
    SHARES.add_to_sum(rows, tail, n_devices, keys(99)[-1], exact)

    of_uploads = uploads.rows.reshape(n_devices, n_rows, width).sum(axis=0, dtype=np.int64) - true_sum
    expected = n_devices * SHARES.share_units**2
    for noise in (of_uploads, rows - true_sum):
        assert variance(noise) == pytest.approx(expected, rel=5 * math.sqrt(2 / noise.size))
        assert abs(noise.mean()) < 5 * math.sqrt(expected / noise.size)
    assert np.abs(tail - clipped.tails.sum(axis=0)).min() > 0
    assert np.abs(tail - clipped.tails.sum(axis=0)).max() < 6 * math.sqrt(expected)


def variance(numbers: Int64Array) -> float:
    return float(numbers.var())


def test_clipping_for_a_sum_draws_no_noise_and_stays_sparse() -> None:
    batch = participants(3, 40, 2, 1)

    clipped = SHARES.clip(batch)

    np.testing.assert_array_equal(clipped.indices, batch.indices)
    np.testing.assert_array_equal(clipped.rows, SHARES.clip(batch).rows)
    norms = [
        (clipped.rows[20 * d : 20 * d + 20].astype(np.int64) ** 2).sum() + (clipped.tails[d] ** 2).sum()
        for d in range(3)
    ]
    assert 4000**2 < max(norms) <= 4096**2


@pytest.mark.parametrize("exact", [True, False])
def test_noise_of_a_sum_follows_from_its_key(exact: bool) -> None:
    def drawn(key: bytes) -> list[int]:
        rows, tail = np.zeros((50, 2), np.int64), np.zeros(50, np.int64)
        SHARES.add_to_sum(rows, tail, 20, key, exact)
        return [*rows.ravel().tolist(), *tail.tolist()]

    first, second = keys(2)

    assert drawn(first) == drawn(first)
    assert drawn(first) != drawn(second)
    assert drawn(first)[:50] != drawn(first)[100:]


@pytest.mark.parametrize("n", [*range(1, 200), 943, 6040, 28 * 4**5, 99_999, 1_000_000, 2**24 - 1])
def test_every_cohort_is_a_sum_of_four_squares(n: int) -> None:
    roots = four_squares(n)

    assert sum(root**2 for root in roots) == n
    assert all(root > 0 for root in roots)
    assert len(roots) <= 4


def test_fewer_squares_are_taken_where_they_do() -> None:
    assert [four_squares(n) for n in (0, 49, 50, 6, 7)] == [(), (7,), (7, 1), (2, 1, 1), (2, 1, 1, 1)]


# --- calibration ------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e4), st.sampled_from([1e-12, 1e-5, 0.1]))
def test_the_curve_is_read_both_ways(epsilon: float, delta: float) -> None:
    mu = gaussian_calibration(epsilon, delta)

    assert epsilon * (1 - 2e-9) < epsilon_of(mu, delta) < epsilon
    assert log_delta(epsilon, mu) < math.log(delta)


@settings(max_examples=60)
@given(
    epsilon=EPSILONS,
    delta=DELTAS,
    n_participants=st.integers(1, 10**6),
    parts=st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 5), st.floats(0.01, 100)), min_size=1, max_size=4),
    honest_part=st.floats(0.5, 1),
)
def test_stages_together_never_exceed_what_was_asked(
    epsilon: float,
    delta: float,
    n_participants: int,
    parts: list[tuple[float, int, float]],
    honest_part: float,
) -> None:
    total = sum(share * rounds for share, rounds, _ in parts)
    try:
        stages = [
            (stage_of(share / total, clip, epsilon, delta, n_participants, honest_part), rounds)
            for share, rounds, clip in parts
        ]
    except PrivacyError:
        assume(False)

    spent = privacy_loss([(mechanism.event(), rounds) for mechanism, rounds in stages], delta)

    assert spent.epsilon_pld is not None
    assert spent.epsilon_rdp is not None
    assert spent.epsilon_basic is not None
    assert spent.epsilon_pld <= epsilon
    assert spent.epsilon_pld <= spent.epsilon_rdp <= spent.epsilon_basic
    assert sum(mechanism.spend_nano * rounds for mechanism, rounds in stages) <= rho_nano_limit(epsilon, delta)


def stage_of(
    share: float, clip: float, epsilon: float, delta: float, n_participants: int, honest_part: float
) -> DistributedGaussian:
    return stage(
        share_of_budget=share,
        clip_norm=clip,
        epsilon=epsilon,
        delta=delta,
        n_participants=n_participants,
        honest=math.ceil(honest_part * n_participants),
        n_coordinates=1000,
    )


@given(st.floats(0.1, 50), DELTAS, st.integers(1, 200), st.floats(0.01, 100))
def test_local_rounds_together_never_exceed_what_was_asked(
    epsilon: float, delta: float, rounds: int, clip_norm: float
) -> None:
    mechanism = local(epsilon, delta, rounds, clip_norm)

    spent = privacy_loss([(mechanism.event(), rounds)], delta)

    assert spent.epsilon_pld is not None
    assert 0.99 * epsilon < spent.epsilon_pld <= epsilon
    assert mechanism.spend_nano * rounds <= rho_nano_limit(epsilon, delta)
    assert 0.99 * clip_norm < mechanism.clip_units / 2**mechanism.fraction_bits <= clip_norm


def local(epsilon: float, delta: float, rounds: int, clip_norm: float) -> Gaussian:
    config = PrivacyConfig(mode="local", mechanism="gaussian", epsilon=epsilon, delta=delta, clip_norm=clip_norm)
    mechanism = calibrated_mechanism(config, rounds=rounds)
    assert isinstance(mechanism, Gaussian)
    return mechanism


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0, 16.0])
def test_a_fine_grid_wastes_next_to_nothing(epsilon: float) -> None:
    mechanism = stage(epsilon=epsilon)

    spent = privacy_loss([(mechanism.event(), 2)], DELTA)

    assert spent.epsilon_pld is not None
    assert 0.999 * epsilon < spent.epsilon_pld <= epsilon
    assert mechanism.share_units > 1000
    assert mechanism.honest == 5436
    noise = mechanism.client_noise * math.sqrt(5436) / math.sqrt(2)
    assert noise == pytest.approx(1 / gaussian_calibration(epsilon, DELTA), rel=1e-3)


@given(st.integers(1, 10**6), EPSILONS, st.sampled_from([1, 1000, 10**6]))
def test_sums_fit_the_modulus(n_participants: int, epsilon: float, n_coordinates: int) -> None:
    mechanism = stage(n_participants=n_participants, epsilon=epsilon, n_coordinates=n_coordinates)

    data = n_participants * mechanism.clip_units
    spare = (LARGEST_SUM - data) / (math.sqrt(n_participants) * mechanism.share_units)

    assert n_coordinates * 2 * math.exp(-(spare**2) / 2) <= 2**-40 * 1.000001
    assert mechanism.clip_units <= LARGEST_CLIP_UNITS


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("n_participants", [1, 63, 64, 1000])
def test_noise_far_above_the_data_can_be_drawn(n_participants: int, exact: bool) -> None:
    mechanism = stage(n_participants=n_participants, epsilon=0.001, n_coordinates=1)
    rows = np.zeros((1, 1), np.int64)

    mechanism.add_to_sum(rows, np.zeros(0, np.int64), n_participants, keys(1)[0], exact)

    assert math.sqrt(n_participants) * mechanism.share_units > 2**23
    assert 0 < abs(rows[0, 0]) < 2**31


def test_huge_cohorts_add_more_noise_than_the_budget_asks_for() -> None:
    mechanism = stage(n_participants=10**7, epsilon=50.0)

    spent = privacy_loss([(mechanism.event(), 2)], DELTA)

    assert mechanism.share_units == 3
    assert spent.epsilon_pld is not None
    assert spent.epsilon_pld < 40


@pytest.mark.parametrize("changes", [{"clip_norm": 1e9}, {"epsilon": 1e-9}, {"share_of_budget": 1e-12}])
def test_what_does_not_fit_the_grid_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(PrivacyError):
        stage(**changes)


def test_a_local_budget_that_does_not_fit_the_grid_is_refused() -> None:
    with pytest.raises(PrivacyError, match="too little"):
        local(0.1, DELTA, 1000, 1e6)
    with pytest.raises(PrivacyError, match=r"epsilon .* is too small: .* is less than a billionth"):
        local(1e-6, DELTA, 10_000, 1.0)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_limit_made_from_five_holds_one_run_of_four_and_no_second() -> None:
    limit, run = rho_nano_limit(5.0, DELTA), 2 * stage(epsilon=4.0).spend_nano

    assert run <= rho_nano_limit(4.0, DELTA) < limit < 2 * run


def test_a_run_of_the_whole_limit_just_fits() -> None:
    limit, run = rho_nano_limit(5.0, DELTA), 2 * stage(epsilon=5.0).spend_nano

    assert 0.999 * limit < run <= limit


def test_rho_follows_from_sigma() -> None:
    mechanism = stage()
    variance = mechanism.honest * mechanism.share_units**2

    assert mechanism.spend_nano == math.ceil(Fraction(mechanism.clip_units**2 * NANO, 2 * (variance - 4)))
    assert mechanism.event().charge * NANO == pytest.approx(mechanism.spend_nano, abs=1)
    assert mechanism.event().rho < mechanism.event().charge


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 2000), st.integers(3, 1000), st.integers(1, 300)), min_size=1, max_size=5),
    EPSILONS,
    DELTAS,
)
def test_whatever_fits_the_limit_keeps_its_epsilon(
    releases: list[tuple[int, int, int]], epsilon: float, delta: float
) -> None:
    """On any grid, however coarse: an account within the limit made from (epsilon, delta) is within them."""
    mechanisms = [
        DistributedGaussian(fraction_bits=0, clip_units=clip, share_units=share, honest=honest, masked=1)
        for clip, share, honest in releases
    ]
    left, events = rho_nano_limit(epsilon, delta), []
    for mechanism in mechanisms:
        times = min(left // mechanism.spend_nano, 100)
        left -= times * mechanism.spend_nano
        events.append((mechanism.event(), times))

    spent = privacy_loss(events, delta)

    assert spent.epsilon is not None
    assert spent.epsilon <= epsilon


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("gaussian", {"clip_units": 5}, "does not take"),
        ("gaussian", {"clip_units": 5, "sigma_units": 2}, "sigma_units is 2"),
        ("gaussian", {"clip_units": 5, "sigma_units": 2**24 + 1}, "sigma_units is"),
        ("gaussian", {"clip_units": 0, "sigma_units": 5}, "clip_units is 0"),
        ("distributed_gaussian", {"clip_units": 5, "share_units": 9, "honest": 1}, "does not take"),
        ("distributed_gaussian", {"clip_units": 5, "share_units": 2, "honest": 1, "masked": 1}, "share_units is 2"),
        ("distributed_gaussian", {"clip_units": 5, "share_units": 9, "honest": 0, "masked": 1}, "honest is 0"),
        ("distributed_gaussian", {"clip_units": 5, "share_units": 9, "honest": 1, "masked": 2}, "masked is 2"),
    ],
)
def test_parameters_that_make_no_mechanism_are_refused(name: str, parameters: dict[str, int], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        mechanism_from(name, 20, parameters)


@settings(max_examples=60)
@given(epsilon=EPSILONS, n_participants=st.integers(1, 10**4), left=st.integers(1, 10**4))
def test_where_people_have_left_the_others_add_so_much_more_noise_that_no_answer_costs_more(
    epsilon: float, n_participants: int, left: int
) -> None:
    planned = stage_of(1.0, 1.0, epsilon, DELTA, n_participants, 0.9)

    left = min(left, n_participants)
    try:
        held = planned.held_by(left, left, 1000)
    except PrivacyError:
        assume(False)

    assert held.honest == min(left, planned.honest)
    assert held is planned or held.sums_fit(left, 1000)
    assert held.honest * held.share_units**2 >= planned.honest * planned.share_units**2
    assert held.spend_nano <= planned.spend_nano
    assert (held.honest < planned.honest) == (held.share_units > planned.share_units)
    assert (held.clip_units, held.fraction_bits) == (planned.clip_units, planned.fraction_bits)

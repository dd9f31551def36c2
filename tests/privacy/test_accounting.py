"""Epsilons, promises and predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from liberate.arrays import Float64Array, RealStatistics
from liberate.errors import UnaccountableEvent
from liberate.privacy.accounting import PrivacyLoss, hockey_stick, privacy_loss, rdp
from liberate.privacy.events import (
    DiscreteGaussianRelease,
    DiscreteLaplaceRelease,
    DistributedGaussianRelease,
    Event,
    NonPrivateRelease,
)
from liberate.privacy.gaussian import DistributedGaussian, Gaussian
from liberate.privacy.gaussian_tradeoff import epsilon_of
from liberate.privacy.laplace import Laplace
from liberate.privacy.mechanism_base import Plain
from liberate.privacy.promises import noise_warning, privacy_statement, sampler, signal_to_noise
from tests.reference import privacy_loss as reference

DELTA = 1e-5
FINE = 2**20


def laplace(epsilon: float, scale: int = FINE) -> DiscreteLaplaceRelease:
    return DiscreteLaplaceRelease(sensitivity=round(epsilon * scale), scale=scale)


def epsilons(*events: tuple[Event, int], delta: float = DELTA) -> tuple[float, float, float]:
    spent = privacy_loss(events, delta)
    assert spent.epsilon_basic is not None
    assert spent.epsilon_rdp is not None
    assert spent.epsilon_pld is not None
    return spent.epsilon_basic, spent.epsilon_rdp, spent.epsilon_pld


# --- one release ------------------------------------------------------------------------------------------------------

SMALL = pytest.mark.parametrize(("sensitivity", "scale"), [(1, 1), (1, 3), (2, 1), (3, 2), (8, 5), (12, 100), (40, 3)])


@SMALL
def test_hockey_stick_equals_direct_summation(sensitivity: int, scale: int) -> None:
    limit = sensitivity / scale
    grid = np.linspace(-1.2 * limit, 1.2 * limit, 97)

    found = hockey_stick(DiscreteLaplaceRelease(sensitivity=sensitivity, scale=scale), grid)

    np.testing.assert_allclose(found, reference.hockey_stick([sensitivity], scale, grid), atol=1e-13)


@SMALL
def test_renyi_divergence_equals_direct_summation(sensitivity: int, scale: int) -> None:
    orders = np.array([1.01, 1.5, 2.0, 7.0, 64.0, 300.0])

    found = rdp(DiscreteLaplaceRelease(sensitivity=sensitivity, scale=scale), orders)

    np.testing.assert_allclose(found, reference.renyi(sensitivity, scale, orders), rtol=1e-9)


@pytest.mark.parametrize("sensitivity", [2, 20, 200, 2000])
def test_renyi_divergence_of_next_to_nothing_is_not_rounded_below_its_value(sensitivity: int) -> None:
    """For small epsilon it is order * epsilon**2 / 2, less a little."""
    orders, epsilon = np.linspace(1.01, 40.0, 500), sensitivity / 2**24

    found = rdp(DiscreteLaplaceRelease(sensitivity=sensitivity, scale=2**24), orders)

    assert (found >= orders * epsilon**2 / 2 * (1 - epsilon)).all()


@pytest.mark.parametrize("shifts", [[1, 5], [3, 3], [2, 2, 2], [1, 1, 1, 1, 1, 1], [6, 0]])
@pytest.mark.parametrize("scale", [1, 3, 10])
def test_one_number_shifted_by_all_is_the_worst_vector(shifts: list[int], scale: int) -> None:
    grid = np.linspace(-7 / scale, 7 / scale, 81)

    scalar = hockey_stick(DiscreteLaplaceRelease(sensitivity=6, scale=scale), grid)

    assert (reference.hockey_stick(shifts, scale, grid) <= scalar + 1e-12).all()


def test_a_coarser_grid_tells_more_and_none_tells_least() -> None:
    grid = np.linspace(0.0, 2.0, 41)
    curves = [hockey_stick(DiscreteLaplaceRelease(sensitivity=2 * k, scale=k), grid) for k in (1, 2, 8, 64, 2**23)]
    continuous = -np.expm1((grid - 2.0) / 2)

    for coarse, fine in zip(curves, [*curves[1:], continuous], strict=True):
        assert (coarse >= fine - 1e-12).all()
    assert (curves[0] > continuous + 1e-3)[:-1].any()
    np.testing.assert_allclose(curves[-1], continuous, atol=1e-6)


# --- many releases ----------------------------------------------------------------------------------------------------


def test_hundred_rounds_of_a_tenth() -> None:
    basic, by_rdp, by_pld = epsilons((laplace(0.1, 10 * FINE), 100))

    assert basic == pytest.approx(10, abs=1e-12)
    assert by_rdp == pytest.approx(4.53, abs=0.005)
    assert by_pld == pytest.approx(4.22, abs=0.005)


def test_another_accountant_agrees_where_it_applies() -> None:
    from dp_accounting import LaplaceDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    continuous = PLDAccountant().compose(SelfComposedDpEvent(LaplaceDpEvent(4.0), 30)).get_epsilon(DELTA)

    _, _, by_pld = epsilons((laplace(0.25, 2**24), 30))

    assert by_pld == pytest.approx(continuous, rel=1e-3)


@pytest.mark.parametrize(("sensitivity", "scale"), [(1, 1), (1, 4), (3, 2), (8, 5), (5, 20)])
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("delta", [1e-2, 1e-5])
def test_composition_equals_direct_convolution(sensitivity: int, scale: int, rounds: int, delta: float) -> None:
    exact = reference.composed_epsilon(sensitivity, scale, rounds, delta)

    _, by_rdp, by_pld = epsilons((DiscreteLaplaceRelease(sensitivity=sensitivity, scale=scale), rounds), delta=delta)

    assert by_pld == pytest.approx(exact, rel=1e-4, abs=1e-6)
    assert by_pld >= exact - 1e-7
    assert by_rdp >= exact - 1e-9


def test_different_releases_add_up() -> None:
    one, other = laplace(0.1), laplace(0.3)

    basic, by_rdp, by_pld = epsilons((one, 20), (other, 10))

    assert basic == pytest.approx(5.0, abs=1e-5)
    assert max(epsilons((one, 20))[2], epsilons((other, 10))[2]) < by_pld < by_rdp < basic
    assert epsilons((other, 4), (one, 20), (other, 6)) == pytest.approx((basic, by_rdp, by_pld), rel=1e-6)


@settings(max_examples=40)
@given(st.integers(1, 2**29), st.integers(1, 2**24), st.integers(1, 200), st.sampled_from([1e-10, 1e-5, 0.1]))
def test_tight_epsilons_never_exceed_the_basic_one(
    clip_units: int, scale_units: int, rounds: int, delta: float
) -> None:
    event = Laplace(fraction_bits=0, clip_units=clip_units, scale_units=scale_units).event()

    basic, by_rdp, by_pld = epsilons((event, rounds), delta=delta)

    assert 0 <= by_pld <= by_rdp
    assert by_rdp <= basic == float(event.epsilon * rounds)


@settings(max_examples=30)
@given(st.integers(1, 100), st.floats(0.01, 3))
def test_epsilon_grows_with_rounds_and_falls_with_noise(rounds: int, epsilon: float) -> None:
    fewer = np.array(epsilons((laplace(epsilon), rounds)))

    assert (fewer < np.array(epsilons((laplace(epsilon), rounds + 1)))).all()
    assert (fewer < np.array(epsilons((laplace(1.1 * epsilon), rounds)))).all()


def test_absurd_epsilons_are_read_by_basic_composition_alone() -> None:
    assert epsilons((laplace(8.0), 100)) == (800.0, 800.0, 800.0)
    assert epsilons((laplace(6.0), 100))[2] < 600.0


def test_nothing_released_costs_nothing() -> None:
    nothing = PrivacyLoss(epsilon_basic=0.0, epsilon_rdp=0.0, epsilon_pld=0.0, rho=0.0, delta=DELTA)

    assert privacy_loss([], DELTA) == nothing
    assert privacy_loss([(laplace(1.0), 0), (NonPrivateRelease(), 0)], DELTA) == nothing


def test_a_disclosure_has_no_bound() -> None:
    unbounded = PrivacyLoss(epsilon_basic=None, epsilon_rdp=None, epsilon_pld=None, rho=None, delta=DELTA)

    assert privacy_loss([(NonPrivateRelease(), 1)], DELTA) == unbounded
    assert privacy_loss([(laplace(1.0), 3), (NonPrivateRelease(), 1)], DELTA) == unbounded


def test_pure_releases_are_not_charged_to_rho() -> None:
    assert privacy_loss([(laplace(1.0), 3)], DELTA).rho is None


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(UnaccountableEvent, match="Gaussian"):
        privacy_loss([("Gaussian", 1)], DELTA)  # type: ignore[list-item]  # what the type forbids


@pytest.mark.parametrize(("count", "delta", "message"), [(-1, DELTA, "-1 times"), (1, 0.0, "delta"), (1, 1.0, "delta")])
def test_impossible_questions_are_refused(count: int, delta: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        privacy_loss([(laplace(1.0), count)], delta)


# --- Gaussian noise ---------------------------------------------------------------------------------------------------


def gaussian(mu: float, sigma: int = 2**20) -> DiscreteGaussianRelease:
    return DiscreteGaussianRelease(sensitivity=round(mu * sigma), sigma=sigma)


def shares(mu: float, honest: int = 100, share: int = 2**20) -> DistributedGaussianRelease:
    return DistributedGaussianRelease(sensitivity=round(mu * share * math.sqrt(honest)), share=share, honest=honest)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 4.0, 8.0, 16.0, 64.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2])
def test_one_gaussian_release_has_the_closed_form(epsilon: float, delta: float) -> None:
    def excess(mu: float) -> float:
        norm = stats.norm
        return float(norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)) - delta)

    mu = float(brentq(excess, 1e-3, 50.0, xtol=1e-14))

    for event in (gaussian(mu), shares(mu)):
        spent = privacy_loss([(event, 1)], delta)
        assert spent.epsilon_pld == pytest.approx(epsilon, rel=1e-4)
        assert spent.epsilon_basic == spent.epsilon_pld == spent.epsilon
        assert spent.rho == pytest.approx(mu**2 / 2, rel=1e-4)


@pytest.mark.parametrize("sigma", [3, 4, 8])
@pytest.mark.parametrize("shifts", [[1], [4], [10], [2, 1], [3, 3], [1, 1, 1]])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-8])
def test_discrete_gaussian_noise_tells_no_more_than_its_curve(shifts: list[int], sigma: int, delta: float) -> None:
    """On the coarsest grids there are, in one and several coordinates, by summing over all outcomes."""
    sensitivity = math.ceil(math.sqrt(sum(shift**2 for shift in shifts)))
    event = DiscreteGaussianRelease(sensitivity=sensitivity, sigma=sigma)

    _, by_rdp, by_pld = epsilons((event, 1), delta=delta)

    assert reference.gaussian_delta(shifts, sigma, by_pld) <= delta * (1 + 1e-9)
    assert reference.gaussian_delta(shifts, sigma, by_rdp) <= delta


def test_on_a_coarse_grid_renyi_is_the_tighter_reading() -> None:
    _, by_rdp, by_pld = epsilons((DiscreteGaussianRelease(sensitivity=3, sigma=3), 2))

    assert by_pld == by_rdp < epsilon_of(math.sqrt(2 * 9 / 5), DELTA)


@pytest.mark.parametrize(("share", "honest"), [(3, 2), (3, 9), (4, 5), (10, 3)])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-8])
def test_shares_of_noise_tell_no_more_than_their_curve(share: int, honest: int, delta: float) -> None:
    event = DistributedGaussianRelease(sensitivity=7, share=share, honest=honest)

    _, _, by_pld = epsilons((event, 1), delta=delta)

    assert reference.gaussian_delta([7], share, by_pld, honest) <= delta * (1 + 1e-9)


def test_many_gaussian_releases_are_one_of_their_summed_squares() -> None:
    many = epsilons((gaussian(0.1), 50), (shares(0.5), 2), (gaussian(0.3), 10))

    assert many[2] == pytest.approx(epsilons((gaussian(math.sqrt(0.5 + 0.5 + 0.9)), 1))[2], rel=1e-4)
    assert many[2] < many[1] < many[0]


def test_basic_composition_of_gaussian_releases_splits_delta_evenly() -> None:
    basic, _, _ = epsilons((gaussian(0.1), 3), (laplace(0.25), 4), (shares(0.5), 1))

    parts = 3 * epsilons((gaussian(0.1), 1), delta=DELTA / 4)[2] + epsilons((shares(0.5), 1), delta=DELTA / 4)[2]
    assert basic == pytest.approx(parts + 1.0, rel=1e-6)


def test_renyi_of_gaussian_releases_follows_from_rho() -> None:
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    expected = RdpAccountant().compose(SelfComposedDpEvent(GaussianDpEvent(4.0), 20)).get_epsilon(DELTA)

    _, by_rdp, _ = epsilons((gaussian(0.25), 20))

    assert by_rdp == pytest.approx(expected, rel=1e-3)
    assert by_rdp <= expected * (1 + 1e-9)


MIXES = pytest.mark.parametrize(
    ("mu", "n_gaussian", "epsilon", "n_laplace"),
    [(0.25, 10, 0.1, 10), (1.5, 1, 0.01, 3), (0.02, 4, 1.0, 4), (0.5, 3, 0.5, 30)],
)


@MIXES
def test_another_accountant_agrees_on_mixes(mu: float, n_gaussian: int, epsilon: float, n_laplace: int) -> None:
    from dp_accounting import ComposedDpEvent, GaussianDpEvent, LaplaceDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    both = ComposedDpEvent(
        [
            SelfComposedDpEvent(GaussianDpEvent(1 / mu), n_gaussian),
            SelfComposedDpEvent(LaplaceDpEvent(1 / epsilon), n_laplace),
        ]
    )
    expected = PLDAccountant().compose(both).get_epsilon(DELTA)

    basic, by_rdp, by_pld = epsilons((gaussian(mu), n_gaussian), (laplace(epsilon), n_laplace))

    assert by_pld == pytest.approx(expected, rel=2e-3)
    assert by_pld < by_rdp <= basic


@MIXES
@pytest.mark.oracles
def test_a_third_accountant_agrees_within_its_error(
    oracle: Callable[[str], ModuleType], mu: float, n_gaussian: int, epsilon: float, n_laplace: int
) -> None:
    """prv-accountant (Gopi, Lee, Wutschitz 2021) brackets what it composes; the brackets hold ours."""
    prv = oracle("prv_accountant")
    counts = [n_gaussian, n_laplace]
    accountant = prv.PRVAccountant(
        [prv.GaussianMechanism(1 / mu), prv.LaplaceMechanism(epsilon)],
        max_self_compositions=counts,
        eps_error=0.01,
        delta_error=1e-9,
    )

    low, _, high = accountant.compute_epsilon(DELTA, counts)

    assert low <= epsilons((gaussian(mu), n_gaussian), (laplace(epsilon), n_laplace))[2] <= high


def test_little_pure_noise_beside_much_gaussian_is_composed_on_a_grid_that_fits() -> None:
    alone = epsilons((gaussian(1.5), 1))[2]

    assert alone < epsilons((gaussian(1.5), 1), (laplace(1e-4), 2))[2] <= alone + 2.1e-4


@settings(max_examples=30)
@given(st.integers(1, 100), st.floats(0.01, 3), st.integers(2, 200))
def test_gaussian_epsilon_grows_with_rounds_and_falls_with_noise(rounds: int, mu: float, honest: int) -> None:
    for event, noisier in ((gaussian(mu), gaussian(0.9 * mu)), (shares(mu, honest), shares(0.9 * mu, honest))):
        spent = np.array(epsilons((event, rounds)))
        assert (spent < np.array(epsilons((event, rounds + 1)))).all()
        assert (spent > np.array(epsilons((noisier, rounds)))).all()


def test_colluding_participants_take_their_noise_out() -> None:
    event = shares(0.5, honest=100)

    spent = [
        privacy_loss([(event, 2), (laplace(0.1), 1)], DELTA, colluding=c).epsilon_pld or 0 for c in (0, 10, 50, 99)
    ]

    assert spent == sorted(set(spent))
    half = DistributedGaussianRelease(sensitivity=event.sensitivity, share=event.share, honest=50)
    assert spent[2] == privacy_loss([(half, 2), (laplace(0.1), 1)], DELTA).epsilon_pld
    assert privacy_loss([(event, 1)], DELTA, colluding=100).epsilon_pld is None
    assert privacy_loss([(gaussian(1.0), 1)], DELTA, colluding=100) == privacy_loss([(gaussian(1.0), 1)], DELTA)
    with pytest.raises(ValueError, match="colluding is -1"):
        privacy_loss([(event, 1)], DELTA, colluding=-1)


@pytest.mark.parametrize("share", [3, 4, 5])
def test_what_shares_add_up_to_is_nearly_one_discrete_gaussian(share: int) -> None:
    """Nearer than tau says, coordinate by coordinate, at every integer that ever happens."""
    event = DistributedGaussianRelease(sensitivity=1, share=share, honest=6)
    _, mass = reference.gaussian_losses(share, 0, 6)
    x = np.arange(len(mass)) - len(mass) // 2
    whole = np.exp(-(x**2) / (2 * event.variance))
    likely = mass > 1e-12

    ratio = np.log(mass[likely]) - np.log((whole / whole.sum())[likely])

    assert np.abs(ratio).max() <= event.tau / 2 + 1e-9


def test_tau_is_what_the_paper_says() -> None:
    event = DistributedGaussianRelease(sensitivity=1, share=3, honest=3)
    few = math.exp(-(math.pi**2) * 9) + math.exp(-4 / 3 * math.pi**2 * 9)

    assert event.tau == pytest.approx(10 * few, rel=1e-12)
    many = DistributedGaussianRelease(sensitivity=1, share=3, honest=10**6)
    assert many.tau == pytest.approx(10 * few, rel=1e-12)
    assert DistributedGaussianRelease(sensitivity=1, share=3, honest=1).tau == 0.0


def test_the_promised_epsilon_is_pure_where_there_is_one() -> None:
    pure, mixed = privacy_loss([(laplace(0.5), 4)], DELTA), privacy_loss([(laplace(0.5), 4), (gaussian(0.1), 1)], DELTA)

    assert pure.epsilon == pure.epsilon_basic
    assert mixed.epsilon == mixed.epsilon_pld
    assert privacy_loss([(NonPrivateRelease(), 1)], DELTA).epsilon is None
    assert privacy_loss([], DELTA).epsilon == 0.0


# --- words and predictions --------------------------------------------------------------------------------------------


def test_promises_name_unit_relation_and_adversary() -> None:
    device, plain, local = privacy_statement("device"), privacy_statement("plain"), privacy_statement("local")
    distributed = privacy_statement("distributed")

    assert "nobody receives anything" in device.adversary
    assert plain.unit == "none"
    assert "coordinator is trusted" in plain.adversary
    assert local.unit == "user"
    assert "zero-out" in local.relation
    assert "replace" in local.relation
    assert "coordinator" in local.adversary
    assert "discrete Laplace" in local.mechanism
    assert "discrete Gaussian" in privacy_statement("local", "gaussian").mechanism
    assert distributed.unit == "user"
    assert distributed.relation.startswith("zero-out")
    assert "may lie" in distributed.adversary
    assert "as were agreed to" in distributed.adversary
    assert "share of discrete Gaussian" in distributed.mechanism


def test_the_fast_sampler_is_never_called_protection() -> None:
    assert "exact" in sampler(exact=True)
    assert "simulation" in sampler(exact=False)
    assert "protects nobody" in sampler(exact=False)


def test_signal_to_noise_is_what_the_best_case_measures() -> None:
    mechanism = Laplace(fraction_bits=8, clip_units=900, scale_units=300)
    n_participants, n_items, width = 50, 400, 3
    everybody_alike = RealStatistics(
        indptr=np.arange(n_participants + 1),
        indices=np.zeros(n_participants, np.int32),
        rows=np.tile(np.array([900 / 256, 0.0, 0.0], np.float32), (n_participants, 1)),
        tails=np.zeros((n_participants, 1)),
    )
    keys = [sha256(bytes([d])).digest() for d in range(n_participants)]
    release = mechanism.release(everybody_alike, n_items, keys, exact=True)

    total = release.rows.reshape(n_participants, -1).sum(axis=0, dtype=np.float64)
    signal = np.zeros_like(total)
    signal[0] = 900 * n_participants
    noise = np.append(total - signal, float(release.tails.sum()))

    predicted = signal_to_noise(mechanism, n_participants, (n_items, width, 1))
    assert norm(signal) / norm(noise) == pytest.approx(predicted, rel=0.05)


def norm(numbers: Float64Array) -> float:
    return float(np.linalg.norm(numbers))


def test_signal_to_noise_of_the_textbook() -> None:
    """sqrt(N / (2 d)) * clip / scale, where the grid is fine."""
    mechanism = Laplace(fraction_bits=8, clip_units=2**20, scale_units=2**22)

    found = signal_to_noise(mechanism, 6040, (3706, 9, 0))

    assert found == pytest.approx(math.sqrt(6040 / (2 * 3706 * 9)) / 4, rel=1e-9)
    assert signal_to_noise(Gaussian(fraction_bits=8, clip_units=2**18, sigma_units=2**20), 6040, (3706, 9, 0)) == (
        pytest.approx(math.sqrt(6040 / (3706 * 9)) / 4, rel=1e-9)
    )
    shared = DistributedGaussian(fraction_bits=8, clip_units=2**18, share_units=2**16, honest=5436, masked=1)
    assert signal_to_noise(shared, 6040, (3706, 9, 0)) == pytest.approx(4 * math.sqrt(6040 / (3706 * 9)), rel=1e-9)
    assert signal_to_noise(Plain(), 6040, (3706, 9, 0)) == math.inf


def test_a_warning_is_given_below_one_only() -> None:
    warning = noise_warning(0.25)

    assert warning is not None
    assert "4.0 times" in warning
    assert "not expected to learn anything" in warning
    assert noise_warning(1.0) is None
    assert noise_warning(math.inf) is None

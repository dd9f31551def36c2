"""Audits of every mechanism: claims survive, planted bugs do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from liberate.arrays import RealStatistics
from liberate.privacy.accounting import privacy_loss
from liberate.privacy.attacks import auc
from liberate.privacy.auditing import CONFIDENCE, AuditResult, audit, reach_of, run_canary_game
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.gaussian_calibration import distributed
from liberate.privacy.laplace import Laplace
from liberate.privacy.mechanism_base import Mechanism, Plain
from liberate.privacy.mechanisms import calibrated_mechanism
from liberate.randomness import SimulatedRandomness
from liberate_studies.audits import planted

DELTA = 1e-5
RUNS = 40
ALLOWED = int(binom.isf(0.001, RUNS, 1 - CONFIDENCE))
"""More audits than this may exceed a true claim in one of a thousand tests at most."""

Make = Callable[[float, int], Mechanism]


def local_laplace(epsilon: float, rounds: int) -> Laplace:
    mechanism = calibrated_mechanism(PrivacyConfig(mode="local", epsilon=epsilon), rounds=rounds)
    assert isinstance(mechanism, Laplace)
    return mechanism


def local_gaussian(epsilon: float, rounds: int) -> Mechanism:
    return calibrated_mechanism(
        PrivacyConfig(mode="local", mechanism="gaussian", epsilon=epsilon, delta=DELTA), rounds=rounds
    )


def distributed_sum(epsilon: float, rounds: int) -> Mechanism:
    return distributed(
        clip_norm=1.0,
        share_of_budget=1 / rounds,
        epsilon=epsilon,
        delta=DELTA,
        n_participants=20_000,
        honest=18_000,
        n_coordinates=20_000,
    )


MECHANISMS: dict[str, Make] = {
    "local-laplace": local_laplace,
    "local-gaussian": local_gaussian,
    "distributed-sum": distributed_sum,
}
CLAIMS = pytest.mark.parametrize("claim", [1.0, 2.0])
EVERY = pytest.mark.parametrize("make", MECHANISMS.values(), ids=MECHANISMS)


def examine(
    announced: Mechanism, real: Mechanism, seed: int, *, rounds: int = 1, n_canaries: int = 20_000, exact: bool = False
) -> AuditResult:
    """Audit what really runs under the name of what was announced."""
    game = run_canary_game(
        real,
        rounds=rounds,
        n_canaries=n_canaries,
        reach=reach_of(announced),
        randomness=SimulatedRandomness(seed),
        exact=exact,
    )
    return audit(game.scores, game.coins, n_canaries // 10, DELTA)


def exceeding(make: Make, claim: float, *, rounds: int, n_canaries: int) -> int:
    """Count the audits, of 40, that exceed a claim."""
    mechanism = make(claim, rounds)
    spent = privacy_loss([(mechanism.event(), rounds)], DELTA)
    assert spent.epsilon_pld is not None
    assert spent.epsilon_pld <= claim
    audits = [examine(mechanism, mechanism, seed, rounds=rounds, n_canaries=n_canaries) for seed in range(RUNS)]
    return sum(found.bound > claim for found in audits)


@EVERY
@CLAIMS
def test_audits_exceed_a_claim_no_more_often_than_chance_allows(make: Make, claim: float) -> None:
    assert exceeding(make, claim, rounds=1, n_canaries=4000) <= ALLOWED


@pytest.mark.soak
@EVERY
@CLAIMS
@pytest.mark.parametrize("rounds", [1, 10])
def test_large_audits_exceed_a_claim_no_more_often_than_chance_allows(make: Make, claim: float, rounds: int) -> None:
    assert exceeding(make, claim, rounds=rounds, n_canaries=20_000) <= ALLOWED


def test_audit_of_laplace_noise_comes_close_to_the_claim() -> None:
    """One number shifted by the whole sensitivity is the worst case, and the audit finds most of it."""
    mechanism = local_laplace(2.0, 1)

    assert 1.7 < examine(mechanism, mechanism, 1).bound < 2.0


@EVERY
def test_exact_noise_stands_the_same_audit(make: Make) -> None:
    mechanism = make(1.0, 1)

    found = examine(mechanism, mechanism, 3, n_canaries=4000, exact=True)

    assert found.bound <= 1.0
    assert found.correct > found.guesses // 2


@EVERY
@CLAIMS
def test_noise_that_is_four_times_too_small_is_caught(make: Make, claim: float) -> None:
    mechanism = make(claim, 1)

    assert examine(mechanism, planted(mechanism)[0], 1).verdict(claim) == "refuted"


@EVERY
@CLAIMS
def test_missing_clip_is_caught(make: Make, claim: float) -> None:
    mechanism = make(claim, 1)

    assert examine(mechanism, planted(mechanism)[1], 1).verdict(claim) == "refuted"


def test_membership_is_certain_without_noise_and_hard_with_it() -> None:
    def membership(mechanism: Mechanism) -> float:
        game = run_canary_game(
            mechanism, rounds=1, n_canaries=5000, reach=reach_of(mechanism), randomness=SimulatedRandomness(4)
        )
        return auc(game.scores, game.coins)

    assert membership(Plain()) == 1.0
    assert 0.7 < membership(local_laplace(1.0, 1)) < 0.75
    assert 0.5 < membership(local_laplace(0.1, 1)) < 0.56


def test_game_is_fixed_by_its_seed_and_its_coins_are_fair() -> None:
    mechanism = local_laplace(1.0, 1)

    one, again, other = (
        run_canary_game(
            mechanism, rounds=1, n_canaries=4000, reach=reach_of(mechanism), randomness=SimulatedRandomness(seed)
        )
        for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(one.scores, again.scores)
    assert (one.coins != other.coins).any()
    assert 1850 < one.coins.sum() < 2150


@pytest.mark.parametrize(("bug", "verdict"), [(False, "not refuted"), (True, "refuted")])
def test_shares_of_all_participants_stand_the_audit_of_their_sum(bug: bool, verdict: str) -> None:
    """What `uploads` simulates: everybody adds a share, and the adversary knows the shares that are not honest."""
    m = 1000
    announced = distributed(
        clip_norm=1.0,
        share_of_budget=1.0,
        epsilon=2.0,
        delta=DELTA,
        n_participants=m,
        honest=m,
        n_coordinates=m,
    )
    coins = np.random.default_rng(1).random(m) < 0.5
    batch = RealStatistics(
        indptr=np.concatenate([[0], np.cumsum(coins)]),
        indices=np.arange(m, dtype=np.int32)[coins],
        rows=np.full((coins.sum(), 1), reach_of(announced), np.float32),
        tails=np.zeros((m, 0)),
    )
    real = planted(announced)[0] if bug else announced
    keys = [SimulatedRandomness(1).secret("noise", person) for person in range(m)]

    scores = real.release(batch, m, keys, exact=False).rows.reshape(m, m).sum(axis=0, dtype=np.int64)

    assert audit(scores, coins, 100, DELTA).verdict(2.0) == verdict

"""What an adversary recovers, and what an audit may and may not refute."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu

from liberate.arrays import FixedPointStatistics, Float64Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.item_model import initial_items
from liberate.model.model import Model, initial
from liberate.model.registry import aggregate_statistics, build_method, statistic_of
from liberate.privacy.attacks import (
    GradientView,
    auc,
    averaging_errors,
    nearest,
    ratings_from_gradients,
    ratings_from_normal_equations,
    weights_from_gram,
)
from liberate.privacy.auditing import AuditResult, audit, epsilon_lower_bound
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.mechanism_base import Mechanism, Plain
from liberate.privacy.mechanisms import calibrated_mechanism
from liberate.privacy.misuse import NoiseReuse, ObservedUpload, noise_misuse
from tests.worlds import HIGH, LOW, low_rank_ratings

RATINGS = low_rank_ratings(n_users=60, n_items=40)
KEYS = [bytes([1, user]) * 16 for user in range(60)]


def two_rounds(config: ModelConfig, mechanism: Mechanism) -> list[tuple[Model, FixedPointStatistics]]:
    """Return the models of two consecutive rounds, and what left the devices in each."""
    statistic, solver = build_method(config, RATINGS.n_items, noisy=False)
    model = initial(config, RATINGS.n_items, LOW, HIGH, bytes(32))
    model = solver.solve(model, aggregate_statistics(statistic, model, RATINGS))
    rounds = []
    for _ in range(2):
        batch = statistic.compute(model, RATINGS)
        rounds.append((model, mechanism.release(batch, RATINGS.n_items, KEYS, False)))
        model = solver.solve(model, aggregate_statistics(statistic, model, RATINGS))
    return rounds


def own(ratings: Ratings, user: int) -> slice:
    return slice(int(ratings.indptr[user]), int(ratings.indptr[user + 1]))


def share_recovered(recovered: dict[int, Float64Array]) -> float:
    """Return the share of all ratings that were recovered exactly, from recovered values in standard units."""
    right = 0
    for user, values in recovered.items():
        levels = nearest(values * (HIGH - LOW) / 4 + LOW + 0.625 * (HIGH - LOW), [1, 2, 3, 4, 5])
        right += int((levels == RATINGS.values[own(RATINGS, user)]).sum())
    return right / RATINGS.n_ratings


@pytest.mark.parametrize("n_rounds", [1, 2])
def test_plain_gradients_give_all_ratings_away(n_rounds: int) -> None:
    config = ModelConfig(statistic="gradient", n_factors=4)
    rounds = two_rounds(config, Plain())[:n_rounds]

    recovered = {}
    for user in range(RATINGS.n_users):
        views = []
        for model, sent in rounds:
            rated = sent.indices[own(RATINGS, user)]
            views.append(
                GradientView(
                    rows=sent.rows[own(RATINGS, user)] * 2.0 ** -Plain().fraction_bits,
                    item_means=model.item_means[rated],
                    user_mean=model.float64("user_mean"),
                    user_precision=model.float64("user_precision"),
                    noise_precision=float(model.float64("noise_precision")[0]),
                )
            )
        recovered[user] = ratings_from_gradients(views)

    assert share_recovered(recovered) > 0.99


def test_plain_normal_equations_give_all_ratings_away() -> None:
    _, sent = two_rounds(ModelConfig(statistic="normal", n_factors=4), Plain())[0]
    unit = 2.0 ** -Plain().fraction_bits

    recovered = {
        user: ratings_from_normal_equations(sent.rows[own(RATINGS, user)] * unit, sent.tails[user] * unit)
        for user in range(RATINGS.n_users)
    }

    assert share_recovered(recovered) > 0.99


def test_plain_gram_tells_what_each_rating_weighs() -> None:
    """The diagonal says which items were rated, and which of them were liked."""
    model = initial_items(RATINGS.n_items, LOW, HIGH, statistic="gram", noisy=False)
    statistic = statistic_of(model, noisy=False)
    sent = Plain().release(statistic.compute(model, RATINGS), statistic.shape[0], KEYS, False)
    table = model.float64("gram_weights")
    diagonal = [i * (i + 3) // 2 for i in range(RATINGS.n_items)]

    for user in range(RATINGS.n_users):
        part = slice(int(sent.indptr[user]), int(sent.indptr[user + 1]))
        found = np.isin(sent.indices[part], diagonal)
        values = RATINGS.values[own(RATINGS, user)]
        expected = np.interp((values - LOW) / (HIGH - LOW), [0, 0.25, 0.5, 0.75, 1], table)

        recovered = weights_from_gram(sent.rows[part][found, 0].astype(np.float64), expected.max())

        np.testing.assert_array_equal(
            np.searchsorted(diagonal, sent.indices[part][found]), RATINGS.items[own(RATINGS, user)]
        )
        np.testing.assert_allclose(recovered, expected, rtol=1e-3)


def item_set_auc(mechanism: Mechanism) -> float:
    """Return the mean over devices of how well an upload tells rated items from others."""
    _, sent = two_rounds(ModelConfig(statistic="gradient", n_factors=4), mechanism)[0]
    found = []
    for user in range(RATINGS.n_users):
        rated = np.isin(np.arange(RATINGS.n_items), RATINGS.items[own(RATINGS, user)])
        part = slice(int(sent.indptr[user]), int(sent.indptr[user + 1]))
        scores = np.zeros(RATINGS.n_items)
        scores[sent.indices[part]] = np.linalg.norm(sent.rows[part].astype(np.float64), axis=1)
        found.append(auc(scores, rated))
    return float(np.mean(found))


def test_rated_items_show_in_plain_uploads_and_drown_in_local_noise() -> None:
    local = calibrated_mechanism(PrivacyConfig(mode="local", epsilon=8.0), rounds=10)

    assert item_set_auc(Plain()) == 1.0
    assert item_set_auc(local) == pytest.approx(0.5, abs=0.03)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_rank_statistic_of_mann_and_whitney(pairs: list[tuple[int, bool]]) -> None:
    scores, is_in = np.array([s for s, _ in pairs]), np.array([i for _, i in pairs])

    found = auc(scores, is_in)

    if is_in.all() or not is_in.any():
        assert math.isnan(found)
    else:
        inside, outside = scores[is_in], scores[~is_in]
        expected = mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside))
        assert found == pytest.approx(expected)


def test_noise_averages_out_with_the_square_root_of_the_rounds() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(-50, 50, 4000)
    uploads = truth + np.rint(rng.laplace(0, 1000, (64, 4000))).astype(np.int64)

    errors = averaging_errors(uploads, truth)

    for rounds in (4, 16, 64):
        assert errors[0] / errors[rounds - 1] == pytest.approx(math.sqrt(rounds), rel=0.1)


def test_reused_noise_does_not_average_out() -> None:
    truth, noise = np.zeros(500), np.random.default_rng(5).laplace(0, 1000, 500)

    errors = averaging_errors(np.stack([truth + noise] * 4), truth)

    np.testing.assert_allclose(errors, errors[0])


# --- the bound of an audit --------------------------------------------------------------------------------------------


@given(
    st.integers(1, 60).flatmap(lambda r: st.tuples(st.just(r), st.integers(0, r), st.integers(r, 500))),
    st.sampled_from([0.0, 1e-5, 1e-3]),
)
def test_bound_is_where_the_published_tail_reaches_five_percent(case: tuple[int, int, int], delta: float) -> None:
    """The tail in the form of the paper's own program, over SciPy's binomial distribution."""
    guesses, correct, canaries = case

    def tail(epsilon: float) -> float:
        q = 1 / (1 + math.exp(-epsilon))
        steepest, total = 0.0, 0.0
        for i in range(1, correct + 1):
            total += float(binom.pmf(correct - i, guesses, q))
            steepest = max(steepest, total / i)
        return float(binom.sf(correct - 1, guesses, q)) + steepest * delta * 2 * canaries

    bound = epsilon_lower_bound(canaries, guesses, correct, delta)

    if bound == 0:
        assert tail(1e-6) > 0.05 - 1e-6
    else:
        assert tail(bound - 1e-6) <= 0.05 <= tail(bound + 1e-6)


def test_two_thousand_guesses_reach_six_and_a_half_at_most() -> None:
    assert epsilon_lower_bound(2000, 2000, 2000, 0.0) == pytest.approx(6.503, abs=0.001)


def test_claim_beyond_the_reach_of_an_audit_is_called_so() -> None:
    found = AuditResult(canaries=2000, guesses=2000, correct=2000, bound=6.5, ceiling=6.5)

    assert found.verdict(8.0) == "not refutable by this audit"
    assert found.verdict(2.0) == "refuted"
    assert AuditResult(canaries=9, guesses=8, correct=5, bound=0.1, ceiling=0.7).verdict(0.5) == "not refuted"


def test_audit_guesses_the_canaries_that_stand_out() -> None:
    scores = np.array([9, 1, 5, -7, 0, 8])
    coins = np.array([True, False, True, False, True, False])

    found = audit(scores, coins, 4, 0.0)

    assert (found.canaries, found.guesses, found.correct) == (6, 4, 2)  # heads: 9, 8; tails: -7, 0


@pytest.mark.parametrize("n_guesses", [0, 3, 8])
def test_audit_refuses_numbers_of_guesses_that_do_not_fit(n_guesses: int) -> None:
    with pytest.raises(ValueError, match="guesses for 6 canaries"):
        audit(np.arange(6), np.ones(6, np.bool_), n_guesses, 0.0)


# --- misused noise in a transcript ------------------------------------------------------------------------------------


def uploads(order: Literal[1, 2], seed: int, n: int = 2) -> list[Int64Array]:
    """Return what one person sends to n rounds: up to a clip of 100 units, and independent noise of scale 1,000."""
    rng = np.random.default_rng(seed)
    draw = rng.laplace if order == 1 else rng.normal
    sent = []
    for _ in range(n):
        statistic = rng.standard_normal(200)
        statistic *= 100 / np.linalg.norm(statistic, order)
        sent.append(np.rint(statistic + draw(0, 1000, 200)).astype(np.int64))
    return sent


@pytest.mark.parametrize("order", [1, 2])
def test_honest_transcript_shows_no_misuse(order: Literal[1, 2]) -> None:
    seen = [
        ObservedUpload(participant=person, round=number, numbers=numbers)
        for person in range(20)
        for number, numbers in enumerate(uploads(order, person, 4), start=1)
    ]

    assert noise_misuse(seen + seen, 200, order) == []


@pytest.mark.parametrize("order", [1, 2])
def test_noise_shared_by_two_rounds_shows(order: Literal[1, 2]) -> None:
    one, other = uploads(order, 1)
    rng = np.random.default_rng(9)
    change = rng.standard_normal(200)
    again = one + np.trunc(change * 190 / np.linalg.norm(change, order)).astype(np.int64)
    seen = [ObservedUpload(participant=7, round=n, numbers=u) for n, u in ((3, again), (1, one), (2, other))]

    assert noise_misuse(seen, 200, order) == [NoiseReuse(7, (1, 3), "one noise for two rounds")]


def test_fresh_noise_for_a_repeated_request_shows() -> None:
    one, other = uploads(1, 1)
    seen = [ObservedUpload(participant=7, round=2, numbers=u) for u in (one, one, other)]

    assert noise_misuse(seen, 200, 1) == [NoiseReuse(7, (2, 2), "fresh noise for a repeated request")]

"""Audits of a claimed epsilon: a game with canaries in one run, and the lower bound that its outcome proves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from liberate.arrays import BoolArray, Float64Array, Int32Array, Int64Array, RealStatistics
from liberate.privacy.mechanism_base import Mechanism, SumMechanism
from liberate.randomness import Randomness, generator

EXCESS = 10
"""How many clips a canary tries to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryGame:
    """What the auditor of a game knows.

    Attributes:
        scores: What was released about each canary in all rounds, shape (m,); higher where the coin was heads.
        coins: How the coins fell, shape (m,).
    """

    scores: Int64Array
    coins: BoolArray


def reach_of(mechanism: Mechanism) -> float:
    """Return what a canary tries to send, in the statistic's unit: ten clips, or 10 where nothing is clipped."""
    clip_units = mechanism.parameters.get("clip_units", 2**mechanism.fraction_bits)
    return EXCESS * math.ldexp(clip_units, -mechanism.fraction_bits)


def run_canary_game(
    mechanism: Mechanism,
    *,
    rounds: int,
    n_canaries: int,
    reach: float,
    randomness: Randomness,
    exact: bool = False,
) -> CanaryGame:
    """Play a game in which each canary is one participant.

    Args:
        mechanism: What really runs, whatever it claims. Where it protects a sum, noise is drawn as the adversary
            sees it: that of the `honest` participants only.
        rounds: Rounds in which the same is sent, > 0.
        n_canaries: Coins, > 0.
        reach: What a canary tries to send, in the statistic's unit: `reach_of` the mechanism that was announced.
        randomness: Source of coins and noise keys.
        exact: Whether to draw noise from the exact sampler.

    Returns:
        Coins, and the sum over rounds of what was released about each.
    """
    coins = generator(randomness.secret("canary coins")).random(n_canaries) < 0.5
    scores = np.zeros(n_canaries, np.int64)
    for number in range(1, rounds + 1):
        if isinstance(mechanism, SumMechanism):
            scores += _of_sum(mechanism, coins, reach, randomness.secret("canary noise", number), exact)
        else:
            keys = [randomness.secret("canary noise", number, canary) for canary in range(n_canaries)]
            scores += _of_uploads(mechanism, coins, reach, keys, exact)
    return CanaryGame(scores=scores, coins=coins)


def _of_uploads(mechanism: Mechanism, coins: BoolArray, reach: float, keys: list[bytes], exact: bool) -> Int64Array:
    """Release one number for each canary, alone: the reach upwards for heads, downwards for tails."""
    sent = _one_each(np.ones_like(coins), np.zeros(len(coins), np.int32), np.where(coins, reach, -reach))
    return mechanism.release(sent, 1, keys, exact).rows[:, 0].astype(np.int64)


def _of_sum(mechanism: SumMechanism, coins: BoolArray, reach: float, key: bytes, exact: bool) -> Int64Array:
    """Release the sum over all canaries, each with a row of its own: the reach for heads, nothing for tails."""
    m = len(coins)
    clipped = mechanism.clip(_one_each(coins, np.arange(m, dtype=np.int32)[coins], np.full(coins.sum(), reach)))
    total = np.zeros((m, 1), np.int64)
    total[clipped.indices] += clipped.rows
    mechanism.add_to_sum(total, np.zeros(0, np.int64), mechanism.honest, key, exact)
    return total[:, 0]


def _one_each(has: BoolArray, indices: Int32Array, values: Float64Array) -> RealStatistics:
    """Return a batch in which each canary has one number, or none."""
    return RealStatistics(
        indptr=np.concatenate([[0], np.cumsum(has, dtype=np.int64)]),
        indices=indices,
        rows=values.astype(np.float32)[:, None],
        tails=np.zeros((len(has), 0)),
    )


CONFIDENCE = 0.95
"""An audit of a claim that is true exceeds it with a probability of at most 1 - 0.95."""

_BISECTIONS = 40
_LARGEST_EPSILON = 50.0

Verdict = Literal["refuted", "not refuted", "not refutable by this audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """What one game with canaries shows.

    Attributes:
        canaries: Coins thrown.
        guesses: Coins guessed.
        correct: Coins guessed right.
        bound: Epsilon is at least this with 95 % confidence.
        ceiling: What the bound would be had every guess been right.
    """

    canaries: int
    guesses: int
    correct: int
    bound: float
    ceiling: float

    def verdict(self, claim: float) -> Verdict:
        """Judge a claimed epsilon; one above the ceiling no such audit could refute."""
        if self.bound > claim:
            return "refuted"
        return "not refuted" if claim <= self.ceiling else "not refutable by this audit"


def audit(scores: npt.NDArray[np.generic], coins: BoolArray, n_guesses: int, delta: float) -> AuditResult:
    """Guess the coins of the canaries that stand out most, and bound epsilon from below.

    The number of guesses must be chosen before the scores are seen; the auditor may choose freely which to guess.

    Args:
        scores: What was released about each canary, shape (m,); higher where the coin was heads.
        coins: How the coins fell, fair and independent, shape (m,).
        n_guesses: Even, 0 < n_guesses <= m: half on the highest scores as heads, half on the lowest as tails.
        delta: The claim's delta, 0 <= delta < 1.
    """
    m = len(scores)
    if n_guesses % 2 or not 0 < n_guesses <= m:
        raise ValueError(f"{n_guesses} guesses for {m} canaries, wanted an even number, 0 < guesses <= canaries")
    order = np.argsort(scores, kind="stable")
    half = n_guesses // 2
    correct = int(coins[order[m - half :]].sum() + (~coins[order[:half]]).sum())
    return AuditResult(
        canaries=m,
        guesses=n_guesses,
        correct=correct,
        bound=epsilon_lower_bound(m, n_guesses, correct, delta),
        ceiling=epsilon_lower_bound(m, n_guesses, n_guesses, delta),
    )


def epsilon_lower_bound(n_canaries: int, n_guesses: int, n_correct: int, delta: float) -> float:
    """Return the epsilon below which so many right guesses are too good to be true, with 95 % confidence.

    Args:
        n_canaries: Coins thrown, >= n_guesses.
        n_guesses: Coins guessed, > 0.
        n_correct: Coins guessed right, 0 <= n_correct <= n_guesses.
        delta: 0 <= delta < 1.

    Source: Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846), section 5.
    """
    log_choices = _log_choices(n_guesses)

    def is_surprising(epsilon: float) -> bool:
        return _chance(log_choices, n_correct, epsilon, 2 * n_canaries * delta) <= 1 - CONFIDENCE

    if not is_surprising(0.0):
        return 0.0
    low, high = 0.0, _LARGEST_EPSILON
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_surprising(middle) else (low, middle)
    return low


def _log_choices(n: int) -> Float64Array:
    """Return the logarithm of n over k for each k from 0 to n."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.asarray(log_factorials[-1] - log_factorials - log_factorials[::-1])


def _chance(log_choices: Float64Array, n_correct: int, epsilon: float, slack: float) -> float:
    """Bound the probability of at least `n_correct` right guesses under (epsilon, delta)-differential privacy.

    Pure privacy makes each guess right with probability q = 1 / (1 + exp(-epsilon)) at best, so the count is dominated
    by a binomial one. Delta lets an adversary move `slack` = 2 m delta canaries' worth of it up: it is most effective
    for some number of places i, where P(n_correct - i <= count < n_correct) / i is largest.
    """
    k = np.arange(len(log_choices))
    log_right, log_wrong = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    probabilities = np.exp(log_choices + k * log_right + (len(k) - 1 - k) * log_wrong)
    below = np.cumsum(probabilities[:n_correct][::-1])
    steepest = float(np.max(below / np.arange(1, n_correct + 1), initial=0.0))
    return float(probabilities[n_correct:].sum()) + slack * steepest

"""What an adversary makes of what leaves the devices, and whether a claimed epsilon survives a test of it.

Recovery attacks take uploads without noise apart. An audit plays a game with canaries, people made up for the purpose:
a coin decides each one's world, the mechanism runs once, the auditor guesses the coins from what it released, and
too many right guesses refute the claim. Both see arrays and numbers only, as whoever holds the uploads would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from liberate.arrays import BoolArray, Float32Array, Float64Array, Int64Array

Reals = Float32Array | Float64Array
CONFIDENCE = 0.95
"""An audit of a claim that is true exceeds it with a probability of at most 1 - 0.95."""

_BISECTIONS = 40
_LARGEST_EPSILON = 50.0

Verdict = Literal["refuted", "not refuted", "not refutable by this audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientView:
    """One device's gradient without noise, and what everybody knows of the round it answers.

    Attributes:
        rows: e·(p_u, 1) of each rated item, shape (n_rated, K), standard units.
        item_means: (q_i, b_i) of the same items, shape (n_rated, K).
        user_mean: Mean of the users' prior, shape (K,).
        user_precision: Its precision matrix, shape (K, K).
        noise_precision: Precision of a rating's noise, > 0.
    """

    rows: Reals
    item_means: Reals
    user_mean: Float64Array
    user_precision: Float64Array
    noise_precision: float


def ratings_from_gradients(views: Sequence[GradientView]) -> Float64Array:
    """Recover one device's ratings from its gradients to one or more rounds, each without noise.

    The last number of a row is the error e_i = y_i - b_i - b_u - p_u·q_i. The device's own side solves a ridge
    regression whose prior is public: (p_u, b_u) = mean + precision⁻¹ · tau · sum of e_i (q_i, 1). So the errors alone
    give the own side, and both give y_i. Several rounds give several estimates, whose mean is taken.

    Args:
        views: Gradients of the same device, rows in the same order, one or more.

    Returns:
        Ratings in standard units, shape (n_rated,).

    Source: Chai et al. 2021, "Secure Federated Matrix Factorization" (arXiv 1906.05108): gradients of two consecutive
    rounds give the ratings away where the device takes gradient steps. Here it fits its side exactly, and one does.
    """
    return np.asarray(np.mean([_from_gradient(view) for view in views], axis=0))


def _from_gradient(view: GradientView) -> Float64Array:
    errors = view.rows[:, -1].astype(np.float64)
    others = view.item_means.astype(np.float64)
    sides = others.copy()
    sides[:, -1] = 1.0
    own = view.user_mean + np.linalg.solve(view.user_precision, view.noise_precision * (errors @ sides))
    return np.asarray(errors + others[:, -1] + sides @ own)


def ratings_from_normal_equations(rows: Reals, tail: Reals) -> Float64Array:
    """Recover one device's ratings from its part in the items' normal equations without noise: they lie open.

    Args:
        rows: Ends with E[y - b_u] of each rated item, shape (n_rated, width).
        tail: Ends with E[b_u] and the squared error, shape (n_tail,).

    Returns:
        Ratings in standard units, shape (n_rated,).
    """
    return np.asarray(rows[:, -1].astype(np.float64) + float(tail[-2]))


def weights_from_gram(diagonal: Reals, largest: float) -> Float64Array:
    """Recover what each rating of one device weighs from its part of a Gram matrix, x xᵀ / |x|², without noise.

    Args:
        diagonal: x_i² / |x|² of each rated item, shape (n_rated,): the items that have an entry are the rated ones.
        largest: Weight of the highest rating, which most people have given.

    Returns:
        x, shape (n_rated,).
    """
    return np.asarray(np.sqrt(diagonal.astype(np.float64) / diagonal.max(initial=0.0)) * largest)


def nearest(values: Reals, levels: Sequence[float]) -> Float64Array:
    """Give the level that is nearest to each value, shape as `values`."""
    known = np.asarray(levels, np.float64)
    return np.asarray(known[np.abs(values[:, None] - known).argmin(axis=1)])


def auc(scores: npt.NDArray[np.generic], is_in: BoolArray) -> float:
    """Give the chance that something inside scores higher than something outside; ties count half.

    Args:
        scores: What an adversary thinks of each, shape (n,); higher means inside.
        is_in: Which truly are inside, shape (n,).

    Returns:
        1 = told apart without a mistake, 0.5 = as good as a coin; NaN where one of the sides is empty.

    Source: Mann and Whitney 1947.
    """
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del values
    ranks = np.cumsum(counts) - (counts - 1) / 2
    n_in, n_out = int(is_in.sum()), int((~is_in).sum())
    if n_in == 0 or n_out == 0:
        return math.nan
    return float((ranks[places][is_in].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))


def averaging_errors(uploads: Int64Array | Float64Array, truth: Int64Array | Float64Array) -> Float64Array:
    """Give the root mean square error of the mean of the first 1, 2, ... uploads of a statistic that does not change.

    Independent noise averages out, so the error falls with the square root of the number of rounds. That is no fault
    of a mechanism: it is why each round is paid for.

    Args:
        uploads: Shape (n_rounds, size).
        truth: What they would be without noise, shape (size,).

    Returns:
        Shape (n_rounds,).
    """
    n_rounds = len(uploads)
    means = np.cumsum(uploads, axis=0, dtype=np.float64) / np.arange(1, n_rounds + 1)[:, None]
    return np.asarray(np.sqrt(np.mean((means - truth) ** 2, axis=1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
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


def audit(scores: npt.NDArray[np.generic], coins: BoolArray, n_guesses: int, delta: float) -> Audit:
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
    return Audit(
        canaries=m,
        guesses=n_guesses,
        correct=correct,
        bound=epsilon_lower_bound(m, n_guesses, correct, delta),
        ceiling=epsilon_lower_bound(m, n_guesses, n_guesses, delta),
    )


def epsilon_lower_bound(n_canaries: int, n_guesses: int, n_correct: int, delta: float) -> float:
    """Give the epsilon below which so many right guesses are too good to be true, with 95 % confidence.

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
    """Give the logarithm of n over k for each k from 0 to n."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An upload as it left a device.

    Attributes:
        participant: Whose it is.
        round: The round it answers.
        numbers: Its integers, noise included, shape (size,).
    """

    participant: int
    round: int
    numbers: Int64Array


@dataclass(frozen=True, slots=True)
class Misuse:
    """Noise that protects less than its price says.

    Attributes:
        participant: Whose.
        rounds: The round, twice the same for fresh noise, or the two rounds that share theirs.
        kind: What went wrong.
    """

    participant: int
    rounds: tuple[int, int]
    kind: Literal["fresh noise for a repeated request", "one noise for two rounds"]


def noise_misuse(transcript: Sequence[Seen], largest_change: float, order: Literal[1, 2]) -> list[Misuse]:
    """Find in what left the devices where noise was drawn twice for one round, or once for two.

    A repeated request must get the same numbers. Uploads to two rounds must differ by more than two clipped statistics
    can: noise that is shared cancels in the difference, and what is left is at most twice the clip. Independent Laplace
    noise of scale t on d coordinates comes so close with probability below (clip / t)^d / d!, whatever the statistics.

    Args:
        transcript: Uploads in any order; all of one size.
        largest_change: What two clipped statistics differ by at most, in grid units: twice the clip. The noise of
            `local` is far larger; a share of `distributed` noise is not, and says nothing here about two rounds.
        order: The norm that the mechanism clips in.
    """
    found: list[Misuse] = []
    by_participant: dict[int, dict[int, Int64Array]] = {}
    for seen in transcript:
        rounds = by_participant.setdefault(seen.participant, {})
        first = rounds.setdefault(seen.round, seen.numbers)
        if not np.array_equal(first, seen.numbers):
            found.append(Misuse(seen.participant, (seen.round, seen.round), "fresh noise for a repeated request"))
    for participant, rounds in by_participant.items():
        numbers = sorted(rounds)
        for place, later in enumerate(numbers):
            for earlier in numbers[:place]:
                change = np.linalg.norm((rounds[later] - rounds[earlier]).astype(np.float64), order)
                if change <= largest_change:
                    found.append(Misuse(participant, (earlier, later), "one noise for two rounds"))
    return found

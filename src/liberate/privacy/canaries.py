"""Games with canaries: a coin decides what each one has rated, a mechanism runs, and its releases are kept.

A canary sends ten times as much as a clip lets through. What it may send differs between its two worlds as much as the
mechanism's relation allows: where each upload is protected alone, as much as possible upwards or downwards (any data
replaced by any other); where a sum is protected, as much as possible or nothing (zero-out), on a coordinate of its own
and with all other participants in the adversary's hands. Rounds repeat: the adversary adds up what it sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from liberate.arrays import BoolArray, Float64Array, Int32Array, Int64Array, RealRows
from liberate.privacy.mechanism import Mechanism, SumMechanism
from liberate.randomness import Randomness, generator

EXCESS = 10
"""How many clips a canary tries to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What the auditor of a game knows.

    Attributes:
        scores: What was released about each canary in all rounds, shape (m,); higher where the coin was heads.
        coins: How the coins fell, shape (m,).
    """

    scores: Int64Array
    coins: BoolArray


def reach_of(mechanism: Mechanism) -> float:
    """Give what a canary tries to send, in the statistic's unit: ten clips, or 10 where nothing is clipped."""
    clip_units = mechanism.parameters.get("clip_units", 2**mechanism.grid_bits)
    return EXCESS * math.ldexp(clip_units, -mechanism.grid_bits)


def play(
    mechanism: Mechanism,
    *,
    rounds: int,
    n_canaries: int,
    reach: float,
    randomness: Randomness,
    exact: bool = False,
) -> Game:
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
    return Game(scores=scores, coins=coins)


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


def _one_each(has: BoolArray, indices: Int32Array, values: Float64Array) -> RealRows:
    """Give a batch in which each canary has one number, or none."""
    return RealRows(
        indptr=np.concatenate([[0], np.cumsum(has, dtype=np.int64)]),
        indices=indices,
        rows=values.astype(np.float32)[:, None],
        tails=np.zeros((len(has), 0)),
    )

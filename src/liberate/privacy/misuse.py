"""Attacks on noise that is used wrongly: drawn twice for one upload, or once for two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from liberate.arrays import Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedUpload:
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
class NoiseReuse:
    """Noise that protects less than its price says.

    Attributes:
        participant: Whose.
        rounds: The round, twice the same for fresh noise, or the two rounds that share theirs.
        kind: What went wrong.
    """

    participant: int
    rounds: tuple[int, int]
    kind: Literal["fresh noise for a repeated request", "one noise for two rounds"]


def noise_misuse(transcript: Sequence[ObservedUpload], largest_change: float, order: Literal[1, 2]) -> list[NoiseReuse]:
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
    reused: list[NoiseReuse] = []
    by_participant: dict[int, dict[int, Int64Array]] = {}
    for seen in transcript:
        rounds = by_participant.setdefault(seen.participant, {})
        first = rounds.setdefault(seen.round, seen.numbers)
        if not np.array_equal(first, seen.numbers):
            reused.append(NoiseReuse(seen.participant, (seen.round, seen.round), "fresh noise for a repeated request"))

    for participant, rounds in by_participant.items():
        numbers = sorted(rounds)
        for place, later in enumerate(numbers):
            for earlier in numbers[:place]:
                change = np.linalg.norm((rounds[later] - rounds[earlier]).astype(np.float64), order)
                if change <= largest_change:
                    reused.append(NoiseReuse(participant, (earlier, later), "one noise for two rounds"))
    return reused

"""What a mode promises in words, and what its noise leaves of the signal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from liberate.privacy.mechanism_base import Mechanism, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyStatement:
    """What a mode promises, in words.

    Attributes:
        unit: Whose data is protected as a whole.
        relation: Which two worlds cannot be told apart.
        adversary: Who sees what, and against whom the promise holds.
        mechanism: What is done to the data.
    """

    unit: str
    relation: str
    adversary: str
    mechanism: str


_LOCAL_LAPLACE = "on the device: clipping to an L1 norm, then discrete Laplace noise on every coordinate of every item"
_LOCAL_GAUSSIAN = (
    "on the device: clipping to an L2 norm, then discrete Gaussian noise on every coordinate of every item"
)

_STATEMENTS: Mapping[Mode, PrivacyStatement] = {
    "device": PrivacyStatement(
        unit="user",
        relation="any two worlds: nothing a person rates changes any message",
        adversary="everybody; nobody receives anything",
        mechanism="nothing leaves the device",
    ),
    "plain": PrivacyStatement(
        unit="none",
        relation="none",
        adversary="the coordinator is trusted: nothing protects against it, it could recover every rating",
        mechanism="none: updates are rounded to a grid and sent as they are",
    ),
    "local": PrivacyStatement(
        unit="user",
        relation="zero-out: the person's ratings replaced by nothing, participation itself is public; "
        "accounted as replace, by any other ratings, which covers it",
        adversary="everybody beyond the person's own device: the coordinator, and any number of participants "
        "working with it, may see every upload and lie",
        mechanism=_LOCAL_LAPLACE,
    ),
    "distributed": PrivacyStatement(
        unit="user",
        relation="zero-out: the person's ratings replaced by nothing, participation itself is public",
        adversary="the coordinator, which may lie, together with as many participants as were agreed to; "
        "masks show it nothing but sums",
        mechanism="on the device: clipping to an L2 norm, then the person's share of discrete Gaussian noise "
        "on every coordinate, under masks; the sum has the noise of all",
    ),
}


def privacy_statement(mode: Mode, mechanism: Literal["laplace", "gaussian"] = "laplace") -> PrivacyStatement:
    """Return what a mode promises; `local` with the noise of a mechanism."""
    if (mode, mechanism) == ("local", "gaussian"):
        return replace(_STATEMENTS[mode], mechanism=_LOCAL_GAUSSIAN)
    return _STATEMENTS[mode]


def sampler(exact: bool) -> str:
    """Name the noise sampler of a run; reports print it beside every epsilon."""
    if exact:
        return "exact (integers only, from a ChaCha20 keystream)"
    return "fast (seeded floating point: this is a simulation and its noise protects nobody)"


def signal_to_noise(mechanism: Mechanism, n_participants: int, shape: tuple[int, int, int]) -> float:
    """Bound the ratio of a round's signal to its noise from above, from public numbers.

    Signal: in the most favourable case all N participants fill the clip and point the same way, so their sum has an
    L2 norm of N * clip. Noise: each of d = n_rows * width + n_tail coordinates sums N samples, so its L2 norm is about
    sqrt(d * N) times the deviation of one sample.

    Returns:
        N * clip / (sqrt(d * N) * deviation); infinite where there is no noise.
    """
    clip_units = mechanism.parameters.get("clip_units")
    if clip_units is None:
        return math.inf
    n_rows, width, n_tail = shape
    deviation = math.ldexp(mechanism.client_noise, mechanism.fraction_bits)
    return math.sqrt(n_participants / (n_rows * width + n_tail)) * clip_units / deviation


def noise_warning(ratio: float) -> str | None:
    """Say plainly what a signal-to-noise ratio below 1 means; None from 1 on."""
    if ratio >= 1:
        return None
    return (
        f"in each round the noise is at least {1 / ratio:.1f} times as large as the signal can be: this run is not "
        "expected to learn anything. More participants, a larger epsilon or fewer factors help; mode device sends "
        "nothing and is likely to predict better"
    )

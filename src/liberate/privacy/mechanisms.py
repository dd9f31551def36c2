"""From what a device computed to what may leave it: clip, integer grid, noise, and a description of what was done.

A mechanism is rebuilt from the integers of a round entry, so a participant sees what it will be charged before it
answers. Values leave as integers v that mean v * 2**-fraction_bits; whatever bounds a person's influence is
checked on those integers, not on the floating-point numbers they came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import assert_never

from liberate.errors import PrivacyError, UnaccountableEvent
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.gaussian import DistributedGaussian, Gaussian
from liberate.privacy.gaussian_calibration import calibrated_gaussian
from liberate.privacy.laplace import Laplace, calibrated_laplace
from liberate.privacy.mechanism_base import Mechanism, Plain


def mechanism_from(name: str, fraction_bits: int, parameters: Mapping[str, int]) -> Mechanism:
    """Rebuild the mechanism a round entry announces.

    Raises:
        UnaccountableEvent: The name is unknown.
        PrivacyError: Parameters are missing, unknown or out of range.
    """
    kinds: dict[str, Callable[..., Mechanism]] = {
        "none": Plain,
        "laplace": Laplace,
        "gaussian": Gaussian,
        "distributed_gaussian": DistributedGaussian,
    }
    if name not in kinds:
        raise UnaccountableEvent(f"mechanism {name!r} is unknown, wanted one of {', '.join(kinds)}")
    try:
        return kinds[name](fraction_bits=fraction_bits, **parameters)
    except TypeError as error:
        raise PrivacyError(f"mechanism {name} does not take {dict(parameters)}") from error
    except ValueError as error:
        raise PrivacyError(f"mechanism {name}: {error}") from error


def calibrated_mechanism(config: PrivacyConfig, *, rounds: int, trimmed_nano: int = 0) -> Mechanism:
    """Choose the mechanism of every round of a run, from public numbers only.

    In mode distributed, stages differ: each is calibrated by `distributed`.

    Args:
        config: What is promised; its mode is `plain` or `local`.
        rounds: Number of rounds, > 0; fixed before the first in a private mode, any number in `plain`.
        trimmed_nano: Part of the uploads that sums leave out at either end of each number, in billionths.

    Raises:
        ValueError: The mode has no such mechanism, or rounds is not positive.
        PrivacyError: Epsilon is too small for so many rounds and so large a clip norm.
    """
    if rounds <= 0:
        raise ValueError(f"rounds is {rounds}, wanted rounds > 0")

    match config.mode:
        case "device":
            raise ValueError("in mode device nothing is released, so there is no mechanism")
        case "distributed":
            raise ValueError("in mode distributed the mechanism depends on the stage")
        case "plain":
            return Plain(trimmed_nano=trimmed_nano)
        case "local":
            assert config.epsilon is not None  # PrivacyConfig refuses it
            mechanism = (
                calibrated_gaussian(config.epsilon, config.delta, rounds, config.clip_norm)
                if config.mechanism == "gaussian"
                else calibrated_laplace(Fraction(str(config.epsilon)), rounds, Fraction(config.clip_norm))
            )
            return replace(mechanism, trimmed_nano=trimmed_nano)
        case _:
            assert_never(config.mode)

"""What a run would cost and could learn, from public numbers, before anybody's data is touched."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.privacy.accounting import Promise, Spent, account, noise_warning, promise, signal_to_noise
from liberate.privacy.mechanism import Mechanism, PrivacyConfig, design


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's privacy before the run.

    Attributes:
        mechanism: What each round would do; None in mode `device`, where nothing is released.
        spent: What somebody who joins every round would have spent at the end.
        promise: What is promised, in words.
        signal_to_noise: Upper bound per round (`accounting.signal_to_noise`); None where nothing is released,
            infinite without noise.
        warning: What a person should know before starting, or None.
    """

    mechanism: Mechanism | None
    spent: Spent
    promise: Promise
    signal_to_noise: float | None
    warning: str | None


def plan(config: PrivacyConfig, *, rounds: int, n_participants: int, n_items: int, width: int, tail: int) -> Plan:
    """Predict a run.

    Args:
        config: What is to be promised.
        rounds: Number of rounds, > 0; in `plain`, where they are not fixed, any number gives the same answer.
        n_participants: Participants of each round, > 0.
        n_items: Size of the catalogue, > 0.
        width: Numbers per item in the statistic, > 0.
        tail: Numbers of the statistic that belong to no item, >= 0.

    Raises:
        PrivacyError: Epsilon is too small for so many rounds.
    """
    words = promise(config.mode)
    if config.mode == "device":
        return Plan(mechanism=None, spent=account([], config.delta), promise=words, signal_to_noise=None, warning=None)
    mechanism = design(config, rounds=rounds, n_participants=n_participants, n_items=n_items, width=width, tail=tail)
    ratio = signal_to_noise(mechanism, n_participants, n_items, width, tail)
    return Plan(
        mechanism=mechanism,
        spent=account([(mechanism.event(), rounds)], config.delta),
        promise=words,
        signal_to_noise=ratio,
        warning=noise_warning(ratio),
    )

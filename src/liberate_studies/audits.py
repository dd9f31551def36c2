"""Audits that try to refute what each mechanism claims, as it is and with planted bugs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from liberate.privacy.attacks import auc
from liberate.privacy.auditing import EXCESS, AuditResult, CanaryGame, audit, reach_of, run_canary_game
from liberate.privacy.gaussian import DistributedGaussian, Gaussian
from liberate.privacy.gaussian_calibration import distributed
from liberate.privacy.grid import LARGEST_CLIP_UNITS
from liberate.privacy.laplace import Laplace
from liberate.privacy.mechanism_base import Mechanism
from liberate.privacy.misuse import ObservedUpload, noise_misuse
from liberate.randomness import SimulatedRandomness
from liberate.timing import Progress
from liberate_studies.recovery import local, released
from liberate_studies.rungs import federated
from liberate_studies.worlds import SEED, World

CLAIMS = (1, 2, 8)
_ROUNDS = (1, 10)
_DELTA = 1e-5
_HONEST_FRACTION = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTrial:
    """An audit of a claim.

    Attributes:
        name: Mechanism and mode.
        rounds: Rounds over which the claim is spent.
        claim: Epsilon.
        canary_auc: How surely a canary is told apart from what the mechanism releases: AUC.
        honest: Audit of the mechanism as it is.
        quiet: The same with noise four times too small.
        unclipped: The same without a clip.
    """

    name: str
    rounds: int
    claim: int
    canary_auc: float
    honest: AuditResult
    quiet: AuditResult
    unclipped: AuditResult


@dataclass(frozen=True, slots=True)
class MisusedNoise:
    """What an auditor finds in the uploads to three rounds.

    Attributes:
        name: What the devices did.
        people: Who uploaded.
        findings: Uploads whose noise was not fresh, or fresh where it should have been the same.
    """

    name: str
    people: int
    findings: int


def trials(world: World, n_canaries: int, progress: Progress) -> list[AuditTrial]:
    """Audit every mechanism at every claim, spent in one round and in ten."""
    audited = []
    for name, make in _mechanisms(world, n_canaries).items():
        for claim in CLAIMS:
            progress(f"auditing {name} at epsilon {claim}")
            audited += [_try(name, make(claim, rounds), claim, rounds, n_canaries) for rounds in _ROUNDS]
    return audited


def _mechanisms(world: World, n_canaries: int) -> dict[str, Callable[[int, int], Mechanism]]:
    """Return, by name, what makes the mechanism of a claimed epsilon that is spent over some rounds."""

    def alone(name: str, claim: int, rounds: int) -> Mechanism:
        settings = ("privacy.mode=local", f'privacy.mechanism="{name}"', f"privacy.epsilon={claim}")
        return world.job(*settings, f"federation.rounds={rounds}").plan.stages[0].stage.mechanism

    def summed(claim: int, rounds: int) -> Mechanism:
        return distributed(
            clip_norm=1.0,
            share_of_budget=1 / rounds,
            epsilon=claim,
            delta=_DELTA,
            n_participants=n_canaries,
            honest=math.ceil(_HONEST_FRACTION * n_canaries),
            n_coordinates=n_canaries,
        )

    return {
        "local, Laplace": partial(alone, "laplace"),
        "local, Gauss": partial(alone, "gaussian"),
        "distributed, sum": summed,
    }


def _try(name: str, mechanism: Mechanism, claim: int, rounds: int, n_canaries: int) -> AuditTrial:
    """Audit a mechanism as it is, and with planted bugs."""

    def play(real: Mechanism) -> CanaryGame:
        reach, randomness = reach_of(mechanism), SimulatedRandomness(SEED, f"{name} {claim} {rounds}".encode())
        return run_canary_game(real, rounds=rounds, n_canaries=n_canaries, reach=reach, randomness=randomness)

    def examine(game: CanaryGame) -> AuditResult:
        return audit(game.scores, game.coins, n_canaries // 10, 0.0 if mechanism.account == "epsilon" else _DELTA)

    quiet, unclipped = planted(mechanism)
    honest = play(mechanism)
    return AuditTrial(
        name=name,
        rounds=rounds,
        claim=claim,
        canary_auc=auc(honest.scores, honest.coins),
        honest=examine(honest),
        quiet=examine(play(quiet)),
        unclipped=examine(play(unclipped)),
    )


def planted(mechanism: Mechanism) -> tuple[Mechanism, Mechanism]:
    """Return a mechanism with noise four times too small, and one that lets through whatever a canary sends."""
    match mechanism:
        case Laplace():
            quiet: Mechanism = replace(mechanism, scale_units=mechanism.scale_units // 4)
        case Gaussian():
            quiet = replace(mechanism, sigma_units=mechanism.sigma_units // 4)
        case DistributedGaussian():
            quiet = replace(mechanism, share_units=mechanism.share_units // 4)
        case _:
            raise ValueError(f"{mechanism.name} adds no noise")
    return quiet, replace(mechanism, clip_units=min(EXCESS * mechanism.clip_units, LARGEST_CLIP_UNITS))


def misuse(world: World, n_participants: int) -> list[MisusedNoise]:
    """Count what is found in transcripts of three rounds: honest ones, and ones with a planted bug."""
    job = world.job(*local("laplace"), "federation.rounds=10")
    participants = job.split.train.select(np.arange(min(n_participants, job.split.train.n_users)))
    models, clip_units = federated(job).models, job.plan.stages[0].stage.mechanism.parameters["clip_units"]

    def transcript(key_of: Callable[[int], int]) -> list[ObservedUpload]:
        """Return the uploads of three rounds whose noise keys are those of other rounds."""
        uploads = []
        for version in (1, 2, 3):
            release = released(job.plan.stage_after(models[version]), models[version], participants, key_of(version))
            rows = release.rows.reshape(participants.n_users, -1).astype(np.int64)
            uploads += [
                ObservedUpload(participant=person, round=version, numbers=sent) for person, sent in enumerate(rows)
            ]
        return uploads

    honest = transcript(lambda number: number)
    transcripts = {
        "honest": honest + honest,
        "one noise for all rounds": transcript(lambda number: 0),
        "fresh noise when asked again": honest + transcript(lambda number: number + 10),
    }
    counts = {
        name: len({(misused.participant, misused.rounds) for misused in noise_misuse(seen, 2 * clip_units, 1)})
        for name, seen in transcripts.items()
    }
    return [MisusedNoise(name, participants.n_users, count) for name, count in counts.items()]

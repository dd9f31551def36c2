"""Audits that try to refute what each mechanism claims, as it is and with planted bugs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
        membership: How surely a canary is told apart from what the mechanism releases about it: AUC.
        honest: Audit of the mechanism as it is.
        quiet: The same with noise four times too small.
        unclipped: The same without a clip.
    """

    name: str
    rounds: int
    claim: int
    membership: float
    honest: AuditResult
    quiet: AuditResult
    unclipped: AuditResult


def trials(world: World, n_canaries: int, progress: Progress) -> list[AuditTrial]:
    """Audit every mechanism at every claim, spent in one round and in ten."""
    found = []
    for name, make in _mechanisms(world, n_canaries).items():
        for claim in CLAIMS:
            progress(f"auditing {name} at epsilon {claim}")
            found += [_try(name, make(claim, rounds), claim, rounds, n_canaries) for rounds in _ROUNDS]
    return found


_Make = Callable[[int, int], Mechanism]


def _mechanisms(world: World, n_canaries: int) -> dict[str, _Make]:
    """Give, by name, what makes the mechanism of a claimed epsilon that is spent over some rounds."""

    def alone(name: str) -> _Make:
        def make(claim: int, rounds: int) -> Mechanism:
            settings = ("privacy.mode=local", f'privacy.mechanism="{name}"', f"privacy.epsilon={claim}")
            return world.job(*settings, f"federation.rounds={rounds}").plan.stages[0].stage.mechanism

        return make

    def summed(claim: int, rounds: int) -> Mechanism:
        return distributed(
            clip_norm=1.0,
            share_of_budget=1 / rounds,
            epsilon=claim,
            delta=_DELTA,
            n_participants=n_canaries,
            honest_fraction=_HONEST_FRACTION,
            n_coordinates=n_canaries,
        )

    return {"local, Laplace": alone("laplace"), "local, Gauss": alone("gaussian"), "distributed, sum": summed}


def _try(name: str, mechanism: Mechanism, claim: int, rounds: int, n_canaries: int) -> AuditTrial:
    """Audit a mechanism as it is, and with planted bugs."""

    def game_of(real: Mechanism) -> CanaryGame:
        reach, randomness = reach_of(mechanism), SimulatedRandomness(SEED, f"{name} {claim} {rounds}".encode())
        return run_canary_game(real, rounds=rounds, n_canaries=n_canaries, reach=reach, randomness=randomness)

    def examine(game: CanaryGame) -> AuditResult:
        return audit(game.scores, game.coins, n_canaries // 10, 0.0 if mechanism.account == "epsilon" else _DELTA)

    quiet, unclipped = planted(mechanism)
    honest = game_of(mechanism)
    return AuditTrial(
        name=name,
        rounds=rounds,
        claim=claim,
        membership=auc(honest.scores, honest.coins),
        honest=examine(honest),
        quiet=examine(game_of(quiet)),
        unclipped=examine(game_of(unclipped)),
    )


def planted(mechanism: Mechanism) -> tuple[Mechanism, Mechanism]:
    """Give a mechanism with noise four times too small, and one that lets through whatever a canary sends."""
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


def misuse(world: World, n_participants: int) -> Mapping[str, int]:
    """Count what is found in transcripts of three rounds: honest ones, and ones with a planted bug."""
    job = world.job(*local("laplace"), "federation.rounds=10")
    participants = job.split.train.select(np.arange(min(n_participants, job.split.train.n_users)))
    models, clip_units = federated(job).models, job.plan.stages[0].stage.mechanism.parameters["clip_units"]

    def transcript(key_of: Callable[[int], int]) -> list[ObservedUpload]:
        """Give the uploads of three rounds whose noise keys are those of other rounds."""
        seen = []
        for version in (1, 2, 3):
            model = models[version]
            release = released(job.plan.stage_after(model), model, participants, key_of(version))
            for person, sent in enumerate(release.rows.reshape(participants.n_users, -1).astype(np.int64)):
                seen.append(ObservedUpload(participant=person, round=version, numbers=sent))
        return seen

    def found(seen: Sequence[ObservedUpload]) -> int:
        return len({(each.participant, each.rounds) for each in noise_misuse(seen, 2 * clip_units, 1)})

    honest = transcript(lambda number: number)
    return {
        "participants": participants.n_users,
        "honest": found(honest + honest),
        "one noise for all rounds": found(transcript(lambda number: 0)),
        "fresh noise when asked again": found(honest + transcript(lambda number: number + 10)),
    }

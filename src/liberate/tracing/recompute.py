"""The rounds of a run again, from the uploads it kept: commitments opened, sums added up, models solved.

    uploads -> (noise of a simulation, masks taken out) -> sum = `sum_digest` -> solve -> model = `digest`
    copies of a pool                                                          -> learn

What does not follow becomes a finding with its place, and the rounds after it are recomputed from the model that the
ledger names. Nothing but the ledger is trusted: a run folder that tells another story is found out.
"""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np

from liberate.errors import LiberateError
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.identifiers import Digest
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.format.sharing_records import Erasure
from liberate.ledger.lookup import entries
from liberate.ledger.queries.usable_copies import CopyWeights
from liberate.ledger.verification.findings import Finding
from liberate.model.codec import encode_model, model_digest
from liberate.model.model import Model
from liberate.model.pool_learner import POOL_STATISTIC
from liberate.randomness import SimulatedRandomness
from liberate.runs.folder import POOL_FOLDER, Run
from liberate.timing import Progress, silent
from liberate.tracing.kept_run import KeptRun
from liberate.tracing.recomputed_pool import open_pool
from liberate.tracing.recomputed_sums import add_up_uploads
from liberate.tracing.rounds import CompletedRound, completed_rounds
from liberate.units import from_nano

RecomputeStatus = Literal["follows", "erased", "not_kept", "fault"]
"""What became of a round: its model follows from its uploads; participants were erased, so that their uploads are gone;
none of its uploads or copies is here; something does not follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputedRound:
    """A round that was recomputed.

    Attributes:
        round: Its number.
        version: Of its model.
        position: Of the model's entry.
        outcome: What became of it.
        updates: Updates that the model used; of a pool's round, copies.
        kept: Those of them whose uploads, or bytes, are here.
        difference: Largest difference of a number of the model from the one that the ledger names, where the solver
            states how much there may be; 0 of one that is the same to the bit; None where none was derived.
    """

    round: int
    version: int
    position: int
    outcome: RecomputeStatus
    updates: int
    kept: int
    difference: float | None


@dataclass(frozen=True, slots=True)
class RecomputeReport:
    """What recomputing a run has found.

    Attributes:
        rounds: Its rounds that ended in a model.
        findings: What does not follow, in the order in which it was found.
    """

    rounds: tuple[RecomputedRound, ...]
    findings: tuple[Finding, ...]


def recompute(run: Run, progress: Progress = silent) -> RecomputeReport:
    """Recompute all rounds of a run. The ledger itself is verified elsewhere.

    Args:
        run: A run, finished or not.
        progress: Told each step.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    folder, pool_folder = run.uploads_folder, run.home / POOL_FOLDER
    with (
        closing(run.open_ledger()) as ledger,
        UploadStore(folder) if UploadStore.exists(folder) else nullcontext() as uploads,
        PoolStore(pool_folder) if pool_folder.exists() else nullcontext() as pool,
    ):
        kept = KeptRun(
            ledger=ledger,
            uploads=uploads,
            pool=pool,
            models=ModelStore(run.folder / "model"),
            randomness=SimulatedRandomness(run.settings.run.seed, b64decode(run.record.first_root)),
            weights=CopyWeights(ledger),
            erased=frozenset(erasure.record.number for erasure in entries(ledger, Erasure)),
        )
        recomputer = _Recomputer(kept)
        rounds = []
        for closed in completed_rounds(ledger, run.record.run):
            progress(f"recomputing round {closed.record.number}")
            rounds.append(recomputer.recompute(closed))
    return RecomputeReport(tuple(rounds), tuple(kept.findings))


@dataclass(slots=True)
class _Recomputer:
    """Recomputes rounds, one after the other.

    Attributes:
        run: What is kept of them.
        derived: The last model that was derived, where it is the one that the ledger names.
    """

    run: KeptRun
    derived: Model | None = None

    def recompute(self, closed: CompletedRound) -> RecomputedRound:
        """Recompute one round, from the model that the ledger says it started from."""
        n_findings, model = len(self.run.findings), closed.model
        base = self._load(closed.record.base_version, closed.record.base_digest)
        is_pool = closed.record.statistic == POOL_STATISTIC
        derivation = (open_pool if is_pool else add_up_uploads)(self.run, closed, base)

        difference = None
        self.derived = None
        if derivation.derive is not None and len(self.run.findings) == n_findings:
            difference = self._compare(model, derivation.derive)
        else:
            self._load(model.version, model.digest)

        outcome: RecomputeStatus = "follows"
        if len(self.run.findings) > n_findings:
            outcome = "fault"
        elif difference is None:
            outcome = "erased" if derivation.kept else "not_kept"
        return RecomputedRound(
            round=closed.record.number,
            version=model.version,
            position=closed.model_position,
            outcome=outcome,
            updates=derivation.used,
            kept=derivation.kept,
            difference=difference,
        )

    def _load(self, version: int, digest: Digest) -> Model | None:
        """Return the model that the ledger names: as it was derived, or as it is stored; None if it is not there."""
        if self.derived is not None and self.derived.version == version:
            return self.derived
        try:
            return self.run.models.load(version, digest)
        except LiberateError as error:
            self.run.report(f"model {version}", error.message)
            return None

    def _compare(self, model: ModelRecord, derive: Callable[[], Model]) -> float | None:
        """Derive a model, and return how far the one that the ledger names is from it; None if too far."""
        place = f"model {model.version}"
        try:
            derived = derive()
        except (LiberateError, ValueError) as error:
            self.run.report(place, f"none can be derived: {error}")
            return None

        stored = self._load(model.version, model.digest)
        if model_digest(encode_model(derived)) == model.digest:
            self.derived = derived
            return 0.0
        if stored is None:
            return None

        tolerance = from_nano(model.parameters.get("repeats_within_nano", 0))
        difference = largest_difference(derived, stored)
        if difference > tolerance:
            self.run.report(
                place, f"differs by {difference:.3g} from the one recomputed; at most {tolerance:g} is allowed"
            )
            return None
        return difference


def largest_difference(one: Model, other: Model) -> float:
    """Return the largest difference of a number in two models' arrays; infinity where they are not alike."""
    if (one.version, one.statistic, one.low, one.high) != (other.version, other.statistic, other.low, other.high):
        return math.inf
    if {n: a.shape for n, a in one.arrays.items()} != {n: a.shape for n, a in other.arrays.items()}:
        return math.inf
    pairs = [(one.float64(name), other.float64(name)) for name in one.arrays]
    return max((float(np.abs(a - b).max(initial=0)) for a, b in pairs), default=0.0)

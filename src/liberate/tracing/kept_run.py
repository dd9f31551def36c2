"""What is kept of a run, from which its rounds are recomputed, and what of it does not follow from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.identifiers import Digest
from liberate.ledger.interface import Ledger
from liberate.ledger.queries.usable_copies import CopyWeights
from liberate.ledger.verification.findings import Finding
from liberate.model.model import Model
from liberate.randomness import Randomness
from liberate.tracing.rounds import CompletedRound


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a round's model was made of.

    Attributes:
        used: Updates or copies that the model used.
        kept: Those of them that are here.
        derive: Makes the model from them again; None where not all are here.
    """

    used: int
    kept: int
    derive: Callable[[], Model] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """What is kept of a run.

    Attributes:
        ledger: The ledger; nothing else is trusted.
        uploads: The uploads, if the run kept them.
        pool: The copies in the coordinator's pool, if there is one.
        models: The models.
        randomness: What a simulation drew noise on sums from.
        weights: Of the copies that updates used.
        erased: Who has asked to be erased.
        findings: What did not follow so far, each once.
    """

    ledger: Ledger
    uploads: UploadStore | None
    pool: PoolStore | None
    models: ModelStore
    randomness: Randomness
    weights: CopyWeights
    erased: frozenset[int]
    findings: list[Finding] = field(default_factory=list)

    def report(self, place: str, reason: str) -> None:
        """Note that something does not follow."""
        # A model is read as the end of one round and as the base of the next.
        if (finding := Finding(place, reason)) not in self.findings:
            self.findings.append(finding)

    def are_missing(self, what: str, owners: Mapping[int, int]) -> bool:
        """Return whether anything is missing; what belongs to somebody who did not ask to be erased is a finding.

        Args:
            what: What is missing.
            owners: For the place of each missing thing, whose it is.
        """
        for place, number in sorted(owners.items()):
            if number not in self.erased:
                self.report(f"{what} {place}", f"is not among those kept, and participant {number} was not erased")
        return bool(owners)

    def check_sum(self, closed: CompletedRound, what: str, digest: Digest) -> None:
        """Compare the digest of what a round added up with the one in its model's entry."""
        wanted = closed.model.sum_digest
        if digest != wanted:
            self.report(
                f"round {closed.record.number}",
                f"its {what} add up to {digest.hex()[:16]}, its model's entry says {wanted.hex()[:16]}",
            )

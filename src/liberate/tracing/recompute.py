"""Taking a run again from the uploads it kept: every commitment opened, every sum added up, every model solved.

    uploads -> (noise of a simulation, masks taken out) -> sum = `sum_digest` -> solve -> model = `digest`
    copies of a pool                                                          -> learn

What does not follow becomes a finding with its place, and the rounds after it are taken from the model that the ledger
names. Nothing but the ledger is trusted: a run folder that tells another story is found out.
"""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from liberate.crypto.commitments import salted_commitment
from liberate.errors import FederationError, InvalidRecord, LedgerError, LiberateError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.pool_round import copies_digest
from liberate.federation.coordinator.unmasking import rebuilt, take_masks_out
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.masked_round import MaskedRound, masked_round
from liberate.federation.wire.round_messages import RoundAnswer
from liberate.federation.wire.secagg_messages import AdvertisedKeys, verify_keys
from liberate.identifiers import Digest
from liberate.ledger.format.records import ModelRecord, Update
from liberate.ledger.format.sharing_records import Erasure, Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.ledger.queries.usable_copies import CopyWeights, pooled_copies
from liberate.ledger.verification.findings import Finding
from liberate.model.codec import encode_model, model_digest
from liberate.model.model import Model
from liberate.model.pool_learner import POOL_STATISTIC, learner_from
from liberate.model.registry import solver_from
from liberate.privacy.mechanism_base import SumMechanism
from liberate.privacy.secure_aggregation import signed_sum
from liberate.randomness import Randomness, SimulatedRandomness
from liberate.runs.folder import POOL_FOLDER, Run
from liberate.timing import Progress, Stopwatch, silent
from liberate.tracing.rounds import CompletedRound, completed_rounds
from liberate.units import from_nano

RecomputeStatus = Literal["follows", "erased", "not_kept", "fault"]
"""What became of a round: its model follows from its uploads; people of it were erased, so that their uploads are gone;
none of its uploads or copies is here; something does not follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputedRound:
    """A round that was taken again.

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
    """What taking a run again has found.

    Attributes:
        rounds: Its rounds that ended in a model.
        findings: What does not follow, the first first.
    """

    rounds: tuple[RecomputedRound, ...]
    findings: tuple[Finding, ...]


def recompute(run: Run, progress: Progress = silent) -> RecomputeReport:
    """Take all rounds of a run again. The ledger itself is verified elsewhere.

    Args:
        run: A run, finished or not.
        progress: Told each step.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    folder = run.uploads_folder
    with (
        closing(run.open_ledger()) as ledger,
        UploadStore(folder) if UploadStore.exists(folder) else nullcontext() as uploads,
        PoolStore(run.home / POOL_FOLDER) if (run.home / POOL_FOLDER).exists() else nullcontext() as pool,
    ):
        again = _Again(
            ledger=ledger,
            weights=CopyWeights(ledger),
            uploads=uploads,
            pool=pool,
            store=ModelStore(run.folder / "model"),
            randomness=SimulatedRandomness(run.settings.run.seed, b64decode(run.record["first_root"])),
            erased=frozenset(erasure.record.number for erasure in entries(ledger, Erasure)),
        )
        rounds = []
        for closed in completed_rounds(ledger, int(run.record["run"])):
            progress(f"round {closed.record.number} again")
            rounds.append(again.take(closed))
    return RecomputeReport(tuple(rounds), tuple(again.findings))


@dataclass(frozen=True, slots=True)
class _Made:
    """What a round's model was made of.

    Attributes:
        used: Updates or copies that the model used.
        kept: Those of them that are here.
        derive: Makes the model of them again; None where not all are here.
    """

    used: int
    kept: int
    derive: Callable[[], Model] | None


@dataclass(slots=True, kw_only=True)
class _Again:
    """Takes rounds again, one after the other.

    Attributes:
        ledger, uploads, pool, store: What is compared with what.
        randomness: What a simulation drew noise on sums from.
        weights: Of the shares that updates used.
        erased: Those who have asked to be forgotten.
        findings: What did not follow so far.
        derived: The last model that was derived, where it is the one that the ledger names.
    """

    ledger: Ledger
    weights: CopyWeights
    uploads: UploadStore | None
    pool: PoolStore | None
    store: ModelStore
    randomness: Randomness
    erased: frozenset[int]
    findings: list[Finding] = field(default_factory=list)
    derived: Model | None = None

    def take(self, closed: CompletedRound) -> RecomputedRound:
        """Take one round again, from the model that the ledger says it started from."""
        before, record, model = len(self.findings), closed.record, closed.model
        base = self._model(record.base_version, record.base_digest)
        is_pool = record.statistic == POOL_STATISTIC
        made = self._of_copies(closed, base) if is_pool else self._of_answers(closed, base)
        is_sound, difference = len(self.findings) == before, None
        self.derived = None
        if is_sound and made.derive is not None:
            difference = self._compare(model, made.derive)
        else:
            self._model(model.version, model.digest)
        outcome: RecomputeStatus = "follows"
        if len(self.findings) > before:
            outcome = "fault"
        elif difference is None:
            outcome = "erased" if made.kept else "not_kept"
        return RecomputedRound(
            round=record.number,
            version=model.version,
            position=closed.model_position,
            outcome=outcome,
            updates=made.used,
            kept=made.kept,
            difference=difference,
        )

    def _find(self, place: str, reason: str) -> None:
        self.findings.append(Finding(place, reason))

    def _model(self, version: int, digest: Digest) -> Model | None:
        """Give the model that the ledger names: as it was derived, or as it is stored."""
        if self.derived is not None and self.derived.version == version:
            return self.derived
        try:
            return self.store.load(version, digest)
        except LiberateError as error:
            finding = Finding(f"model {version}", error.message)
            if finding not in self.findings:  # a model is read as the end of a round, and as the base of the next
                self.findings.append(finding)
            return None

    # --- the copies of a pool -----------------------------------------------------------------------------------------

    def _of_copies(self, closed: CompletedRound, base: Model | None) -> _Made:
        """Learn again from the copies that a pool's round meant."""
        shares = pooled_copies(self.ledger, closed.position, closed.model_position)
        if self.pool is None or base is None:
            return _Made(len(shares), 0, None)
        before, missing = len(self.findings), dict[int, int]()
        copies, opened, epsilons = list[bytes](), list[Digest](), list[int]()
        for sender, share in shares:
            entry = self._share(sender, share)
            try:
                (received,) = self.pool.copies([share])
            except KeyError:
                missing[entry.position] = sender
                continue
            copies.append(received.copy)
            opened.append(salted_commitment(received.salt, received.copy))
            epsilons.append(entry.record.epsilon_nano or 0)
            if opened[-1] != entry.record.copy:
                self._find(f"copy {entry.position}", "does not open its commitment")
        if self._are_gone("copy", missing):
            return _Made(len(shares), len(copies), None)
        if len(self.findings) == before:
            self._check_sum(closed, "copies", copies_digest(opened))
        model = closed.model

        def derive() -> Model:
            learner = learner_from(model.solver, model.parameters)
            return learner.learn(base, as_ratings(copies, base.n_items), epsilons)

        return _Made(len(shares), len(copies), derive)

    def _share(self, sender: int, share: Digest) -> RecordedEntry[Share]:
        """Find a share by its leaf hash."""
        for entry in entries(self.ledger, Share, author=sender):
            if entry.leaf_hash == share:
                return entry
        raise LedgerError(f"participant {sender} made no share {_short(share)}")

    def _check_sum(self, closed: CompletedRound, what: str, digest: Digest) -> None:
        wanted = closed.model.sum_digest
        if digest != wanted:
            self._find(f"round {closed.record.number}", f"its {what} add up to {_short(digest)}, its model's entry says"
                       f" {_short(wanted)}")  # fmt: skip

    # --- the sum of uploads -------------------------------------------------------------------------------------------

    def _of_answers(self, closed: CompletedRound, base: Model | None) -> _Made:
        """Add up the uploads of a round, and solve again."""
        record, model, before = closed.record, closed.model, len(self.findings)
        used = closed.used(self.ledger)
        kept = self.uploads.count(record.number) if self.uploads is not None else 0
        total = self._sum(closed, base, used) if kept and base is not None else None
        if total is None or base is None:
            return _Made(len(used), kept, None)
        if len(self.findings) == before:
            self._check_sum(closed, "uploads", total.digest())

        def derive() -> Model:
            return solver_from(model.solver, model.parameters).solve(base, total.total(record.fraction_bits))

        return _Made(len(used), kept, derive)

    def _sum(
        self, closed: CompletedRound, base: Model, used: dict[int, RecordedEntry[Update]]
    ) -> UploadAggregate | None:
        """Add up a round's uploads, each checked as the coordinator had to; None where some are gone."""
        record, missing = closed.record, set(used)
        mechanism = closed.mechanism
        gate, total = UploadValidator.of(record, mechanism, base, self.weights, Stopwatch()), UploadAggregate.of(record)
        assert self.uploads is not None
        for each in self.uploads.of_round(record.number):
            if each.position not in missing:
                self._find(f"upload {each.position}", f"is kept, but no update that the model of round {record.number}"
                           " used stands there")  # fmt: skip
                continue
            missing.remove(each.position)
            try:
                update = used[each.position]
                answer = RoundAnswer(entry=update.entry.data, upload=each.upload, salt=each.salt)
                total.add(gate.check(each.number, answer), self.weights.of(update.record))
            except LiberateError as error:
                self._find(f"upload {each.position}", error.message)
        if self._are_gone("upload", {position: used[position].record.author for position in missing}):
            return None
        total.settle()
        if record.is_masked and not self._unmask(closed, {update.record.author for update in used.values()}, total):
            return None
        if record.noise_placement == "on_sum" and isinstance(mechanism, SumMechanism):
            key = self.randomness.secret("sum noise", record.number)
            mechanism.add_to_sum(total.rows, total.tail, total.n_uploads, key, False)
        return total

    def _are_gone(self, what: str, participants: dict[int, int]) -> bool:
        """Whether something of people is gone; of those who did not ask for it that is a finding."""
        for place, number in sorted(participants.items()):
            if number not in self.erased:
                self._find(f"{what} {place}", f"is not among those kept, and participant {number} was not erased")
        return bool(participants)

    def _unmask(self, closed: CompletedRound, survivors: set[int], total: UploadAggregate) -> bool:
        """Take the masks out of a sum with the shares that were kept; False where some are gone."""
        assert self.uploads is not None
        kept = self.uploads.unmasking(closed.record.number)
        current = masked_round(closed.entry)
        gone = (survivors | current.participants & self.erased) - kept.keys()
        if self._are_gone("shares of participant", {number: number for number in gone}):
            return False
        before, secrets = len(self.findings), {}
        for number, each in sorted(kept.items()):
            in_sum = number in survivors
            try:
                self._check_keys(closed, current, number, each.keys)
                if in_sum or survivors.intersection(current.neighbours(number)):
                    secrets[number] = rebuilt(number, each, in_sum=in_sum)
            except LiberateError as error:
                self._find(f"shares of participant {number}", error.message)
        if len(self.findings) == before:
            words = total.rows.astype(np.uint32).ravel()
            keys = {number: each.keys for number, each in kept.items()}
            take_masks_out(words, current, survivors, keys, secrets)
            total.rows = signed_sum(words).reshape(total.rows.shape)
        return True

    def _check_keys(self, closed: CompletedRound, current: MaskedRound, number: int, keys: AdvertisedKeys) -> None:
        """Check that a person signed the keys, with a key of before the round's model."""
        state = self.ledger.state
        if number not in current.participants:
            raise FederationError(f"participant {number} is not of the cohort")
        public = {state.key_at(number, position) for position in (closed.position, closed.model_position)}
        for key in public:
            with suppress(InvalidRecord):
                verify_keys(keys, key, state.origin, current.hash, number)
                return
        raise FederationError(f"the mask keys are not signed by participant {number}")

    # --- the model ----------------------------------------------------------------------------------------------------

    def _compare(self, model: ModelRecord, derive: Callable[[], Model]) -> float | None:
        """Derive a model, and give how far the one that the ledger names is from it; None if too far."""
        place = f"model {model.version}"
        try:
            derived = derive()
        except (LiberateError, ValueError) as error:
            self._find(place, f"none can be derived: {error}")
            return None
        if model_digest(encode_model(derived)) == model.digest:
            self._model(model.version, model.digest)
            self.derived = derived
            return 0.0
        stored = self._model(model.version, model.digest)
        if stored is None:
            return None
        tolerance = from_nano(model.parameters.get("repeats_within_nano", 0))
        difference = largest_difference(derived, stored)
        if difference > tolerance:
            self._find(place, f"differs by {difference:.3g} from what can be derived, {tolerance:g} is allowed")
            return None
        return difference


def largest_difference(one: Model, other: Model) -> float:
    """Give the largest difference of a number in two models' arrays; infinity where they are not alike."""
    if (one.version, one.statistic, one.low, one.high) != (other.version, other.statistic, other.low, other.high):
        return math.inf
    if {n: a.shape for n, a in one.arrays.items()} != {n: a.shape for n, a in other.arrays.items()}:
        return math.inf
    pairs = [(one.float64(name), other.float64(name)) for name in one.arrays]
    return max((float(np.abs(a - b).max(initial=0)) for a, b in pairs), default=0.0)


def _short(digest: Digest) -> str:
    return digest.hex()[:16]

"""The sum of a round's uploads again: each upload checked, masks taken out, a simulation's noise added."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from liberate.errors import FederationError, InvalidRecord, LiberateError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.unmasking import rebuilt, take_masks_out
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.masked_round import MaskedRound, mask_context, masked_round, set_digests
from liberate.federation.wire.round_messages import RoundAnswer
from liberate.federation.wire.secagg_messages import AdvertisedKeys, keys_root, seeds_root, verify_keys
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import RoundSet, SetPhase, Update
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entry_at
from liberate.model.model import Model
from liberate.model.registry import solver_from
from liberate.privacy.mechanism_base import SumMechanism
from liberate.privacy.neighbour_graph import NeighbourGraph, draw_graph, seed_commitment
from liberate.privacy.secure_aggregation import signed_sum
from liberate.tracing.kept_run import Derivation, KeptRun
from liberate.tracing.rounds import CompletedRound


def add_up_uploads(run: KeptRun, closed: CompletedRound, base: Model | None) -> Derivation:
    """Add up the uploads that a round's model used, and say how the model follows from their sum."""
    used = closed.used(run.ledger)
    kept = 0 if run.uploads is None else run.uploads.count(closed.record.number)
    if run.uploads is None or not kept or base is None:
        return Derivation(len(used), kept)

    n_findings = len(run.findings)
    total = _sum(run, run.uploads, closed, base, used)
    if total is None:
        return Derivation(len(used), kept)

    # An upload that was refused is missing in the sum: one finding is enough.
    if len(run.findings) == n_findings:
        run.check_sum(closed, "uploads", total.digest())

    def derive() -> Model:
        solver = solver_from(closed.model.solver, closed.model.parameters)
        return solver.solve(base, total.total(closed.record.fraction_bits))

    return Derivation(len(used), kept, derive)


def _sum(
    run: KeptRun, uploads: UploadStore, closed: CompletedRound, base: Model, used: dict[int, RecordedEntry[Update]]
) -> UploadAggregate | None:
    """Return the sum as the coordinator had it, without masks and with noise; None where some uploads are gone."""
    record, mechanism = closed.record, closed.mechanism
    validator = UploadValidator.of(record, mechanism, base, run.weights)
    total = UploadAggregate.of(record)
    missing = _add_all(run, uploads, validator, used, total)
    if run.are_missing("upload", {position: used[position].record.author for position in missing}):
        return None
    total.settle()

    survivors = {update.record.author for update in used.values()}
    if record.is_masked and not _remove_masks(run, uploads, closed, survivors, total):
        return None

    if record.noise_placement == "on_sum" and isinstance(mechanism, SumMechanism):
        key = run.randomness.secret("sum noise", record.number)
        mechanism.add_to_sum(total.rows, total.tail, total.n_uploads, key, False)
    return total


def _add_all(
    run: KeptRun,
    uploads: UploadStore,
    validator: UploadValidator,
    used: dict[int, RecordedEntry[Update]],
    total: UploadAggregate,
) -> set[int]:
    """Add each upload that is valid to a sum, report the others, and return the positions of updates without one."""
    missing = set(used)
    for kept in uploads.of_round(validator.record.number):
        place = f"upload {kept.position}"
        if kept.position not in missing:
            run.report(place, f"is kept, but the model of round {validator.record.number} used no update there")
            continue

        missing.remove(kept.position)
        update = used[kept.position]
        answer = RoundAnswer(entry=update.entry.data, upload=kept.upload, salt=kept.salt)
        try:
            total.add(validator.check(kept.number, answer), run.weights.of(update.record))
        except LiberateError as error:
            run.report(place, error.message)
    return missing


def _remove_masks(
    run: KeptRun, uploads: UploadStore, closed: CompletedRound, survivors: set[int], total: UploadAggregate
) -> bool:
    """Take the masks out of a sum with the shares that were kept; False where some are gone."""
    kept = uploads.unmasking(closed.record.number)
    masking, sets = masked_round(closed.entry), _recorded_sets(run.ledger, closed)
    gone = sets.members("advertised") - kept.keys()
    if run.are_missing("shares of participant", {number: number for number in gone}):
        return False

    n_findings = len(run.findings)
    graph = _checked_graph(run, masking, sets, closed, kept)
    if graph is None:
        return True

    continuing = sets.members("shared")
    neighbours = {number: continuing.intersection(graph.neighbours(number)) for number in continuing}
    secrets: dict[int, bytes] = {}
    for number, shares in sorted(kept.items()):
        in_sum = number in survivors
        try:
            if in_sum or survivors & neighbours.get(number, frozenset()):
                secrets[number] = rebuilt(number, shares, in_sum=in_sum)
        except LiberateError as error:
            run.report(f"shares of participant {number}", error.message)

    if len(run.findings) == n_findings:
        words = total.rows.astype(np.uint32).ravel()
        keys = {number: shares.keys for number, shares in kept.items()}
        take_masks_out(words, mask_context(masking, sets.digests), survivors, neighbours, keys, secrets)
        total.rows = signed_sum(words).reshape(total.rows.shape)
    return True


@dataclass(frozen=True, slots=True)
class _RecordedSets:
    """The sets of a masked round on the ledger, their roots, and what stands for them in keys of masks."""

    entries: list[RoundSet]
    digests: dict[SetPhase, bytes]

    def members(self, phase: SetPhase) -> frozenset[int]:
        parts = (entry.participants for entry in self.entries if entry.phase == phase)
        return frozenset(number for part in parts for number in numbers_in(part))

    def root(self, phase: SetPhase) -> Digest:
        return next(entry.root for entry in self.entries if entry.phase == phase)


def _recorded_sets(ledger: Ledger, closed: CompletedRound) -> _RecordedSets:
    between = [
        entry_at(ledger, position, RoundSet)
        for position in ledger.positions(kind="round_set")
        if closed.position < position < closed.model_position
    ]
    digests = set_digests((recorded.entry for recorded in between), masked_round(closed.entry))
    return _RecordedSets([recorded.record for recorded in between], digests)


def _checked_graph(
    run: KeptRun,
    masking: MaskedRound,
    sets: _RecordedSets,
    closed: CompletedRound,
    kept: dict[int, UnmaskingShares],
) -> NeighbourGraph | None:
    """Draw the round's graph again from keys and seeds that lead to the roots on the ledger; report what does not."""
    advertised = sets.members("advertised")
    keys = {number: shares.keys for number, shares in kept.items()}
    seeds = {number: shares.seed for number, shares in kept.items() if shares.seed is not None}
    n_findings = len(run.findings)
    for number, advertised_keys in sorted(keys.items()):
        try:
            _check_keys(run.ledger, closed, masking, number, advertised_keys)
            if number in seeds and seed_commitment(seeds[number]) != advertised_keys.draw:
                raise FederationError(f"participant {number} has committed to another seed")
        except LiberateError as error:
            run.report(f"shares of participant {number}", error.message)
    if len(run.findings) > n_findings:
        return None

    roots: dict[SetPhase, Digest] = {"advertised": keys_root(keys), "graph": seeds_root(seeds)}
    for phase, root in roots.items():
        if root != sets.root(phase):
            run.report(f"round {closed.record.number}", f"what was kept does not lead to the root of its set {phase}")
            return None
    return draw_graph(seeds, sets.digests["advertised"], sorted(advertised), masking.degree)


def _check_keys(
    ledger: Ledger, closed: CompletedRound, masking: MaskedRound, number: int, keys: AdvertisedKeys
) -> None:
    """Check that a participant of the cohort signed mask keys, with a signing key that was valid during the round.

    Raises:
        FederationError: It is somebody else, or the signature is not theirs.
    """
    if number not in masking.participants:
        raise FederationError(f"participant {number} is not in the cohort")
    state = ledger.state
    for key in {state.key_at(number, position, "device") for position in (closed.position, closed.model_position)}:
        with suppress(InvalidRecord):
            verify_keys(keys, key, state.origin, masking.hash, number)
            return
    raise FederationError(f"the mask keys are not signed by participant {number}")

"""The sum of a round's uploads again: each upload checked, masks taken out, a simulation's noise added."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from liberate.errors import FederationError, InvalidRecord, LiberateError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.unmasking import rebuilt, take_masks_out
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.masked_round import MaskedRound, masked_round
from liberate.federation.wire.round_messages import RoundAnswer
from liberate.federation.wire.secagg_messages import AdvertisedKeys, verify_keys
from liberate.ledger.format.records import Update
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry
from liberate.model.model import Model
from liberate.model.registry import solver_from
from liberate.privacy.mechanism_base import SumMechanism
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
    masking = masked_round(closed.entry)
    gone = (survivors | masking.participants & run.erased) - kept.keys()
    if run.are_missing("shares of participant", {number: number for number in gone}):
        return False

    n_findings = len(run.findings)
    secrets: dict[int, bytes] = {}
    for number, shares in sorted(kept.items()):
        in_sum = number in survivors
        try:
            _check_keys(run.ledger, closed, masking, number, shares.keys)
            if in_sum or survivors.intersection(masking.neighbours(number)):
                secrets[number] = rebuilt(number, shares, in_sum=in_sum)
        except LiberateError as error:
            run.report(f"shares of participant {number}", error.message)

    if len(run.findings) == n_findings:
        words = total.rows.astype(np.uint32).ravel()
        take_masks_out(words, masking, survivors, {number: shares.keys for number, shares in kept.items()}, secrets)
        total.rows = signed_sum(words).reshape(total.rows.shape)
    return True


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

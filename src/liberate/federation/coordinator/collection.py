"""Collecting a round: ask the cohort for uploads, record the valid ones, and add them up without their masks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from liberate.crypto.merkle import leaf_hash
from liberate.crypto.note import verify_checkpoint
from liberate.errors import BadUpload, RefusedEntry
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.config import RoundConfig, RoundMethod
from liberate.federation.coordinator.exchange import CheckpointView, RoundAborted, RoundExchange
from liberate.federation.coordinator.own_histories import OwnHistoryProofs
from liberate.federation.coordinator.round_sets import record_set
from liberate.federation.coordinator.secure_aggregation import SecureAggregation
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.store.uploads import StoredUpload, UploadStore
from liberate.federation.wire.round_messages import RoundAnswer, RoundInputs, encode_message
from liberate.federation.wire.transport import Request
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.records import ZERO, Round, Update
from liberate.ledger.queries.usable_copies import CopyWeights, usable_copies
from liberate.model.model import Model
from liberate.privacy.mechanism_base import SumMechanism
from liberate.privacy.secure_aggregation import signed_sum
from liberate.randomness import Randomness
from liberate.timing import measure

_logger = logging.getLogger(__name__)

_LARGEST_BATCH = 2**28  # bytes of dense uploads that are asked for at a time


@dataclass(frozen=True, slots=True)
class OpenedRound:
    """A round that is open on the ledger.

    Attributes:
        record: Its entry's record.
        position: The entry's position in the ledger.
        cohort: Numbers of the participants who are asked, increasing.
        base: The model that the round starts from.
        base_bytes: The model's bytes, which the record names by their digest.
        method: What happens in the round.
    """

    record: Round
    position: int
    cohort: Sequence[int]
    base: Model
    base_bytes: bytes
    method: RoundMethod


@dataclass(slots=True)
class CollectedRound:
    """What a round has brought in so far.

    Attributes:
        record: The round.
        validator: Lets the uploads pass that an honest device could have sent.
        aggregate: The sum of the uploads.
        leaves: Leaf hash of each update whose upload is in the sum, by its position in the ledger.
    """

    record: Round
    validator: UploadValidator
    aggregate: UploadAggregate
    leaves: dict[int, Digest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _UploadPhase:
    """The phase in which participants upload.

    Attributes:
        name: Its name in requests.
        participants: Who is asked to upload.
        request: From a participant and the tree size that it knows to the request.
        size: Tree size of the checkpoint that is shown.
        masking: What the uploads are masked with, if they are.
    """

    name: str
    participants: Sequence[int]
    request: Callable[[int, int], bytes]
    size: int
    masking: SecureAggregation | None = None


@dataclass(slots=True, kw_only=True)
class RoundCollector:
    """Collects the rounds of one federation.

    Attributes:
        writer: Writes the coordinator's entries.
        config: How rounds are run.
        masks_path: Where what participants are told in a masked round is stored while it is open.
        randomness: Source of the noise that is drawn on a sum.
        publish: Returns the newest checkpoint, cosigned as participants demand.
        weights: What the copies weigh that updates use.
        uploads: Where uploads are stored; None: nowhere.
        refused: Answers left out so far that no honest device sends, by reason.
    """

    writer: EntryWriter
    config: RoundConfig
    masks_path: Path
    randomness: Randomness
    publish: Callable[[], str]
    weights: CopyWeights
    uploads: UploadStore | None
    refused: Counter[str] = field(default_factory=Counter, init=False)
    _histories: OwnHistoryProofs = field(init=False)
    # Of the tree under the checkpoint that participants have accepted last.
    _known_size: int = field(default=0, init=False)
    _masking: SecureAggregation | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._histories = OwnHistoryProofs(self.writer.ledger)

    def collect(self, opened: OpenedRound, exchange: RoundExchange) -> CollectedRound:
        """Ask the cohort for uploads, record the valid ones, and return their sum without masks.

        Raises:
            RoundAborted: Too few updates came in, or a survivor did not send its upload again.
            FederationError: The ledger refuses the survivor set.
        """
        record = opened.record
        validator = UploadValidator.of(record, opened.method.mechanism, opened.base, self.weights)
        collected = CollectedRound(record, validator, UploadAggregate.of(record))

        # One checkpoint serves a whole phase: no two participants may be shown different histories.
        view = self._checkpoint_view()
        if record.account != "none":
            self._show_histories(opened, view, exchange)
        phase = self._upload_phase(opened, view, exchange)

        for batch in self._batches(phase.participants, collected, exchange):
            answers = exchange.ask(phase.name, batch, phase.request, RoundAnswer, self._known_size, phase.size)
            self._record(answers, collected, exchange)
            self._known_size = phase.size

        with measure("sum"):
            collected.aggregate.settle()

        # Counted after all batches: a late one may still bring the round above its minimum.
        current = self.writer.ledger.state.open_round
        least = current.sets.least if current is not None and record.is_masked else record.minimum
        if len(collected.leaves) < least:
            detail = f"{len(collected.leaves)} updates, {least} were needed"
            raise RoundAborted("insufficient_updates", detail)

        if phase.masking is not None:
            self._remove_masks(phase.masking, collected)
        self._add_noise_to_sum(opened, collected.aggregate)
        return collected

    def close(self) -> None:
        """Tell participants that the round is closed, if they have secrets of it to destroy."""
        if self._masking is not None:
            self._masking.close()
            self._masking = None

    def close_last(self, exchange: RoundExchange) -> None:
        """Tell participants once more that the last round is closed, if it was masked: a crash may have come before."""
        ledger = self.writer.ledger
        position = max(ledger.positions(kind="round"), default=None)
        if position is None:
            return

        record = decode_record(ledger.entry(position), Round)
        if record.is_masked and record.author == self.writer.number:
            self._masking = self._secure_aggregation(exchange, position)
            self.close()

    def _secure_aggregation(self, exchange: RoundExchange, position: int) -> SecureAggregation:
        return SecureAggregation(
            exchange, self.writer, self._checkpoint_view, position, self.masks_path, self._known_size
        )

    def _checkpoint_view(self) -> CheckpointView:
        ledger, note = self.writer.ledger, self.publish()
        return CheckpointView(ledger, note, verify_checkpoint(note, ledger.state.founding.log_vkey).size)

    def _show_histories(self, opened: OpenedRound, view: CheckpointView, exchange: RoundExchange) -> None:
        """Show participants what the ledger says of them: a private round is answered by nobody else."""
        with measure("history"):
            self._histories.show(opened.cohort, view, self._known_size, exchange)
        self._known_size = view.size

    def _upload_phase(self, opened: OpenedRound, view: CheckpointView, exchange: RoundExchange) -> _UploadPhase:
        """Return who is asked to upload and how; under masks, agree on the masks first."""
        if not opened.record.is_masked:
            round_request = cache(partial(view.round_request, opened.position, opened.base_bytes))
            return _UploadPhase("update", opened.cohort, lambda _, known_size: round_request(known_size), view.size)

        self._masking = masking = self._secure_aggregation(exchange, opened.position)
        ready = masking.agree_on_masks()
        self._known_size = masking.known_size
        masked_request = cache(partial(masking.view.round_request, opened.position, opened.base_bytes))

        # After a crash the survivor set in the log is binding: devices reveal shares for that one set only.
        current = self.writer.ledger.state.open_round
        survivors = [] if current is None else sorted(current.survivors)
        return _UploadPhase(
            "mask",
            survivors or ready,
            lambda number, known_size: masking.mask_request(number, masked_request(known_size), known_size),
            masking.view.size,
            masking,
        )

    def _batches(
        self, participants: Sequence[int], collected: CollectedRound, exchange: RoundExchange
    ) -> list[Sequence[int]]:
        """Divide participants into batches; in an open round tell those with copies which of them they may learn from.

        A participant counts as one, and so does each copy that it learns from. A copy may be used if its consent lives
        until the last batch is recorded. Answers to a private round use none.
        """
        size = self.config.batch_size
        if collected.validator.is_dense:
            n_rows, width, n_tail = collected.record.shape
            size = min(size, max(1, _LARGEST_BATCH // (4 * n_rows * width + 8 * n_tail + 1)))

        if collected.record.account != "none":
            return _divide(participants, {}, size)

        state = self.writer.ledger.state
        batches = _divide(participants, usable_copies(state, participants, 1), size)
        copies = usable_copies(state, participants, max(1, len(batches)))
        requests = [
            Request(number, "inputs", encode_message(RoundInputs(round=collected.record.number, shares=copies[number])))
            for number in participants
            if number in copies
        ]
        if requests:
            exchange.transport.exchange(requests)
        return batches

    def _record(
        self, answers: Sequence[tuple[int, RoundAnswer]], collected: CollectedRound, exchange: RoundExchange
    ) -> None:
        """Refuse the answers that are not valid, append the others as one block, and add what the ledger accepted."""
        valid = []
        for sender, answer in answers:
            try:
                valid.append((sender, answer, collected.validator.check(sender, answer)))
            except BadUpload as error:
                self._refuse(error.reason, collected.record, exchange)

        outcomes = self.writer.ledger.append([answer.entry for _, answer, _ in valid])
        accepted = []
        with measure("sum"):
            for (sender, answer, upload), outcome in zip(valid, outcomes, strict=True):
                if isinstance(outcome, RefusedEntry):
                    self._refuse(outcome.reason, collected.record, exchange)
                elif outcome not in collected.leaves:  # the same answer twice counts once
                    collected.leaves[outcome] = leaf_hash(answer.entry)
                    collected.aggregate.add(upload, self.weights.of(decode_record(answer.entry, Update)))
                    accepted.append(StoredUpload(outcome, sender, answer.salt, answer.upload))

        if self.uploads is not None:
            with measure("keep"):
                self.uploads.put(collected.record.number, accepted)

    def _refuse(self, reason: str, record: Round, exchange: RoundExchange) -> None:
        """Count an answer that is left out; nothing of it is recorded."""
        exchange.count(reason)
        self.refused[reason] += 1
        _logger.warning("round %d: an answer was refused as %s", record.number, reason)

    def _remove_masks(self, masking: SecureAggregation, collected: CollectedRound) -> None:
        """Record whose uploads are in the sum, and remove their masks from it."""
        current = self.writer.ledger.state.open_round
        assert current is not None  # this round is open
        participants = sorted(number for number, at in current.answered.items() if at in collected.leaves)
        if not current.has_survivors:
            record_set(self.writer, current, "survivors", participants, ZERO)
        if len(participants) < len(current.survivors):
            raise RoundAborted(
                "survivors_lost", f"{len(participants)} of {len(current.survivors)} survivors sent their uploads again"
            )

        total = collected.aggregate.rows.astype(np.uint32).ravel()
        with measure("unmask"):
            revealed = masking.unmask(total, frozenset(participants), self._known_size)

        if self.uploads is not None:
            self.uploads.put_unmasking(current.record.number, revealed)
        self._known_size = masking.known_size
        collected.aggregate.rows = signed_sum(total).reshape(collected.aggregate.rows.shape)

    def _add_noise_to_sum(self, opened: OpenedRound, total: UploadAggregate) -> None:
        """Draw the noise of a simulation once, where the round places it on the sum."""
        mechanism = opened.method.mechanism
        if opened.record.noise_placement == "on_sum" and isinstance(mechanism, SumMechanism):
            with measure("noise"):
                key = self.randomness.secret("sum noise", opened.record.number)
                is_exact = not self.randomness.is_simulated
                mechanism.add_to_sum(total.rows, total.tail, total.n_uploads, key, is_exact)


def _divide(participants: Sequence[int], copies: Mapping[int, Sequence[Digest]], size: int) -> list[Sequence[int]]:
    """Divide participants into batches of at most `size` participants and copies that they learn from, together.

    Whoever has more copies than that is a batch alone.
    """
    ends = np.cumsum([1 + len(copies.get(number, ())) for number in participants])
    batches: list[Sequence[int]] = []
    begin = 0
    while begin < len(participants):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + size, side="right")))
        batches.append(participants[begin:end])
        begin = end
    return batches

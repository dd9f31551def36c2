"""The coordinator's side: a round as a state machine that can be killed at any point and go on.

    open -> collect -> aggregate -> (survivors -> unmask) -> solve -> close

Every step first makes durable what the next one needs: the round entry before anybody is asked, the updates of a
batch before they are summed, the model's bytes before the model entry. After a crash the open round is found on the
ledger; devices send the same bytes again, the ledger answers a known entry with its first position, and the sum and
the model come out the same to the bit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from liberate.crypto.merkle import leaf_hash
from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import BadUpload, FederationError, InsufficientCohort, RefusedEntry
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.config import RoundConfig, RoundMethod
from liberate.federation.coordinator.exchange import CheckpointView, RoundExchange
from liberate.federation.coordinator.pool_round import run_pool_round
from liberate.federation.coordinator.secure_aggregation import RoundAborted, SecureAggregation, survivor_parts
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import StoredUpload, UploadStore
from liberate.federation.wire.round_messages import RoundAnswer, RoundInputs, decode_answer, encode_message
from liberate.federation.wire.transport import Request, Transport
from liberate.identifiers import Digest, NoisePlacement
from liberate.ledger.format.entries import decode_record, sign
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import MechanismSpec
from liberate.ledger.format.records import Aborted, Round, Survivors, Update
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entry_at
from liberate.ledger.queries.usable_copies import CopyWeights, usable_copies
from liberate.model.codec import model_digest
from liberate.model.model import Model
from liberate.model.pool_learner import PoolLearner
from liberate.model.solvers import Solver
from liberate.privacy.mechanism_base import Mechanism, SumMechanism
from liberate.privacy.secure_aggregation import signed_sum
from liberate.randomness import Randomness
from liberate.timing import Stopwatch

_logger = logging.getLogger(__name__)

_LARGEST_BATCH = 2**28  # bytes of dense uploads that are asked for at a time


@dataclass(slots=True)
class _Collected:
    """What a round has brought in so far."""

    record: Round
    gate: UploadValidator
    sum: UploadAggregate
    exchange: RoundExchange
    leaves: dict[int, Digest] = field(default_factory=dict)  # ledger position -> leaf hash


class Coordinator:
    """Runs rounds for one federation.

    Args:
        ledger: Where rounds, updates and models are recorded.
        key: The coordinator's signing key.
        number: The coordinator's number on the ledger.
        transport: Reaches the participants.
        store: Where model versions are kept.
        config: How rounds are run.
        noise_placement: Whether a simulation draws noise on each upload, or once on the sum where a mechanism allows.
        randomness: Source of the noise that is drawn on a sum.
        stopwatch: Where hash, sign, sum, unmask, solve are added up.
        publish: Gives the newest checkpoint, cosigned as participants demand.
        people: Numbers of those who take part; None: every participant.
        uploads: Where the uploads of rounds that end in a model are kept; None: nowhere.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        key: SigningKey,
        number: int,
        transport: Transport,
        store: ModelStore,
        config: RoundConfig,
        noise_placement: NoisePlacement,
        randomness: Randomness,
        stopwatch: Stopwatch,
        publish: Callable[[], str],
        participants: Sequence[int] | None = None,
        uploads: UploadStore | None = None,
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._clerk = EntryWriter(ledger, key, number, stopwatch)
        self._transport = transport
        self._store = store
        self._config = config
        self._noise_placement = noise_placement
        self._randomness = randomness
        self._stopwatch = stopwatch
        self._publish = publish
        self._participants = None if participants is None else frozenset(participants)
        self._uploads = uploads
        self._known_size = 0
        self._weights = CopyWeights(ledger)
        self._refused: Counter[str] = Counter()
        genesis = ledger.state.genesis
        if genesis is None:
            raise FederationError("the ledger has no genesis")
        self._log_key = genesis.log_vkey

    @property
    def refused(self) -> Mapping[str, int]:
        """Answers left out so far because no honest device gives them, by reason."""
        return self._refused

    def run_round(self, base: Model, stage: RoundMethod, *, run: int, rounds: int | None) -> Model:
        """Carry out one round, or finish the one a crash left open.

        Args:
            base: The model the round starts from.
            stage: What happens in the round; its statistic is the one that the base names.
            run: Number of the run the round belongs to.
            rounds: Rounds of the whole run where that is fixed beforehand.

        Returns:
            The next version, on disk and on the ledger.

        Raises:
            InsufficientCohort: Too few updates came in; the round is closed as aborted.
            FederationError: The ledger refuses what the coordinator signs, the base does not fit an open round, or no
                model follows from the sum; in the last case the round is closed as aborted.
        """
        base_bytes = self._store.save(base)
        position = self._open(base, base_bytes, stage, run, rounds)
        record = entry_at(self._ledger, position, Round).record
        if record.base_digest != model_digest(base_bytes):
            raise FederationError("the open round on the ledger starts from another model than this run has")
        exchange = RoundExchange(self._transport)
        try:
            collected = self._collect(record, stage, position, base, base_bytes, exchange)
        except RoundAborted as shortfall:
            self._abort(record, shortfall.reason)
            raise InsufficientCohort(
                f"round {record.number}: {shortfall.detail}{exchange.reasons()}",
                hint="see why participants refused; the round is closed as aborted, "
                + ("and can be opened again" if rounds is None else "and counts as one of those the run announced"),
            ) from shortfall
        try:
            with self._stopwatch.measure("solve"):
                model = stage.solver.solve(base, collected.sum.total(record.fraction_bits))
        except FederationError:  # nor would one follow the next time: the sum is the same
            self._abort(record, "no_model")
            raise
        self._close(model, stage.solver, collected)
        self._store.masks_path.unlink(missing_ok=True)
        return model

    def run_pool(self, base: Model, learner: PoolLearner, pool: PoolStore, *, run: int, rounds: int | None) -> Model:
        """Carry out the round of the pool; see `pooling.run_pool`."""
        deadline = self._config.deadline_blocks
        return run_pool_round(
            self._clerk, self._store, pool, base, learner, run=run, rounds=rounds, deadline_blocks=deadline
        )

    def _open(self, base: Model, base_bytes: bytes, stage: RoundMethod, run: int, rounds: int | None) -> int:
        """Record the round, or find the one left open; give its place in the ledger."""
        state = self._ledger.state
        if state.open_round is not None:
            return state.open_round.position
        mechanism, cohort = stage.mechanism, self._cohort()
        is_named = bool(mechanism.parameters.get("masked")) or cohort != self._active()
        noise_placement = self._noise_placement if isinstance(mechanism, SumMechanism) else "per_upload"
        record = Round(
            **self._clerk.header(),
            number=state.round_number + 1,
            run=run,
            rounds=rounds,
            base_version=base.version,
            base_digest=model_digest(base_bytes),
            cohort=to_ranges(cohort) if is_named else (),
            statistic=stage.statistic.name,
            shape=stage.statistic.shape,
            mechanism=MechanismSpec(name=mechanism.name, parameters=dict(mechanism.parameters)),
            noise_placement=noise_placement,
            fraction_bits=mechanism.fraction_bits,
            account=mechanism.account,
            spend_nano=mechanism.spend_nano,
            minimum=self._minimum(mechanism),
            deadline=self._ledger.height + self._config.deadline_blocks,
        )
        return self._clerk.append(record)

    def _minimum(self, mechanism: Mechanism) -> int:
        wanted = max(1, int(len(self._cohort()) * self._config.min_participation))
        return max(wanted, mechanism.honest) if isinstance(mechanism, SumMechanism) else wanted

    def _cohort(self) -> list[int]:
        active = self._active()
        return active if self._participants is None else [number for number in active if number in self._participants]

    def _active(self) -> list[int]:
        participants = enumerate(self._ledger.state.principals)
        return [number for number, person in participants if person.role == "participant" and person.is_active]

    def _collect(
        self, record: Round, stage: RoundMethod, position: int, base: Model, base_bytes: bytes, exchange: RoundExchange
    ) -> _Collected:
        n_rows, width, n_tail = record.shape
        gate = UploadValidator.of(record, stage.mechanism, base, self._weights, self._stopwatch)
        collected = _Collected(record, gate, UploadAggregate.of(record), exchange)
        batch_size = self._config.batch_size
        if gate.is_dense:
            batch_size = min(batch_size, max(1, _LARGEST_BATCH // (4 * n_rows * width + 8 * n_tail + 1)))
        # One checkpoint serves the whole round, so that every participant accepts the same view.
        view = self._view()
        round_request = cache(partial(view.round_request, position, base_bytes))
        masks = self._masks(view, position, exchange) if record.is_masked else None
        phase, participants = "update", self._cohort()
        if masks is not None:
            uploading = masks.agree(self._known_size)
            phase, participants = "mask", self._survivors() or uploading
            self._known_size = view.size

        def body(number: int, known_size: int) -> bytes:
            request = round_request(known_size)
            return request if masks is None else masks.mask_request(number, request)

        decode = partial(decode_answer, kind=RoundAnswer)
        for batch in self._tell_inputs(participants, record, batch_size, exchange):
            answers = exchange.ask(phase, batch, body, decode, self._known_size, view.size)
            self._record(answers, collected)
            self._known_size = view.size
        with self._stopwatch.measure("sum"):
            collected.sum.settle()
        if len(collected.leaves) < record.minimum:
            raise RoundAborted("insufficient_updates", f"{len(collected.leaves)} updates, {record.minimum} were needed")
        if masks is not None:
            self._unmask(masks, collected, position)
        if record.noise_placement == "on_sum" and isinstance(stage.mechanism, SumMechanism):
            with self._stopwatch.measure("noise"):
                key = self._randomness.secret("sum noise", record.number)
                total, exact = collected.sum, not self._randomness.is_simulated
                stage.mechanism.add_to_sum(total.rows, total.tail, total.n_uploads, key, exact)
        return collected

    def _tell_inputs(
        self, participants: Sequence[int], record: Round, batch_size: int, exchange: RoundExchange
    ) -> list[Sequence[int]]:
        """Tell those who have received copies which of them they may learn from in the round: those that live.

        Returns:
            Who is asked together: as many people and copies as a batch has people without copies.
        """
        state = self._ledger.state
        batches = _batches(participants, usable_copies(state, participants, 1), batch_size)
        inputs = usable_copies(state, participants, max(1, len(batches)))
        requests = [
            Request(number, "inputs", encode_message(RoundInputs(round=record.number, shares=list(inputs[number]))))
            for number in participants
            if number in inputs
        ]
        if requests:
            exchange.transport.exchange(requests)
        return batches

    def _view(self) -> CheckpointView:
        note = self._publish()
        return CheckpointView(self._ledger, note, verify_checkpoint(note, self._log_key).size)

    def _masks(self, view: CheckpointView, position: int, exchange: RoundExchange) -> SecureAggregation:
        batch_size, path = self._config.batch_size, self._store.masks_path
        return SecureAggregation(exchange, view, position, batch_size=batch_size, path=path)

    def _survivors(self) -> list[int]:
        """Give the survivors that the ledger names for the open round, none before it does."""
        current = self._ledger.state.open_round
        return [] if current is None else sorted(current.survivors)

    def _unmask(self, masks: SecureAggregation, collected: _Collected, position: int) -> None:
        """Record whose uploads are in the sum, and take their masks out of it."""
        current = self._ledger.state.open_round
        assert current is not None  # this round is open
        participants = sorted(number for number, at in current.answered.items() if at in collected.leaves)
        if not current.has_survivors:
            self._name_survivors(current.record, current.hash, participants)
        if len(participants) < len(current.survivors):
            raise RoundAborted(
                "survivors_lost", f"{len(participants)} of {len(current.survivors)} survivors sent their uploads again"
            )
        total = collected.sum.rows.astype(np.uint32).ravel()
        view = self._view()
        with self._stopwatch.measure("unmask"):
            undone = masks.unmask(total, frozenset(participants), view, self._known_size)
        if self._uploads is not None:
            self._uploads.put_unmasking(current.record.number, undone)
        self._known_size = view.size
        collected.sum.rows = signed_sum(total).reshape(collected.sum.rows.shape)

    def _name_survivors(self, record: Round, round_hash: Digest, participants: list[int]) -> None:
        parts = list(survivor_parts(participants))
        header = self._clerk.header()
        entries = [
            sign(
                Survivors(
                    origin=header["origin"],
                    author=header["author"],
                    seq=header["seq"] + index,
                    round=record.number,
                    round_hash=round_hash,
                    part=index + 1,
                    parts=len(parts),
                    participants=part,
                ),
                self._key,
            )
            for index, part in enumerate(parts)
        ]
        for outcome in self._ledger.append(entries):
            if isinstance(outcome, RefusedEntry):
                raise FederationError(f"the ledger refuses the coordinator's survivors: {outcome}")

    def _record(self, answers: Sequence[tuple[int, RoundAnswer]], collected: _Collected) -> None:
        """Refuse what does not open, append the rest as one block, and add what the ledger accepted."""
        sound = []
        for sender, answer in answers:
            try:
                sound.append((sender, answer, collected.gate.check(sender, answer)))
            except BadUpload as error:
                self._refuse(error.reason, collected)
        outcomes = self._ledger.append([answer.entry for _, answer, _ in sound])
        kept = []
        with self._stopwatch.measure("sum"):
            for (sender, answer, upload), outcome in zip(sound, outcomes, strict=True):
                if isinstance(outcome, RefusedEntry):
                    self._refuse(outcome.reason, collected)
                    continue
                if outcome in collected.leaves:  # the same answer twice counts once
                    continue
                collected.leaves[outcome] = leaf_hash(answer.entry)
                collected.sum.add(upload, self._weights.of(decode_record(answer.entry, Update)))
                kept.append(StoredUpload(outcome, sender, answer.salt, answer.upload))
        if self._uploads is not None:
            with self._stopwatch.measure("keep"):
                self._uploads.put(collected.record.number, kept)

    def _refuse(self, reason: str, collected: _Collected) -> None:
        """Count an answer that is left out; nothing of it is recorded."""
        collected.exchange.count(reason)
        self._refused[reason] += 1
        _logger.warning("round %d: an answer was refused as %s", collected.record.number, reason)

    def _close(self, model: Model, solver: Solver, collected: _Collected) -> None:
        data, record = self._store.save(model), collected.record
        accepted = self._ledger.state.open_round
        unused = () if accepted is None else tuple(sorted(set(accepted.updates) - collected.leaves.keys()))
        self._clerk.close(
            record,
            version=model.version,
            digest=model_digest(data),
            maker=solver,
            leaves=collected.leaves,
            unused=unused,
            sum_digest=collected.sum.digest(),
        )

    def _abort(self, record: Round, reason: str) -> None:
        self._clerk.append(Aborted(**self._clerk.header(), round=record.number, reason=reason))
        if self._uploads is not None:
            self._uploads.drop_round(record.number)


def _batches(participants: Sequence[int], inputs: Mapping[int, Sequence[Digest]], size: int) -> list[Sequence[int]]:
    """Divide people so that with the copies they learn from there are no more of either together than a size allows."""
    ends = np.cumsum([1 + len(inputs.get(number, ())) for number in participants])
    batches: list[Sequence[int]] = []
    begin = 0
    while begin < len(participants):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + size, side="right")))
        batches.append(participants[begin:end])
        begin = end
    return batches

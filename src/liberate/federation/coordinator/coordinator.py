"""The coordinator's side: a round as a state machine that can be killed at any point and continued.

    open -> collect -> aggregate -> (survivors -> unmask) -> solve -> close

Every step first makes durable what the next one needs: the round entry before anybody is asked, the updates of a
batch before they are summed, the model's bytes before the model entry. After a crash the open round is read from the
ledger; devices send the same bytes again, the ledger answers a known entry with its first position, and the sum and
the model come out the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from liberate.errors import FederationError, InsufficientCohort
from liberate.federation.coordinator.collection import CollectedRound, OpenedRound, RoundCollector
from liberate.federation.coordinator.config import RoundConfig, RoundMethod
from liberate.federation.coordinator.exchange import RoundAborted, RoundExchange
from liberate.federation.coordinator.opening import new_round, opened_round
from liberate.federation.coordinator.pool_round import run_pool_round
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.terms import mask_assumptions, smallest_sum
from liberate.federation.wire.transport import Transport
from liberate.identifiers import NoisePlacement
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.records import Round
from liberate.ledger.queries.usable_copies import CopyWeights
from liberate.model.codec import model_digest
from liberate.model.model import Model
from liberate.model.pool_learner import PoolLearner
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.mask_parameters import mask_parameters
from liberate.privacy.mechanism_base import Mechanism, SumMechanism
from liberate.randomness import Randomness
from liberate.timing import measure


class Coordinator:
    """Runs rounds for one federation.

    Args:
        writer: Writes the coordinator's entries: rounds, survivors and models.
        transport: Reaches the participants.
        store: Where model versions are stored.
        config: How rounds are run.
        noise_placement: Whether a simulation draws noise on each upload, or once on the sum where a mechanism allows.
        randomness: Source of the noise that is drawn on a sum.
        publish: Returns the newest checkpoint, cosigned as participants demand.
        participants: Numbers of those who take part; None: every participant.
        uploads: Where the uploads of rounds that end in a model are stored; None: nowhere.
    """

    def __init__(
        self,
        *,
        writer: EntryWriter,
        transport: Transport,
        store: ModelStore,
        config: RoundConfig,
        noise_placement: NoisePlacement,
        randomness: Randomness,
        publish: Callable[[], str],
        participants: Sequence[int] | None = None,
        uploads: UploadStore | None = None,
    ) -> None:
        self._writer = writer
        self._transport = transport
        self._store = store
        self._config = config
        self._noise_placement = noise_placement

        self._participants = None if participants is None else frozenset(participants)
        self._collector = RoundCollector(
            writer=writer,
            config=config,
            masks_path=store.masks_path,
            randomness=randomness,
            publish=publish,
            weights=CopyWeights(writer.ledger),
            uploads=uploads,
        )

    @property
    def refused(self) -> Mapping[str, int]:
        """Answers left out so far because no honest device sends them, by reason."""
        return self._collector.refused

    def run_round(self, base: Model, method: RoundMethod, *, run: int, rounds: int | None) -> Model:
        """Carry out one round, or finish the one that a crash left open.

        Args:
            base: The model that the round starts from.
            method: What happens in the round; its statistic is the one that the base names.
            run: Number of the run that the round belongs to.
            rounds: Rounds of the whole run if that is fixed beforehand.

        Returns:
            The next version, on disk and on the ledger.

        Raises:
            InsufficientCohort: Too few updates came in; the round is closed as aborted.
            FederationError: The ledger refuses what the coordinator signs, the base does not fit an open round, or no
                model follows from the sum; in the last case the round is closed as aborted.
        """
        opened = self._open(base, method, run, rounds)
        exchange = self._exchange()
        try:
            collected = self._collector.collect(opened, exchange)
        except RoundAborted as shortfall:
            self._abort(opened.record, shortfall.reason)
            outcome = "can be opened again" if rounds is None else "counts as one of those the run announced"
            raise InsufficientCohort(
                f"round {opened.record.number}: {shortfall.detail}{exchange.reasons()}",
                hint=f"see why participants refused; the round is closed as aborted, and {outcome}",
            ) from shortfall

        model = self._solve(opened, collected)
        self._close(model, opened, collected)
        self._collector.close()
        self._store.masks_path.unlink(missing_ok=True)
        return model

    def close_last_round(self) -> None:
        """Have participants destroy the secrets of the last round, if a crash came between it and that.

        Nothing happens while a round is open.
        """
        if self._writer.ledger.state.open_round is None:
            self._collector.close_last(self._exchange())
            self._store.masks_path.unlink(missing_ok=True)

    def run_pool(self, base: Model, learner: PoolLearner, pool: PoolStore, *, run: int, rounds: int | None) -> Model:
        """Carry out the round of the pool; see `pool_round.run_pool_round`."""
        deadline = self._config.deadline_blocks
        return run_pool_round(
            self._writer, self._store, pool, base, learner, run=run, rounds=rounds, deadline_blocks=deadline
        )

    def _open(self, base: Model, method: RoundMethod, run: int, rounds: int | None) -> OpenedRound:
        """Record the round, unless a crash left it open.

        Raises:
            FederationError: The open round starts from another model, or the ledger refuses the round.
        """
        base_bytes = self._store.save(base)
        base_digest = model_digest(base_bytes)
        active = self._active()
        cohort = active if self._participants is None else [number for number in active if number in self._participants]

        if self._writer.ledger.state.open_round is None:
            mechanism, statistic = self._masked(method.mechanism, len(cohort)), method.statistic
            is_named = isinstance(mechanism, SumMechanism) or cohort != active
            record = new_round(
                self._writer,
                base,
                base_digest,
                run=run,
                rounds=rounds,
                statistic=statistic.name,
                shape=statistic.shape,
                mechanism=mechanism,
                minimum=self._minimum(mechanism, len(cohort)),
                deadline_blocks=self._config.deadline_blocks,
                cohort=to_ranges(cohort) if is_named else (),
                noise_placement=self._noise_placement if isinstance(mechanism, SumMechanism) else "per_upload",
            )
            self._writer.append(record)

        current = opened_round(self._writer, base_digest, method.statistic.name)
        return OpenedRound(current.record, current.position, cohort, base, base_bytes, method)

    def _exchange(self) -> RoundExchange:
        return RoundExchange(self._transport, self._config.batch_size)

    def _masked(self, mechanism: Mechanism, n_participants: int) -> Mechanism:
        """Return the mechanism of a round; where masks hide uploads, with the least that bear what was agreed to.

        Raises:
            PrivacyError: No masks do.
        """
        if not (isinstance(mechanism, DistributedGaussian) and mechanism.masked):
            return mechanism
        return mechanism.masked_with(mask_parameters(mask_assumptions(self._writer.ledger.state.terms, n_participants)))

    def _minimum(self, mechanism: Mechanism, n_participants: int) -> int:
        """Return how many updates a model needs."""
        part = self._config.min_participation
        if not isinstance(mechanism, SumMechanism):
            return max(1, int(n_participants * part))
        # The noise of fewer honest uploads would be less than what was priced.
        return max(mechanism.honest, smallest_sum(self._writer.ledger.state.terms, n_participants, part))

    def _active(self) -> list[int]:
        principals = enumerate(self._writer.ledger.state.principals)
        return [number for number, person in principals if person.role == "participant" and person.can_answer]

    def _solve(self, opened: OpenedRound, collected: CollectedRound) -> Model:
        """Return the model that follows from the sum, or close the round as aborted.

        Raises:
            FederationError: No model follows.
        """
        try:
            with measure("solve"):
                return opened.method.solver.solve(opened.base, collected.aggregate.total(opened.record.fraction_bits))
        except FederationError:  # nor would one follow the next time: the sum is the same
            self._abort(opened.record, "no_model")
            raise

    def _close(self, model: Model, opened: OpenedRound, collected: CollectedRound) -> None:
        """Store the model, then record it: whoever reads its entry finds its bytes."""
        model_bytes = self._store.save(model)
        current = self._writer.ledger.state.open_round
        unused = () if current is None else tuple(sorted(set(current.updates) - collected.leaves.keys()))
        self._writer.close(
            opened.record,
            version=model.version,
            digest=model_digest(model_bytes),
            maker=opened.method.solver,
            leaves=collected.leaves,
            unused=unused,
            sum_digest=collected.aggregate.digest(),
        )

    def _abort(self, record: Round, reason: str) -> None:
        self._writer.abort(record, reason)
        if self._collector.uploads is not None:
            self._collector.uploads.drop_round(record.number)
        self._collector.close()

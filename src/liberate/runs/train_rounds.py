"""The rounds of a run: what each needs, and the loop that carries them out."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, replace

from liberate.data.rating_scale import RatingScale
from liberate.errors import FederationError
from liberate.federation.coordinator.config import RoundMethod
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.participant.host import Host
from liberate.federation.session import RunSession
from liberate.federation.sharing.simulation import SharingSimulation
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.transport import InProcessTransport
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entry_at
from liberate.model.model import Model
from liberate.model.private.evaluation import ErrorRelease
from liberate.model.solvers import has_converged
from liberate.privacy.gaussian import DistributedGaussian
from liberate.randomness import Randomness
from liberate.runs.folder import POOL_FOLDER, Run
from liberate.runs.pending_requests import request_processor
from liberate.runs.plan import Plan
from liberate.runs.prepare import PreparedRun
from liberate.runs.terms import counted_noise
from liberate.timing import Progress
from liberate.units import to_nano


@dataclass(slots=True)
class ModelHistory:
    """The two newest models of a run, which is all that convergence looks at.

    Attributes:
        first_version: Version of the model that the run started from.
        latest: The newest model.
        previous: The one before; None: the run has made none.
    """

    first_version: int
    latest: Model
    previous: Model | None = None

    @property
    def count(self) -> int:
        """How many models the run has made."""
        return self.latest.version - self.first_version

    def add(self, model: Model) -> None:
        """Take a newer model up."""
        self.previous, self.latest = self.latest, model


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSession:
    """A federation opened to train a run.

    Attributes:
        run: The run.
        prepared: What the run starts from and will do.
        federation: Its federation.
        uploads: Retains the run's uploads; None: they are not retained.
        progress: Told each step.
    """

    run: Run
    prepared: PreparedRun
    federation: RunSession
    uploads: UploadStore | None
    progress: Progress

    @property
    def plan(self) -> Plan:
        return self.prepared.plan

    @property
    def ledger(self) -> Ledger:
        return self.federation.ledger

    def randomness(self) -> Randomness:
        """Return the source of the run's secrets; in a simulation the same one whenever the run is resumed."""
        return self.federation.access.source.randomness(b64decode(self.run.record.first_root))

    def models_so_far(self) -> ModelHistory:
        """Return the newest models, read back from the ledger."""
        models = ModelHistory(self.run.record.first_version, self.run.models.load(self.run.record.first_version))
        for position in self._model_positions()[-2:]:
            record = entry_at(self.ledger, position, ModelRecord).record
            models.add(self.run.models.load(record.version, record.digest))
        return models

    def arrange_sharing(self) -> None:
        """Let participants of a simulation share as settings say, before the first round."""
        config, dataset = self.plan.settings.sharing, self.prepared.dataset
        has_begun = bool(self._model_positions()) or self.ledger.state.open_round is not None
        if not config.user_fraction or has_begun:
            return

        with PoolStore(self.run.home / POOL_FOLDER) as pool:
            simulation = SharingSimulation(
                config=config,
                ledger=self.ledger,
                devices=self.federation.devices,
                participants=self.federation.cohort,
                coordinator=self.federation.coordinator.number,
                coordinator_key=self.federation.coordinator.key,
                pool=pool,
                n_items=len(dataset.item_ids),
                scale=RatingScale.of(dataset.values, dataset.low, dataset.high),
                choices=self.federation.access.source.randomness(),
                randomness=self.randomness(),
            )
            simulation.run(self.progress)

    def host(self) -> Host:
        """Return the host of all participants, with what is on their devices now."""
        n_items = self.prepared.split.train.n_items
        return Host(self.federation.devices, self.federation.policy, n_items, self.randomness())

    def coordinator(self, host: Host) -> Coordinator:
        """Return the coordinator of the run's rounds."""
        return Coordinator(
            writer=self.federation.coordinator,
            transport=InProcessTransport(dict.fromkeys(host.numbers, host)),
            store=self.run.models,
            config=self.plan.settings.federation,
            noise_placement=self.plan.noise_placement,
            randomness=self.randomness(),
            publish=self.federation.publisher.publish,
            participants=self.federation.cohort,
            uploads=self.uploads,
        )

    def process_requests(self, host: Host) -> None:
        """Process participants' requests, unless a round is open."""
        if self.ledger.state.open_round is not None:
            return
        if request_processor(self.federation, lambda: self.prepared.dataset).process_pending():
            host.reload()

    def check_rounds_left(self, wanted: int) -> None:
        """Refuse to continue a run whose aborted rounds leave it short: people would pay for models that never come.

        Raises:
            FederationError: It announced fewer rounds than it would have to open.
        """
        announced = self.ledger.state.run
        if announced is None or announced.number != self.run.record.run or announced.rounds is None:
            return

        left = announced.rounds - announced.opened + (self.ledger.state.open_round is not None)
        if left < wanted:
            raise FederationError(
                f"run {announced.number} announced {announced.rounds} rounds, and {wanted - left} of them were aborted:"
                f" {left} are left to open, {wanted} models are missing",
                hint=f"give the run up: remove {self.run.folder / 'run.toml'}, then start another one with"
                f" --ledger {self.run.home} and a new --out; what people have spent stays spent",
            )

    def run_round(self, coordinator: Coordinator, models: ModelHistory) -> Model:
        """Carry the next round out, or finish it where a crash left it open; return the model that it makes."""
        rounds = self.plan.rounds if self.plan.is_noisy else None
        if self.plan.pool is None or models.count:
            return coordinator.run_round(
                models.latest, self._method_after(models.latest), run=self.run.record.run, rounds=rounds
            )
        with PoolStore(self.run.home / POOL_FOLDER) as pool:
            return coordinator.run_pool(models.latest, self.plan.pool, pool, run=self.run.record.run, rounds=rounds)

    def _model_positions(self) -> list[int]:
        """Return the positions of the models that the run has made."""
        begin = self.run.record.first_position
        return [position for position in self.ledger.positions(kind="model") if position >= begin]

    def _method_after(self, model: Model) -> RoundMethod:
        """Return the method of the round that starts from a model; the others add the noise of those who have left."""
        method, current = self.plan.stage_after(model), self.ledger.state.open_round
        if not isinstance(method.mechanism, DistributedGaussian):
            return method

        if current is not None:
            honest = current.record.mechanism.parameters["honest"]
            cohort = len(tuple(numbers_in(current.record.cohort)))
        else:
            principals = self.ledger.state.principals
            cohort = sum(principals[number].can_answer for number in self.federation.cohort)
            part = self.plan.settings.federation.min_participation
            honest = counted_noise(self.ledger.state.terms, cohort, part)
        rows, width, tail = method.statistic.shape
        held = method.mechanism.held_by(honest, cohort, max(1, rows * width + tail))
        solver = method.solver
        if isinstance(solver, ErrorRelease):
            # The noise that is drawn belongs to the figure: it says how far that may be off.
            solver = ErrorRelease(to_nano(held.client_noise))
        return replace(method, mechanism=held, solver=solver)


def train_rounds(session: TrainingSession) -> Model:
    """Carry out the rounds that a run still lacks, and return its last model.

    A killed run continues here: finished rounds are read back from the ledger, and the coordinator finishes a round
    that was left open, with the same bytes.
    """
    plan, models = session.plan, session.models_so_far()
    if plan.rounds == 0:
        return models.latest

    session.arrange_sharing()

    # Not before: the host reads what sharing has put on the devices.
    host = session.host()
    coordinator = session.coordinator(host)
    coordinator.close_last_round()

    while models.count < plan.rounds and not _is_done_early(plan, models):
        # Between rounds no answer is on its way, so participants' requests can take effect.
        session.process_requests(host)

        # Before the round is opened: from then on participants pay for it.
        session.check_rounds_left(plan.rounds - models.count)

        session.progress(f"round {models.count + 1} of {'' if plan.is_noisy else 'at most '}{plan.rounds}")
        models.add(session.run_round(coordinator, models))

    for reason, count in sorted(coordinator.refused.items()):
        session.progress(f"{count:,} answers were refused: {reason}")

    session.process_requests(host)
    return models.latest


def _is_done_early(plan: Plan, models: ModelHistory) -> bool:
    """Whether the last two models are so close that another round would change nothing.

    A noisy run never stops early: the number of its rounds, and with it what participants pay, was announced before the
    first.
    """
    if plan.is_noisy or models.previous is None:
        return False
    return has_converged(models.previous, models.latest, plan.settings.model.tolerance)

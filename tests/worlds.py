"""Small synthetic worlds with known answers, and federations over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from liberate.crypto.note import WitnessPolicy
from liberate.data.ratings import Ratings
from liberate.federation.coordinator.config import RoundConfig, RoundMethod
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.participant.host import Host
from liberate.federation.session import FederationAccess, RunSession
from liberate.federation.setup import RunParticipation, open_for_run
from liberate.federation.store.models import ModelStore
from liberate.federation.terms import GenesisParameters, ParticipationTerms, smallest_sum, unknown_shares
from liberate.federation.wire.transport import InProcessTransport, Transport
from liberate.identifiers import NoisePlacement
from liberate.ledger.format.parts import Terms
from liberate.ledger.publish.checkpoints import WitnessAddress
from liberate.model.config import ModelConfig
from liberate.model.model import Model, initial
from liberate.model.registry import build_method
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.mask_parameters import PLANNED_BITS
from liberate.privacy.mechanism_base import Mechanism
from liberate.privacy.mechanisms import calibrated_mechanism
from liberate.randomness import RandomSource
from liberate.runs.federation_access import open_ledger
from liberate.runs.folder import Run
from liberate.runs.participants import Participant, find_participant
from liberate.units import to_nano
from tests.ledger.world import TERMS
from tests.service.replaying import DIRECT, ReplayingWitness

LOW, HIGH = 1.0, 5.0


def low_rank_ratings(n_users: int = 12, n_items: int = 9, seed: int = 1) -> Ratings:
    """Return ratings of two hidden factors, about two thirds of all pairs, rounded to 1 to 5."""
    rng = np.random.default_rng(seed)
    scores = 3 + rng.standard_normal((n_users, 2)) @ rng.standard_normal((2, n_items))
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.65)
    values = np.clip(np.rint(scores[users, items]), LOW, HIGH)
    return Ratings.from_triples(users, items, values, n_users, n_items)


def write_csv(path: Path, ratings: Ratings) -> Path:
    """Write ratings as a CSV file with users u00, u01, ... and items i00, i01, ..."""
    lines = ["user,item,rating"]
    for user, item, value in zip(ratings.users(), ratings.items, ratings.values, strict=True):
        lines.append(f"u{user:02},i{item:02},{value:g}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def find_person(run: Run, name: str) -> Participant:
    """Find a participant of a run by number, key id or user:ID."""
    with run.open() as reader:
        return find_participant(reader.ledger, reader.devices, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a federation in a test is made of.

    Where masks protect real people, it has a witness that replays the rules, unless others are named.
    """

    ratings: Ratings
    mode: str = "plain"
    epsilon: float | None = None
    noise: Literal["laplace", "gaussian"] = "laplace"
    rounds: int = 3
    batch_size: int = 5
    limit_nano: int | None = None
    n_factors: int = 2
    statistic: Literal["auto", "normal", "gradient"] = "auto"
    trim: float = 0.0
    noise_placement: NoisePlacement = "per_upload"
    is_simulated: bool = True
    masks: bool = True
    min_participation: float = 0.5
    terms: Terms | None = None
    witnesses: tuple[WitnessAddress, ...] = ()
    witness_threshold: int = 0

    def __post_init__(self) -> None:
        if self.mode == "distributed" and not self.is_simulated and not self.witnesses:
            object.__setattr__(self, "witnesses", (DIRECT,))
            object.__setattr__(self, "witness_threshold", 1)

    @property
    def privacy(self) -> PrivacyConfig:
        mode: Literal["local", "plain"] = "local" if self.mode == "local" else "plain"
        return PrivacyConfig(mode=mode, mechanism=self.noise, epsilon=self.epsilon)

    @property
    def is_noisy(self) -> bool:
        return self.mode in ("local", "distributed")

    @property
    def genesis_terms(self) -> Terms:
        """Terms under which nobody colludes and as many may drop out as its rounds allow."""
        permille = math.ceil(1000 * (1 - self.min_participation))
        usual = msgspec.structs.replace(TERMS, max_dropouts_permille=permille, max_late_dropouts_permille=permille)
        return self.terms or usual

    @property
    def mechanism(self) -> Mechanism:
        """Of each round."""
        if self.mode != "distributed":
            return calibrated_mechanism(self.privacy, rounds=self.rounds, trimmed_nano=to_nano(self.trim))
        honest = max(1, int(self.ratings.n_users * self.min_participation))
        if self.terms is not None:
            minimum = smallest_sum(self.terms, self.ratings.n_users, self.min_participation)
            honest = unknown_shares(self.terms, self.ratings.n_users, minimum, bits=PLANNED_BITS)
        return DistributedGaussian(
            fraction_bits=12, clip_units=2**15, share_units=2**9, honest=honest, masked=int(self.masks)
        )


@dataclass(slots=True, kw_only=True)
class Stage:
    """An open federation with a host and a coordinator, ready for rounds."""

    world: World
    federation: RunSession
    host: Host
    coordinator: Coordinator
    store: ModelStore
    learning: RoundMethod
    first: Model

    def learn(self, rounds: int | None = None) -> Model:
        """Carry out rounds from the first model."""
        model = self.first
        for _ in range(self.world.rounds if rounds is None else rounds):
            model = self.round(model)
        return model

    def round(self, base: Model) -> Model:
        rounds = self.world.rounds if self.world.is_noisy else None
        return self.coordinator.run_round(base, self.learning, run=1, rounds=rounds)

    @contextmanager
    def edited(self, wrap: Callable[[Transport], Transport]) -> Iterator[None]:
        """Put a transport around that of the coordinator, for a while."""
        direct = self.coordinator._transport
        self.coordinator._transport = wrap(direct)
        try:
            yield
        finally:
            self.coordinator._transport = direct


def _direct(transport: Transport) -> Transport:
    return transport


def access_to(folder: Path, world: World | None = None) -> FederationAccess:
    """Return how the federation of a world is opened."""
    return FederationAccess(
        folder=folder,
        source=RandomSource(7 if world is None or world.is_simulated else None),
        open_ledger=open_ledger,
        witnesses=() if world is None else world.witnesses,
        witness_threshold=0 if world is None else world.witness_threshold,
    )


@contextmanager
def stage(folder: Path, world: World, *, wrap: Callable[[Transport], Transport] = _direct) -> Iterator[Stage]:
    """Open a federation in a folder; `wrap` puts a transport around the one in process."""
    config = ModelConfig(n_factors=world.n_factors, statistic=world.statistic)
    is_noisy, ratings = world.is_noisy, world.ratings
    statistic, solver = build_method(config, ratings.n_items, noisy=is_noisy)
    mechanism = world.mechanism
    terms = ParticipationTerms(
        mechanism=mechanism.name,
        epsilon_nano=(10**12 if world.limit_nano is None else world.limit_nano) if is_noisy else 0,
        rho_nano=10**12 if is_noisy else 0,
    )
    policy = WitnessPolicy(tuple(witness.key for witness in world.witnesses), world.witness_threshold)
    user_ids = [f"u{user}" for user in range(ratings.n_users)]
    witness = ReplayingWitness(folder / "ledger", folder.parent / f"{folder.name}-witness")
    access = replace(access_to(folder, world), client=witness.client)
    with (
        closing(witness),
        open_for_run(
            access,
            GenesisParameters(origin="test.invalid/world", terms=world.genesis_terms, witnesses=policy),
            RunParticipation(run=1, user_ids=user_ids, ratings=ratings, terms=terms),
            batch_size=world.batch_size,
        ) as federation,
    ):
        host = Host(federation.devices, federation.policy, ratings.n_items, access.source.randomness(b"run"))
        store = ModelStore(folder / "model")
        coordinator = Coordinator(
            writer=federation.coordinator,
            transport=wrap(InProcessTransport(dict.fromkeys(host.numbers, host))),
            store=store,
            config=RoundConfig(batch_size=world.batch_size, min_participation=world.min_participation),
            noise_placement=world.noise_placement,
            randomness=access.source.randomness(b"run"),
            publish=federation.publisher.publish,
        )
        learning = RoundMethod(statistic, mechanism, solver)
        first = initial(config, ratings.n_items, LOW, HIGH, bytes(32), noisy=is_noisy)
        yield Stage(
            world=world,
            federation=federation,
            host=host,
            coordinator=coordinator,
            store=store,
            learning=learning,
            first=first,
        )

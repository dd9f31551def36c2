"""Participants of a masked round, and a coordinator that says what a test wants, without a transport between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import numpy as np

from liberate.arrays import UInt32Array
from liberate.crypto.signing import SigningKey
from liberate.federation.coordinator.exchange import CheckpointView
from liberate.federation.coordinator.round_sets import HistoryProver, known_to
from liberate.federation.participant.checks import RoundChecker
from liberate.federation.participant.masked_phases import MaskedPhases
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.own_history import OwnHistories
from liberate.federation.participant.refusals import Refused
from liberate.federation.store.device_rows import Device, DeviceData
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.terms_tables import AcceptedTerms
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound, mask_context, masked_round, set_digests
from liberate.federation.wire.round_messages import RoundRequest, decode_message, encode_message
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    CohortKeys,
    EncryptedShares,
    MaskRequest,
    RevealedSeed,
    RevealedShares,
    RoundHistory,
    ShareKeysRequest,
    keys_root,
    seeds_root,
)
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import MechanismSpec, Terms
from liberate.ledger.format.records import ZERO, Enrol, Round, RoundSet, SetPhase
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.principal import Principal
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.mask_parameters import MaskParameters
from liberate.privacy.neighbour_graph import NeighbourGraph, draw_graph
from liberate.randomness import SimulatedRandomness
from tests.federation.lawless_log import LawlessLog

ORIGIN = "test.invalid/masked"
COORDINATOR = SigningKey.from_seed(b"c" * 32)
FOUNDER, COORDINATOR_NUMBER = 0, 2
FIRST = 3
"""Number of the first participant."""

N_ITEMS = 4

AnswerT = TypeVar("AnswerT")


def signing_key(number: int) -> SigningKey:
    return COORDINATOR if number == COORDINATOR_NUMBER else SigningKey.from_seed(number.to_bytes(32, "big"))


def answer_of(answer: AnswerT | Refused) -> AnswerT:
    if isinstance(answer, Refused):
        raise answer
    return answer


def round_record(
    participants: Sequence[int], minimum: int, number: int = 1, masks: MaskParameters | None = None
) -> Round:
    """Return a masked round for a cohort."""
    mechanism = DistributedGaussian(
        fraction_bits=10, clip_units=2**12, share_units=2**9, honest=2, masked=1
    ).masked_with(masks or MaskParameters(degree=max(1, len(participants) - 1), threshold=1))
    return Round(
        origin=ORIGIN,
        author=COORDINATOR_NUMBER,
        seq=number,
        number=number,
        run=1,
        rounds=2,
        base_version=0,
        base_digest=Digest(bytes(32)),
        terms=ZERO,
        cohort=to_ranges(participants),
        statistic="gradient",
        shape=(N_ITEMS, 2, 0),
        mechanism=MechanismSpec(name=mechanism.name, parameters=mechanism.parameters),
        noise_placement="per_upload",
        fraction_bits=10,
        account="rho",
        spend_nano=mechanism.spend_nano,
        minimum=minimum,
        deadline=10,
    )


def _data(number: int) -> DeviceData:
    return DeviceData(
        person_seed=bytes(32), device_seed=number.to_bytes(32, "big"), dataset_salt=bytes(32), ratings=b""
    )


class TrustedHistories(OwnHistories):
    """Devices that want to see no entries about themselves."""

    def require_proved(self, device: Device, record: Round, position: int) -> None:
        pass


@dataclass(slots=True)
class Party:
    """Participants of one host in one masked round.

    Attributes:
        folder: Where the store lies.
        size: How many participants; the first has the number `FIRST`.
        minimum: How many survivors the round promises; by default as many as the terms demand.
        colluders: How many the participants expect.
        late: How many may vanish late, in thousandths of the cohort.
        degree, threshold: Of the masks; by default those of the complete graph.
        attempts: In how many rounds a device advertises keys.
    """

    folder: Path
    size: int
    minimum: int = 0
    colluders: int = 1
    late: int = 400
    degree: int = 0
    threshold: int = 0
    attempts: int = 8
    log: LawlessLog = field(init=False)
    position: int = field(init=False)
    devices: DeviceStore = field(init=False)
    phases: MaskedPhases = field(init=False)
    keys: dict[int, AdvertisedKeys] = field(default_factory=dict, init=False)
    seeds: dict[int, bytes] = field(default_factory=dict, init=False)
    sealed: dict[int, list[bytes]] = field(default_factory=dict, init=False)
    leaves: list[bytes] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        holdings = [(f"u{number}", _data(number)) for number in self.participants]
        with closing(DeviceStore.create(self.folder, holdings)) as devices:
            devices.record_numbers(list(enumerate(self.participants)), seq=0)
            devices.record_agreement(1, range(self.size), cost=(0, 10**12), limits=(0, 10**12))
            devices.record_terms(range(self.size), AcceptedTerms(ZERO, self.terms))
        self.log = LawlessLog(ORIGIN, self.principals())
        enrolment = Enrol(
            origin=ORIGIN,
            author=FOUNDER,
            seq=1,
            number=COORDINATOR_NUMBER,
            key=COORDINATOR.public,
            device_key=None,
            custody="own",
            role="coordinator",
            approvals=(),
        )
        self.log.append(enrolment, by=signing_key(FOUNDER))
        self.open_round(1)
        self.start()

    def principals(self) -> list[Principal]:
        roles = ("registrar", "log", "coordinator")
        officials = [Principal(key=signing_key(n).public, role=role) for n, role in enumerate(roles)]  # type: ignore[arg-type]
        return officials + [
            Principal(key=COORDINATOR.public, device_key=signing_key(n).public, role="participant")
            for n in self.participants
        ]

    @property
    def least(self) -> int:
        return self.minimum or self.size - self.terms.dropouts(self.size)

    @property
    def terms(self) -> Terms:
        return Terms(
            max_participants=self.size,
            max_colluders=self.colluders,
            max_dropouts_permille=self.late,
            max_late_dropouts_permille=self.late,
            min_cohort=1,
            min_honest=2,
            max_attempts=self.attempts,
        )

    @property
    def policy(self) -> ParticipationPolicy:
        return ParticipationPolicy(
            origin=ORIGIN,
            log_key=self.log.log_key,
            coordinator_key=COORDINATOR.public,
            mechanism="distributed_gaussian",
            terms=self.terms,
            terms_hash=ZERO,
        )

    def start(self) -> None:
        """Start the host, or start it again: only what is on disk is left."""
        self.devices = DeviceStore(self.folder)
        signing = {slot: signing_key(number) for slot, number in enumerate(self.participants)}
        randomness = SimulatedRandomness(1)
        checker = RoundChecker(self.devices, self.policy, N_ITEMS, is_simulated=True)
        self.phases = MaskedPhases(
            checker=checker,
            histories=TrustedHistories(self.devices, checker, signing, ORIGIN),
            masking=MaskingClient(store=self.devices, keys=signing, policy=self.policy, randomness=randomness),
            policy=self.policy,
        )

    def restart(self) -> None:
        self.devices.close()
        self.start()

    @property
    def participants(self) -> list[int]:
        return list(range(FIRST, FIRST + self.size))

    @property
    def round(self) -> MaskedRound:
        return masked_round(self.log.entry(self.position))

    def device(self, number: int) -> Device:
        device = self.devices.find(number=number)
        assert device is not None
        return device

    # --- what the coordinator records ---------------------------------------------------------------------------------

    def open_round(self, number: int, **changes: object) -> None:
        """Record a masked round of the whole cohort."""
        masks = MaskParameters(degree=self.degree or self.size - 1, threshold=self.threshold or self.colluders + 1)
        record = round_record(self.participants, self.least, number, masks)
        record = msgspec.structs.replace(record, seq=self.log.size + 1, **changes)
        (self.position,) = self.log.append(record, by=COORDINATOR)
        self.leaves = [principal.encode() for principal in self.log.state.principals]

    def round_set(
        self, phase: SetPhase, participants: Sequence[int], *, root: Digest | None = None, part: int = 1, parts: int = 1
    ) -> RoundSet:
        """Return a set of the round, with the root that an honest coordinator computes."""
        roots = {"advertised": keys_root(self.keys), "graph": seeds_root(self.seeds)}
        return RoundSet(
            origin=ORIGIN,
            author=COORDINATOR_NUMBER,
            seq=self.log.size + 1,
            round=self.round.record.number,
            round_hash=self.round.hash,
            phase=phase,
            part=part,
            parts=parts,
            participants=to_ranges(participants),
            root=roots.get(phase, ZERO) if root is None else root,
        )

    def record(self, phase: SetPhase, participants: Sequence[int], *, root: Digest | None = None) -> None:
        """Record a whole set."""
        self.log.append(self.round_set(phase, participants, root=root), by=COORDINATOR)

    # --- what participants are shown ----------------------------------------------------------------------------------

    @property
    def view(self) -> CheckpointView:
        return CheckpointView(cast("Ledger", self.log), self.log.note(), self.log.size)

    def round_request(self, model: bytes = b"") -> bytes:
        return self.view.round_request(self.position, model, self.phases.checker.known_size)

    def history(self) -> RoundHistory:
        """What an honest coordinator shows."""
        view = self.view
        prover = HistoryProver.of(view.ledger, COORDINATOR_NUMBER, self.position)
        return known_to(prover.prove(view), view, self.phases.checker.known_size)

    def cohort(self) -> CohortKeys:
        return CohortKeys(
            keys=sorted(self.keys.items()),
            seeds=sorted(self.seeds.items()),
            block=self.log.entry(self.position + 1),
            block_position=self.position + 1,
            state=self.leaves,
        )

    def share_request(self, cohort: CohortKeys | None = None) -> ShareKeysRequest:
        return ShareKeysRequest(
            history=self.history(),
            cohort=encode_message(cohort or self.cohort()),
            block_proof=self.log.inclusion_proof(self.position + 1),
        )

    def graph(self) -> NeighbourGraph:
        return draw_graph(self.seeds, self.digests()["advertised"], sorted(self.keys), self.round.degree)

    def digests(self) -> Mapping[SetPhase, bytes]:
        return set_digests(map(decode_entry, self.history().entries), self.round)

    def context(self) -> bytes:
        return mask_context(self.round, self.digests())

    def received(self, number: int) -> list[tuple[int, bytes]]:
        """The shares that were encrypted for somebody."""
        graph = self.graph()
        dealers = [dealer for dealer in graph.in_neighbours(number) if dealer in self.sealed]
        return [(dealer, self.sealed[dealer][graph.out_neighbours(dealer).index(number)]) for dealer in dealers]

    def mask_request(self, number: int, history: RoundHistory | None = None) -> MaskRequest:
        shown = encode_message(history or self.history())
        return MaskRequest(round=self.round_request(), history=shown, received=self.received(number))

    # --- what participants answer -------------------------------------------------------------------------------------

    def advertise(self, participants: Sequence[int] | None = None) -> dict[int, AdvertisedKeys]:
        numbers = self.participants if participants is None else participants
        request = decode_message(self.round_request(), RoundRequest)
        answers = self.phases.advertise(request, [self.device(number) for number in numbers])
        self.keys |= {number: answer_of(answer) for number, answer in zip(numbers, answers, strict=True)}
        return self.keys

    def choose(self, number: int, history: RoundHistory | None = None) -> RevealedSeed:
        (answer,) = self.phases.choose(history or self.history(), [self.device(number)])
        self.seeds[number] = answer_of(answer).seed
        return answer_of(answer)

    def share(self, number: int, request: ShareKeysRequest | None = None) -> EncryptedShares:
        (answer,) = self.phases.share(request or self.share_request(), [self.device(number)])
        self.sealed[number] = answer_of(answer).sealed
        return answer_of(answer)

    def receive(self, number: int, request: MaskRequest | None = None) -> None:
        for refusal in self.phases.receive([(request or self.mask_request(number), self.device(number))]).values():
            raise refusal

    def upload(self, number: int, values: UInt32Array, request: MaskRequest | None = None) -> UInt32Array:
        self.receive(number, request)
        masked = values.copy()
        self.phases.masking.add(self.device(number), self.round, masked)
        return masked

    def unmask(self, number: int, history: RoundHistory | None = None) -> RevealedShares:
        (answer,) = self.phases.unmask(history or self.history(), [self.device(number)])
        return answer_of(answer)

    # --- honest rounds ------------------------------------------------------------------------------------------------

    def until_keys(self) -> None:
        """Bring everybody to the set of those who advertised keys."""
        self.advertise()
        self.record("advertised", self.participants)

    def until_graph(self) -> None:
        self.until_keys()
        for number in self.participants:
            self.choose(number)
        self.record("graph", self.participants)

    def until_shared(self) -> None:
        self.until_graph()
        request = self.share_request()
        for number in self.participants:
            self.share(number, msgspec.structs.replace(request, history=self.history()))
        self.record("shared", self.participants)

    def until_upload(self, values: UInt32Array) -> dict[int, UInt32Array]:
        """Bring everybody to the upload of the same values."""
        self.until_shared()
        return {number: self.upload(number, values) for number in self.participants}


def ones(size: int = 8) -> UInt32Array:
    return np.ones(size, np.uint32)

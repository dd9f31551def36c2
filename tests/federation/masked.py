"""Participants of a masked round, and a coordinator that says what a test wants, without a transport between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from liberate.arrays import UInt32Array
from liberate.crypto.merkle import MutableTree, leaf_hash
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import SigningKey
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.refusals import Refused
from liberate.federation.store.device_rows import Device, DeviceData
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound, masked_round
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    MaskRequest,
    Neighbour,
    RevealedShares,
    ShareKeysRequest,
    UnmaskRequest,
)
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import MechanismSpec
from liberate.ledger.format.records import Block, Record, Round, Survivors
from liberate.ledger.rules.principal import Principal
from liberate.randomness import SimulatedRandomness
from tests.ledger.world import TERMS

ORIGIN = "test.invalid/masked"
COORDINATOR = SigningKey.from_seed(b"c" * 32)
POLICY = ParticipationPolicy(
    origin=ORIGIN,
    log_key="",
    coordinator_key=COORDINATOR.public,
    mechanism="distributed_gaussian",
    terms=TERMS,
    terms_hash=Digest(bytes(32)),
)
FIRST = 3
"""Number of the first participant."""

COORDINATOR_NUMBER = 2


def signing_key(number: int) -> SigningKey:
    return SigningKey.from_seed(number.to_bytes(32, "big"))


def round_record(participants: Sequence[int], minimum: int, number: int = 1) -> Round:
    """Return a masked round for a cohort."""
    return Round(
        origin=ORIGIN,
        author=COORDINATOR_NUMBER,
        seq=number,
        number=number,
        run=1,
        rounds=2,
        base_version=0,
        base_digest=Digest(bytes(32)),
        terms=POLICY.terms_hash,
        cohort=to_ranges(participants),
        statistic="gradient",
        shape=(4, 2, 0),
        mechanism=MechanismSpec(name="distributed_gaussian", parameters={"masked": 1}),
        noise_placement="per_upload",
        fraction_bits=10,
        account="rho",
        spend_nano=1,
        minimum=minimum,
        deadline=10,
    )


def _data(number: int) -> DeviceData:
    return DeviceData(
        person_seed=bytes(32), device_seed=number.to_bytes(32, "big"), dataset_salt=bytes(32), ratings=b""
    )


@dataclass(slots=True)
class Party:
    """Participants of one host in one masked round.

    Attributes:
        folder: Where the store lies.
        size: How many participants; the first has the number `FIRST`.
        minimum: How many survivors the round promises.
    """

    folder: Path
    size: int
    minimum: int = 1
    devices: DeviceStore = field(init=False)
    masks: MaskingClient = field(init=False)
    entry: bytes = field(init=False)
    keys: dict[int, AdvertisedKeys] = field(init=False)
    sealed: dict[int, list[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        holdings = [(f"u{number}", _data(number)) for number in self.participants]
        with closing(DeviceStore.create(self.folder, holdings)) as devices:
            devices.record_numbers(list(enumerate(self.participants)), seq=0)
        self.entry = sign(round_record(self.participants, self.minimum), COORDINATOR)
        self.keys, self.sealed = {}, {}
        self.start()

    def start(self) -> None:
        """Start the host, or start it again: only what is on disk is left."""
        self.devices = DeviceStore(self.folder)
        signing = {slot: signing_key(number) for slot, number in enumerate(self.participants)}
        self.masks = MaskingClient(store=self.devices, keys=signing, policy=POLICY, randomness=SimulatedRandomness(1))

    def restart(self) -> None:
        self.devices.close()
        self.start()

    @property
    def participants(self) -> list[int]:
        return list(range(FIRST, FIRST + self.size))

    @property
    def round(self) -> MaskedRound:
        return masked_round(self.entry)

    def device(self, number: int) -> Device:
        device = self.devices.find(number=number)
        assert device is not None
        return device

    # --- what an honest coordinator says ------------------------------------------------------------------------------

    def advertise(self, participants: Sequence[int] | None = None) -> dict[int, AdvertisedKeys]:
        numbers = self.participants if participants is None else participants
        keys = self.masks.advertise(self.round, [self.device(number) for number in numbers], "note")
        self.keys |= dict(zip(numbers, keys, strict=True))
        return self.keys

    def peers(self, number: int) -> list[int]:
        return [other for other in self.round.neighbours(number) if other in self.keys]

    def share_request(self, number: int) -> tuple[ShareKeysRequest, Checkpoint]:
        tree = MutableTree()
        leaves = [principal.encode() for principal in self.principals()]
        tree.update({number: leaf_hash(leaf) for number, leaf in enumerate(leaves)})
        block = signed(
            Block(origin=ORIGIN, author=1, seq=1, parent=Digest(bytes(32)), count=1, state_root=tree.root(), time_us=1)
        )

        request = ShareKeysRequest(
            entry=self.entry,
            block=block,
            block_proof=[],
            n_principals=len(leaves),
            neighbours=[
                Neighbour(number=peer, keys=self.keys[peer], leaf=leaves[peer], proof=list(tree.inclusion_proof(peer)))
                for peer in self.peers(number)
            ],
        )
        return request, only_entry(block)

    def principals(self) -> list[Principal]:
        officials = [Principal(key=signing_key(n).public, role="registrar") for n in range(FIRST)]
        return officials + [
            Principal(key=COORDINATOR.public, device_key=signing_key(n).public, role="participant")
            for n in self.participants
        ]

    def share(self, number: int) -> EncryptedShares:
        request, checkpoint = self.share_request(number)
        shares = self.masks.share(self.device(number), self.round, request, checkpoint)
        self.sealed[number] = shares.sealed
        return shares

    def mask_request(self, number: int) -> MaskRequest:
        senders = [other for other in self.round.neighbours(number) if other in self.sealed]
        received = [(sender, self.sealed[sender][self.peers(sender).index(number)]) for sender in senders]
        return MaskRequest(round=b"", received=received)

    def upload(self, number: int, values: UInt32Array) -> UInt32Array:
        self.masks.receive(self.device(number), self.round, self.mask_request(number))
        masked = values.copy()
        self.masks.add(self.device(number), self.round, masked)
        return masked

    def until_upload(self, values: UInt32Array) -> dict[int, UInt32Array]:
        """Bring everybody to the upload of the same values."""
        self.advertise()
        for number in self.participants:
            self.share(number)
        return {number: self.upload(number, values) for number in self.participants}

    def survivors(self, participants: Sequence[int], *, part: int = 1, parts: int = 1) -> Survivors:
        return Survivors(
            origin=ORIGIN,
            author=COORDINATOR_NUMBER,
            seq=2,
            round=1,
            round_hash=self.round.hash,
            part=part,
            parts=parts,
            participants=to_ranges(participants),
        )

    def unmask(self, number: int, *records: Record, by: SigningKey = COORDINATOR) -> RevealedShares:
        """Show somebody survivors entries, all of them on a ledger that holds nothing else."""
        request, checkpoint = unmask_request(self.entry, [signed(record, by) for record in records])
        (answer,) = self.masks.unmask([self.device(number)], self.round, request, checkpoint)
        if isinstance(answer, Refused):
            raise answer
        return answer


def signed(record: Record, by: SigningKey = COORDINATOR) -> bytes:
    """An entry, whatever it says."""
    return sign(record, by)


def only_entry(data: bytes) -> Checkpoint:
    """A checkpoint over a ledger of one entry, whose inclusion proof is empty."""
    return Checkpoint(ORIGIN, 1, decode_entry(data).leaf_hash)


def unmask_request(round_entry: bytes, entries: list[bytes]) -> tuple[UnmaskRequest, Checkpoint]:
    tree = MutableTree()
    tree.update({position: decode_entry(entry).leaf_hash for position, entry in enumerate(entries)})
    request = UnmaskRequest(
        round=round_entry,
        entries=entries,
        positions=list(range(len(entries))),
        inclusion=[list(tree.inclusion_proof(position)) for position in range(len(entries))],
        checkpoint="another note",
        known_size=0,
        consistency=[],
    )
    return request, Checkpoint(ORIGIN, len(entries), tree.root())


def ones(size: int = 8) -> UInt32Array:
    return np.ones(size, np.uint32)

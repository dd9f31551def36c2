"""People join and bring ratings: kept on their devices, then numbered by the ledger, then committed to there.

    keep -> enrol -> commit

Each step can be killed and done again: what is on the devices is durable before the ledger sees anything that follows
from it, and the same devices and ledger give the same entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.signing import SigningKey
from liberate.data.ratings import Ratings
from liberate.federation.registrars import FOUNDER, Registrar
from liberate.federation.store.device_rows import EMPTY_RATINGS, Device, DeviceData
from liberate.federation.store.devices import DeviceStore
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.parts import Custody
from liberate.ledger.format.records import DatasetRecord, Enrol
from liberate.ledger.lookup import entries
from liberate.randomness import Randomness
from liberate.timing import measure

ENROLMENTS = "enrolments"
"""Names the file in which approvals of enrolments are asked for."""

EnrolledRole = Literal["participant", "coordinator", "auditor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Somebody to be enrolled.

    Attributes:
        key: Public key; a participant decides with it.
        device_key: Public key of a participant's device; None for other roles.
        role: What for.
        custody: Who holds these keys.
    """

    key: bytes
    device_key: bytes | None = None
    role: EnrolledRole
    custody: Custody = "own"

    def record(self, origin: str, seq: int, number: int) -> Enrol:
        """Return the founder's record of the enrolment."""
        return Enrol(
            origin=origin,
            author=FOUNDER,
            seq=seq,
            number=number,
            key=Digest(self.key),
            device_key=None if self.device_key is None else Digest(self.device_key),
            custody=self.custody,
            role=self.role,
            approvals=(),
        )


def open_or_create_device_store(
    folder: Path,
    participants: Sequence[str],
    ratings: Ratings,
    held_out: Ratings | None,
    keys: Randomness,
    salts: Randomness,
) -> DeviceStore:
    """Open the devices in a folder, made if absent, so that each person named has one that holds their ratings.

    Devices of other people stay as they are, and so do those of people who were erased.

    Args:
        folder: The store's folder.
        participants: Original id of each user, in the order of `ratings`.
        ratings: What each device learns from, from now on.
        held_out: What each device holds out from now on, of the same users; None: what it holds out already.
        keys: Source of the keys and salts of new devices.
        salts: Source of the salts of changed ratings; another one at each state of the ledger.
    """
    known = _known(folder)
    newcomers = [user for user, participant in enumerate(participants) if participant not in known]
    new = [
        (participants[user], _new_device(keys, slot, ratings.user_bytes(user), _held_out(held_out, user)))
        for slot, user in enumerate(newcomers, len(known))
    ]
    if not DeviceStore.exists(folder):
        return DeviceStore.create(folder, new)

    devices = DeviceStore(folder)
    if new:
        devices.add(new)
    present = [(user, known[participant]) for user, participant in enumerate(participants) if participant in known]
    changes = [
        (device.slot, _changed(devices, device, ratings.user_bytes(user), _held_out(held_out, user), salts))
        for user, device in present
        if not device.is_erased
    ]
    devices.replace_data([(slot, changed) for slot, changed in changes if changed is not None])
    return devices


def _held_out(ratings: Ratings | None, user: int) -> bytes | None:
    return None if ratings is None else ratings.user_bytes(user)


def _new_device(keys: Randomness, slot: int, ratings: bytes, held_out: bytes | None) -> DeviceData:
    return DeviceData(
        person_seed=keys.secret("participant key", slot),
        device_seed=keys.secret("device key", slot),
        dataset_salt=keys.secret("dataset salt", slot),
        ratings=ratings,
        held_out=held_out or EMPTY_RATINGS,
    )


def _known(folder: Path) -> dict[str, Device]:
    if not DeviceStore.exists(folder):
        return {}
    with DeviceStore(folder) as devices:
        return {device.user_id: device for device in devices.devices()}


def _changed(
    devices: DeviceStore, device: Device, ratings: bytes, held_out: bytes | None, salts: Randomness
) -> DeviceData | None:
    """Return what a device keeps when its ratings become others; None where they are the same.

    Other held-out ratings change no commitment: the ledger must not show them.
    """
    before = devices.data_of(device.slot)
    data = before if held_out is None else msgspec.structs.replace(before, held_out=held_out)
    if data.ratings == ratings:
        return None if data == before else data
    salt = salts.secret("dataset salt", device.slot)
    return msgspec.structs.replace(data, ratings=ratings, dataset_salt=salt, dataset_seq=device.last_seq + 1)


def ask_approvals(registrar: Registrar, coordinator: Candidate, devices: DeviceStore) -> None:
    """Ask other registrars for their approvals of the coordinator and of every device without a number, all at once.

    Raises:
        ApprovalsMissing: They must approve first.
    """
    records = _records(registrar, [coordinator, *_waiting(devices).values()])
    registrar.approved(records, ENROLMENTS)


def enrol_participants(registrar: Registrar, devices: DeviceStore) -> None:
    """Assign a number on the ledger to every device that has none.

    Raises:
        ApprovalsMissing: Other registrars must approve first.
    """
    waiting = _waiting(devices)
    numbers = enrol(registrar, list(waiting.values()))
    devices.record_numbers(list(zip(waiting, numbers, strict=True)), seq=1)
    registrar.forget(ENROLMENTS)


def _waiting(devices: DeviceStore) -> dict[int, Candidate]:
    """Return the participants without a number, by the slots of their devices."""
    waiting = [device.slot for device in devices.devices() if device.number is None]
    return {
        slot: Candidate(
            key=devices.signing_key(slot, "person").public,
            device_key=devices.signing_key(slot, "device").public,
            role="participant",
            custody="host",
        )
        for slot in waiting
    }


def enrol(registrar: Registrar, candidates: Sequence[Candidate], purpose: str = ENROLMENTS) -> list[int]:
    """Enrol those whose keys are not yet on the ledger, and return everybody's number.

    Raises:
        ApprovalsMissing: Other registrars must approve first.
    """
    registrar.append(registrar.sign(_records(registrar, candidates), purpose))
    numbers = [registrar.ledger.state.number_of(candidate.key) for candidate in candidates]
    return [n for n in numbers if n is not None]


def _records(registrar: Registrar, candidates: Sequence[Candidate]) -> list[Enrol]:
    """Return the founder's records of those who are not yet on the ledger."""
    ledger, state = registrar.ledger, registrar.ledger.state
    missing = [candidate for candidate in candidates if state.number_of(candidate.key) is None]
    number, seq = len(state.principals), state.principals[FOUNDER].sequence + 1
    return [candidate.record(ledger.origin, seq + i, number + i) for i, candidate in enumerate(missing)]


def commit_ratings(registrar: Registrar, devices: DeviceStore) -> None:
    """Let each device commit to its ratings, where the ledger does not hold that commitment as the person's last.

    A revoked key can sign nothing: its person's ratings are committed to after a recovery. Who has withdrawn signs no
    more of these.
    """
    ledger = registrar.ledger
    recorded = {entry.record.author: entry.record.commitment for entry in entries(ledger, DatasetRecord)}
    renewed: list[tuple[int, DeviceData]] = []
    signed: list[bytes] = []

    for device in devices.devices():
        if device.is_erased:
            continue

        data, number = devices.data_of(device.slot), device.number
        commitment = salted_commitment(data.dataset_salt, data.ratings)
        if number is None or not ledger.state.principals[number].can_answer or recorded.get(number) == commitment:
            continue
        last = ledger.state.principals[number].sequence
        if data.dataset_seq <= last:
            # the key was changed before the entry was sent: what it signed then is not valid any more
            data = msgspec.structs.replace(data, dataset_seq=max(last, device.last_seq) + 1)
            renewed.append((device.slot, data))
        record = DatasetRecord(origin=ledger.origin, author=number, seq=data.dataset_seq, commitment=commitment)
        with measure("sign"):
            signed.append(sign(record, SigningKey.from_seed(data.device_seed)))

    devices.replace_data(renewed)
    registrar.append(signed)

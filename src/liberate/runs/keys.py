"""A participant's two keys on a run's ledger: shown, rotated, revoked, recovered."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Literal, assert_never

from liberate.crypto.signing import key_id
from liberate.federation.keys import KeyChange, KeyChangeKind, kind_of_key_change, recover_key, revoke_key, rotate_key
from liberate.federation.registrars import ApprovalsFile, RegistrarRecord
from liberate.federation.session import FederationSession
from liberate.ledger.format.parts import Custody, KeyName
from liberate.ledger.format.records import Enrol, KeyRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run
from liberate.runs.participants import Participant, device_of, find_participant

KeyStatus = Literal["active", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantKeys:
    """A participant's present keys; keys of the `--json` output of `liberate keys`.

    Attributes:
        number: Of the participant on the ledger.
        user_id: In the data set; None of somebody who was erased.
        custody: Who holds the keys: the participant (`own`), or the host in the participant's name (`host`).
        key_id: Of the person's present key, which decides.
        public_key: In base64.
        status: Whether signatures by it count.
        device_key_id: Of the device's present key, which answers rounds.
        device_public_key: In base64.
        device_status: Whether signatures by it count.
    """

    number: int
    user_id: str | None
    custody: Custody
    key_id: str
    public_key: str
    status: KeyStatus
    device_key_id: str
    device_public_key: str
    device_status: KeyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStep:
    """An entry that gave a participant a key, or took it away.

    Attributes:
        position: Of the entry.
        act: What happened.
        which: To which of the two keys.
        signed_by: Number of the entry's author.
        approved_by: Numbers of the other registrars who signed.
        key_id: Of the key that the participant has had from there on; None if revoked.
        public_key: The same key in base64; None if revoked.
    """

    position: int
    act: KeyChangeKind | Literal["enrolment"]
    which: KeyName
    signed_by: int
    approved_by: tuple[int, ...]
    key_id: str | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHistory(ParticipantKeys):
    """A participant's keys, and every one before them.

    Attributes:
        under_way: Whether a change of key was interrupted.
        history: Oldest first.
    """

    under_way: bool
    history: tuple[KeyStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedKey(ParticipantKeys):
    """What came of a change of key.

    Attributes:
        act: What was done.
        which: To which key.
        position: Of its entry.
        published: Whether enough witnesses have cosigned the checkpoint that covers it.
    """

    act: KeyChangeKind
    which: KeyName
    position: int
    published: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedRecord:
    """Something that registrars approve.

    Attributes:
        kind: `enrol` or `key`.
        number: Whose number.
        role: Of somebody who is enrolled; None in a change of key.
        custody: Who holds the keys, likewise.
        key_id: Of the new key of the person, or of another role; None if a key is revoked, or the device's is new.
        device_key_id: Of the device's new key, if there is one.
        registrars: Who has approved so far.
    """

    kind: str
    number: int
    role: str | None
    custody: Custody | None
    key_id: str | None
    device_key_id: str | None
    registrars: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenApprovals:
    """What a registrar has approved; keys of the `--json` output of `liberate keys approve`.

    Attributes:
        origin: Of the ledger.
        registrar: Number of the registrar.
        records: What it is.
    """

    origin: str
    registrar: int
    records: tuple[ApprovedRecord, ...]


def approvals_of(registrar: int, file: ApprovalsFile) -> GivenApprovals:
    """Describe what a registrar has approved in a file."""
    records = tuple(_approved_record(pending.record) for pending in file.records)
    return GivenApprovals(origin=file.origin, registrar=registrar, records=records)


def _approved_record(record: RegistrarRecord) -> ApprovedRecord:
    keys: dict[KeyName, bytes | None] = {}
    if isinstance(record, Enrol):
        keys = {"person": record.key, "device": record.device_key}
    elif record.key is not None:
        keys = {record.which: record.key.public}
    person, device = keys.get("person"), keys.get("device")

    return ApprovedRecord(
        kind=record.kind,
        number=record.number,
        role=record.role if isinstance(record, Enrol) else None,
        custody=record.custody if isinstance(record, Enrol) else None,
        key_id=None if person is None else key_id(person),
        device_key_id=None if device is None else key_id(device),
        registrars=tuple(approval.registrar for approval in record.approvals),
    )


def show_key(run: Run, participant: str) -> KeyHistory:
    """Return a participant's keys, and every one before them.

    Args:
        run: A run, in training or not.
        participant: Number, id of the present or a former key, or user:ID.

    Raises:
        LiberateError: Nobody has that name.
    """
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
        under_way = {slot for slot, _ in reader.devices.pending_key_changes()}
        device = reader.devices.find(number=person.number)
        return KeyHistory(
            **asdict(_present(reader.ledger, person)),
            under_way=device is not None and device.slot in under_way,
            history=_history(reader.ledger, person.number),
        )


def change_key(run: Run, participant: str, act: KeyChangeKind, which: KeyName) -> ChangedKey:
    """Rotate, revoke or recover one of a participant's keys; the same call again ends one that was broken off.

    In a simulation the new key follows from the seed and the ledger's root, else it is the system's.

    Args:
        run: A run that nobody is training.
        participant: Number, id of the present or a former key, or user:ID.
        act: What is to be done; the founder's key of the run signs a recovery.
        which: To which key.

    Raises:
        LiberateError: Nobody has that name, a training is going on, an answer waits, or the ledger refuses.
    """
    with open_run_federation(run) as session:
        person = find_participant(session.ledger, session.devices, participant)
        wanted = person.number, act, which
        finished = [change for change in session.finished if (change.number, change.act, change.which) == wanted]
        change = finished[0] if finished else _carry_out(session, person.number, act, which)

        published = session.try_to_publish()
        present = asdict(_present(session.ledger, person))
        return ChangedKey(**present, act=act, which=which, position=change.position, published=published)


def _carry_out(session: FederationSession, number: int, act: KeyChangeKind, which: KeyName) -> KeyChange:
    ledger, devices = session.ledger, session.devices
    device = device_of(devices, number)
    secret_name = "device key" if which == "device" else "participant key"
    match act:
        case "rotation":
            return rotate_key(ledger, devices, device, which, session.randomness().secret(secret_name, number))
        case "revocation":
            return revoke_key(ledger, devices, device, which)
        case "recovery":
            seed = session.randomness().secret(secret_name, number)
            return recover_key(session.access.registrar(ledger), devices, device, which, seed)
        case _:
            assert_never(act)


def _present(ledger: Ledger, person: Participant) -> ParticipantKeys:
    principal = ledger.state.principals[person.number]
    return ParticipantKeys(
        number=person.number,
        user_id=person.user_id,
        custody=principal.custody,
        key_id=key_id(principal.key),
        public_key=b64encode(principal.key).decode(),
        status="revoked" if principal.is_revoked else "active",
        device_key_id=key_id(principal.device_key),
        device_public_key=b64encode(principal.device_key).decode(),
        device_status="revoked" if principal.is_device_revoked else "active",
    )


def _history(ledger: Ledger, number: int) -> tuple[KeyStep, ...]:
    steps: list[RecordedEntry[Enrol | KeyRecord]] = [*entries(ledger, Enrol, about=number)]
    steps += entries(ledger, KeyRecord, about=number)
    return tuple(chain.from_iterable(_steps(step) for step in steps if step.record.number == number))


def _steps(step: RecordedEntry[Enrol | KeyRecord]) -> Iterator[KeyStep]:
    record = step.record
    if isinstance(record, Enrol):
        yield _step(step, "enrolment", "person", record.key)
        yield _step(step, "enrolment", "device", record.device_key or b"")
    else:
        public = b"" if record.key is None else record.key.public
        yield _step(step, kind_of_key_change(record), record.which, public)


def _step(
    step: RecordedEntry[Enrol | KeyRecord], act: KeyChangeKind | Literal["enrolment"], which: KeyName, public: bytes
) -> KeyStep:
    return KeyStep(
        position=step.position,
        act=act,
        which=which,
        signed_by=step.record.author,
        approved_by=tuple(approval.registrar for approval in step.record.approvals),
        key_id=key_id(public) if public else None,
        public_key=b64encode(public).decode() or None,
    )

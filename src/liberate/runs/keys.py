"""A participant's key on a run's ledger: shown, rotated, revoked, recovered."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict, dataclass
from typing import Literal, assert_never

from liberate.crypto.signing import key_id
from liberate.federation.keys import KeyChange, KeyChangeKind, kind_of_key_change, recover_key, revoke_key, rotate_key
from liberate.federation.session import FederationSession
from liberate.ledger.format.records import Enrol, KeyRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run
from liberate.runs.participants import Participant, device_of, find_participant


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantKey:
    """A participant's present key; keys of the `--json` output of `liberate keys`.

    Attributes:
        number: Of the participant on the ledger.
        user_id: In the data set; None of somebody who was erased.
        key_id: Of the present key.
        public_key: In base64.
        status: Whether signatures by it count.
    """

    number: int
    user_id: str | None
    key_id: str
    public_key: str
    status: Literal["active", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStep:
    """An entry that gave a participant a key, or took it away.

    Attributes:
        position: Of the entry.
        act: What happened.
        signed_by: Number of the entry's author.
        key_id: Of the key that the participant has had from there on; None if revoked.
        public_key: The same key in base64; None if revoked.
    """

    position: int
    act: KeyChangeKind | Literal["enrolment"]
    signed_by: int
    key_id: str | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHistory(ParticipantKey):
    """A participant's key, and every one before it.

    Attributes:
        under_way: Whether a change of key was interrupted.
        history: Oldest first.
    """

    under_way: bool
    history: tuple[KeyStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedKey(ParticipantKey):
    """What came of a change of key.

    Attributes:
        act: What was done.
        position: Of its entry.
        published: Whether enough witnesses have cosigned the checkpoint that covers it.
    """

    act: KeyChangeKind
    position: int
    published: bool


def show_key(run: Run, participant: str) -> KeyHistory:
    """Return a participant's key, and every one before it.

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


def change_key(run: Run, participant: str, act: KeyChangeKind) -> ChangedKey:
    """Rotate, revoke or recover a participant's key; the same call again ends one that was broken off.

    In a simulation the new key follows from the seed and the ledger's root, else it is the system's.

    Args:
        run: A run that nobody is training.
        participant: Number, id of the present or a former key, or user:ID.
        act: What is to be done; the founder's key of the run signs a recovery.

    Raises:
        LiberateError: Nobody has that name, a training is going on, an answer waits, or the ledger refuses.
    """
    with open_run_federation(run) as session:
        person = find_participant(session.ledger, session.devices, participant)
        finished = [change for change in session.finished if (change.number, change.act) == (person.number, act)]
        change = finished[0] if finished else _carry_out(session, person.number, act)

        published = session.try_to_publish()
        present = asdict(_present(session.ledger, person))
        return ChangedKey(**present, act=act, position=change.position, published=published)


def _carry_out(session: FederationSession, number: int, act: KeyChangeKind) -> KeyChange:
    ledger, devices = session.ledger, session.devices
    device = device_of(devices, number)
    match act:
        case "rotation":
            return rotate_key(ledger, devices, device, session.randomness().secret("participant key", number))
        case "revocation":
            return revoke_key(ledger, devices, device)
        case "recovery":
            seed = session.randomness().secret("participant key", number)
            return recover_key(ledger, devices, device, seed, session.access.load_key("founder"))
        case _:
            assert_never(act)


def _present(ledger: Ledger, person: Participant) -> ParticipantKey:
    principal = ledger.state.principals[person.number]
    return ParticipantKey(
        number=person.number,
        user_id=person.user_id,
        key_id=key_id(principal.key),
        public_key=b64encode(principal.key).decode(),
        status="revoked" if principal.is_revoked else "active",
    )


def _history(ledger: Ledger, number: int) -> tuple[KeyStep, ...]:
    steps: list[RecordedEntry[Enrol | KeyRecord]] = [*entries(ledger, Enrol, about=number)]
    steps += entries(ledger, KeyRecord, about=number)
    return tuple(_step(step) for step in steps if step.record.number == number)


def _step(step: RecordedEntry[Enrol | KeyRecord]) -> KeyStep:
    record = step.record
    act: KeyChangeKind | Literal["enrolment"]
    if isinstance(record, Enrol):
        act, public = "enrolment", bytes(record.key)
    else:
        act, public = kind_of_key_change(record), b"" if record.key is None else record.key.public

    return KeyStep(
        position=step.position,
        act=act,
        signed_by=record.author,
        key_id=key_id(public) if public else None,
        public_key=b64encode(public).decode() or None,
    )

"""Entries: a signature and the canonical bytes of a record, how they are made, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import msgspec
from msgspec import Struct

from liberate.crypto.canonical_json import Bytes32, Natural, decode, encode
from liberate.crypto.dsse import dsse_pae
from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import SIGNATURE_BYTES, SigningKey
from liberate.errors import InvalidRecord, LedgerError, RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import includes
from liberate.ledger.format.parts import Approval, Custody, EnrollableRole, KeyName, NewKey, Origin, RecordBase
from liberate.ledger.format.records import KINDS, Block, Enrol, KeyRecord, Record
from liberate.ledger.format.refusals import refused
from liberate.ledger.format.sharing_records import PoolRecord

FORMAT_VERSION = 2
PAYLOAD_TYPE = "application/vnd.liberate.record+json"
POSSESSION_TYPE = "application/vnd.liberate.possession+json"
APPROVAL_TYPE = "application/vnd.liberate.approval+json"
MAX_ENTRY_BYTES = 65_535

RecordT = TypeVar("RecordT", bound=RecordBase)


class _Possession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the new key signs."""

    number: Natural
    origin: Origin
    which: KeyName


class _Enrolment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="enrol", tag_field="kind"):
    """What registrars approve of an `enrol` record."""

    origin: Origin
    number: Natural
    key: Bytes32
    device_key: Bytes32 | None
    custody: Custody
    role: EnrollableRole


class _KeyStatement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="key", tag_field="kind"):
    """What registrars approve of a `key` record; the key before makes an approval good for one change."""

    origin: Origin
    number: Natural
    which: KeyName
    before: Bytes32
    public: Bytes32 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A decoded entry.

    Attributes:
        data: The whole entry.
        signature: Its first 64 bytes.
        body: The record's bytes.
        record: The record.
        leaf_hash: RFC 6962 hash of the entry.
    """

    data: bytes
    signature: bytes
    body: bytes
    record: Record
    leaf_hash: Digest


class _Header(Struct):
    """The part of a record by which readers of every version can tell what it is."""

    kind: str
    v: int


def signed_bytes(body: bytes) -> bytes:
    """Return what an entry's signature covers: DSSE's pre-authentication encoding of the record's bytes."""
    return dsse_pae(PAYLOAD_TYPE, body)


def possession_bytes(origin: str, number: int, which: KeyName) -> bytes:
    """Return what a new key signs to prove possession: as which key of which principal of which ledger it is meant."""
    return dsse_pae(POSSESSION_TYPE, encode(_Possession(number=number, origin=origin, which=which)))


def new_key(key: SigningKey, origin: str, number: int, which: KeyName = "person") -> NewKey:
    """Make a key ready to become a principal's."""
    return NewKey(public=key.public, possession=key.sign(possession_bytes(origin, number, which)))


def enrolment_statement(record: Enrol) -> bytes:
    """Return what registrars sign to approve an enrolment."""
    statement = _Enrolment(
        origin=record.origin,
        number=record.number,
        key=record.key,
        device_key=record.device_key,
        custody=record.custody,
        role=record.role,
    )
    return dsse_pae(APPROVAL_TYPE, encode(statement))


def key_statement(record: KeyRecord, before: bytes) -> bytes:
    """Return what registrars sign to approve a change of key.

    Args:
        record: The change.
        before: The public key that it replaces or revokes.
    """
    statement = _KeyStatement(
        origin=record.origin,
        number=record.number,
        which=record.which,
        before=before,
        public=None if record.key is None else record.key.public,
    )
    return dsse_pae(APPROVAL_TYPE, encode(statement))


def approve(statement: bytes, registrar: int, key: SigningKey) -> Approval:
    """Sign a statement as one of the registrars."""
    return Approval(registrar=registrar, signature=key.sign(statement))


def sign(record: Record, key: SigningKey) -> bytes:
    """Make the entry of a record.

    Raises:
        InvalidRecord: a value is out of its field's range, or the entry would be too large.
    """
    body = encode(record)
    if SIGNATURE_BYTES + len(body) > MAX_ENTRY_BYTES:
        raise InvalidRecord(f"an entry has at most {MAX_ENTRY_BYTES} bytes, not {SIGNATURE_BYTES + len(body)}")
    return key.sign(signed_bytes(body)) + body


def decode_entry(data: bytes) -> Entry:
    """Read an entry; its signature is not checked here.

    Raises:
        RefusedEntry: `too_large`, `malformed`, `unknown_kind` or `unknown_version`.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise refused("too_large", f"an entry has at most {MAX_ENTRY_BYTES} bytes, not {len(data)}")
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    try:
        # mypy has no way to say "a union of structs" where a type is passed as a value
        record = cast("Record", decode(body, cast("type[RecordBase]", Record)))
    except InvalidRecord as error:
        raise _undecodable(body, error) from error
    return Entry(data=data, signature=signature, body=body, record=record, leaf_hash=leaf_hash(data))


def record_of(entry: Entry, kind: type[RecordT]) -> RecordT:
    """Return the record of an entry.

    Raises:
        LedgerError: It is of another kind.
    """
    record = entry.record
    if not isinstance(record, kind):
        raise LedgerError(f"the record is of kind {record.kind}, not of kind {kind_name(kind)}")
    return record


def decode_record(data: bytes, kind: type[RecordT]) -> RecordT:
    """Return the record in the bytes of an entry.

    Raises:
        LedgerError: The bytes are no entry, or the record is of another kind.
    """
    return record_of(decode_entry(data), kind)


def kind_name(kind: type[RecordBase]) -> str:
    """Return the kind by which records of a class are written."""
    return str(kind.__struct_config__.tag)


def decode_included(data: bytes, position: int, proof: Sequence[bytes], checkpoint: Checkpoint) -> Entry:
    """Return an entry after checking that it is in a tree; its signature is not checked here.

    Args:
        data: The entry.
        position: Its position, 0 <= position < size of the tree.
        proof: Its inclusion proof.
        checkpoint: The tree, by size and root.

    Raises:
        RefusedEntry: The bytes are no entry.
        ProofMismatch: The proof does not lead to the root.
    """
    entry = decode_entry(data)
    verify_inclusion(entry.leaf_hash, position, checkpoint.size, proof, checkpoint.root)
    return entry


def principals_of(record: Record) -> list[int]:
    """Return the numbers of all principals whose history a record belongs to, increasing.

    Those are author and subjects; a block belongs to nobody's.
    """
    return [] if isinstance(record, Block) else sorted({record.author, *record.subjects()})


def involves(record: Record, number: int) -> bool:
    """Whether a record belongs to a principal's history; without listing everybody else whose it is."""
    match record:
        case Block():
            return False
        case PoolRecord(participants=participants) if record.author != number:
            return includes(participants, number)
        case _:
            return record.author == number or number in record.subjects()


def _undecodable(body: bytes, error: InvalidRecord) -> RefusedEntry:
    try:
        header = msgspec.json.decode(body, type=_Header)
    except (ValueError, RecursionError):
        return refused("malformed", error.message)
    if header.kind not in KINDS:
        return refused("unknown_kind", f"no rule for records of kind {header.kind!r}")
    if header.v != FORMAT_VERSION:
        return refused("unknown_version", f"format {header.v}, wanted {FORMAT_VERSION}")
    return refused("malformed", error.message)

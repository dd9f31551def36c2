"""Proof of a dishonest author: two entries under one signature key that claim one sequence number.

Only one of them can have been accepted; whoever was shown the other was deceived. The file needs no ledger: the
ledger's `enrol`, `key` and `genesis` entries say which principal's key it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from liberate.crypto.canonical_json import Bytes32, decode, encode
from liberate.crypto.signing import check_public_key, verify_signature
from liberate.errors import InvalidRecord, ProofMismatch
from liberate.ledger.format.entries import MAX_ENTRY_BYTES, Entry, decode_entry, signed_bytes

_EntryBytes = Annotated[bytes, Meta(max_length=MAX_ENTRY_BYTES)]


class EquivocationFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two entries, and the key that signed both.

    Attributes:
        format: Name and version of this format.
        key: The author's public key.
        first: The entry that the ledger holds.
        second: Another entry with the same origin, author and sequence.
    """

    format: Literal["liberate-equivocation/1"] = "liberate-equivocation/1"
    key: Bytes32
    first: _EntryBytes
    second: _EntryBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation:
    """Two different entries for which one author used one sequence number of one ledger."""

    key: bytes
    first: Entry
    second: Entry


def check_equivocation(key: bytes, first: Entry, second: Entry) -> None:
    """Check that two entries prove their author's misbehaviour.

    Raises:
        ProofMismatch: they are one entry, or do not claim the same origin, author and sequence.
        InvalidRecord: not both are signed with the key.
    """
    one, other = first.record, second.record
    if first.data == second.data or (one.origin, one.author, one.seq) != (other.origin, other.author, other.seq):
        raise ProofMismatch("two different entries with one origin, author and sequence are wanted")
    if first.body == second.body:
        raise ProofMismatch("both entries carry the same record")
    for entry in (first, second):
        verify_signature(key, signed_bytes(entry.body), entry.signature)


def equivocation_file(key: bytes, first: bytes, second: bytes) -> bytes:
    """Return the file that proves to anyone that the holder of a key signed both entries."""
    check_equivocation(key, decode_entry(first), decode_entry(second))
    return encode(EquivocationFile(key=key, first=first, second=second))


def is_equivocation(data: bytes) -> bool:
    """Whether bytes are well-formed evidence of this kind; what it proves is not checked."""
    try:
        decode(data, EquivocationFile)
    except InvalidRecord:
        return False
    return True


def verify_equivocation(data: bytes) -> Equivocation:
    """Check such a file.

    Raises:
        InvalidRecord: it is none, or not both entries are signed with its key.
        RefusedEntry: it holds something that is no entry.
        ProofMismatch: the entries do not contradict each other.
    """
    file = decode(data, EquivocationFile)
    check_public_key(file.key)
    equivocation = Equivocation(key=file.key, first=decode_entry(file.first), second=decode_entry(file.second))
    check_equivocation(equivocation.key, equivocation.first, equivocation.second)
    return equivocation

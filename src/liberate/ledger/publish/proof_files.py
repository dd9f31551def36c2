"""Proofs as text files that are checked without the ledger, with nothing but the log's verifier key.

Inclusion: C2SP tlog-proof, with the entry's bytes as its extra data, so that the file says what it proves.
Consistency: what C2SP tlog-witness sends to `add-checkpoint`, for whoever kept a checkpoint, a witness or a person.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from liberate.arrays import Digest
from liberate.crypto.merkle import DIGEST_BYTES, verify_consistency, verify_inclusion
from liberate.crypto.note import Checkpoint, open_checkpoint
from liberate.errors import InvalidRecord, LedgerError
from liberate.ledger.log import Ledger
from liberate.ledger.records import Entry, decode_entry

INCLUSION = "c2sp.org/tlog-proof@v1"
"""First line of an inclusion proof."""

_MOST_HASHES = 63
_INCLUSION = re.compile(
    re.escape(INCLUSION)
    + r"\nextra (?P<extra>[^\n]+)\nindex (?P<index>0|[1-9][0-9]{0,17})\n(?P<hashes>(?:[^\n]+\n)*)\n(?P<note>.+)",
    re.DOTALL,
)
_CONSISTENCY = re.compile(r"old (?P<old>[1-9][0-9]{0,17})\n(?P<hashes>(?:[^\n]+\n)*)\n(?P<note>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Included:
    """What an inclusion proof shows: the log signed a tree in which this entry stands at this position."""

    position: int
    entry: Entry
    checkpoint: Checkpoint


def prove_inclusion(ledger: Ledger, position: int) -> str:
    """Give the proof file of an entry under the newest checkpoint, checked.

    Raises:
        LedgerError: there is no such entry.
        ProofMismatch: the ledger cannot prove it.
    """
    note = ledger.checkpoint()
    checkpoint = open_checkpoint(note, ledger.state.founding.log_vkey)
    if not 0 <= position < checkpoint.size:
        raise LedgerError(f"no entry {position}: the ledger has {checkpoint.size}, counted from 0")
    entry, proof = ledger.entry(position), ledger.inclusion_proof(position, checkpoint.size)
    lines = [INCLUSION, f"extra {b64encode(entry).decode()}", f"index {position}", *map(_line, proof)]
    text = "\n".join([*lines, "", note])
    open_inclusion(text, ledger.state.founding.log_vkey)
    return text


def open_inclusion(text: str, vkey: str) -> Included:
    """Check an inclusion proof; its author's signature is the log's to check, and not in question here.

    Raises:
        InvalidRecord: not a proof file, or its checkpoint is not signed by this key.
        RefusedEntry: the extra data are no entry.
        ProofMismatch: the entry is not where the file says.
    """
    match = _INCLUSION.fullmatch(text)
    if match is None:
        raise InvalidRecord(f"not an inclusion proof: {INCLUSION}, extra, index, hashes and a checkpoint are wanted")
    checkpoint = open_checkpoint(match["note"], vkey)
    entry, position = decode_entry(_bytes(match["extra"])), int(match["index"])
    verify_inclusion(entry.leaf_hash, position, checkpoint.size, _hashes(match["hashes"]), checkpoint.root)
    return Included(position, entry, checkpoint)


def prove_consistency(ledger: Ledger, kept: str) -> str:
    """Give the proof file that the newest checkpoint continues a kept one, checked.

    Raises:
        InvalidRecord: the kept checkpoint is not signed by this ledger's log.
        ProofMismatch: the ledger does not continue it.
    """
    vkey, note = ledger.state.founding.log_vkey, ledger.checkpoint()
    old, new = open_checkpoint(kept, vkey), open_checkpoint(note, vkey)
    proof = ledger.consistency_proof(old.size, new.size) if 0 < old.size <= new.size else []
    verify_consistency(old.size, new.size, proof, old.root, new.root)
    return "\n".join([f"old {old.size}", *map(_line, proof), "", note])


def open_consistency(text: str, vkey: str, kept: str) -> Checkpoint:
    """Check a consistency proof against the checkpoint that one has kept.

    Returns:
        The newer checkpoint, to be kept from now on.

    Raises:
        InvalidRecord: not a proof file, from another size, or a checkpoint is not signed by this key.
        ProofMismatch: the newer checkpoint does not continue the kept one.
    """
    match = _CONSISTENCY.fullmatch(text)
    if match is None:
        raise InvalidRecord("not a consistency proof: old size, hashes and a checkpoint are wanted")
    old, new = open_checkpoint(kept, vkey), open_checkpoint(match["note"], vkey)
    if int(match["old"]) != old.size:
        raise InvalidRecord(f"the proof begins at {match['old']} entries, the kept checkpoint has {old.size}")
    verify_consistency(old.size, new.size, _hashes(match["hashes"]), old.root, new.root)
    return new


def _line(digest: bytes) -> str:
    return b64encode(digest).decode()


def _hashes(lines: str) -> Sequence[Digest]:
    found = [_bytes(line) for line in lines.split("\n")[:-1]]
    if len(found) > _MOST_HASHES or any(len(digest) != DIGEST_BYTES for digest in found):
        raise InvalidRecord(f"at most {_MOST_HASHES} hashes of {DIGEST_BYTES} bytes are wanted")
    return [Digest(digest) for digest in found]


def _bytes(text: str) -> bytes:
    """Read standard base64 in its one canonical spelling."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRecord(f"not base64: {text[:40]!r}") from error
    if b64encode(data).decode() != text:
        raise InvalidRecord(f"not canonical base64: {text[:40]!r}")
    return data

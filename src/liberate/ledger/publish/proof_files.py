"""Proofs as text files that are checked without the ledger, with nothing but the log's verifier key.

Inclusion: C2SP tlog-proof, with the entry's bytes as its extra data, so that the file says what it proves.
Consistency: what C2SP tlog-witness sends to `add-checkpoint`, for whoever kept a checkpoint, a witness or a person.
Completeness: all entries that name a principal, as canonical JSON.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import Struct

from liberate.crypto.canonical_json import Hash, Natural, decode, encode
from liberate.crypto.merkle import DIGEST_BYTES, verify_consistency, verify_inclusion
from liberate.crypto.note import Checkpoint, WitnessPolicy, verify_checkpoint, verify_cosigned_checkpoint
from liberate.errors import InvalidRecord, LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import checkpoint_for_publication
from liberate.ledger.trace.completeness import Completeness, prove_completeness, verify_completeness
from liberate.ledger.witness.protocol import AddCheckpointRequest

INCLUSION = "c2sp.org/tlog-proof@v1"
"""First line of an inclusion proof."""

NO_WITNESSES = WitnessPolicy()

_MOST_HASHES = 63
_INCLUSION = re.compile(
    re.escape(INCLUSION)
    + r"\nextra (?P<extra>[^\n]+)\nindex (?P<index>0|[1-9][0-9]{0,17})\n(?P<hashes>(?:[^\n]+\n)*)\n(?P<note>.+)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedInclusion:
    """What an inclusion proof shows: the log signed a tree in which this entry stands at this position."""

    position: int
    entry: Entry
    proof: tuple[Digest, ...]
    checkpoint: Checkpoint
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedConsistency:
    """What a consistency proof shows: the log signed a tree that begins with the tree of a kept checkpoint."""

    old_size: int
    proof: tuple[Digest, ...]
    checkpoint: Checkpoint
    note: str


def write_inclusion_proof(ledger: Ledger, position: int, note: str | None = None) -> str:
    """Give the proof file of an entry, checked.

    Args:
        ledger: The ledger.
        position: Position of the entry.
        note: A checkpoint of the ledger, perhaps with cosignatures; the newest by default.

    Raises:
        NoQuorum: fewer witnesses have cosigned the checkpoint than the genesis wants.
        LedgerError: there is no such entry.
        ProofMismatch: the ledger cannot prove it.
    """
    note, checkpoint = checkpoint_for_publication(ledger, note)
    if not 0 <= position < min(checkpoint.size, ledger.size):
        raise LedgerError(f"no entry {position}: the ledger has {ledger.size}, the checkpoint {checkpoint.size}")
    entry, proof = ledger.entry(position), ledger.inclusion_proof(position, checkpoint.size)
    lines = [INCLUSION, f"extra {b64encode(entry).decode()}", f"index {position}", *map(_line, proof)]
    text = "\n".join([*lines, "", note])
    verify_inclusion_proof(text, ledger.state.founding.log_vkey)
    return text


def verify_inclusion_proof(text: str, vkey: str, policy: WitnessPolicy = NO_WITNESSES) -> VerifiedInclusion:
    """Check an inclusion proof; its author's signature is the log's to check, and not in question here.

    Raises:
        InvalidRecord: not a proof file, or its checkpoint is not signed by this key.
        NoQuorum: too few witnesses have cosigned its checkpoint.
        RefusedEntry: the extra data are no entry.
        ProofMismatch: the entry is not where the file says.
    """
    match = _INCLUSION.fullmatch(text)
    if match is None:
        raise InvalidRecord(f"not an inclusion proof: {INCLUSION}, extra, index, hashes and a checkpoint are wanted")
    checkpoint = verify_cosigned_checkpoint(match["note"], vkey, policy)
    entry, position = decode_entry(_bytes(match["extra"])), int(match["index"])
    proof = _hashes(match["hashes"])
    verify_inclusion(entry.leaf_hash, position, checkpoint.size, proof, checkpoint.root)
    return VerifiedInclusion(position=position, entry=entry, proof=proof, checkpoint=checkpoint, note=match["note"])


def write_consistency_proof(ledger: Ledger, kept: str, note: str | None = None) -> str:
    """Give the proof file that the ledger continues a kept checkpoint, checked.

    Args:
        ledger: The ledger.
        kept: The kept checkpoint.
        note: The checkpoint that continues it, perhaps with cosignatures; the newest by default.

    Raises:
        NoQuorum: fewer witnesses have cosigned the checkpoint than the genesis wants.
        InvalidRecord: a checkpoint is not signed by this ledger's log.
        ProofMismatch: the ledger does not continue the kept one.
    """
    vkey = ledger.state.founding.log_vkey
    old, (note, new) = verify_checkpoint(kept, vkey), checkpoint_for_publication(ledger, note)
    proof = ledger.consistency_proof(old.size, new.size) if 0 < old.size <= new.size <= ledger.size else []
    text = AddCheckpointRequest(old.size, proof, note).encode().decode()
    verify_consistency_proof(text, vkey, kept)
    return text


def verify_consistency_proof(
    text: str, vkey: str, kept: str, policy: WitnessPolicy = NO_WITNESSES
) -> VerifiedConsistency:
    """Check a consistency proof against the checkpoint that one has kept; its newer one is to be kept from now on.

    Raises:
        InvalidRecord: not a proof file, from another size, or a checkpoint is not signed by this key.
        NoQuorum: too few witnesses have cosigned the newer checkpoint.
        ProofMismatch: the newer checkpoint does not continue the kept one.
    """
    found = AddCheckpointRequest.decode(text.encode())
    old, new = verify_checkpoint(kept, vkey), verify_cosigned_checkpoint(found.note, vkey, policy)
    if found.old != old.size:
        raise InvalidRecord(f"the proof begins at {found.old} entries, the kept checkpoint has {old.size}")
    verify_consistency(old.size, new.size, found.proof, old.root, new.root)
    return VerifiedConsistency(old_size=old.size, proof=tuple(found.proof), checkpoint=new, note=found.note)


class CompletenessFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of `Completeness`, and the name and version of this format."""

    format: Literal["liberate-completeness/1"] = "liberate-completeness/1"
    number: Natural
    checkpoint: str
    entries: tuple[bytes, ...]
    block: bytes
    block_proof: tuple[Hash, ...]
    principal_count: Natural
    state_proof: tuple[Hash, ...]


def write_completeness_proof(ledger: Ledger, number: int, note: str | None = None) -> str:
    """Give the proof file that holds all entries that name a principal, checked.

    Args:
        ledger: The ledger.
        number: Number of the principal.
        note: The newest checkpoint, perhaps with cosignatures; by the log alone by default.

    Raises:
        NoQuorum: fewer witnesses have cosigned the checkpoint than the genesis wants.
        LedgerError: there is no such principal, or the note is not the newest checkpoint.
        ProofMismatch: the ledger cannot prove it.
    """
    vkey = ledger.state.founding.log_vkey
    if not 0 <= number < len(ledger.state.principals):
        raise LedgerError(f"no principal {number}: the ledger has {len(ledger.state.principals)}, counted from 0")
    found = prove_completeness(ledger, number)
    note, checkpoint = checkpoint_for_publication(ledger, note)
    if checkpoint != verify_checkpoint(found.checkpoint, vkey):
        raise LedgerError("a history is complete under the newest checkpoint only, and this is another one")
    found = replace(found, checkpoint=note)
    fields = {name: getattr(found, name) for name in CompletenessFile.__struct_fields__ if name != "format"}
    text = encode(CompletenessFile(**fields)).decode()
    verify_completeness_proof(text, vkey)
    return text


def verify_completeness_proof(text: str, vkey: str, policy: WitnessPolicy = NO_WITNESSES) -> Completeness:
    """Check a completeness proof.

    Raises:
        InvalidRecord: not a proof file, or not signed as it should be.
        NoQuorum: too few witnesses have cosigned its checkpoint.
        RefusedEntry: something is no entry.
        ProofMismatch: these are not all entries that name the principal.
    """
    file = decode(text.encode(), CompletenessFile)
    fields = {name: getattr(file, name) for name in CompletenessFile.__struct_fields__ if name != "format"}
    found = Completeness(**fields)
    verify_cosigned_checkpoint(found.checkpoint, vkey, policy)
    verify_completeness(found, vkey)
    return found


def _line(digest: bytes) -> str:
    return b64encode(digest).decode()


def _hashes(lines: str) -> tuple[Digest, ...]:
    found = [_bytes(line) for line in lines.split("\n")[:-1]]
    if len(found) > _MOST_HASHES or any(len(digest) != DIGEST_BYTES for digest in found):
        raise InvalidRecord(f"at most {_MOST_HASHES} hashes of {DIGEST_BYTES} bytes are wanted")
    return tuple(Digest(digest) for digest in found)


def _bytes(text: str) -> bytes:
    """Read standard base64 in its one canonical spelling."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRecord(f"not base64: {text[:40]!r}") from error
    if b64encode(data).decode() != text:
        raise InvalidRecord(f"not canonical base64: {text[:40]!r}")
    return data

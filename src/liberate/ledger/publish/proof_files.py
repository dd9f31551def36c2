"""Proofs as text files that are checked without the ledger, with nothing but the log's verifier key.

Inclusion: C2SP tlog-proof, with the entry's bytes as its extra data, so that the file says what it proves.
Consistency: what C2SP tlog-witness sends to `add-checkpoint`, for whoever kept a checkpoint, a witness or a person.
Completeness: all entries that name a principal, as canonical JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from liberate.crypto.canonical_base64 import decode_base64, decode_steps, encode_base64, encode_steps
from liberate.crypto.canonical_json import decode, encode
from liberate.crypto.merkle import verify_consistency
from liberate.crypto.note import Checkpoint, WitnessPolicy, verify_checkpoint, verify_cosigned_checkpoint
from liberate.errors import InvalidRecord, LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_included
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import checkpoint_for_publication
from liberate.ledger.trace.completeness import Completeness, prove_completeness, verify_completeness
from liberate.ledger.witness.protocol import AddCheckpointRequest

INCLUSION = "c2sp.org/tlog-proof@v1"
"""First line of an inclusion proof."""

NO_WITNESSES = WitnessPolicy()

_INCLUSION = re.compile(
    re.escape(INCLUSION)
    + r"\nextra (?P<extra>[^\n]+)\nindex (?P<index>0|[1-9][0-9]{0,17})\n(?P<hashes>(?:[^\n]+\n)*)\n(?P<note>.+)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedInclusion:
    """What an inclusion proof shows: the log signed a tree in which this entry is at this position."""

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
    """Return the proof file of an entry, after checking it.

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

    proof = ledger.inclusion_proof(position, checkpoint.size)
    text = inclusion_proof_text(ledger.entry(position), position, proof, note)
    verify_inclusion_proof(text, ledger.state.founding.log_vkey)
    return text


def inclusion_proof_text(entry: bytes, position: int, proof: Sequence[Digest], note: str) -> str:
    """Return the proof file of an entry, from what it consists of; nothing is checked."""
    return f"{INCLUSION}\nextra {encode_base64(entry)}\nindex {position}\n{encode_steps(list(proof))}\n{note}"


def verify_inclusion_proof(text: str, vkey: str, policy: WitnessPolicy = NO_WITNESSES) -> VerifiedInclusion:
    """Check an inclusion proof; the signature of the entry's author is not checked here, but by the log.

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
    position = int(match["index"])
    proof = decode_steps(match["hashes"].split("\n")[:-1])
    entry = decode_included(decode_base64(match["extra"]), position, proof, checkpoint)
    return VerifiedInclusion(position=position, entry=entry, proof=proof, checkpoint=checkpoint, note=match["note"])


def write_consistency_proof(ledger: Ledger, kept: str, note: str | None = None) -> str:
    """Return the proof file that the ledger continues a kept checkpoint, after checking it.

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
    request = AddCheckpointRequest.decode(text.encode())
    old, new = verify_checkpoint(kept, vkey), verify_cosigned_checkpoint(request.note, vkey, policy)
    if request.old != old.size:
        raise InvalidRecord(f"the proof begins at {request.old} entries, the kept checkpoint has {old.size}")
    verify_consistency(old.size, new.size, request.proof, old.root, new.root)
    return VerifiedConsistency(old_size=old.size, proof=tuple(request.proof), checkpoint=new, note=request.note)


def write_completeness_proof(ledger: Ledger, number: int, note: str | None = None) -> str:
    """Return the proof file that holds all entries that name a principal, after checking it.

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

    proof = prove_completeness(ledger, number)
    note, checkpoint = checkpoint_for_publication(ledger, note)
    if checkpoint != verify_checkpoint(proof.checkpoint, vkey):
        raise LedgerError("a history is complete under the newest checkpoint only, and this is another one")
    text = encode(replace(proof, checkpoint=note)).decode()
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
    proof = decode(text.encode(), Completeness)
    verify_cosigned_checkpoint(proof.checkpoint, vkey, policy)
    verify_completeness(proof, vkey)
    return proof

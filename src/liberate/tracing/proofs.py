"""Proofs about a run's ledger, checked before they are given out, and as files that need no ledger."""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from liberate.crypto.note import WitnessPolicy, verify_checkpoint
from liberate.crypto.signing import key_id
from liberate.errors import LedgerError
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import decode_record
from liberate.ledger.publish.proof_files import (
    INCLUSION,
    NO_WITNESSES,
    VerifiedConsistency,
    VerifiedInclusion,
    verify_completeness_proof,
    verify_consistency_proof,
    verify_inclusion_proof,
    write_completeness_proof,
    write_consistency_proof,
    write_inclusion_proof,
)
from liberate.ledger.trace.completeness import Completeness, replay_principal
from liberate.runs.folder import Run
from liberate.runs.participants import find_participant
from liberate.units import from_nano


def published_checkpoint(folder: Path, ledger: Ledger) -> str | None:
    """Give the newest checkpoint that a run has published; None where the log's newest one needs no cosignatures."""
    kept = folder / "checkpoint"
    if ledger.state.founding.witnesses.threshold == 0 or not kept.exists():
        return None
    return kept.read_bytes().decode(errors="replace")


def prove_entry(run: Run, position: int, note: str | None = None, out: Path | None = None) -> dict[str, Any]:
    """Prove that an entry stands in the ledger under a checkpoint.

    Args:
        run: A run.
        position: Position of the entry.
        note: A checkpoint, with the cosignatures that the genesis wants; the newest published one if None.
        out: Where the proof is written as a C2SP tlog-proof, or None.

    Raises:
        LedgerError: The ledger has no such entry, or cannot prove it.
    """
    with closing(run.open_ledger()) as ledger:
        text = write_inclusion_proof(ledger, position, note or published_checkpoint(run.home, ledger))
    found = verify_inclusion_proof(text, run.verifier_key)
    _write(out, text)
    return {
        "position": position,
        "kind": found.entry.record.kind,
        "leaf_hash": _text(found.entry.leaf_hash),
        **_proved(found),
    }


def prove_consistency(run: Run, kept: str, note: str | None = None, out: Path | None = None) -> dict[str, Any]:
    """Prove that the ledger continues a checkpoint that somebody has kept.

    Args:
        run: A run.
        kept: The kept checkpoint, a signed note.
        note: As in `prove_entry`.
        out: Where the proof is written as a request to C2SP witnesses, or None.

    Raises:
        LedgerError: The ledger does not continue it.
    """
    with closing(run.open_ledger()) as ledger:
        text = write_consistency_proof(ledger, kept, note or published_checkpoint(run.home, ledger))
    found = verify_consistency_proof(text, run.verifier_key, kept)
    _write(out, text)
    return {"old_size": found.old_size, **_proved(found)}


def prove_completeness(run: Run, participant: str, note: str | None = None, out: Path | None = None) -> dict[str, Any]:
    """Prove which entries are all that name a participant.

    Args:
        run: A run.
        participant: Number, key id, or user:ID.
        note: As in `prove_entry`.
        out: Where the proof is written as JSON, or None.

    Raises:
        LiberateError: Nobody has that name.
        LedgerError: The ledger cannot prove it.
    """
    with run.open() as reader:
        number = find_participant(reader.ledger, reader.devices, participant).number
        text = write_completeness_proof(reader.ledger, number, note or published_checkpoint(run.home, reader.ledger))
    found = _history(verify_completeness_proof(text, run.verifier_key), run.verifier_key)
    _write(out, text)
    return found


def open_proof(text: str, vkey: str, kept: str | None = None, policy: WitnessPolicy = NO_WITNESSES) -> dict[str, Any]:
    """Check a proof file of any kind with nothing but the log's verifier key.

    Args:
        text: The file.
        vkey: Verifier key of the log.
        kept: The checkpoint that a consistency proof is to continue.
        policy: Whose cosignatures are wanted.

    Raises:
        LedgerError: The file proves nothing.
    """
    if text.startswith(INCLUSION):
        included = verify_inclusion_proof(text, vkey, policy)
        record: dict[str, Any] = msgspec.to_builtins(included.entry.record)
        leaf_hash = _text(included.entry.leaf_hash)
        fields = {"position": included.position, "leaf_hash": leaf_hash, "record": record}
        return {"proves": "inclusion", **fields, **_proved(included)}
    if text.startswith("{"):
        return {"proves": "completeness", **_history(verify_completeness_proof(text, vkey, policy), vkey)}
    if kept is None:
        raise LedgerError(
            "not an inclusion proof",
            hint="a consistency proof is held against a checkpoint you have kept: --checkpoint",
        )
    continued = verify_consistency_proof(text, vkey, kept, policy)
    return {"proves": "consistency", "old_size": continued.old_size, **_proved(continued)}


def _history(found: Completeness, vkey: str) -> dict[str, Any]:
    checkpoint = verify_checkpoint(found.checkpoint, vkey)
    person = replay_principal(found.number, found.entries, checkpoint.origin)
    return {
        "number": found.number,
        "key_id": key_id(person.key),
        "role": person.role,
        "entries": [msgspec.to_builtins(decode_record(entry, RecordBase)) for entry in found.entries],
        "epsilon": from_nano(person.epsilon_nano),
        "rho": from_nano(person.rho_nano),
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": _text(checkpoint.root),
        "checkpoint": found.checkpoint,
    }


def _proved(found: VerifiedInclusion | VerifiedConsistency) -> dict[str, Any]:
    return {
        "origin": found.checkpoint.origin,
        "size": found.checkpoint.size,
        "root": _text(found.checkpoint.root),
        "proof": [_text(step) for step in found.proof],
        "checkpoint": found.note,
    }


def _write(out: Path | None, text: str) -> None:
    if out is not None:
        out.write_bytes(text.encode())


def _text(digest: bytes) -> str:
    return b64encode(digest).decode()

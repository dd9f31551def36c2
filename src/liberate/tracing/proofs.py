"""Proofs about a run's ledger, checked before they are given out, and as files that need no ledger."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from liberate.crypto.note import WitnessPolicy, verify_checkpoint
from liberate.crypto.signing import key_id
from liberate.errors import LedgerError
from liberate.identifiers import Digest, KeyId
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.parts import PrincipalRole, RecordBase
from liberate.ledger.interface import Ledger
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


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionAnswer:
    """An entry that is in the log under a checkpoint, which is a signed note; `proof` is the checked one."""

    proves: ClassVar = "inclusion"
    position: int
    kind: str
    leaf_hash: Digest
    record: RecordBase
    origin: str
    size: int
    root: Digest
    proof: tuple[Digest, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyAnswer:
    """A checkpoint that continues one of `old_size` entries."""

    proves: ClassVar = "consistency"
    old_size: int
    origin: str
    size: int
    root: Digest
    proof: tuple[Digest, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessAnswer:
    """All entries that name a principal under a checkpoint, and what they lead to: key, role, and ε and ρ spent."""

    proves: ClassVar = "completeness"
    number: int
    key_id: KeyId
    role: PrincipalRole
    entries: tuple[RecordBase, ...]
    epsilon: float
    rho: float
    origin: str
    size: int
    root: Digest
    checkpoint: str


ProofAnswer = InclusionAnswer | ConsistencyAnswer | CompletenessAnswer
"""What a proof shows; the fields are the keys of `liberate ledger prove --json` and `verify-proof --json`."""


def published_checkpoint(folder: Path, ledger: Ledger) -> str | None:
    """Return the newest checkpoint that a run has published; None where the log's newest one needs no cosignatures."""
    kept = folder / "checkpoint"
    if ledger.state.founding.witnesses.threshold == 0 or not kept.exists():
        return None
    return kept.read_bytes().decode(errors="replace") or None


def prove_entry(run: Run, position: int, note: str | None = None, out: Path | None = None) -> InclusionAnswer:
    """Prove that an entry is in the ledger under a checkpoint.

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
    answer = _inclusion(verify_inclusion_proof(text, run.verifier_key))
    _write(out, text)
    return answer


def prove_consistency(run: Run, kept: str, note: str | None = None, out: Path | None = None) -> ConsistencyAnswer:
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
    answer = _consistency(verify_consistency_proof(text, run.verifier_key, kept))
    _write(out, text)
    return answer


def prove_completeness(
    run: Run, participant: str, note: str | None = None, out: Path | None = None
) -> CompletenessAnswer:
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
    answer = _completeness(verify_completeness_proof(text, run.verifier_key), run.verifier_key)
    _write(out, text)
    return answer


def open_proof(text: str, vkey: str, kept: str | None = None, policy: WitnessPolicy = NO_WITNESSES) -> ProofAnswer:
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
        return _inclusion(verify_inclusion_proof(text, vkey, policy))
    if text.startswith("{"):
        return _completeness(verify_completeness_proof(text, vkey, policy), vkey)
    if kept is None:
        raise LedgerError(
            "not an inclusion proof",
            hint="a consistency proof is checked against a checkpoint that you have kept: --checkpoint",
        )
    return _consistency(verify_consistency_proof(text, vkey, kept, policy))


def _inclusion(included: VerifiedInclusion) -> InclusionAnswer:
    return InclusionAnswer(
        position=included.position,
        kind=included.entry.record.kind,
        leaf_hash=included.entry.leaf_hash,
        record=included.entry.record,
        origin=included.checkpoint.origin,
        size=included.checkpoint.size,
        root=included.checkpoint.root,
        proof=included.proof,
        checkpoint=included.note,
    )


def _consistency(continued: VerifiedConsistency) -> ConsistencyAnswer:
    return ConsistencyAnswer(
        old_size=continued.old_size,
        origin=continued.checkpoint.origin,
        size=continued.checkpoint.size,
        root=continued.checkpoint.root,
        proof=continued.proof,
        checkpoint=continued.note,
    )


def _completeness(history: Completeness, vkey: str) -> CompletenessAnswer:
    checkpoint = verify_checkpoint(history.checkpoint, vkey)
    principal = replay_principal(history.number, history.entries, checkpoint.origin)
    return CompletenessAnswer(
        number=history.number,
        key_id=key_id(principal.key),
        role=principal.role,
        entries=tuple(decode_record(entry, RecordBase) for entry in history.entries),
        epsilon=from_nano(principal.epsilon_nano),
        rho=from_nano(principal.rho_nano),
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        checkpoint=history.checkpoint,
    )


def _write(out: Path | None, text: str) -> None:
    if out is not None:
        out.write_bytes(text.encode())

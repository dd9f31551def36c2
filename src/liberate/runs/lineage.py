"""Where one participant's data went, told from the ledger alone and proved step by step."""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from typing import Any

from liberate.crypto.note import open_checkpoint
from liberate.ledger.completeness import Completeness, verify_completeness
from liberate.ledger.lineage import Contribution
from liberate.ledger.proving import ProvedEntry
from liberate.ledger.records import Model, Round
from liberate.ledger.trace import trace_participant
from liberate.runs.folder import Run
from liberate.runs.results import find_person

_NANO = 10**9


def trace_person(run: Run, participant: str) -> dict[str, Any]:
    """Trace a participant's own entries, the models that used them, and what was built on these.

    Every inclusion, signature and membership is checked before anything is returned, under a checkpoint signed with
    the key that `run.toml` keeps.

    Args:
        run: A run.
        participant: Number, key id, or user:ID.

    Returns:
        The keys of `liberate trace --json`: the person; `checkpoint`; `entries`, all that name the person, which is
        `complete` because the proof in `completeness` was checked; `updates`, each with the round, its block and what
        became of it; `models` that used an update; `descendants`, models built on one of these that used no update of
        the person; `epsilon` and `rho` spent; `proofs`, how many were checked. `shares` and `recipients` are empty:
        nothing is shared.

    Raises:
        LiberateError: Nobody has that name.
        LedgerError: The ledger cannot prove what it says.
    """
    person = find_person(run, participant)
    with closing(run.open_ledger()) as ledger:
        found = trace_participant(ledger, person.number)
    checkpoint = open_checkpoint(found.checkpoint, run.verifier_key)
    verify_completeness(found.completeness, run.verifier_key)
    used = {c.model.position: c.model for c in found.contributions if c.model}
    later = {d.position: d for c in found.contributions for d in c.descendants if d.position not in used}
    return {
        "number": person.number,
        "key_id": person.key_id,
        "user_id": person.user_id,
        "entries": [_entry(each) for each in found.history],
        "complete": True,
        "completeness": _completeness(found.completeness),
        "updates": [_update(each) for each in found.contributions],
        "models": [_model(model) for _, model in sorted(used.items())],
        "descendants": [_model(model) for _, model in sorted(later.items())],
        "shares": [],
        "recipients": [],
        "epsilon": found.epsilon_nano / _NANO,
        "rho": found.rho_nano / _NANO,
        "proofs": found.proof_count,
        "entry_count": checkpoint.size,
        "root": _text(checkpoint.root),
        "checkpoint": found.checkpoint,
    }


def _entry(proved: ProvedEntry) -> dict[str, Any]:
    return {
        "position": proved.position,
        "kind": proved.entry.record.kind,
        "block": proved.height,
        "time_us": proved.time_us,
        "leaf_hash": _text(proved.entry.leaf_hash),
        "proof": [_text(step) for step in proved.proof],
    }


def _completeness(proof: Completeness) -> dict[str, Any]:
    return {
        "entries": [_text(entry) for entry in proof.entries],
        "block": _text(proof.block),
        "block_proof": [_text(step) for step in proof.block_proof],
        "principal_count": proof.principal_count,
        "state_proof": [_text(step) for step in proof.state_proof],
    }


def _update(contribution: Contribution) -> dict[str, Any]:
    round_record = contribution.round.entry.record
    model = contribution.model.entry.record if contribution.model else None
    membership = contribution.membership
    return _entry(contribution.update) | {
        "round": round_record.number if isinstance(round_record, Round) else None,
        "outcome": contribution.outcome,
        "version": model.version if isinstance(model, Model) else None,
        "descendants": len(contribution.descendants),
        "membership": None
        if membership is None
        else {"index": membership.index, "size": membership.size, "proof": [_text(step) for step in membership.proof]},
    }


def _model(proved: ProvedEntry) -> dict[str, Any]:
    model = proved.entry.record
    version, digest = (model.version, _text(model.digest)) if isinstance(model, Model) else (None, None)
    return _entry(proved) | {"version": version, "digest": digest}


def _text(digest: bytes) -> str:
    return b64encode(digest).decode()

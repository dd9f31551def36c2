"""The checkpoints of a ledger beside its entries: the newest one, one that was kept, and the published one."""

from __future__ import annotations

import sqlite3
from functools import partial

from liberate.crypto.merkle import EMPTY_ROOT, CompactRange, consistency_proof, verify_consistency
from liberate.crypto.note import Checkpoint, verify_checkpoint
from liberate.errors import InvalidRecord, ProofMismatch
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import Genesis
from liberate.ledger.log import tables
from liberate.ledger.verification.findings import FindingCollector
from liberate.ledger.verification.replay import Replay


def check_newest(connection: sqlite3.Connection, replay: Replay) -> None:
    """Check that there is one note, the log's, over exactly the stored entries."""
    with replay.findings.reading("checkpoint"):
        rows = connection.execute("SELECT number, note FROM checkpoint").fetchall()
        if [number for number, _ in rows] != [0]:
            replay.findings.add("checkpoint 0", f"is not the only row: there are {len(rows)}")
        elif replay.state.genesis is not None:
            with replay.findings.checking("checkpoint 0"):
                _check_note(rows[0][1], replay.state.genesis, replay.edge)


def open_remembered(
    connection: sqlite3.Connection, note: str | None, key: str | None, findings: FindingCollector
) -> Checkpoint | None:
    """Return the checkpoint that somebody has kept, signed by the log; None if there is none."""
    if note is not None:
        with findings.checking("remembered checkpoint"):
            return verify_checkpoint(note, key or _stored_log_vkey(connection))
    return None


def check_remembered(connection: sqlite3.Connection, remembered: Checkpoint | None, replay: Replay) -> None:
    """Check that the ledger holds what a kept checkpoint covers."""
    if remembered is not None:
        with replay.findings.checking("remembered checkpoint"):
            check_holds(connection, replay, remembered)


def check_published(connection: sqlite3.Connection, note: str | None, replay: Replay) -> None:
    """Check that the ledger holds what it has published."""
    genesis = replay.state.genesis
    if note is not None and genesis is not None:
        with replay.findings.checking("published checkpoint"):
            check_holds(connection, replay, verify_checkpoint(note, genesis.log_vkey))


def check_holds(connection: sqlite3.Connection, replay: Replay, checkpoint: Checkpoint) -> None:
    """Check that the entries begin with those that a checkpoint covers.

    Raises:
        ProofMismatch: They do not.
    """
    size, root = replay.edge.size, replay.edge.root()
    if checkpoint.size > size:
        raise ProofMismatch(f"the ledger was cut short: {size} entries are left of {checkpoint.size}")
    try:
        if 0 < checkpoint.size < size:
            proof = consistency_proof(checkpoint.size, size, partial(tables.read_node, connection))
            verify_consistency(checkpoint.size, size, proof, checkpoint.root, root)
        elif checkpoint.root != (root if checkpoint.size else EMPTY_ROOT):
            raise ProofMismatch("another root")
    except ProofMismatch as error:
        raise ProofMismatch(f"the first {checkpoint.size} entries are not those of then") from error


def _check_note(data: object, genesis: Genesis, edge: CompactRange) -> None:
    try:
        note = data.decode() if isinstance(data, bytes) else ""
    except UnicodeDecodeError as error:
        raise InvalidRecord("the note is not UTF-8") from error
    newest = verify_checkpoint(note, genesis.log_vkey)
    if newest.size != edge.size or newest.root != edge.root():
        raise InvalidRecord(f"is over {newest.size} entries and root {newest.root.hex()}, not over the stored entries")
    if note.rpartition("\n\n")[2].count("\n") != 1:
        raise InvalidRecord("holds other signatures than the log's")


def _stored_log_vkey(connection: sqlite3.Connection) -> str:
    record = decode_entry(tables.read_entry(connection, 0)).record
    if not isinstance(record, Genesis):
        raise InvalidRecord("no key to open it with: the first entry is no genesis")
    return record.log_vkey

"""What a log keeps of authors who sign two entries with one sequence: the refused one, beside the accepted one."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress

from liberate.errors import LedgerError
from liberate.ledger.evidence.equivocation import check_equivocation, equivocation_file
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.log import tables
from liberate.ledger.rules.state import State

_logger = logging.getLogger(__name__)

SequenceIndex = Mapping[tuple[int, int], tuple[int, Entry]]
"""By author and sequence: positions and entries that were accepted but are not stored yet."""


def is_conflict(connection: sqlite3.Connection, state: State, entry: Entry, taken: SequenceIndex) -> bool:
    """Whether a refused entry shares its sequence with an accepted one of its author, and no evidence is kept yet."""
    author, sequence = entry.record.author, entry.record.seq
    if not state.has_used(author, sequence):
        return False

    accepted = [taken[author, sequence]] if (author, sequence) in taken else []
    if not accepted:
        statement = (
            "SELECT position, entry FROM entry WHERE author = ? AND seq = ?"
            " AND NOT EXISTS (SELECT 1 FROM evidence WHERE author = entry.author AND seq = entry.seq)"
        )
        rows = connection.execute(statement, (author, sequence))
        accepted = [(position, decode_entry(data)) for position, data in rows]

    for position, first in accepted:
        with suppress(LedgerError):
            check_equivocation(state.author_key(first.record, position), first, entry)
            _logger.warning("principal %d signed two entries with sequence %d", author, sequence)
            return True
    return False


def keep(connection: sqlite3.Connection, refused: Iterable[Entry]) -> None:
    """Make refused entries durable, beside the block."""
    connection.execute("BEGIN IMMEDIATE")
    tables.insert(connection, "evidence", [tables.evidence_row(entry) for entry in refused], replace=True)
    connection.execute("COMMIT")


def read(connection: sqlite3.Connection, state: State) -> list[bytes]:
    """Return a file of evidence for each sequence number that an author is known to have used twice."""
    statement = (
        "SELECT entry.position, entry.entry, evidence.entry FROM evidence"
        " JOIN entry USING (author, seq) ORDER BY entry.position"
    )
    rows = connection.execute(statement).fetchall()
    return [
        equivocation_file(state.author_key(decode_entry(first).record, at), first, second) for at, first, second in rows
    ]

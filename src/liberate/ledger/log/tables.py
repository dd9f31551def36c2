"""The ledger's tables: what a row of each holds, and how rows are written and read.

Entries and the newest checkpoint are the ledger; all other rows are derived from them, and an audit derives them again.
Evidence proves itself: an entry that was refused although its author signed it, because it used a sequence again.
Whoever writes rows and whoever checks them use the same functions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from liberate import database
from liberate.crypto.merkle import leaf_hash
from liberate.errors import LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, principals_of
from liberate.ledger.format.records import Record
from liberate.ledger.rules.principal import Principal

LEDGER_FILE = "ledger.sqlite"
LAYOUT_VERSION = 2

Row: TypeAlias = tuple[int | str | bytes, ...]

SCHEMA = {
    "entry": (
        "CREATE TABLE entry (position INTEGER PRIMARY KEY, entry BLOB NOT NULL, kind TEXT NOT NULL,"
        " author INTEGER NOT NULL, seq INTEGER NOT NULL) STRICT"
    ),
    "entry_author": "CREATE UNIQUE INDEX entry_author ON entry (author, seq)",
    "entry_kind": "CREATE INDEX entry_kind ON entry (kind)",
    "node": (
        "CREATE TABLE node (position INTEGER NOT NULL, level INTEGER NOT NULL, hash BLOB NOT NULL,"
        " PRIMARY KEY (position, level)) STRICT, WITHOUT ROWID"
    ),
    "about": (
        "CREATE TABLE about (principal INTEGER NOT NULL, position INTEGER NOT NULL,"
        " PRIMARY KEY (principal, position)) STRICT, WITHOUT ROWID"
    ),
    "principal": "CREATE TABLE principal (number INTEGER PRIMARY KEY, leaf BLOB NOT NULL) STRICT",
    "evidence": (
        "CREATE TABLE evidence (author INTEGER NOT NULL, seq INTEGER NOT NULL, entry BLOB NOT NULL,"
        " PRIMARY KEY (author, seq)) STRICT"
    ),
    "checkpoint": "CREATE TABLE checkpoint (number INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT",
}
"""Tables and indexes by name. A node is stored at the position of the entry that completed it, level 1 and up."""


def entry_row(position: int, entry: Entry) -> Row:
    """Return the row of an entry."""
    record = entry.record
    return position, entry.data, record.kind, record.author, record.seq


def node_rows(position: int, completed: Sequence[Digest]) -> list[tuple[int, int, bytes]]:
    """Return the rows of the perfect subtrees that an entry completes, of levels 1, 2, ..."""
    return [(position, level, digest) for level, digest in enumerate(completed, start=1)]


def about_rows(position: int, record: Record) -> list[tuple[int, int]]:
    """Return the rows that say whose history a record belongs to."""
    return [(number, position) for number in principals_of(record)]


def principal_row(number: int, principal: Principal) -> Row:
    """Return the row of a principal's state leaf."""
    return number, principal.encode()


def evidence_row(entry: Entry) -> Row:
    """Return the row of an entry that contradicts another one of its author; one for each sequence is enough."""
    return entry.record.author, entry.record.seq, entry.data


def checkpoint_row(note: str) -> Row:
    """Return the only row of the newest checkpoint."""
    return 0, note.encode()


def connect(folder: Path, *, mode: str) -> sqlite3.Connection:
    """Open a ledger's file; transactions are begun and committed by hand.

    Args:
        folder: The ledger's folder.
        mode: `ro`, `rw` or `rwc`, as in SQLite's URI.

    Returns:
        A connection that any thread may use, one at a time.
    """
    return database.connect(folder / LEDGER_FILE, mode=mode, is_shared=True)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file holds nothing yet."""
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def create_tables(connection: sqlite3.Connection) -> None:
    """Create all tables and indexes, within the caller's transaction."""
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {LAYOUT_VERSION}")


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[Row], *, replace: bool = False) -> None:
    """Write rows; those with a key that is there already replace it, or else are an error."""
    if rows:
        places = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT {'OR REPLACE ' if replace else ''}INTO {table} VALUES ({places})", rows)


def unusable(error: Exception, message: str = "the ledger's file cannot be used") -> LedgerError:
    """Return the error that says what SQLite or the file system could not do, and what to try."""
    if isinstance(error, OSError):
        return LedgerError(f"{message}: {error}", hint="the folder must exist, be writable and have free space")
    damaged = "liberate ledger verify names what is damaged; go on from a backup"
    return LedgerError(f"{message}: {error}", hint=database.advice(error, damaged))


@contextmanager
def translated() -> Iterator[None]:
    """Raise what SQLite or the file system cannot do as a LedgerError."""
    try:
        yield
    except (*database.FAILURES, OSError) as error:
        raise unusable(error) from error


def read_entry(connection: sqlite3.Connection, position: int) -> bytes:
    """Return the bytes of a stored entry.

    Raises:
        LedgerError: There is none at this position.
    """
    return _blob(connection, f"entry {position}", "SELECT entry FROM entry WHERE position = ?", position)


def read_node(connection: sqlite3.Connection, level: int, index: int) -> Digest:
    """Return the stored hash of a perfect subtree.

    Raises:
        LedgerError: It is missing.
    """
    if level == 0:
        return leaf_hash(read_entry(connection, index))
    position = ((index + 1) << level) - 1
    statement = "SELECT hash FROM node WHERE position = ? AND level = ?"
    return Digest(_blob(connection, f"node {position}/{level}", statement, position, level))


def read_checkpoint(connection: sqlite3.Connection) -> str:
    """Return the newest checkpoint.

    Raises:
        LedgerError: It is missing.
    """
    try:
        return _blob(connection, "checkpoint", "SELECT note FROM checkpoint").decode()
    except UnicodeDecodeError as error:
        raise LedgerError("the checkpoint is no text") from error


def _blob(connection: sqlite3.Connection, place: str, statement: str, *arguments: int) -> bytes:
    """Return the only value of the only row that a SELECT finds."""
    with translated():
        rows = connection.execute(statement, arguments).fetchall()
    match rows:
        case [(bytes(value),)]:
            return value
        case _:
            raise LedgerError(f"there is no {place}")

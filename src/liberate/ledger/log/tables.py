"""The ledger's tables: what a row of each holds, and how a state is taken up from them without a replay.

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
from liberate.ledger.format.entries import Entry, decode_entry, principals_of
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import (
    ZERO,
    Block,
    Enrol,
    Genesis,
    KeyRecord,
    ModelRecord,
    Record,
    Round,
    Survivors,
    Update,
)
from liberate.ledger.format.sharing_records import Consent, PoolRecord, Receipt, Share, Withdrawal
from liberate.ledger.rules.principal import Principal
from liberate.ledger.rules.round_state import ModelReference, OpenRound, RunState
from liberate.ledger.rules.sharing_state import SharingState
from liberate.ledger.rules.state import State

LEDGER_FILE = "ledger.sqlite"
LAYOUT_VERSION = 1

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
"""Tables and indexes by name. A node lies at the position of the entry that completed it, level 1 and up."""


def entry_row(position: int, entry: Entry) -> Row:
    """Give the row of an entry."""
    record = entry.record
    return position, entry.data, record.kind, record.author, record.seq


def node_rows(position: int, completed: Sequence[Digest]) -> list[tuple[int, int, bytes]]:
    """Give the rows of the perfect subtrees that an entry completes, levels 1, 2, ..."""
    return [(position, level, digest) for level, digest in enumerate(completed, start=1)]


def about_rows(position: int, record: Record) -> list[tuple[int, int]]:
    """Give the rows that say whose history a record belongs to."""
    return [(number, position) for number in principals_of(record)]


def principal_row(number: int, principal: Principal) -> Row:
    """Give the row of a principal's state leaf."""
    return number, principal.encode()


def evidence_row(entry: Entry) -> Row:
    """Give the row of an entry that contradicts another one of its author; the first one for a sequence is enough."""
    return entry.record.author, entry.record.seq, entry.data


def checkpoint_row(note: str) -> Row:
    """Give the only row of the newest checkpoint."""
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
    """Give the bytes of a stored entry.

    Raises:
        LedgerError: there is none at this position.
    """
    return _blob(connection, f"entry {position}", "SELECT entry FROM entry WHERE position = ?", position)


def read_node(connection: sqlite3.Connection, level: int, index: int) -> Digest:
    """Give the stored hash of a perfect subtree.

    Raises:
        LedgerError: it is missing.
    """
    if level == 0:
        return leaf_hash(read_entry(connection, index))
    position = ((index + 1) << level) - 1
    statement = "SELECT hash FROM node WHERE position = ? AND level = ?"
    return Digest(_blob(connection, f"node {position}/{level}", statement, position, level))


def read_nodes(connection: sqlite3.Connection, places: Sequence[tuple[int, int]]) -> list[Digest]:
    """Give the hashes of perfect subtrees, by level and index, leaves included.

    Raises:
        LedgerError: one is missing.
    """
    node, leaf = "SELECT hash FROM node WHERE position = ? AND level = ?", "SELECT entry FROM entry WHERE position = ?"
    found = []
    for level, index in places:
        place = (((index + 1) << level) - 1, level) if level else (index,)
        match connection.execute(node if level else leaf, place).fetchone():
            case (bytes(value),):
                found.append(Digest(value) if level else leaf_hash(value))
            case _:
                raise LedgerError(f"there is no node at level {level}, index {index}")
    return found


def read_checkpoint(connection: sqlite3.Connection) -> str:
    """Give the newest checkpoint.

    Raises:
        LedgerError: it is missing.
    """
    try:
        return _blob(connection, "checkpoint", "SELECT note FROM checkpoint").decode()
    except UnicodeDecodeError as error:
        raise LedgerError("the checkpoint is no text") from error


def _blob(connection: sqlite3.Connection, place: str, statement: str, *arguments: int) -> bytes:
    """Give the only value of the only row that a SELECT finds."""
    with translated():
        rows = connection.execute(statement, arguments).fetchall()
    match rows:
        case [(bytes(value),)]:
            return value
        case _:
            raise LedgerError(f"there is no {place}")


def restore(connection: sqlite3.Connection) -> State:
    """Take up the state after the last block.

    Raises:
        LedgerError: a row that is needed for it cannot be read.
    """
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if layout != LAYOUT_VERSION:
        raise LedgerError(f"the ledger's file has layout {layout}, wanted {LAYOUT_VERSION}")
    (size,) = connection.execute("SELECT coalesce(max(position) + 1, 0) FROM entry").fetchone()
    genesis, last = decode_entry(read_entry(connection, 0)), decode_entry(read_entry(connection, size - 1))
    if not isinstance(genesis.record, Genesis) or not isinstance(last.record, Block):
        raise LedgerError("the entries do not begin with a genesis and end with a block")
    state = State(
        genesis=genesis.record,
        size=size,
        height=last.record.seq,
        block_hash=last.leaf_hash,
        block_size=size,
        time_us=last.record.time_us,
    )
    for (leaf,) in connection.execute("SELECT leaf FROM principal ORDER BY number"):
        state.enrol(Principal.decode(leaf))
    _restore_keys(connection, state)
    _restore_sharing(connection, state)
    _restore_rounds(connection, state)
    return state


def _restore_keys(connection: sqlite3.Connection, state: State) -> None:
    """Take up the keys that principals had before their present ones."""
    latest: dict[int, bytes] = {}
    for position, data in connection.execute("SELECT position, entry FROM entry WHERE kind = 'key' ORDER BY position"):
        record = decode_entry(data).record
        if isinstance(record, KeyRecord) and record.key is not None:
            former = latest.get(record.number) or _first_key(connection, record.number)
            state.note_former_key(record.number, former, position)
            latest[record.number] = record.key.public


def _first_key(connection: sqlite3.Connection, number: int) -> bytes:
    statement = "SELECT entry FROM entry WHERE position = (SELECT min(position) FROM about WHERE principal = ?)"
    match decode_entry(_blob(connection, f"entry that enrols {number}", statement, number)).record:
        case Enrol(key=key):
            return key
        case Genesis(registrars=keys) if number < len(keys):
            return keys[number]
        case _:
            raise LedgerError(f"no entry enrols principal {number}")


def _restore_sharing(connection: sqlite3.Connection, state: State) -> None:
    """Take up the consents that live, and the shares under them."""
    if all(principal.consents == ZERO for principal in state.principals):
        return
    kinds = "SELECT entry FROM entry WHERE kind IN ('consent', 'withdrawal', 'share', 'receipt') ORDER BY position"
    for (data,) in connection.execute(kinds):
        try:
            _take_up(state.sharing, decode_entry(data))
        except KeyError as error:
            raise LedgerError("a share or its end does not follow from the consents before") from error


def _take_up(sharing: SharingState, entry: Entry) -> None:
    match entry.record:
        case Consent() as consent:
            sharing.grant(consent, entry.leaf_hash)
        case Withdrawal(author=sender, consent=ended):
            sharing.withdraw(sender, ended)
        case Share() as share:
            sharing.hand_over(share, entry.leaf_hash)
        case Receipt(share=received):
            sharing.acknowledge(received)
        case _:
            pass


def _restore_rounds(connection: sqlite3.Connection, state: State) -> None:
    rounds = _newest(connection, "round")
    position, entry = next(rounds, (-1, None))
    if entry is None or not isinstance(entry.record, Round):
        return
    record = entry.record
    opened = 1
    for _, earlier in rounds:
        if not isinstance(earlier.record, Round) or earlier.record.run != record.run:
            break
        opened += 1
    state.run = RunState(record.run, record.rounds, opened)
    state.round_number = record.number
    state.model = ModelReference(record.base_version, record.base_digest)
    for kind in ("model", "aborted"):
        closed_at, closing = next(_newest(connection, kind), (-1, None))
        if closing is not None and closed_at > position:
            if isinstance(closing.record, ModelRecord):
                state.model = ModelReference(closing.record.version, closing.record.digest)
            return
    state.open_round = _restore_open_round(connection, entry, record, position, state.founding)


def _restore_open_round(
    connection: sqlite3.Connection, entry: Entry, record: Round, position: int, genesis: Genesis
) -> OpenRound:
    earlier = "SELECT count(*) FROM entry WHERE kind = 'enrol' AND position < ?"
    (enrolled,) = connection.execute(earlier, (position,)).fetchone()
    current = OpenRound(record, entry.leaf_hash, position, len(genesis.registrars) + 1 + enrolled)
    later = "SELECT position, entry FROM entry WHERE kind = 'update' AND position > ? ORDER BY position"
    for at, data in connection.execute(later, (position,)):
        update = decode_entry(data)
        if isinstance(update.record, Update):
            current.accept(update.record.answers_for(), update.leaf_hash, at)
    named = "SELECT entry FROM entry WHERE kind = 'survivors' AND position > ? ORDER BY position"
    for (data,) in connection.execute(named, (position,)):
        survivors = decode_entry(data).record
        if isinstance(survivors, Survivors):
            current.name_survivors(tuple(numbers_in(survivors.participants)), survivors.parts)
    used = "SELECT entry FROM entry WHERE kind = 'pool' AND position > ? ORDER BY position"
    for (data,) in connection.execute(used, (position,)):
        pool = decode_entry(data).record
        if isinstance(pool, PoolRecord):
            current.pool.update(numbers_in(pool.participants))
    return current


def _newest(connection: sqlite3.Connection, kind: str) -> Iterator[tuple[int, Entry]]:
    """Give entries of a kind, the newest first."""
    newest = "SELECT position, entry FROM entry WHERE kind = ? ORDER BY position DESC"
    for position, data in connection.execute(newest, (kind,)):
        yield position, decode_entry(data)

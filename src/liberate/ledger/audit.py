"""Check a ledger again from its bytes and keys, trusting nothing that can be derived.

Every entry is decoded, verified and replayed by the rules; every stored row is compared with the one that follows from
the entries. What is wrong becomes a finding with its place, never an exception.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from liberate.arrays import Digest, KeyId
from liberate.crypto.merkle import EMPTY_ROOT, CompactRange, leaf_hash
from liberate.crypto.note import Checkpoint, open_checkpoint, parse_verifier_key
from liberate.crypto.signing import key_id
from liberate.errors import InvalidRecord, LedgerError, RefusedEntry
from liberate.ledger import store
from liberate.ledger.findings import Comparison, Finding, Findings, describe_difference
from liberate.ledger.records import ZERO, Entry, Genesis, concerned, decode_entry
from liberate.ledger.rules import apply, verify_signatures
from liberate.ledger.state import State
from liberate.ledger.store import Row

_BATCH = 1_000
_ENTRY_COLUMNS = ("position", "entry", "kind", "author", "seq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a full check found.

    Attributes:
        ok: Nothing is wrong.
        trusted: The log's key is the one given from outside: whoever holds another one cannot have signed all of it.
        simulated: Whether keys, noise and time came from a seed; None without a genesis.
        entry_count: Number of stored entries.
        root: Root of the tree over them; None when there are none.
        origin: Name of the ledger; None without a genesis.
        key_id: Short name of the log's key; None without a genesis.
        findings: What is wrong.
    """

    ok: bool
    trusted: bool
    simulated: bool | None
    entry_count: int
    root: Digest | None
    origin: str | None
    key_id: KeyId | None
    findings: tuple[Finding, ...]


def verify(folder: Path, *, key: str | None = None, checkpoint: str | None = None) -> Audit:
    """Check a whole ledger, in memory that grows with the number of principals, not of entries.

    Args:
        folder: The ledger's folder.
        key: The log's verifier key, known from elsewhere.
        checkpoint: A signed note that was kept: the ledger must still hold what it held then.

    Raises:
        LedgerError: there is no ledger in the folder.
        InvalidRecord: `key` is no verifier key.
    """
    if not (folder / store.FILE_NAME).is_file():
        raise LedgerError(f"there is no ledger in {folder}")
    if key is not None:
        parse_verifier_key(key)
    findings = Findings()
    replay = _Replay(findings)
    with findings.reading(store.FILE_NAME), closing(store.connect(folder, mode="ro")) as connection:
        # text that is no longer UTF-8 must be read, to be found different
        connection.text_factory = lambda data: str(data, "utf-8", "surrogateescape")
        connection.execute("BEGIN")
        _check_file(connection, findings)
        remembered = _open_remembered(connection, checkpoint, key, findings)
        replay.run(connection, remembered)
        _check_remembered(remembered, replay, findings)
        _check_about(connection, replay, findings)
        _check_principals(connection, replay, findings)
        _check_newest_checkpoint(connection, replay, findings)
    return _outcome(key, replay, findings)


def _outcome(key: str | None, replay: _Replay, findings: Findings) -> Audit:
    genesis = replay.state.genesis
    log_vkey = genesis.log_vkey if genesis else None
    if key is not None and key != log_vkey:
        findings.add("entry 0", f"the log's key is {log_vkey}, wanted {key}")
    found = findings.listed()
    return Audit(
        ok=not found,
        trusted=key is not None and key == log_vkey,
        simulated=genesis.simulated if genesis else None,
        entry_count=replay.edge.size,
        root=replay.edge.root() if replay.edge.size else None,
        origin=genesis.origin if genesis else None,
        key_id=key_id(parse_verifier_key(log_vkey).public) if log_vkey else None,
        findings=found,
    )


class _Replay:
    """Follows the entries from the first to the last.

    Attributes:
        state: What the rules make of them, up to the first one that does not follow.
        is_following: Whether all entries have followed so far.
        edge: Tree over all stored entries.
        about: For each principal, a chain over the positions of the entries that concern it.
        remembered_root: Root of the tree when it had the remembered size.
    """

    def __init__(self, findings: Findings) -> None:
        self.state = State()
        self.is_following = True
        self.edge = CompactRange()
        self.about: defaultdict[int, Digest] = defaultdict(lambda: ZERO)
        self.remembered_root = EMPTY_ROOT
        self._findings = findings
        self._is_dense = True

    def run(self, connection: sqlite3.Connection, remembered: Checkpoint | None) -> None:
        """Check all entries and the nodes over them."""
        nodes = Comparison(connection, "node", ("position", "level"), self._findings)
        with self._findings.reading("entry"):
            cursor = connection.execute(f"SELECT {', '.join(_ENTRY_COLUMNS)} FROM entry ORDER BY position")
            while rows := cursor.fetchmany(_BATCH):
                entries = [self._decode(row) for row in rows]
                signed = verify_signatures(self.state, [entry for entry in entries if entry])
                for row, entry in zip(rows, entries, strict=True):
                    self._take(row, entry, signed, nodes)
                    if remembered and self.edge.size == remembered.size:
                        self.remembered_root = self.edge.root()
        if self._is_dense:
            nodes.end()
        if self.is_following and self.state.block_size != self.state.size:
            self._findings.add(f"entry {self.state.size - 1}", "no block ends the last batch")
        if not self.edge.size:
            self._findings.add("entry", "there are no entries")

    def _decode(self, row: Row) -> Entry | None:
        position, data = int(row[0]), row[1]
        place = f"entry {position}"
        if not isinstance(data, bytes):
            self._findings.add(place, "holds no bytes")
            return None
        try:
            entry = decode_entry(data)
        except RefusedEntry as refused:
            self._findings.add(place, str(refused))
            return None
        difference = describe_difference(_ENTRY_COLUMNS, row, store.entry_row(position, entry))
        if difference:
            self._findings.add(place, difference)
        return entry

    def _take(self, row: Row, entry: Entry | None, signed: set[Digest], nodes: Comparison) -> None:
        position, data = int(row[0]), row[1]
        wanted = self.edge.size
        if self._is_dense and position != wanted:
            self._findings.add(f"entry {min(position, wanted)}", f"position {position} follows {wanted - 1}")
            self._is_dense = self.is_following = False
        if entry is None:
            self.is_following = False
        else:
            self._follow(position, entry, is_signed=entry.leaf_hash in signed)
        completed = self.edge.append(leaf_hash(data) if isinstance(data, bytes) else ZERO)
        if self._is_dense:
            for node in store.node_rows(position, completed):
                nodes.expect(node)

    def _follow(self, position: int, entry: Entry, *, is_signed: bool) -> None:
        """Apply an entry; after the first one that does not follow, only signatures can be checked."""
        for number in concerned(entry.record):
            self.about[number] = _chain(self.about[number], position)
        if self.is_following:
            try:
                apply(self.state, entry, position, verified=is_signed)
            except RefusedEntry as refused:
                self._findings.add(f"entry {position}", str(refused))
                self.is_following = False
        elif entry.record.author < len(self.state.principals) and not is_signed:
            self._findings.add(f"entry {position}", "the signature is wrong, or the sequence is not a new one")


def _chain(head: Digest, position: int) -> Digest:
    return Digest(sha256(head + position.to_bytes(8, "big", signed=True)).digest())


# --- the file and what is derived ------------------------------------------------------------------------------------


def _check_file(connection: sqlite3.Connection, findings: Findings) -> None:
    """Check the layout, and that pages and indexes are sound."""
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if layout != store.LAYOUT_VERSION:
        findings.add(store.FILE_NAME, f"the layout is {layout}, wanted {store.LAYOUT_VERSION}")
    with closing(sqlite3.connect(":memory:")) as sample:
        store.create_tables(sample)
        wanted, found = _schema(sample), _schema(connection)
    for name in sorted(wanted.keys() | found.keys()):
        if name not in wanted:
            findings.add(f"schema {name}", "does not belong to a ledger")
        elif found.get(name) != wanted[name]:
            findings.add(f"schema {name}", f"is {found.get(name)}, wanted {wanted[name]}")
    for (message,) in connection.execute("PRAGMA integrity_check"):
        if message != "ok":
            findings.add(store.FILE_NAME, str(message))


def _schema(connection: sqlite3.Connection) -> dict[str, Row]:
    """Give the definitions of tables and indexes by name."""
    rows = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master")
    return {str(name): tuple(definition) for name, *definition in rows}


def _check_about(connection: sqlite3.Connection, replay: _Replay, findings: Findings) -> None:
    """Compare, principal by principal, whose history the rows say an entry belongs to."""
    stored: defaultdict[int, Digest] = defaultdict(lambda: ZERO)
    with findings.reading("about"):
        for principal, position in connection.execute("SELECT principal, position FROM about ORDER BY 1, 2"):
            if type(principal) is int and type(position) is int:
                stored[principal] = _chain(stored[principal], position)
            else:
                findings.add(f"about {principal!r}/{position!r}", "the key is no integer")
    numbers = stored.keys() | replay.about.keys()
    wrong = {number for number in numbers if stored.get(number) != replay.about.get(number)}
    if wrong:
        with findings.reading("about"):
            _locate_about(connection, wrong, findings)


def _locate_about(connection: sqlite3.Connection, wrong: set[int], findings: Findings) -> None:
    """Say which rows about some principals are missing, and which should not be there."""
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for position, data in connection.execute("SELECT position, entry FROM entry"):
        for number in wrong.intersection(_concerned(data)):
            wanted[number].add(position)
    for number in sorted(wrong):
        rows = connection.execute("SELECT position FROM about WHERE principal = ?", (number,))
        found = {position for (position,) in rows if type(position) is int}
        for position in sorted(wanted[number] ^ found):
            reason = "is missing" if position in wanted[number] else "does not follow from the entries"
            findings.add(f"about {number}/{position}", reason)


def _concerned(data: object) -> list[int]:
    try:
        return concerned(decode_entry(data).record) if isinstance(data, bytes) else []
    except RefusedEntry:
        return []


def _check_principals(connection: sqlite3.Connection, replay: _Replay, findings: Findings) -> None:
    """Compare the state leaves, if the replay came to its end."""
    if not replay.is_following:
        findings.add("principal", "not compared: the entries could not be replayed to the end")
        return
    rows = Comparison(connection, "principal", ("number",), findings)
    for number, principal in enumerate(replay.state.principals):
        rows.expect(store.principal_row(number, principal))
    rows.end()


def _check_newest_checkpoint(connection: sqlite3.Connection, replay: _Replay, findings: Findings) -> None:
    """Check that there is one note, the log's, over exactly the stored entries."""
    with findings.reading("checkpoint"):
        rows = connection.execute("SELECT number, note FROM checkpoint").fetchall()
        if [number for number, _ in rows] != [0]:
            findings.add("checkpoint 0", f"is not the only row: there are {len(rows)}")
        elif replay.state.genesis is not None:
            try:
                _check_note(rows[0][1], replay.state.genesis, replay.edge)
            except InvalidRecord as error:
                findings.add("checkpoint 0", error.message)


def _check_note(data: object, genesis: Genesis, edge: CompactRange) -> None:
    try:
        note = data.decode() if isinstance(data, bytes) else ""
    except UnicodeDecodeError as error:
        raise InvalidRecord("the note is not UTF-8") from error
    found = open_checkpoint(note, genesis.log_vkey)
    if found.size != edge.size or found.root != edge.root():
        raise InvalidRecord(f"is over {found.size} entries and root {found.root.hex()}, not over the stored entries")
    if note.rpartition("\n\n")[2].count("\n") != 1:
        raise InvalidRecord("holds other signatures than the log's")


def _open_remembered(
    connection: sqlite3.Connection, note: str | None, key: str | None, findings: Findings
) -> Checkpoint | None:
    if note is None:
        return None
    try:
        return open_checkpoint(note, key or _stored_log_vkey(connection))
    except LedgerError as error:
        findings.add("remembered checkpoint", error.message)
        return None


def _stored_log_vkey(connection: sqlite3.Connection) -> str:
    record = decode_entry(store.read_entry(connection, 0)).record
    if not isinstance(record, Genesis):
        raise InvalidRecord("no key to open it with: the first entry is no genesis")
    return record.log_vkey


def _check_remembered(remembered: Checkpoint | None, replay: _Replay, findings: Findings) -> None:
    if remembered is None:
        return
    if remembered.size > replay.edge.size:
        reason = f"the ledger was cut short: {replay.edge.size} entries are left of {remembered.size}"
        findings.add("remembered checkpoint", reason)
    elif remembered.root != replay.remembered_root:
        findings.add("remembered checkpoint", f"the first {remembered.size} entries are not those of then")

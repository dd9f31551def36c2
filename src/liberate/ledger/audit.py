"""Check a ledger again from its bytes and keys, trusting nothing that can be derived.

Every entry is decoded, verified and replayed by the rules; every stored row is compared with the one that follows from
the entries. What is wrong becomes a finding with its place, never an exception. Signatures are verified ahead of the
replay, in other processes when there are many.
"""

from __future__ import annotations

import gc
import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from liberate.arrays import Digest, KeyId
from liberate.crypto.merkle import EMPTY_ROOT, CompactRange, consistency_proof, leaf_hash, verify_consistency
from liberate.crypto.note import Checkpoint, open_checkpoint, parse_verifier_key
from liberate.crypto.signing import Claim, key_id, verify_batch
from liberate.crypto.verifying import Verifiers
from liberate.errors import InvalidRecord, LedgerError, ProofMismatch, RefusedEntry
from liberate.ledger import store
from liberate.ledger.equivocation import check_equivocation
from liberate.ledger.findings import Comparison, Finding, Findings, describe_difference
from liberate.ledger.records import ZERO, Enrol, Entry, Genesis, Key, NewKey, concerned, decode_entry, signed_bytes
from liberate.ledger.rules import apply, verify_signatures
from liberate.ledger.state import State
from liberate.ledger.store import Row
from liberate.ledger.verified import Verified, load, save

Progress = Callable[[int, int], None]
"""Is told how many entries are done, of how many."""

_BATCH = 250
_BYTES_AHEAD = 4_000_000
"""Entries whose signatures are verified ahead of the replay."""
_WORTH_PROCESSES = 10_000
"""Entries from which on processes of their own verify signatures."""
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
        resumed_at: Entries before this position were verified earlier; they, and the rows derived from them, were not
            read again.
        findings: What is wrong.
    """

    ok: bool
    trusted: bool
    simulated: bool | None
    entry_count: int
    root: Digest | None
    origin: str | None
    key_id: KeyId | None
    resumed_at: int = 0
    findings: tuple[Finding, ...]


def verify(
    folder: Path,
    *,
    key: str | None = None,
    checkpoint: str | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Check a ledger, in memory that grows with the number of principals, not of entries.

    Args:
        folder: The ledger's folder.
        key: The log's verifier key, known from elsewhere.
        checkpoint: A signed note that was kept: the ledger must still hold what it held then.
        resume: A file of the auditor's own. What it says was verified is not read again; where it does not exist,
            everything is. It is written when nothing was found.
        progress: Is called again and again.

    Raises:
        LedgerError: there is no ledger in the folder, or `resume` cannot be read or written.
        InvalidRecord: `key` is no verifier key.
    """
    if not (folder / store.FILE_NAME).is_file():
        raise LedgerError(f"there is no ledger in {folder}")
    if key is not None:
        parse_verifier_key(key)
    findings = Findings()
    replay = _Replay(findings, load(resume) if resume else None)
    with findings.reading(store.FILE_NAME), closing(store.connect(folder, mode="ro")) as connection:
        # text that is no longer UTF-8 must be read, to be found different
        connection.text_factory = lambda data: str(data, "utf-8", "surrogateescape")
        connection.execute("BEGIN")
        _check_layout(connection, findings)
        with ThreadPoolExecutor(1) as pool:
            damages = None if replay.begin else pool.submit(_damages, folder)
            remembered = _open_remembered(connection, checkpoint, key, findings)
            replay.run(connection, remembered, progress)
        for damage in damages.result() if damages else ():
            findings.add(store.FILE_NAME, damage)
        _check_remembered(connection, remembered, replay, findings)
        _check_about(connection, replay, findings)
        _check_principals(connection, replay, findings)
        _check_evidence(connection, replay, findings)
        _check_newest_checkpoint(connection, replay, findings)
    audit = _outcome(key, replay, findings)
    if audit.ok and resume:
        with store.translated():
            save(resume, Verified(size=replay.edge.size, roots=replay.edge.roots, state=replay.state))
    return audit


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
        resumed_at=replay.begin,
        findings=found,
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Stored entries whose signatures are being verified.

    Attributes:
        rows: As stored.
        entries: As decoded; None for what cannot be.
        claims: Of each entry by an author who has been announced: its signature is the author's.
        verdicts: Whether that is true, or None when nobody was asked yet.
    """

    rows: Sequence[Row]
    entries: Sequence[Entry | None]
    claims: Sequence[Claim]
    verdicts: Future[list[bool]] | None

    @property
    def n_bytes(self) -> int:
        return sum(len(entry.data) for entry in self.entries if entry)

    def keys(self) -> list[bytes | None]:
        """Wait until they are verified; give of each entry the key that signed it, or None."""
        verdicts = self.verdicts.result() if self.verdicts else verify_batch(self.claims)
        return [claim.public if is_true else None for claim, is_true in zip(self.claims, verdicts, strict=True)]


_NO_CLAIM = Claim(ZERO, b"", b"")


class _Replay:
    """Follows the entries from the first to the last.

    Attributes:
        state: What the rules make of them, up to the first one that does not follow.
        is_following: Whether all entries have followed so far.
        edge: Tree over all stored entries.
        begin, begin_root: Size and root of the tree that was verified earlier.
        about: For each principal, a chain over the positions of the entries that concern it.
        remembered_root: Root of the tree when it had the remembered size.
    """

    def __init__(self, findings: Findings, verified: Verified | None) -> None:
        self.state = verified.state if verified else State()
        self.edge = CompactRange(verified.size, verified.roots) if verified else CompactRange()
        self.begin = self.edge.size
        self.begin_root = self.edge.root()
        self.is_following = True
        self.about: defaultdict[int, Digest] = defaultdict(lambda: ZERO)
        self.remembered_root = EMPTY_ROOT
        self._findings = findings
        self._is_dense = True
        self._announced = {number: principal.key for number, principal in enumerate(self.state.principals)}

    def run(self, connection: sqlite3.Connection, remembered: Checkpoint | None, progress: Progress | None) -> None:
        """Check all entries to come and the nodes over them."""
        last = connection.execute("SELECT max(position) FROM entry").fetchone()[0]
        size = last + 1 if isinstance(last, int) else 0
        nodes = Comparison(connection, "node", ("position", "level"), self._findings, begin=self.begin)
        n_processes = 2 if size - self.begin >= _WORTH_PROCESSES else 0
        with self._findings.reading("entry"), _without_cycle_search(), ExitStack() as stack:
            verifiers = stack.enter_context(closing(Verifiers(n_processes))) if n_processes else None
            for batch in self._batches(connection, verifiers):
                for row, entry, key in zip(batch.rows, batch.entries, batch.keys(), strict=True):
                    self._take(row, entry, key, nodes)
                    if remembered and self.edge.size == remembered.size:
                        self.remembered_root = self.edge.root()
                if progress:
                    progress(self.edge.size, size)
        if self._is_dense:
            nodes.end()
        if self.is_following and self.state.block_size != self.state.size:
            self._findings.add(f"entry {self.state.size - 1}", "no block ends the last batch")
        if size < self.begin:
            self._findings.add("entry", f"the ledger was cut short: {size} entries are left of {self.begin}")
        if not self.edge.size:
            self._findings.add("entry", "there are no entries")

    def _batches(self, connection: sqlite3.Connection, verifiers: Verifiers | None) -> Iterator[_Batch]:
        """Read entries and have their signatures verified some megabytes before they are replayed."""
        columns = ", ".join(_ENTRY_COLUMNS)
        statement = f"SELECT {columns} FROM entry WHERE position >= ? OR ? = 0 ORDER BY position"
        cursor = connection.execute(statement, (self.begin, self.begin))
        ahead: deque[_Batch] = deque()
        n_bytes = 0
        while rows := cursor.fetchmany(_BATCH):
            entries = [self._decode(row) for row in rows]
            claims = [self._claim(entry) for entry in entries]
            verdicts = verifiers.submit(claims) if verifiers else None
            ahead.append(_Batch(rows, entries, claims, verdicts))
            n_bytes += ahead[-1].n_bytes
            while ahead and (n_bytes > _BYTES_AHEAD or verifiers is None):
                n_bytes -= ahead[0].n_bytes
                yield ahead.popleft()
        yield from ahead

    def _claim(self, entry: Entry | None) -> Claim:
        """Give what an entry's signature says, if its author's key is the one that was announced last.

        Whether it is, the rules decide: they are told by whose key the signature is.
        """
        if entry is None:
            return _NO_CLAIM
        author_key = self._announced.get(entry.record.author, ZERO)
        match entry.record:
            case Genesis(admitters=admitters, log_vkey=log_vkey):
                self._announced.update(enumerate(admitters))
                with suppress(InvalidRecord):
                    self._announced[len(admitters)] = parse_verifier_key(log_vkey).public
            case Enrol(number=number, key=key):
                self._announced[number] = key
            case Key(number=number, key=NewKey(public=key)):
                self._announced[number] = key
            case _:
                pass
        return Claim(author_key, signed_bytes(entry.body), entry.signature)

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

    def _take(self, row: Row, entry: Entry | None, verified_by: bytes | None, nodes: Comparison) -> None:
        position, data = int(row[0]), row[1]
        wanted = self.edge.size
        if self._is_dense and position != wanted:
            self._findings.add(f"entry {min(position, wanted)}", f"position {position} follows {wanted - 1}")
            self._is_dense = self.is_following = False
        if entry is None:
            self.is_following = False
        else:
            self._follow(position, entry, verified_by)
        completed = self.edge.append(entry.leaf_hash if entry else leaf_hash(data) if isinstance(data, bytes) else ZERO)
        if self._is_dense:
            for node in store.node_rows(position, completed):
                nodes.expect(node)

    def _follow(self, position: int, entry: Entry, verified_by: bytes | None) -> None:
        """Apply an entry; after the first one that does not follow, only signatures can be checked."""
        for number in concerned(entry.record):
            self.about[number] = _chain(self.about[number], position)
        if self.is_following:
            try:
                apply(self.state, entry, position, verified_by=verified_by)
            except RefusedEntry as refused:
                self._findings.add(f"entry {position}", str(refused))
                self.is_following = False
        elif (
            entry.record.author < len(self.state.principals)
            and verified_by is None
            and not verify_signatures(self.state, [entry])
        ):
            self._findings.add(f"entry {position}", "the signature is wrong, or the sequence is not a new one")


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Keep Python from looking for cycles among entries, which have none: an eighth of a replay's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _chain(head: Digest, position: int) -> Digest:
    return Digest(sha256(head + position.to_bytes(8, "big", signed=True)).digest())


# --- the file and what is derived ------------------------------------------------------------------------------------


def _check_layout(connection: sqlite3.Connection, findings: Findings) -> None:
    """Check that there are the tables and indexes of a ledger, and no others."""
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


def _damages(folder: Path) -> list[str]:
    """Give what is unsound about the file's pages and indexes; runs beside the replay, on a connection of its own."""
    try:
        with closing(store.connect(folder, mode="ro")) as connection:
            messages = [str(message) for (message,) in connection.execute("PRAGMA integrity_check")]
    except store.FAILURES as error:
        return [f"cannot be read: {error}"]
    return [message for message in messages if message != "ok"]


def _schema(connection: sqlite3.Connection) -> dict[str, Row]:
    """Give the definitions of tables and indexes by name."""
    rows = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master")
    return {str(name): tuple(definition) for name, *definition in rows}


def _check_about(connection: sqlite3.Connection, replay: _Replay, findings: Findings) -> None:
    """Compare, principal by principal, whose history the rows say an entry belongs to."""
    stored: defaultdict[int, Digest] = defaultdict(lambda: ZERO)
    with findings.reading("about"):
        statement = "SELECT principal, position FROM about WHERE position >= ? OR ? = 0 ORDER BY 1, 2"
        for principal, position in connection.execute(statement, (replay.begin, replay.begin)):
            if type(principal) is int and type(position) is int:
                stored[principal] = _chain(stored[principal], position)
            else:
                findings.add(f"about {principal!r}/{position!r}", "the key is no integer")
    numbers = stored.keys() | replay.about.keys()
    wrong = {number for number in numbers if stored.get(number) != replay.about.get(number)}
    if wrong:
        with findings.reading("about"):
            _locate_about(connection, wrong, replay.begin, findings)


def _locate_about(connection: sqlite3.Connection, wrong: set[int], begin: int, findings: Findings) -> None:
    """Say which rows about some principals are missing, and which should not be there."""
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for position, data in connection.execute("SELECT position, entry FROM entry WHERE position >= ?", (begin,)):
        for number in wrong.intersection(_concerned(data)):
            wanted[number].add(position)
    for number in sorted(wrong):
        rows = connection.execute(
            "SELECT position FROM about WHERE principal = ? AND (position >= ? OR ? = 0)", (number, begin, begin)
        )
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


def _check_evidence(connection: sqlite3.Connection, replay: _Replay, findings: Findings) -> None:
    """Check that each refused entry that is kept contradicts an accepted one."""
    statement = (
        "SELECT evidence.author, evidence.seq, evidence.entry, entry.position, entry.entry"
        " FROM evidence LEFT JOIN entry USING (author, seq) ORDER BY 1, 2"
    )
    with findings.reading("evidence"):
        for author, seq, second, position, first in connection.execute(statement):
            try:
                if not isinstance(first, bytes) or author >= len(replay.state.principals):
                    raise ProofMismatch("contradicts no entry")
                key = replay.state.key_at(author, position)
                check_equivocation(key, decode_entry(first), decode_entry(second))
            except LedgerError as error:
                findings.add(f"evidence {author}/{seq}", str(error))


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


def _check_remembered(
    connection: sqlite3.Connection, remembered: Checkpoint | None, replay: _Replay, findings: Findings
) -> None:
    if remembered is None:
        return
    try:
        if remembered.size > replay.edge.size:
            found = f"{replay.edge.size} entries are left of {remembered.size}"
            raise ProofMismatch(f"the ledger was cut short: {found}")
        if 0 < remembered.size < replay.begin:
            proof = consistency_proof(remembered.size, replay.begin, partial(store.read_node, connection))
            verify_consistency(remembered.size, replay.begin, proof, remembered.root, replay.begin_root)
        elif remembered.root != (replay.begin_root if remembered.size == replay.begin else replay.remembered_root):
            raise ProofMismatch(f"the first {remembered.size} entries are not those of then")
    except LedgerError as error:
        findings.add("remembered checkpoint", error.message)

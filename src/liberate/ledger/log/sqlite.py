"""The log in SQLite: it takes entries, stores them durably, and returns them with proofs.

One block is one transaction; calls of `append` in several threads share it by group commit.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock

from liberate.crypto import merkle
from liberate.crypto.merkle import CompactRange
from liberate.crypto.note import Checkpoint, sign_checkpoint, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import LedgerError, LedgerLocked, RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry, sign
from liberate.ledger.format.records import Block
from liberate.ledger.format.refusals import refused
from liberate.ledger.interface import AppendResult, Offer
from liberate.ledger.log import equivocations, tables
from liberate.ledger.log.group_commit import GroupCommit
from liberate.ledger.log.restoration import restore
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry, verify_signatures
from liberate.randomness import Clock
from liberate.timing import measure

_logger = logging.getLogger(__name__)

_LOCK_NAME = "ledger.lock"
_PAGE = 1_000
"""Entries read at a time by `entries`."""


class _Owner:
    """The one process that may append: it has the log's key and holds the lock file."""

    def __init__(self, folder: Path, key: SigningKey, clock: Clock) -> None:
        self.key = key
        self.clock = clock
        self._lock = (folder / _LOCK_NAME).open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise LedgerLocked(
                f"the ledger in {folder} is in use by another process",
                hint="wait for it to finish, or open the ledger read-only",
            ) from error

    def close(self) -> None:
        self._lock.close()


class SqliteLedger:
    """A ledger in `folder/ledger.sqlite`: its owner appends, anybody may read.

    Use `create` or `open`. A reader sees the ledger as it was when it was opened; the owner sees its durable blocks.
    All methods may be called from several threads; readers never wait for a block. `state` is the exception: it moves
    while a block is made.
    """

    def __init__(self, folder: Path, owner: _Owner | None, *, mode: str) -> None:
        with ExitStack() as undo:
            self._connection = undo.enter_context(closing(tables.connect(folder, mode=mode)))
            self._connection.execute("PRAGMA synchronous = FULL")
            # the owner's second connection never sees half a block
            self._reader = undo.enter_context(closing(tables.connect(folder, mode="ro"))) if owner else self._connection
            undo.pop_all()
        self._owner = owner
        self._reading = Lock()
        self._queue = GroupCommit()
        self._state = State()
        self._edge = CompactRange()
        self._is_stale = False
        self._durable = (0, 0)

    @classmethod
    def create(cls, folder: Path, genesis: bytes, log_key: SigningKey, clock: Clock) -> SqliteLedger:
        """Create a ledger: its first block holds the genesis.

        Raises:
            RefusedEntry: The rules refuse the genesis.
            LedgerError: There is a ledger in the folder already.
            LedgerLocked: Another process owns it.
        """
        entry = decode_entry(genesis)

        with ExitStack() as undo, tables.translated():
            folder.mkdir(parents=True, exist_ok=True)
            owner = undo.enter_context(closing(_Owner(folder, log_key, clock)))
            ledger = undo.enter_context(closing(cls(folder, owner, mode="rwc")))
            if not tables.is_empty(ledger._connection):
                raise LedgerError(f"there is a ledger in {folder} already")
            apply_entry(ledger._state, entry, 0)
            ledger._check_log_key()
            ledger._connection.execute("PRAGMA journal_mode = WAL")
            ledger._commit([(0, entry)], is_first=True)
            undo.pop_all()
        return ledger

    @classmethod
    def open(
        cls,
        folder: Path,
        log_key: SigningKey | None = None,
        clock: Clock | None = None,
    ) -> SqliteLedger:
        """Open a ledger: with the log's key and a clock to append, without them to read.

        Raises:
            LedgerError: There is no ledger, it cannot be read, or the key is not its log's.
            LedgerLocked: Another process owns it.
        """
        if (log_key is None) != (clock is None):
            raise ValueError("whoever appends needs both the log's key and a clock")
        if not (folder / tables.LEDGER_FILE).is_file():
            raise LedgerError(f"there is no ledger in {folder}")

        with ExitStack() as undo, tables.translated():
            owner = undo.enter_context(closing(_Owner(folder, log_key, clock))) if log_key and clock else None
            ledger = undo.enter_context(closing(cls(folder, owner, mode="rw" if owner else "ro")))
            if owner is None:
                ledger._connection.execute("BEGIN")
            else:
                ledger._connection.execute("PRAGMA journal_mode = WAL")  # a backup is no such file
            ledger._restore()
            if owner is not None:
                ledger._check_log_key()
            undo.pop_all()
        return ledger

    @property
    def origin(self) -> str:
        return self._state.origin

    @property
    def size(self) -> int:
        return self._durable[0]

    @property
    def height(self) -> int:
        return self._durable[1]

    @property
    def state(self) -> State:
        return self._state

    def append(self, entries: Sequence[bytes]) -> list[int | RefusedEntry]:
        self._require_owner()
        try:
            return self._queue.append([_decoded(data) for data in entries], self._append_or_take_back)
        except sqlite3.Error as error:
            raise tables.unusable(error, "nothing was appended: the block could not be stored") from error

    def entry(self, position: int) -> bytes:
        with self._read() as connection:
            return tables.read_entry(connection, position)

    def entries(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        stop = self.size if end is None else end
        statement = "SELECT position, entry FROM entry WHERE position >= ? AND position < ? ORDER BY position"
        for first in range(begin, stop, _PAGE):
            with self._read() as connection:
                page = connection.execute(statement, (first, min(first + _PAGE, stop))).fetchall()
            yield from page

    def positions(self, *, kind: str | None = None, author: int | None = None, about: int | None = None) -> list[int]:
        # looked up by the narrowest that is given, which are the last; a plus keeps an index out
        conditions = {
            "kind = ?" if author is None and about is None else "+kind = ?": kind,
            "author = ?" if about is None else "+author = ?": author,
            "position IN (SELECT position FROM about WHERE principal = ?)": about,
        }
        chosen = {condition: value for condition, value in conditions.items() if value is not None}
        statement = f"SELECT position FROM entry WHERE {' AND '.join(chosen) or 'TRUE'} ORDER BY position"
        with self._read() as connection:
            return [position for (position,) in connection.execute(statement, tuple(chosen.values()))]

    def equivocations(self) -> list[bytes]:
        """Return a file of evidence for each sequence number that an author is known to have used twice."""
        with self._read() as connection:
            return equivocations.read(connection, self._state)

    def checkpoint(self) -> str:
        with self._read() as connection:
            return tables.read_checkpoint(connection)

    def inclusion_proof(self, position: int, size: int | None = None) -> list[Digest]:
        with self._read() as connection:
            return merkle.inclusion_proof(position, self._proof_size(size), partial(tables.read_node, connection))

    def consistency_proof(self, old: int, new: int) -> list[Digest]:
        with self._read() as connection:
            return merkle.consistency_proof(old, self._proof_size(new), partial(tables.read_node, connection))

    def node(self, level: int, index: int) -> Digest:
        with self._read() as connection:
            return tables.read_node(connection, level, index)

    def nodes(self, places: Sequence[tuple[int, int]]) -> list[Digest]:
        with self._read() as connection:
            return [tables.read_node(connection, level, index) for level, index in places]

    def close(self) -> None:
        self._reader.close()
        self._connection.close()
        if self._owner is not None:
            self._owner.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, tables.translated():
            yield self._reader

    def _append_or_take_back(self, offers: Sequence[Offer]) -> list[AppendResult]:
        """Append offers as one block; without a block, the state is what it was."""
        try:
            if self._is_stale:
                self._restore()
            return self._append(offers)
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        """Return to the durable state; what cannot be read now is read before the next block."""
        self._is_stale = True
        with suppress(sqlite3.Error, LedgerError):
            self._connection.rollback()
            self._restore()

    def _append(self, offers: Sequence[Offer]) -> list[AppendResult]:
        with measure("verify"):
            signed = verify_signatures(self._state, [entry for entry in offers if isinstance(entry, Entry)])

        accepted: dict[tuple[int, int], tuple[int, Entry]] = {}
        conflicts: dict[tuple[int, int], Entry] = {}
        results = [self._take(offer, signed, accepted, conflicts) for offer in offers]

        if accepted:
            self._commit(list(accepted.values()))
        if conflicts:
            with measure("store"):
                equivocations.keep(self._connection, conflicts.values())
        return results

    def _take(
        self,
        offer: Offer,
        signed: Mapping[Digest, bytes],
        accepted: dict[tuple[int, int], tuple[int, Entry]],
        conflicts: dict[tuple[int, int], Entry],
    ) -> AppendResult:
        """Apply an offer to the state, unless it is in the log already.

        Args:
            offer: The offer.
            signed: By leaf hash: with which key an entry is known to be signed.
            accepted: By author and sequence: positions and entries of the block to be made.
            conflicts: By author and sequence: refused entries that contradict accepted ones of their author.
        """
        if isinstance(offer, RefusedEntry):
            _logger.debug("refused: %s", offer)
            return offer

        key = offer.record.author, offer.record.seq
        try:
            position = self._first_position(offer, accepted)
            if position is None:
                position = self._state.size
                apply_entry(self._state, _offered(offer), position, verified_by=signed.get(offer.leaf_hash))
                accepted[key] = position, offer
        except RefusedEntry as refused:
            _logger.debug("refused: %s", refused)
            if equivocations.is_conflict(self._connection, self._state, offer, accepted):
                conflicts.setdefault(key, offer)
            return refused
        return position

    def _first_position(self, entry: Entry, accepted: Mapping[tuple[int, int], tuple[int, Entry]]) -> int | None:
        """Return the position of an entry that is accepted or stored already."""
        author, sequence = entry.record.author, entry.record.seq
        position, earlier = accepted.get((author, sequence), (None, None))
        if earlier is not None and earlier.data == entry.data:
            return position

        if not self._state.has_used(author, sequence):
            return None
        statement = "SELECT position FROM entry WHERE author = ? AND seq = ? AND entry = ?"
        row = self._connection.execute(statement, (author, sequence, entry.data)).fetchone()
        return None if row is None else int(row[0])

    def _commit(self, batch: Sequence[tuple[int, Entry]], *, is_first: bool = False) -> None:
        """End a batch with its block entry and make both durable."""
        state, owner = self._state, self._require_owner()
        block = self._block(len(batch))
        position = state.size
        apply_entry(state, block, position, verified_by=owner.key.public)
        batch = [*batch, (position, block)]

        nodes = [row for at, entry in batch for row in tables.node_rows(at, self._edge.append(entry.leaf_hash))]
        about = [row for at, entry in batch for row in tables.about_rows(at, entry.record)]
        changed = sorted({number for number, _ in about})
        principals = [tables.principal_row(number, state.principals[number]) for number in changed]
        note = sign_checkpoint(Checkpoint(state.origin, state.size, self._edge.root()), owner.key)

        with measure("store"):
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            if is_first:
                tables.create_tables(connection)
            tables.insert(connection, "entry", [tables.entry_row(at, entry) for at, entry in batch])
            tables.insert(connection, "node", nodes)
            tables.insert(connection, "about", about)
            tables.insert(connection, "principal", principals, replace=True)
            tables.insert(connection, "checkpoint", [tables.checkpoint_row(note)], replace=True)
            connection.execute("COMMIT")

        # Only now: readers see what is durable.
        self._durable = (state.size, state.height)
        _logger.info("block %d: %d entries, %d in total", state.height, len(batch), state.size)

    def _block(self, count: int) -> Entry:
        state, owner = self._state, self._require_owner()
        record = Block(
            origin=state.origin,
            author=len(state.founding.registrars),
            seq=state.height + 1,
            parent=state.block_hash,
            count=count,
            state_root=state.root(),
            time_us=max(state.time_us, owner.clock.time_us(state.height + 1)),
        )
        return decode_entry(sign(record, owner.key))

    def _restore(self) -> None:
        self._state = restore(self._connection)
        self._edge = CompactRange.restore(self._state.size, partial(tables.read_node, self._connection))
        self._durable = (self._state.size, self._state.height)
        self._is_stale = False

    def _require_owner(self) -> _Owner:
        if self._owner is None:
            raise LedgerError("the ledger was opened to read", hint="open it with the log's key and a clock")
        return self._owner

    def _check_log_key(self) -> None:
        key = verifier_key(self.origin, self._require_owner().key.public)
        if key != self._state.founding.log_vkey:
            raise LedgerError(f"not the log's key: {key}, wanted {self._state.founding.log_vkey}")

    def _proof_size(self, size: int | None) -> int:
        if size is not None and size > self.size:
            raise ValueError(f"size <= {self.size} is wanted, not {size}")
        return self.size if size is None else size


def _decoded(data: bytes) -> Offer:
    try:
        return decode_entry(data)
    except RefusedEntry as refused:
        return refused


def _offered(entry: Entry) -> Entry:
    if isinstance(entry.record, Block):
        raise refused("log_only", "blocks are written by the log itself")
    return entry

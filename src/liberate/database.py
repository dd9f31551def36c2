"""SQLite files: how they are opened, how transactions end, and what their errors mean to a user."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

Row: TypeAlias = tuple[Any, ...]
"""A row as SQLite returns it: only the query knows its types."""

Value: TypeAlias = int | str | bytes | None

FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file may raise: SQLite quotes damaged text in its messages."""

_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space, then try again: what was acknowledged is safe",
    sqlite3.SQLITE_IOERR: "look at the disk and its free space, then try again: what was acknowledged is safe",
    sqlite3.SQLITE_READONLY: "the folder and the files in it must be writable for their owner",
    sqlite3.SQLITE_CANTOPEN: "the folder must be writable, even to read while an owner's files lie in it: or copy it",
    sqlite3.SQLITE_BUSY: "another program holds the file: only `liberate` should write it",
}


def connect(path: Path, *, mode: str = "rwc", wait_s: float = 5.0, is_shared: bool = False) -> sqlite3.Connection:
    """Open a SQLite file; transactions are begun and committed by hand.

    Args:
        path: The file.
        mode: `ro`, `rw` or `rwc`, as in SQLite's URI.
        wait_s: How long a statement waits for another process's transaction.
        is_shared: Whether any thread may use the connection, one at a time.
    """
    unchanging = "&immutable=1" if mode == "ro" and _is_on_read_only_media(path) else ""
    uri = f"{path.absolute().as_uri()}?mode={mode}{unchanging}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=wait_s, check_same_thread=not is_shared)


def _is_on_read_only_media(path: Path) -> bool:
    """Whether nobody can be writing: then SQLite needs no files beside this one, unless some were left there."""
    log = path.with_name(f"{path.name}-wal")
    return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY) and not (log.exists() and log.stat().st_size)


def advice(error: Exception, otherwise: str) -> str:
    """Return what to try after an error of SQLite, or `otherwise` if the file itself may be damaged."""
    return _ADVICE.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF, otherwise)


class SqliteStore:
    """Tables in one SQLite file that only its owner may read. Every statement or transaction is durable on return.

    Deleted rows are overwritten with zeros. An error of SQLite becomes an `OSError`, never a `LiberateError`: a full
    disk must not be taken for the refusal of an answer or a request.

    Args:
        path: The file; it and its folder are made if absent.
        schema: Script that creates the tables that are missing.
        wait_s: How long a statement waits for another process's transaction.
        is_shared: Whether several threads use the store, one at a time.

    Raises:
        OSError: The file cannot be used.
    """

    def __init__(self, path: Path, schema: str, *, wait_s: float = 5.0, is_shared: bool = False) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._path = path

        # A file that turns out to be damaged is released as it is left.
        with self._translated(), ExitStack() as undo:
            self._db = undo.enter_context(closing(connect(path, wait_s=wait_s, is_shared=is_shared)))
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.executescript(schema)
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def _execute(self, statement: str, values: Sequence[Value] = ()) -> sqlite3.Cursor:
        with self._translated():
            return self._db.execute(statement, values)

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        with self._translated():
            self._db.executemany(statement, rows)

    def _stream(self, query: str, values: Sequence[Value] = ()) -> Iterator[Row]:
        """Yield the rows of a query one at a time."""
        with self._translated(), closing(self._db.execute(query, values)) as rows:
            yield from rows

    def _rows(self, query: str, values: Sequence[Value] = ()) -> list[Row]:
        return list(self._stream(query, values))

    def _row(self, query: str, values: Sequence[Value] = ()) -> Row | None:
        return next(iter(self._rows(query, values)), None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make the statements of a block take effect together, durably, or not at all."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise

    def _empty_log(self) -> None:
        """Have nothing of what was deleted left in the write-ahead log."""
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what SQLite cannot do as an OSError that names the file."""
        try:
            yield
        except FAILURES as error:
            hint = advice(error, "restore the file from a backup if it is damaged")
            raise OSError(errno.EIO, f"{error} ({hint})", str(self._path)) from error

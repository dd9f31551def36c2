"""Rows of people's devices on disk: each is sealed with its device's key, and opens in its own place only.

`devices.sqlite` holds the rows, `subjects.keys` the keys, one after the other. A key of zeros is what is left of a
person who was erased.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from liberate.crypto.sealing import seal
from liberate.errors import FederationError
from liberate.randomness import SECRET_BYTES

NO_KEY = bytes(SECRET_BYTES)
"""Stands where the key of a person was who was erased."""

_PATIENCE_S = 60.0
"""A command that puts a request waits so long for a training that writes."""


class SealedRows:
    """An open store; one transaction per batch, durable on return.

    Args:
        folder: Holds `devices.sqlite` and `subjects.keys`.
        schema: Makes the tables that are not there.
    """

    def __init__(self, folder: Path, schema: str) -> None:
        self._folder = folder
        self._keys = (folder / "subjects.keys").read_bytes()
        self._db = sqlite3.connect(folder / "devices.sqlite", isolation_level=None, timeout=_PATIENCE_S)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def _advance(self, slot: int, seq: int) -> None:
        self._db.execute("UPDATE device SET last_seq = max(last_seq, ?) WHERE slot = ?", (seq, slot))

    def _key(self, slot: int) -> bytes:
        return self._keys[slot * SECRET_BYTES : (slot + 1) * SECRET_BYTES]

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.execute("COMMIT" if error is None else "ROLLBACK")


def context(table: str, *index: int | str) -> bytes:
    """Name a row, so that it opens in its own place only."""
    return f"{table}:{':'.join(map(str, index))}".encode()


def seal_row(key: bytes, table: str, slot: int, row: msgspec.Struct, *index: int | str) -> bytes:
    """Seal a row with the key of its device.

    Raises:
        FederationError: The device was erased.
    """
    if key == NO_KEY:
        raise FederationError(f"device {slot} was erased: nothing is kept on it any more")
    return seal(key, msgspec.msgpack.encode(row), context(table, slot, *index))

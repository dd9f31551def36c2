"""Rows of participants' devices on disk: each is sealed with its device's key, and opens in its own place only.

`devices.sqlite` holds the rows, `subjects.keys` the keys of the devices, in the order of their slots.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from liberate.crypto.sealing import open_sealed, seal
from liberate.database import SqliteStore
from liberate.errors import FederationError
from liberate.federation.store.erasable_keys import ErasableKeys

DATABASE_FILE = "devices.sqlite"
KEY_FILE = "subjects.keys"

_LONGEST_WAIT_S = 60.0
"""A command that queues a request waits this long for a training that writes."""


class SealedRows(SqliteStore):
    """An open device store: the part that seals and opens rows.

    Args:
        folder: Holds `devices.sqlite` and `subjects.keys`.
        schema: Script that creates the tables that are missing.
    """

    def __init__(self, folder: Path, schema: str) -> None:
        self._folder = folder
        self._keys = ErasableKeys(folder / KEY_FILE)
        super().__init__(folder / DATABASE_FILE, schema, wait_s=_LONGEST_WAIT_S)

    def _advance(self, slot: int, seq: int) -> None:
        """Note that a device has signed with a sequence number: nothing else is ever signed with it."""
        self._execute("UPDATE device SET last_seq = max(last_seq, ?) WHERE slot = ?", (seq, slot))

    def _seal(self, table: str, slot: int, row: msgspec.Struct, *place: int | str) -> bytes:
        """Seal a row for its device and its place in a table.

        Raises:
            FederationError: The device was erased.
        """
        return seal_row(self._keys, table, slot, row, *place)

    def _unseal(self, table: str, slot: int, sealed: bytes, *place: int | str) -> bytes:
        """Return the encoded row.

        Raises:
            SealBroken: The device was erased, or the row is from another device or place.
        """
        return open_sealed(self._keys[slot], sealed, _context(table, slot, *place))


def seal_row(keys: ErasableKeys, table: str, slot: int, row: msgspec.Struct, *place: int | str) -> bytes:
    """Seal a row for a device and its place in a table.

    Raises:
        FederationError: The device was erased.
    """
    if keys.is_erased(slot):
        raise FederationError(f"device {slot} was erased: nothing can be stored on it any more")
    return seal(keys[slot], msgspec.msgpack.encode(row), _context(table, slot, *place))


def _context(table: str, *place: int | str) -> bytes:
    return f"{table}:{':'.join(map(str, place))}".encode()

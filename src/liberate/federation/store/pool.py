"""The copies that a coordinator has received for its pool, each sender's sealed under a key of their own.

`copies.sqlite` holds the rows, `senders.keys` one 32-byte key per sender in fixed records.
To erase a sender, the key is overwritten in place: then nothing here opens the copies any more.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from liberate.crypto.sealing import open_sealed, seal
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest
from liberate.randomness import SECRET_BYTES

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sender (number INTEGER PRIMARY KEY, key_index INTEGER NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS copy (
    share BLOB PRIMARY KEY,
    sender INTEGER NOT NULL REFERENCES sender,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""
_NO_KEY = bytes(SECRET_BYTES)


class PoolStore:
    """The store of one coordinator, durable on return.

    Args:
        folder: Holds `copies.sqlite` and `senders.keys`; made if absent, readable by the owner only.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keys_path = folder / "senders.keys"
        for path in (self._keys_path, folder / "copies.sqlite"):
            path.touch(mode=0o600)
        self._db = sqlite3.connect(folder / "copies.sqlite", isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> PoolStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def put(self, copies: Sequence[tuple[Digest, ReceivedCopy]]) -> None:
        """Keep copies by the leaf hash of their share; all of them or none."""
        keys = self._keys_for([copy.sender for _, copy in copies])
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO copy (share, sender, sealed) VALUES (?, ?, ?)",
                [
                    (share, copy.sender, seal(keys[copy.sender], msgspec.msgpack.encode(copy), b"pool:" + share))
                    for share, copy in copies
                ],
            )

    def copies(self, shares: Sequence[Digest]) -> Iterator[ReceivedCopy]:
        """Give the copies of shares, in their order.

        Raises:
            KeyError: One of them is not here, or its sender was forgotten.
        """
        keys = self._keys()
        for share in shares:
            row = self._db.execute(
                "SELECT key_index, sealed FROM copy JOIN sender ON sender = number WHERE share = ?", (share,)
            ).fetchone()
            if row is None or keys[row[0]] == _NO_KEY:
                raise KeyError(share)
            yield msgspec.msgpack.decode(open_sealed(keys[row[0]], row[1], b"pool:" + share), type=ReceivedCopy)

    def shares(self) -> frozenset[Digest]:
        """Give the leaf hashes of the shares whose copies are here."""
        keys = self._keys()
        rows = self._db.execute("SELECT share, key_index FROM copy JOIN sender ON sender = number")
        return frozenset(Digest(share) for share, record in rows if keys[record] != _NO_KEY)

    def erase_sender(self, sender: int) -> bool:
        """Destroy somebody's key in place, then the copies; again, nothing more happens.

        Returns:
            Whether there were copies of this person.
        """
        row = self._db.execute("SELECT key_index FROM sender WHERE number = ?", (sender,)).fetchone()
        if row is None:
            return False
        with self._keys_path.open("r+b") as file:
            file.seek(row[0] * SECRET_BYTES)
            file.write(_NO_KEY)
            file.flush()
            os.fsync(file.fileno())
        self._db.execute("DELETE FROM copy WHERE sender = ?", (sender,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def _keys(self) -> list[bytes]:
        data = self._keys_path.read_bytes()
        return [data[begin : begin + SECRET_BYTES] for begin in range(0, len(data), SECRET_BYTES)]

    def _keys_for(self, senders: Sequence[int]) -> dict[int, bytes]:
        """Give each sender's key; new ones are durable before anything is sealed with them."""
        records: dict[int, int] = dict(self._db.execute("SELECT number, key_index FROM sender"))
        new = [sender for sender in dict.fromkeys(senders) if sender not in records]
        fresh = dict(zip(new, range(len(records), len(records) + len(new)), strict=True))
        with self._keys_path.open("r+b") as file:
            # records beyond the last sender are what a crash has left here
            file.seek(len(records) * SECRET_BYTES)
            file.write(os.urandom(SECRET_BYTES * len(new)))
            file.flush()
            os.fsync(file.fileno())
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO sender (number, key_index) VALUES (?, ?)", fresh.items())
        keys = self._keys()
        return {sender: keys[(records | fresh)[sender]] for sender in senders}

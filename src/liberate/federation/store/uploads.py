"""Uploads that a coordinator keeps after a round, with what opens their commitments, so that sums can be taken again.

They are what participants sent, in full: in mode `plain` that is their ratings to whoever reads them. One SQLite file
of a run, readable by its owner only; what is forgotten is overwritten with zeros.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from liberate.federation.store.unmasking_shares import UnmaskingShares

_FILE = "uploads.sqlite"
_LONGEST_WAIT_S = 600
"""A reader holds a training up for as long as it reads a round."""

_SCHEMA = """
PRAGMA page_size = 32768;
BEGIN;
CREATE TABLE IF NOT EXISTS upload (
    position INTEGER PRIMARY KEY,
    round INTEGER NOT NULL,
    participant INTEGER NOT NULL,
    salt BLOB NOT NULL,
    upload BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS upload_round ON upload (round);
CREATE INDEX IF NOT EXISTS upload_participant ON upload (participant);
CREATE TABLE IF NOT EXISTS unmasking (
    round INTEGER NOT NULL,
    participant INTEGER NOT NULL,
    shares BLOB NOT NULL,
    PRIMARY KEY (round, participant)
) STRICT, WITHOUT ROWID;
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """An upload as it arrived.

    Attributes:
        position: Where its update stands on the ledger.
        number: Who sent it.
        salt: Opens the update's commitment, with the upload.
        upload: Its bytes, as `messages.decode_upload` reads them.
    """

    position: int
    number: int
    salt: bytes
    upload: bytes


class UploadStore:
    """The uploads that a run keeps.

    Args:
        folder: Made if absent, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / _FILE, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(folder / _FILE, isolation_level=None, timeout=_LONGEST_WAIT_S)
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(_SCHEMA)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds kept uploads."""
        return (folder / _FILE).exists()

    def __enter__(self) -> UploadStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def put(self, round_number: int, uploads: Iterable[StoredUpload]) -> None:
        """Keep uploads to a round; durable on return. The same ones again change nothing."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO upload (position, round, participant, salt, upload) VALUES (?, ?, ?, ?, ?)",
                ((each.position, round_number, each.number, each.salt, each.upload) for each in uploads),
            )

    def put_unmasking(self, round_number: int, unmasking: Mapping[int, UnmaskingShares]) -> None:
        """Keep what took the masks out of a round's sum, by whose masks they were."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO unmasking (round, participant, shares) VALUES (?, ?, ?)",
                ((round_number, number, msgspec.msgpack.encode(each)) for number, each in unmasking.items()),
            )

    def of_round(self, round_number: int) -> Iterator[StoredUpload]:
        """Give the uploads to a round in the order of the ledger, one at a time."""
        query = "SELECT position, participant, salt, upload FROM upload WHERE round = ? ORDER BY position"
        with closing(self._db.execute(query, (round_number,))) as rows:
            for row in rows:
                yield StoredUpload(*row)

    def count(self, round_number: int) -> int:
        """Give how many uploads to a round there are."""
        (found,) = self._db.execute("SELECT count(*) FROM upload WHERE round = ?", (round_number,)).fetchone()
        return int(found)

    def unmasking(self, round_number: int) -> dict[int, UnmaskingShares]:
        """Give what took the masks out of a round's sum; nothing of a round without masks."""
        rows = self._db.execute("SELECT participant, shares FROM unmasking WHERE round = ?", (round_number,))
        return {number: msgspec.msgpack.decode(shares, type=UnmaskingShares) for number, shares in rows}

    def erase_participant(self, number: int) -> int:
        """Overwrite all that one person sent, in all rounds; give how many uploads that were."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            found = self._db.execute("DELETE FROM upload WHERE participant = ?", (number,)).rowcount
            self._db.execute("DELETE FROM unmasking WHERE participant = ?", (number,))
        return found

    def drop_round(self, round_number: int) -> None:
        """Overwrite what a round without a model brought in."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM upload WHERE round = ?", (round_number,))
            self._db.execute("DELETE FROM unmasking WHERE round = ?", (round_number,))

"""Uploads that a coordinator stores after a round, with what opens their commitments, so that sums can be repeated.

They are what participants sent, in full: in mode `plain` that is their ratings to whoever reads them. One SQLite file
of a run, readable by its owner only; what is deleted is overwritten with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from liberate.database import SqliteStore
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
        position: Position of its update in the ledger.
        number: The participant who sent it.
        salt: Opens the update's commitment, with the upload.
        upload: Its bytes, as `round_messages.decode_upload` reads them.
    """

    position: int
    number: int
    salt: bytes
    upload: bytes


class UploadStore(SqliteStore):
    """The uploads that a run stores.

    Args:
        folder: Made if absent, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / _FILE, _SCHEMA, wait_s=_LONGEST_WAIT_S)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds stored uploads."""
        return (folder / _FILE).exists()

    def put(self, round_number: int, uploads: Iterable[StoredUpload]) -> None:
        """Store uploads to a round. Storing the same ones again changes nothing."""
        with self._transaction():
            self._execute_many(
                "INSERT OR REPLACE INTO upload (position, round, participant, salt, upload) VALUES (?, ?, ?, ?, ?)",
                ((upload.position, round_number, upload.number, upload.salt, upload.upload) for upload in uploads),
            )

    def put_unmasking(self, round_number: int, unmasking: Mapping[int, UnmaskingShares]) -> None:
        """Store what removed the masks from a round's sum, by the participant whose masks they were."""
        with self._transaction():
            self._execute_many(
                "INSERT OR REPLACE INTO unmasking (round, participant, shares) VALUES (?, ?, ?)",
                ((round_number, number, msgspec.msgpack.encode(shares)) for number, shares in unmasking.items()),
            )

    def of_round(self, round_number: int) -> Iterator[StoredUpload]:
        """Yield the uploads to a round in the order of the ledger, one at a time."""
        query = "SELECT position, participant, salt, upload FROM upload WHERE round = ? ORDER BY position"
        for row in self._stream(query, (round_number,)):
            yield StoredUpload(*row)

    def count(self, round_number: int) -> int:
        """Return how many uploads to a round there are."""
        ((count,),) = self._rows("SELECT count(*) FROM upload WHERE round = ?", (round_number,))
        return int(count)

    def unmasking(self, round_number: int) -> dict[int, UnmaskingShares]:
        """Return what removed the masks from a round's sum; empty for a round without masks."""
        rows = self._rows("SELECT participant, shares FROM unmasking WHERE round = ?", (round_number,))
        return {number: msgspec.msgpack.decode(shares, type=UnmaskingShares) for number, shares in rows}

    def erase_participant(self, number: int) -> int:
        """Overwrite all that a participant sent, in all rounds, and return how many uploads that were."""
        return self._delete("participant", number)

    def drop_round(self, round_number: int) -> None:
        """Overwrite what a round without a model brought in."""
        self._delete("round", round_number)

    def _delete(self, column: str, value: int) -> int:
        with self._transaction():
            self._execute(f"DELETE FROM unmasking WHERE {column} = ?", (value,))
            return self._execute(f"DELETE FROM upload WHERE {column} = ?", (value,)).rowcount

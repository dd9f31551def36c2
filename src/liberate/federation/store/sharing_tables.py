"""What devices keep of sharing: requests that wait, acts under way, copies given and received."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from liberate.crypto.sealing import open_sealed
from liberate.federation.store.requests import DataSubjectRequest, QueuedRequest
from liberate.federation.store.sealed_rows import NO_KEY, SealedRows, context, seal_row
from liberate.federation.store.sharing_rows import (
    BaseCopy,
    GivenConsent,
    GivenCopy,
    PendingEntry,
    ReceivedCopy,
    SharingRow,
)
from liberate.identifiers import Digest

SHARING_SCHEMA = """
CREATE TABLE IF NOT EXISTS pending_entry (
    slot INTEGER NOT NULL REFERENCES device,
    seq INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sharing_row (
    slot INTEGER NOT NULL REFERENCES device,
    digest BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS copy_quota (
    slot INTEGER PRIMARY KEY REFERENCES device,
    copies INTEGER NOT NULL CHECK (copies >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slot INTEGER NOT NULL REFERENCES device,
    seq INTEGER NOT NULL DEFAULT 0,
    position INTEGER,
    refusal TEXT,
    sealed BLOB NOT NULL
) STRICT;
"""
"""Tables beside `device`; each row belongs to one."""

_KeptT = TypeVar("_KeptT", GivenConsent, BaseCopy, GivenCopy, ReceivedCopy)
_kept_decoder: msgspec.msgpack.Decoder[SharingRow] = msgspec.msgpack.Decoder(SharingRow)


class SharingRows(SealedRows):
    """The part of a store that is about sharing."""

    def put_request(self, slot: int, request: DataSubjectRequest) -> int:
        """Keep what a person wants to be done, and forget the person's requests that were dealt with; give its id."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM request WHERE slot = ? AND NOT (position IS NULL AND refusal IS NULL)", (slot,)
            )
            sealed = seal_row(self._key(slot), "request", slot, request)
            return self._db.execute("INSERT INTO request (slot, sealed) VALUES (?, ?)", (slot, sealed)).lastrowid or 0

    def requests(self) -> list[QueuedRequest]:
        """Give the requests that were not dealt with, in the order they were put."""
        query = "SELECT id, slot, seq, sealed FROM request WHERE position IS NULL AND refusal IS NULL ORDER BY id"
        return [
            QueuedRequest(
                id=id,
                slot=slot,
                seq=seq,
                request=msgspec.msgpack.decode(
                    open_sealed(self._key(slot), sealed, context("request", slot)), type=DataSubjectRequest
                ),
            )
            for id, slot, seq, sealed in self._db.execute(query).fetchall()
            if self._key(slot) != NO_KEY
        ]

    def reserve_sequence(self, id: int, seq: int) -> None:
        """Store the sequence number that is reserved for a request's entry; nothing else is signed with it."""
        with self._transaction():
            self._db.execute("UPDATE request SET seq = ? WHERE id = ?", (seq, id))
            (slot,) = self._db.execute("SELECT slot FROM request WHERE id = ?", (id,)).fetchone()
            self._advance(slot, seq)

    def close_request(self, id: int, outcome: int | str) -> None:
        """Note where the entry of a request stands, or why there is none."""
        column = "position" if isinstance(outcome, int) else "refusal"
        self._db.execute(f"UPDATE request SET {column} = ? WHERE id = ?", (outcome, id))

    def request_outcome(self, id: int) -> int | str | None:
        """Give where the entry of a request stands, or why there is none; None while it waits, and once it is gone."""
        row = self._db.execute("SELECT ifnull(position, refusal) FROM request WHERE id = ?", (id,)).fetchone()
        found: int | str | None = None if row is None else row[0]
        return found

    def pending_entries(self) -> list[tuple[int, int, PendingEntry]]:
        """Give the acts under way: slot, sequence number, act; in the order in which each person did them."""
        rows = self._db.execute("SELECT slot, seq, sealed FROM pending_entry ORDER BY slot, seq").fetchall()
        return [
            (
                slot,
                seq,
                msgspec.msgpack.decode(
                    open_sealed(self._key(slot), sealed, context("pending_entry", slot, seq)), type=PendingEntry
                ),
            )
            for slot, seq, sealed in rows
            if self._key(slot) != NO_KEY
        ]

    def put_pending_entries(
        self, acts: Sequence[tuple[int, int, PendingEntry]], bases: Sequence[tuple[int, BaseCopy]] = ()
    ) -> None:
        """Keep acts before anybody sees them, all of them or none.

        Args:
            acts: Slot, sequence number and act of each.
            bases: Base copies that they are about, each with its slot.
        """
        with self._transaction():
            self._db.executemany(
                "INSERT INTO pending_entry (slot, seq, sealed) VALUES (?, ?, ?)",
                [(slot, seq, seal_row(self._key(slot), "pending_entry", slot, act, seq)) for slot, seq, act in acts],
            )
            for slot, base in bases:
                self._keep(slot, base.commitment, base)
            for slot, seq, _ in acts:
                self._advance(slot, seq)

    def settle_pending_entries(
        self, standing: Sequence[tuple[int, int, PendingEntry]], refused: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Put acts that stand on the ledger into force, and forget those that it has refused.

        Args:
            standing: Slot, sequence number and act of each.
            refused: Slot and sequence number of each.
        """
        with self._transaction():
            for slot, _, act in standing:
                if act.row is not None:
                    self._keep(slot, act.digest, act.row)
            ended = [*((slot, seq) for slot, seq, _ in standing), *refused]
            self._db.executemany("DELETE FROM pending_entry WHERE slot = ? AND seq = ?", ended)

    def sharing_row(self, kind: type[_KeptT], slot: int, key: bytes) -> _KeptT | None:
        """Give what a device keeps of sharing by a digest, if it is of that kind."""
        row = self._db.execute("SELECT sealed FROM sharing_row WHERE slot = ? AND digest = ?", (slot, key)).fetchone()
        found = None if row is None else self._open_kept(slot, key, row[0])
        return found if isinstance(found, kind) else None

    def sharing_rows(self, kind: type[_KeptT], slot: int | None = None) -> Iterator[tuple[int, Digest, _KeptT]]:
        """Give slot, digest and row of all that devices, or one of them, keep of a kind."""
        which, whose = ("", ()) if slot is None else (" WHERE slot = ?", (slot,))
        query = f"SELECT slot, digest, sealed FROM sharing_row{which} ORDER BY slot, digest"
        rows = self._db.execute(query, whose).fetchall()
        for owner, key, sealed in rows:
            if self._key(owner) == NO_KEY:
                continue
            found = self._open_kept(owner, key, sealed)
            if isinstance(found, kind):
                yield owner, Digest(key), found

    def set_copy_quota(self, slot: int, most: int | None) -> None:
        """Set how many copies of others a device takes, >= 0; None: as many as there are."""
        with self._transaction():
            self._db.execute("DELETE FROM copy_quota WHERE slot = ?", (slot,))
            if most is not None:
                self._db.execute("INSERT INTO copy_quota (slot, copies) VALUES (?, ?)", (slot, most))

    def copy_quota(self, slot: int) -> int | None:
        """Give how many copies of others a device takes, those it holds included; None: as many as there are."""
        row = self._db.execute("SELECT copies FROM copy_quota WHERE slot = ?", (slot,)).fetchone()
        return None if row is None else int(row[0])

    def delete_sharing_rows(self, keys: Sequence[tuple[int, bytes]]) -> None:
        """Forget what devices keep by digests, each with its slot: it is overwritten on return."""
        with self._transaction():
            self._db.executemany("DELETE FROM sharing_row WHERE slot = ? AND digest = ?", keys)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _keep(self, slot: int, key: bytes, row: SharingRow) -> None:
        sealed = seal_row(self._key(slot), "sharing_row", slot, row, key.hex())
        statement = "INSERT OR REPLACE INTO sharing_row (slot, digest, sealed) VALUES (?, ?, ?)"
        self._db.execute(statement, (slot, key, sealed))

    def _open_kept(self, slot: int, key: bytes, sealed: bytes) -> SharingRow:
        return _kept_decoder.decode(open_sealed(self._key(slot), sealed, context("sharing_row", slot, key.hex())))

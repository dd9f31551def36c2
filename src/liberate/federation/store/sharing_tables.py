"""What devices store about sharing: queued requests, entries to be appended, copies given and received."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from liberate.federation.store.act_tables import ActTables, RecordedAct
from liberate.federation.store.requests import DataSubjectRequest, QueuedRequest
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
    copies INTEGER CHECK (copies >= 0)
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

_RowT = TypeVar("_RowT", GivenConsent, BaseCopy, GivenCopy, ReceivedCopy)
_row_decoder: msgspec.msgpack.Decoder[SharingRow] = msgspec.msgpack.Decoder(SharingRow)


class SharingTables(ActTables):
    """The part of a device store that is about sharing."""

    def put_request(self, slot: int, request: DataSubjectRequest) -> int:
        """Queue a participant's request, delete the participant's requests that are closed, and return its id."""
        sealed = self._seal("request", slot, request)
        with self._transaction():
            self._execute("DELETE FROM request WHERE slot = ? AND NOT (position IS NULL AND refusal IS NULL)", (slot,))
            return self._execute("INSERT INTO request (slot, sealed) VALUES (?, ?)", (slot, sealed)).lastrowid or 0

    def requests(self) -> list[QueuedRequest]:
        """Return the open requests in the order in which they were queued."""
        query = "SELECT id, slot, seq, sealed FROM request WHERE position IS NULL AND refusal IS NULL ORDER BY id"
        return [
            QueuedRequest(
                id=id,
                slot=slot,
                seq=seq,
                request=msgspec.msgpack.decode(self._unseal("request", slot, sealed), type=DataSubjectRequest),
            )
            for id, slot, seq, sealed in self._rows(query)
            if not self._keys.is_erased(slot)
        ]

    def reserve_sequence(self, id: int, seq: int) -> None:
        """Reserve a sequence number for the entry of a request; nothing else is signed with it."""
        with self._transaction():
            ((slot,),) = self._rows("UPDATE request SET seq = ? WHERE id = ? RETURNING slot", (seq, id))
            self._advance(slot, seq)

    def close_request(self, id: int, outcome: int | str) -> None:
        """Store the position of a request's entry, or why there is none."""
        column = "position" if isinstance(outcome, int) else "refusal"
        self._execute(f"UPDATE request SET {column} = ? WHERE id = ?", (outcome, id))

    def drop_request(self, id: int) -> None:
        """Delete a request that is open and for which no sequence number is reserved."""
        self._execute("DELETE FROM request WHERE id = ? AND seq = 0 AND position IS NULL AND refusal IS NULL", (id,))

    def request_outcome(self, id: int) -> int | str | None:
        """Return the position of a request's entry, or why there is none; None if it is open, or deleted."""
        row = self._row("SELECT ifnull(position, refusal) FROM request WHERE id = ?", (id,))
        return None if row is None else row[0]

    def pending_entries(self) -> list[tuple[int, int, PendingEntry]]:
        """Return slot, sequence number and entry of all that is not known to be in the log, in the order of signing."""
        return [
            (slot, seq, msgspec.msgpack.decode(self._unseal("pending_entry", slot, sealed, seq), type=PendingEntry))
            for slot, seq, sealed in self._rows("SELECT slot, seq, sealed FROM pending_entry ORDER BY slot, seq")
            if not self._keys.is_erased(slot)
        ]

    def put_pending_entries(
        self,
        entries: Sequence[tuple[int, int, PendingEntry]],
        bases: Sequence[tuple[int, BaseCopy]] = (),
        *,
        withdrawn: Sequence[int] = (),
    ) -> None:
        """Store entries before anybody sees them, all of them or none.

        Args:
            entries: Slot, sequence number and entry of each.
            bases: Base copies that they are about, each with its slot.
            withdrawn: Slots of the devices that answer no round any more, whatever becomes of their entries.
        """
        with self._transaction():
            self._execute_many(
                "INSERT INTO pending_entry (slot, seq, sealed) VALUES (?, ?, ?)",
                [(slot, seq, self._seal("pending_entry", slot, entry, seq)) for slot, seq, entry in entries],
            )
            for slot, base in bases:
                self._put_sharing_row(slot, base.commitment, base)
            for slot, seq, _ in entries:
                self._advance(slot, seq)
            self._stop_answering(withdrawn)

    def settle_pending_entries(
        self,
        recorded: Sequence[tuple[int, int, PendingEntry]],
        refused: Sequence[tuple[int, int]] = (),
        *,
        acts: Sequence[tuple[int, RecordedAct]] = (),
        note: str | None = None,
    ) -> None:
        """Put entries that are in the log into force, and delete those that it has refused.

        Args:
            recorded: Slot, sequence number and entry of each.
            refused: Slot and sequence number of each.
            acts: Slot of each that is recorded, and where the log proves it.
            note: The checkpoint that covers them, which continues the one accepted before; None: nothing is recorded.
        """
        with self._transaction():
            for slot, _, entry in recorded:
                if entry.row is not None:
                    self._put_sharing_row(slot, entry.digest, entry.row)

            settled = [*((slot, seq) for slot, seq, _ in recorded), *refused]
            self._execute_many("DELETE FROM pending_entry WHERE slot = ? AND seq = ?", settled)
            self._put_acts(acts, note)

    def sharing_row(self, kind: type[_RowT], slot: int, digest: bytes) -> _RowT | None:
        """Return what a device stores about sharing under a digest, or None if it is nothing of that kind."""
        row = self._row("SELECT sealed FROM sharing_row WHERE slot = ? AND digest = ?", (slot, digest))
        decoded = None if row is None else self._decode_row(slot, digest, row[0])
        return decoded if isinstance(decoded, kind) else None

    def sharing_rows(self, kind: type[_RowT], slot: int | None = None) -> Iterator[tuple[int, Digest, _RowT]]:
        """Yield slot, digest and row of all that devices, or one of them, store of a kind."""
        condition, values = ("", ()) if slot is None else ("WHERE slot = ?", (slot,))
        query = f"SELECT slot, digest, sealed FROM sharing_row {condition} ORDER BY slot, digest"
        for owner, digest, sealed in self._rows(query, values):
            if self._keys.is_erased(owner):
                continue
            row = self._decode_row(owner, digest, sealed)
            if isinstance(row, kind):
                yield owner, Digest(digest), row

    def set_copy_quota(self, slot: int, copies: int | None) -> None:
        """Set how many copies of other participants' ratings a device takes, >= 0; None: without limit."""
        self._execute("INSERT OR REPLACE INTO copy_quota (slot, copies) VALUES (?, ?)", (slot, copies))

    def copy_quota(self, slot: int) -> int | None:
        """Return how many copies a device takes, those that it has included; None: without limit."""
        row = self._row("SELECT copies FROM copy_quota WHERE slot = ?", (slot,))
        return None if row is None else row[0]

    def delete_sharing_rows(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Delete what devices store under digests, each with its slot: it is overwritten on return."""
        with self._transaction():
            self._execute_many("DELETE FROM sharing_row WHERE slot = ? AND digest = ?", rows)
        self._empty_log()

    def _put_sharing_row(self, slot: int, digest: bytes, row: SharingRow) -> None:
        sealed = self._seal("sharing_row", slot, row, digest.hex())
        statement = "INSERT OR REPLACE INTO sharing_row (slot, digest, sealed) VALUES (?, ?, ?)"
        self._execute(statement, (slot, digest, sealed))

    def _decode_row(self, slot: int, digest: bytes, sealed: bytes) -> SharingRow:
        return _row_decoder.decode(self._unseal("sharing_row", slot, sealed, digest.hex()))

"""What devices know of their participants' acts that are in the log: each with the proof that the log accepted it.

Acts are what a participant decides: consents, copies, receipts, withdrawals, erasure, changes of key. What is stored of
one is on the ledger anyway, so it is not sealed, and outlives the participant's erasure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from liberate.federation.store.sealed_rows import SealedRows
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry

ACT_SCHEMA = """
CREATE TABLE IF NOT EXISTS act (
    slot INTEGER NOT NULL REFERENCES device,
    position INTEGER NOT NULL,
    act BLOB NOT NULL,
    PRIMARY KEY (slot, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS withdrawn (slot INTEGER PRIMARY KEY REFERENCES device) STRICT;
CREATE TABLE IF NOT EXISTS checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), note TEXT NOT NULL) STRICT;
"""


class RecordedAct(msgspec.Struct, frozen=True, kw_only=True):
    """An act of a participant as the log has accepted it.

    Attributes:
        position: Position of its entry.
        data: The entry's bytes.
        proof: Inclusion of the entry in the checkpoint's tree.
        note: The checkpoint.
    """

    position: int
    data: bytes
    proof: tuple[bytes, ...]
    note: str

    @property
    def entry(self) -> Entry:
        """The entry."""
        return decode_entry(self.data)

    @property
    def path(self) -> tuple[Digest, ...]:
        """The inclusion proof, as digests."""
        return tuple(Digest(step) for step in self.proof)


class ActTables(SealedRows):
    """The part of a device store that is about acts, and about the newest checkpoint that its devices accepted."""

    @property
    def evidence_folder(self) -> Path:
        """Where proofs of a log's misbehaviour are written."""
        return self._folder / "evidence"

    def acts(self, begin: int = 0) -> list[tuple[int, RecordedAct]]:
        """Return slot and act of all acts at positions from `begin` on, in the order of their positions."""
        rows = self._rows("SELECT slot, act FROM act WHERE position >= ? ORDER BY position, slot", (begin,))
        return [(slot, msgspec.msgpack.decode(act, type=RecordedAct)) for slot, act in rows]

    def put_acts(self, acts: Sequence[tuple[int, RecordedAct]], *, note: str, withdrawn: Sequence[int] = ()) -> None:
        """Store acts that the log has accepted, and the checkpoint that covers them.

        Args:
            acts: Slot and act of each.
            note: A checkpoint that continues the one accepted before.
            withdrawn: Slots of the devices that answer no round any more.
        """
        with self._transaction():
            self._put_acts(acts, note)
            self._stop_answering(withdrawn)

    def checkpoint(self) -> str | None:
        """Return the largest checkpoint accepted so far."""
        row = self._row("SELECT note FROM checkpoint")
        return None if row is None else str(row[0])

    def _put_checkpoint(self, note: str) -> None:
        self._execute("INSERT OR REPLACE INTO checkpoint (id, note) VALUES (1, ?)", (note,))

    def _put_acts(self, acts: Sequence[tuple[int, RecordedAct]], note: str | None) -> None:
        self._execute_many(
            "INSERT OR IGNORE INTO act (slot, position, act) VALUES (?, ?, ?)",
            [(slot, act.position, msgspec.msgpack.encode(act)) for slot, act in acts],
        )
        if note is not None:
            self._put_checkpoint(note)

    def _stop_answering(self, slots: Sequence[int]) -> None:
        self._execute_many("INSERT OR IGNORE INTO withdrawn (slot) VALUES (?)", [(slot,) for slot in slots])

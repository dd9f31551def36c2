"""What devices store for a round: answers, the state of secure aggregation, and the checkpoint they accepted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from liberate.federation.store.act_tables import ActTables
from liberate.federation.store.device_rows import OutboxMessage, SecAggState
from liberate.ledger.evidence.split_view import evidence_same_size, keep_evidence

ROUND_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    slot INTEGER NOT NULL REFERENCES device,
    round INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, round)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secagg_state (
    slot INTEGER NOT NULL REFERENCES device,
    round INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, round)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_phases (
    slot INTEGER NOT NULL REFERENCES device,
    run INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (slot, run)
) STRICT, WITHOUT ROWID;
"""


class RoundTables(ActTables):
    """The part of a device store that is about rounds."""

    def outbox_message(self, slot: int, round_number: int) -> OutboxMessage | None:
        """Return a device's answer to a round, or None if it is not in the outbox."""
        data = self._round_row("outbox", slot, round_number)
        return None if data is None else msgspec.msgpack.decode(data, type=OutboxMessage)

    def put_answers(
        self,
        round_number: int,
        answers: Sequence[tuple[int, int, OutboxMessage]],
        *,
        epsilon_nano: int = 0,
        rho_nano: int = 0,
        note: str,
    ) -> None:
        """Put answers to a round into the outbox, delete those to earlier rounds, and store the checkpoint.

        Args:
            round_number: The round, > 0.
            answers: Slot, sequence number and answer of each device.
            epsilon_nano: What each answer spends from the epsilon account, in 1e-9, >= 0.
            rho_nano: What it spends from the rho account, likewise.
            note: The checkpoint under which the round entry was accepted.
        """
        with self._transaction():
            # A device answers a round once: a second, different answer would reveal more than was paid for.
            self._put_round_rows(
                "outbox", round_number, [(slot, message) for slot, _, message in answers], on_conflict="ABORT"
            )
            self._execute_many(
                "UPDATE device SET last_seq = ?, last_round = ?, epsilon_nano = epsilon_nano + ?,"
                " rho_nano = rho_nano + ? WHERE slot = ?",
                [(seq, round_number, epsilon_nano, rho_nano, slot) for slot, seq, _ in answers],
            )
            self._put_checkpoint(note)

    def secagg_state(self, slot: int, round_number: int) -> SecAggState | None:
        """Return how far a device is in a masked round, or None if it has not begun."""
        data = self._round_row("secagg_state", slot, round_number)
        return None if data is None else msgspec.msgpack.decode(data, type=SecAggState)

    def put_secagg_states(
        self, round_number: int, states: Sequence[tuple[int, SecAggState]], *, note: str | None = None
    ) -> None:
        """Store how far devices are in a masked round, and delete what they stored for earlier rounds.

        Args:
            round_number: The round, > 0.
            states: (slot, state) of each device.
            note: The checkpoint under which it was asked for, if that is a new one.
        """
        with self._transaction():
            self._put_round_rows("secagg_state", round_number, states, on_conflict="REPLACE")
            if note is not None:
                self._put_checkpoint(note)

    def begin_secagg(
        self, round_number: int, run: int, states: Sequence[tuple[int, SecAggState]], *, note: str
    ) -> None:
        """Store the first state of devices in a masked round, and count one more exchange of keys in the run.

        Args:
            round_number: The round, > 0.
            run: Its run.
            states: (slot, state) of each device that has not begun the round.
            note: The checkpoint under which the round entry was accepted.
        """
        with self._transaction():
            self._put_round_rows("secagg_state", round_number, states, on_conflict="ABORT")
            self._execute_many(
                "INSERT INTO key_phases (slot, run, count) VALUES (?, ?, 1)"
                " ON CONFLICT (slot, run) DO UPDATE SET count = count + 1",
                [(slot, run) for slot, _ in states],
            )
            self._put_checkpoint(note)

    def key_phases(self, slot: int, run: int) -> int:
        """Return in how many rounds of a run a device has exchanged keys, rounds that were aborted included."""
        row = self._row("SELECT count FROM key_phases WHERE slot = ? AND run = ?", (slot, run))
        return 0 if row is None else int(row[0])

    def end_secagg(self, round_number: int) -> None:
        """Delete what all devices stored for a masked round that is closed: nobody can undo its masks any more."""
        with self._transaction():
            self._execute("DELETE FROM secagg_state WHERE round <= ?", (round_number,))

    def keep_evidence(self, note: str) -> Path | None:
        """Write another checkpoint of the accepted one's size to a file, as proof that the log has signed both.

        Returns:
            The file; None if no checkpoint was accepted.
        """
        accepted = self.checkpoint()
        if accepted is None:
            return None
        return keep_evidence(self.evidence_folder, evidence_same_size(accepted, note))

    def _round_row(self, table: str, slot: int, round_number: int) -> bytes | None:
        row = self._row(f"SELECT sealed FROM {table} WHERE slot = ? AND round = ?", (slot, round_number))
        return None if row is None else self._unseal(table, slot, row[0], round_number)

    def _put_round_rows(
        self, table: str, round_number: int, rows: Sequence[tuple[int, msgspec.Struct]], *, on_conflict: str
    ) -> None:
        """Insert rows of a round, each with its slot, and delete all rows of earlier rounds."""
        self._execute(f"DELETE FROM {table} WHERE round < ?", (round_number,))
        self._execute_many(
            f"INSERT OR {on_conflict} INTO {table} (slot, round, sealed) VALUES (?, ?, ?)",
            [(slot, round_number, self._seal(table, slot, row, round_number)) for slot, row in rows],
        )

"""What lies on the devices of one host: keys, ratings, salts and the outbox, each person's rows sealed for that person.

`devices.sqlite` holds the rows; `subjects.keys` holds one 32-byte sealing key per device in fixed records. Whoever
keeps the first without the second keeps nothing readable. Both are readable by their owner only. A key of zeros is
what is left of a person who was erased.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from liberate.crypto.sealing import open_sealed
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError
from liberate.federation.store.device_rows import Device, DeviceData, OutboxMessage, PendingKeyChange, SecAggState
from liberate.federation.store.sealed_rows import NO_KEY, context, seal_row
from liberate.federation.store.sharing_tables import SHARING_SCHEMA, SharingRows
from liberate.ledger.evidence.split_view import evidence_same_size, keep_evidence
from liberate.randomness import SECRET_BYTES

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS device (
    slot INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    number INTEGER UNIQUE,
    last_seq INTEGER NOT NULL DEFAULT 0,
    last_round INTEGER NOT NULL DEFAULT 0,
    epsilon_nano INTEGER NOT NULL DEFAULT 0,
    rho_nano INTEGER NOT NULL DEFAULT 0,
    sealed BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
    slot INTEGER NOT NULL REFERENCES device,
    round INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, round)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS secagg_state (
    slot INTEGER NOT NULL REFERENCES device,
    round INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, round)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending_key (slot INTEGER PRIMARY KEY REFERENCES device, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS revoked (slot INTEGER PRIMARY KEY REFERENCES device) STRICT;
CREATE TABLE IF NOT EXISTS agreement (
    slot INTEGER PRIMARY KEY REFERENCES device,
    run INTEGER NOT NULL,
    epsilon_nano INTEGER NOT NULL,
    rho_nano INTEGER NOT NULL
) STRICT;
{SHARING_SCHEMA}"""

_SELECT_DEVICES = """
SELECT device.slot, user_id, number, last_seq, last_round, device.epsilon_nano, device.rho_nano,
    ifnull(run, 0), ifnull(agreement.epsilon_nano, 0), ifnull(agreement.rho_nano, 0),
    device.slot IN (SELECT slot FROM revoked)
FROM device LEFT JOIN agreement USING (slot)"""

_OWNED = (
    "outbox",
    "secagg_state",
    "pending_key",
    "revoked",
    "agreement",
    "pending_entry",
    "sharing_row",
    "copy_quota",
    "request",
)
"""Tables whose rows belong to a person, beside `device`."""


class DeviceStore(SharingRows):
    """The store of one host; one transaction per batch, durable on return.

    Args:
        folder: Holds `devices.sqlite` and `subjects.keys`.

    Raises:
        FederationError: The folder holds no device store.
    """

    def __init__(self, folder: Path) -> None:
        if not self.exists(folder):
            raise FederationError(f"no devices in {folder}", hint="give the folder of a run")
        super().__init__(folder, _SCHEMA)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds a device store."""
        return (folder / "devices.sqlite").exists()

    @classmethod
    def create(cls, folder: Path, holdings: Iterable[tuple[str, DeviceData]]) -> DeviceStore:
        """Set up a store; it exists whole or not at all.

        Args:
            folder: Made if absent, readable by the owner only.
            holdings: (user id, holding) of each device, in the order of their slots.

        Raises:
            FederationError: The folder holds a store already.
        """
        path = folder / "devices.sqlite"
        if cls.exists(folder):
            raise FederationError(f"{folder} holds devices already")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = folder / "devices.sqlite.draft"
        draft.unlink(missing_ok=True)
        keys = bytearray()
        draft.touch(mode=0o600)
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.executescript(_SCHEMA)
            db.execute("BEGIN")
            for slot, (user_id, holding) in enumerate(holdings):
                key = os.urandom(SECRET_BYTES)
                keys += key
                sealed = seal_row(key, "device", slot, holding)
                db.execute("INSERT INTO device (slot, user_id, sealed) VALUES (?, ?, ?)", (slot, user_id, sealed))
            db.execute("COMMIT")
        descriptor = os.open(folder / "subjects.keys", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(keys)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        return cls(folder)

    def devices(self) -> list[Device]:
        """List all devices in the order of their slots."""
        rows = self._db.execute(f"{_SELECT_DEVICES} ORDER BY device.slot")
        return [self._device(row) for row in rows]

    def find(self, *, user_id: str | None = None, number: int | None = None) -> Device | None:
        """Find a device by the person's id in the data set or number on the ledger."""
        row = self._db.execute(f"{_SELECT_DEVICES} WHERE user_id = ? OR number = ?", (user_id, number)).fetchone()
        return None if row is None else self._device(row)

    def data_of(self, slot: int) -> DeviceData:
        """Unseal what a device keeps that was not erased."""
        (sealed,) = self._db.execute("SELECT sealed FROM device WHERE slot = ?", (slot,)).fetchone()
        return msgspec.msgpack.decode(open_sealed(self._key(slot), sealed, context("device", slot)), type=DeviceData)

    def signing_key(self, slot: int) -> SigningKey:
        """Return the signing key of a device that was not erased."""
        return SigningKey.from_seed(self.data_of(slot).signing_seed)

    def erase(self, slot: int) -> None:
        """Destroy what a device keeps: its sealing key in place, then its rows; again, nothing more happens.

        The person's id and number stay, and nothing that was sealed.
        """
        with (self._folder / "subjects.keys").open("r+b") as file:
            file.seek(slot * SECRET_BYTES)
            file.write(NO_KEY)
            file.flush()
            os.fsync(file.fileno())
        begin = slot * SECRET_BYTES
        self._keys = self._keys[:begin] + NO_KEY + self._keys[begin + SECRET_BYTES :]
        with self._transaction():
            for table in _OWNED:
                self._db.execute(f"DELETE FROM {table} WHERE slot = ?", (slot,))
            self._db.execute("UPDATE device SET sealed = x'' WHERE slot = ?", (slot,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def add(self, holdings: Sequence[tuple[str, DeviceData]]) -> None:
        """Add devices in the slots after the last one; all of them or none.

        Args:
            holdings: (user id, holding) of each, in the order of their slots.
        """
        (begin,) = self._db.execute("SELECT count(*) FROM device").fetchone()
        keys = os.urandom(SECRET_BYTES * len(holdings))
        with (self._folder / "subjects.keys").open("r+b") as file:
            # records beyond the last device are what a crash has left here
            file.seek(begin * SECRET_BYTES)
            file.write(keys)
            file.flush()
            os.fsync(file.fileno())
        self._keys = self._keys[: begin * SECRET_BYTES] + keys
        with self._transaction():
            self._db.executemany(
                "INSERT INTO device (slot, user_id, sealed) VALUES (?, ?, ?)",
                [
                    (slot, user_id, seal_row(self._key(slot), "device", slot, holding))
                    for slot, (user_id, holding) in enumerate(holdings, begin)
                ],
            )

    def replace_data(self, holdings: Sequence[tuple[int, DeviceData]]) -> None:
        """Replace what devices keep, by slot; all of them or none.

        The sequence number of each holding's commitment counts as signed from now on.
        """
        with self._transaction():
            self._db.executemany(
                "UPDATE device SET sealed = ?, last_seq = max(last_seq, ?) WHERE slot = ?",
                [
                    (seal_row(self._key(slot), "device", slot, holding), holding.dataset_seq, slot)
                    for slot, holding in holdings
                ],
            )

    def record_numbers(self, numbers: Sequence[tuple[int, int]], *, seq: int) -> None:
        """Record the numbers that enrolment gave, and the sequence number the devices have signed last.

        Args:
            numbers: (slot, number) pairs.
            seq: Largest sequence number these devices have signed.
        """
        with self._transaction():
            self._db.executemany(
                "UPDATE device SET number = ?, last_seq = max(last_seq, ?) WHERE slot = ?",
                [(number, seq, slot) for slot, number in numbers],
            )

    def record_agreement(
        self, run: int, slots: Sequence[int], *, cost: tuple[int, int], limits: tuple[int, int]
    ) -> None:
        """Record that people agree to take part in a run, and to what may be spent by its end.

        All agreements to earlier runs end. Said again for the same run, nothing changes.

        Args:
            run: Number of the run.
            slots: Whose devices.
            cost: Most that the run may spend from the epsilon and the rho account, in 1e-9, >= 0.
            limits: Most that all runs together may spend from each, likewise.
        """
        terms = (run, cost[0], limits[0], cost[1], limits[1])
        with self._transaction():
            self._db.execute("DELETE FROM agreement WHERE run < ?", (run,))
            self._db.executemany(
                "INSERT OR IGNORE INTO agreement (slot, run, epsilon_nano, rho_nano)"
                " SELECT slot, ?, min(epsilon_nano + ?, ?), min(rho_nano + ?, ?) FROM device WHERE slot = ?",
                [(*terms, slot) for slot in slots],
            )

    def outbox_message(self, slot: int, round_number: int) -> OutboxMessage | None:
        """Give a device's answer to a round, if it lies in the outbox."""
        query = "SELECT sealed FROM outbox WHERE slot = ? AND round = ?"
        row = self._db.execute(query, (slot, round_number)).fetchone()
        if row is None:
            return None
        opened = open_sealed(self._key(slot), row[0], context("outbox", slot, round_number))
        return msgspec.msgpack.decode(opened, type=OutboxMessage)

    def put_answers(
        self,
        round_number: int,
        seqs: Sequence[tuple[int, int]],
        outgoing: Sequence[OutboxMessage],
        *,
        epsilon_nano: int = 0,
        rho_nano: int = 0,
        note: str,
    ) -> None:
        """Put answers to a round into the outbox, forget those to earlier rounds, remember the checkpoint.

        Args:
            round_number: The round, > 0.
            seqs: (slot, sequence number) of each answer.
            outgoing: The answers, in the same order.
            epsilon_nano: What each answer spends from the epsilon account, in 1e-9, >= 0.
            rho_nano: What it spends from the rho account, likewise.
            note: The checkpoint under which the round entry was accepted.
        """
        with self._transaction():
            self._db.execute("DELETE FROM outbox WHERE round < ?", (round_number,))
            self._db.executemany(
                "INSERT INTO outbox (slot, round, sealed) VALUES (?, ?, ?)",
                [
                    (slot, round_number, seal_row(self._key(slot), "outbox", slot, message, round_number))
                    for (slot, _), message in zip(seqs, outgoing, strict=True)
                ],
            )
            self._db.executemany(
                "UPDATE device SET last_seq = ?, last_round = ?, epsilon_nano = epsilon_nano + ?,"
                " rho_nano = rho_nano + ? WHERE slot = ?",
                [(seq, round_number, epsilon_nano, rho_nano, slot) for slot, seq in seqs],
            )
            self._db.execute("INSERT OR REPLACE INTO checkpoint (id, note) VALUES (1, ?)", (note,))

    def secagg_state(self, slot: int, round_number: int) -> SecAggState | None:
        """Give how far a device is in a masked round."""
        query = "SELECT sealed FROM secagg_state WHERE slot = ? AND round = ?"
        row = self._db.execute(query, (slot, round_number)).fetchone()
        if row is None:
            return None
        opened = open_sealed(self._key(slot), row[0], context("secagg_state", slot, round_number))
        return msgspec.msgpack.decode(opened, type=SecAggState)

    def put_secagg_states(
        self, round_number: int, states: Sequence[tuple[int, SecAggState]], *, note: str | None = None
    ) -> None:
        """Keep how far devices are in a masked round, and forget what they kept of earlier ones.

        Args:
            round_number: The round, > 0.
            states: (slot, state) of each.
            note: The checkpoint under which it was asked for, where that is a new one.
        """
        with self._transaction():
            self._db.execute("DELETE FROM secagg_state WHERE round < ?", (round_number,))
            self._db.executemany(
                "INSERT OR REPLACE INTO secagg_state (slot, round, sealed) VALUES (?, ?, ?)",
                [
                    (slot, round_number, seal_row(self._key(slot), "secagg_state", slot, state, round_number))
                    for slot, state in states
                ],
            )
            if note is not None:
                self._db.execute("INSERT OR REPLACE INTO checkpoint (id, note) VALUES (1, ?)", (note,))

    def pending_key_changes(self) -> list[tuple[int, PendingKeyChange]]:
        """Give the changes of keys under way, each with its slot."""
        rows = self._db.execute("SELECT slot, sealed FROM pending_key ORDER BY slot").fetchall()
        return [
            (
                slot,
                msgspec.msgpack.decode(
                    open_sealed(self._key(slot), sealed, context("key", slot)), type=PendingKeyChange
                ),
            )
            for slot, sealed in rows
            if self._key(slot) != NO_KEY
        ]

    def put_key_change(self, slot: int, pending: PendingKeyChange, *, seq: int) -> None:
        """Keep a change of key before anybody sees it.

        Args:
            slot: Whose key.
            pending: The change; none is under way for this device.
            seq: Largest sequence number this device has signed, that of the change included.
        """
        sealed = seal_row(self._key(slot), "key", slot, pending)
        with self._transaction():
            self._db.execute("INSERT INTO pending_key (slot, sealed) VALUES (?, ?)", (slot, sealed))
            self._advance(slot, seq)

    def complete_key_change(self, slot: int, pending: PendingKeyChange, *, seq: int) -> None:
        """Carry out a change of key that stands on the ledger.

        Args:
            slot: Whose key.
            pending: The change.
            seq: The participant's last sequence number on the ledger.
        """
        with self._transaction():
            if pending.signing_seed is None:
                self._db.execute("INSERT OR IGNORE INTO revoked (slot) VALUES (?)", (slot,))
            else:
                holding = msgspec.structs.replace(self.data_of(slot), signing_seed=pending.signing_seed)
                sealed = seal_row(self._key(slot), "device", slot, holding)
                self._db.execute("UPDATE device SET sealed = ? WHERE slot = ?", (sealed, slot))
                self._db.execute("DELETE FROM revoked WHERE slot = ?", (slot,))
            self._advance(slot, seq)
            self._db.execute("DELETE FROM pending_key WHERE slot = ?", (slot,))

    def drop_key_change(self, slot: int) -> None:
        """Forget a change of key that the ledger has refused."""
        self._db.execute("DELETE FROM pending_key WHERE slot = ?", (slot,))

    def checkpoint(self) -> str | None:
        """Give the largest checkpoint accepted so far."""
        row = self._db.execute("SELECT note FROM checkpoint").fetchone()
        return None if row is None else str(row[0])

    def keep_evidence(self, note: str) -> Path | None:
        """Keep another checkpoint of the accepted one's size beside it, as proof that the log has signed both.

        Returns:
            The file; None if no checkpoint was accepted.
        """
        accepted = self.checkpoint()
        return (
            None if accepted is None else keep_evidence(self._folder / "evidence", evidence_same_size(accepted, note))
        )

    def _device(self, row: tuple[int, str, int | None, int, int, int, int, int, int, int, int]) -> Device:
        slot, user_id, number, last_seq, last_round, epsilon_nano, rho_nano, *agreed, is_revoked = row
        run, epsilon_nano_agreed, rho_nano_agreed = agreed
        return Device(
            slot=slot,
            user_id=user_id,
            number=number,
            last_seq=last_seq,
            last_round=last_round,
            epsilon_nano=epsilon_nano,
            rho_nano=rho_nano,
            run=run,
            epsilon_nano_agreed=epsilon_nano_agreed,
            rho_nano_agreed=rho_nano_agreed,
            is_revoked=bool(is_revoked),
            is_erased=self._key(slot) == NO_KEY,
        )

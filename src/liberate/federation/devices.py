"""What lies on the devices of one host: keys, ratings, salts and the outbox, each person's rows sealed for that person.

`devices.sqlite` holds the rows; `subjects.keys` holds one 32-byte sealing key per device in fixed records. Whoever
keeps the first without the second keeps nothing readable. Both are readable by their owner only. A key of zeros is
what is left of a person who was erased.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from liberate.arrays import Digest
from liberate.crypto.sealing import open_sealed, seal
from liberate.errors import FederationError
from liberate.federation.rows import (
    Act,
    Base,
    Device,
    Given,
    Granted,
    Holding,
    Kept,
    Masking,
    Outgoing,
    PendingKey,
    Received,
    Waiting,
    Wish,
)
from liberate.ledger.publish.evidence import keep_evidence, of_one_size
from liberate.randomness import SECRET_BYTES

_SCHEMA = """
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
CREATE TABLE IF NOT EXISTS checkpoint (only INTEGER PRIMARY KEY CHECK (only = 1), note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS masking (
    slot INTEGER NOT NULL REFERENCES device,
    round INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, round)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending_key (slot INTEGER PRIMARY KEY REFERENCES device, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS act (
    slot INTEGER NOT NULL REFERENCES device,
    seq INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (
    slot INTEGER NOT NULL REFERENCES device,
    key BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acceptance (
    slot INTEGER PRIMARY KEY REFERENCES device,
    most INTEGER NOT NULL CHECK (most >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS revoked (slot INTEGER PRIMARY KEY REFERENCES device) STRICT;
CREATE TABLE IF NOT EXISTS agreement (
    slot INTEGER PRIMARY KEY REFERENCES device,
    run INTEGER NOT NULL,
    epsilon_nano INTEGER NOT NULL,
    rho_nano INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS wish (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slot INTEGER NOT NULL REFERENCES device,
    seq INTEGER NOT NULL DEFAULT 0,
    position INTEGER,
    refusal TEXT,
    sealed BLOB NOT NULL
) STRICT;
"""


_SELECT_DEVICES = """
SELECT device.slot, user_id, number, last_seq, last_round, device.epsilon_nano, device.rho_nano,
    ifnull(run, 0), ifnull(agreement.epsilon_nano, 0), ifnull(agreement.rho_nano, 0),
    device.slot IN (SELECT slot FROM revoked)
FROM device LEFT JOIN agreement USING (slot)"""

_OWNED = ("outbox", "masking", "pending_key", "revoked", "agreement", "act", "kept", "acceptance", "wish")
"""Tables whose rows belong to a person, beside `device`."""

_NO_KEY = bytes(SECRET_BYTES)
_PATIENCE_S = 60.0
"""A command that puts a wish waits so long for a training that writes."""

_KeptT = TypeVar("_KeptT", Granted, Base, Given, Received)
_kept_decoder: msgspec.msgpack.Decoder[Kept] = msgspec.msgpack.Decoder(Kept)


class Devices:
    """The store of one host; one transaction per batch, durable on return.

    Args:
        folder: Holds `devices.sqlite` and `subjects.keys`.

    Raises:
        FederationError: The folder holds no device store.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "devices.sqlite"
        if not path.exists():
            raise FederationError(f"no devices in {folder}", hint="give the folder of a run")
        self._folder = folder
        self._keys = (folder / "subjects.keys").read_bytes()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE_S)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(_SCHEMA)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds a device store."""
        return (folder / "devices.sqlite").exists()

    @classmethod
    def create(cls, folder: Path, holdings: Iterable[tuple[str, Holding]]) -> Devices:
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
                sealed = _seal_row(key, "device", slot, holding)
                db.execute("INSERT INTO device (slot, user_id, sealed) VALUES (?, ?, ?)", (slot, user_id, sealed))
            db.execute("COMMIT")
        descriptor = os.open(folder / "subjects.keys", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(keys)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        return cls(folder)

    def __enter__(self) -> Devices:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def devices(self) -> list[Device]:
        """List all devices in the order of their slots."""
        rows = self._db.execute(f"{_SELECT_DEVICES} ORDER BY device.slot")
        return [self._device(row) for row in rows]

    def find(self, *, user_id: str | None = None, number: int | None = None) -> Device | None:
        """Find a device by the person's id in the data set or number on the ledger."""
        row = self._db.execute(f"{_SELECT_DEVICES} WHERE user_id = ? OR number = ?", (user_id, number)).fetchone()
        return None if row is None else self._device(row)

    def holding(self, slot: int) -> Holding:
        """Unseal what a device keeps that was not erased."""
        (sealed,) = self._db.execute("SELECT sealed FROM device WHERE slot = ?", (slot,)).fetchone()
        return msgspec.msgpack.decode(open_sealed(self._key(slot), sealed, _context("device", slot)), type=Holding)

    def erase(self, slot: int) -> None:
        """Destroy what a device keeps: its sealing key in place, then its rows; again, nothing more happens.

        The person's id and number stay, and nothing that was sealed.
        """
        with (self._folder / "subjects.keys").open("r+b") as file:
            file.seek(slot * SECRET_BYTES)
            file.write(_NO_KEY)
            file.flush()
            os.fsync(file.fileno())
        begin = slot * SECRET_BYTES
        self._keys = self._keys[:begin] + _NO_KEY + self._keys[begin + SECRET_BYTES :]
        with self._transaction():
            for table in _OWNED:
                self._db.execute(f"DELETE FROM {table} WHERE slot = ?", (slot,))
            self._db.execute("UPDATE device SET sealed = x'' WHERE slot = ?", (slot,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def add(self, holdings: Sequence[tuple[str, Holding]]) -> None:
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
                    (slot, user_id, _seal_row(self._key(slot), "device", slot, holding))
                    for slot, (user_id, holding) in enumerate(holdings, begin)
                ],
            )

    def hold(self, holdings: Sequence[tuple[int, Holding]]) -> None:
        """Replace what devices keep, by slot; all of them or none.

        The sequence number of each holding's commitment counts as signed from now on.
        """
        with self._transaction():
            self._db.executemany(
                "UPDATE device SET sealed = ?, last_seq = max(last_seq, ?) WHERE slot = ?",
                [
                    (_seal_row(self._key(slot), "device", slot, holding), holding.dataset_seq, slot)
                    for slot, holding in holdings
                ],
            )

    def enrolled(self, numbers: Sequence[tuple[int, int]], *, seq: int) -> None:
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

    def agree(self, run: int, slots: Sequence[int], *, cost: tuple[int, int], limits: tuple[int, int]) -> None:
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

    def outgoing(self, slot: int, round_number: int) -> Outgoing | None:
        """Give a device's answer to a round, if it lies in the outbox."""
        query = "SELECT sealed FROM outbox WHERE slot = ? AND round = ?"
        row = self._db.execute(query, (slot, round_number)).fetchone()
        if row is None:
            return None
        opened = open_sealed(self._key(slot), row[0], _context("outbox", slot, round_number))
        return msgspec.msgpack.decode(opened, type=Outgoing)

    def post(
        self,
        round_number: int,
        seqs: Sequence[tuple[int, int]],
        outgoing: Sequence[Outgoing],
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
                    (slot, round_number, _seal_row(self._key(slot), "outbox", slot, message, round_number))
                    for (slot, _), message in zip(seqs, outgoing, strict=True)
                ],
            )
            self._db.executemany(
                "UPDATE device SET last_seq = ?, last_round = ?, epsilon_nano = epsilon_nano + ?,"
                " rho_nano = rho_nano + ? WHERE slot = ?",
                [(seq, round_number, epsilon_nano, rho_nano, slot) for slot, seq in seqs],
            )
            self._db.execute("INSERT OR REPLACE INTO checkpoint (only, note) VALUES (1, ?)", (note,))

    def masking(self, slot: int, round_number: int) -> Masking | None:
        """Give how far a device is in a masked round."""
        query = "SELECT sealed FROM masking WHERE slot = ? AND round = ?"
        row = self._db.execute(query, (slot, round_number)).fetchone()
        if row is None:
            return None
        opened = open_sealed(self._key(slot), row[0], _context("masking", slot, round_number))
        return msgspec.msgpack.decode(opened, type=Masking)

    def keep_masking(
        self, round_number: int, states: Sequence[tuple[int, Masking]], *, note: str | None = None
    ) -> None:
        """Keep how far devices are in a masked round, and forget what they kept of earlier ones.

        Args:
            round_number: The round, > 0.
            states: (slot, state) of each.
            note: The checkpoint under which it was asked for, where that is a new one.
        """
        with self._transaction():
            self._db.execute("DELETE FROM masking WHERE round < ?", (round_number,))
            self._db.executemany(
                "INSERT OR REPLACE INTO masking (slot, round, sealed) VALUES (?, ?, ?)",
                [
                    (slot, round_number, _seal_row(self._key(slot), "masking", slot, state, round_number))
                    for slot, state in states
                ],
            )
            if note is not None:
                self._db.execute("INSERT OR REPLACE INTO checkpoint (only, note) VALUES (1, ?)", (note,))

    def pending_keys(self) -> list[tuple[int, PendingKey]]:
        """Give the changes of keys under way, each with its slot."""
        rows = self._db.execute("SELECT slot, sealed FROM pending_key ORDER BY slot").fetchall()
        return [
            (slot, msgspec.msgpack.decode(open_sealed(self._key(slot), sealed, _context("key", slot)), type=PendingKey))
            for slot, sealed in rows
            if self._key(slot) != _NO_KEY
        ]

    def prepare_key(self, slot: int, pending: PendingKey, *, seq: int) -> None:
        """Keep a change of key before anybody sees it.

        Args:
            slot: Whose key.
            pending: The change; none is under way for this device.
            seq: Largest sequence number this device has signed, that of the change included.
        """
        sealed = _seal_row(self._key(slot), "key", slot, pending)
        with self._transaction():
            self._db.execute("INSERT INTO pending_key (slot, sealed) VALUES (?, ?)", (slot, sealed))
            self._advance(slot, seq)

    def settle_key(self, slot: int, pending: PendingKey, *, seq: int) -> None:
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
                holding = msgspec.structs.replace(self.holding(slot), signing_seed=pending.signing_seed)
                sealed = _seal_row(self._key(slot), "device", slot, holding)
                self._db.execute("UPDATE device SET sealed = ? WHERE slot = ?", (sealed, slot))
                self._db.execute("DELETE FROM revoked WHERE slot = ?", (slot,))
            self._advance(slot, seq)
            self._db.execute("DELETE FROM pending_key WHERE slot = ?", (slot,))

    def drop_key(self, slot: int) -> None:
        """Forget a change of key that the ledger has refused."""
        self._db.execute("DELETE FROM pending_key WHERE slot = ?", (slot,))

    def put_wish(self, slot: int, wish: Wish) -> int:
        """Keep what a person wants to be done, and forget the person's wishes that were dealt with; give its id."""
        with self._transaction():
            self._db.execute("DELETE FROM wish WHERE slot = ? AND NOT (position IS NULL AND refusal IS NULL)", (slot,))
            sealed = _seal_row(self._key(slot), "wish", slot, wish)
            return self._db.execute("INSERT INTO wish (slot, sealed) VALUES (?, ?)", (slot, sealed)).lastrowid or 0

    def wishes(self) -> list[Waiting]:
        """Give the wishes that were not dealt with, in the order they were put."""
        query = "SELECT id, slot, seq, sealed FROM wish WHERE position IS NULL AND refusal IS NULL ORDER BY id"
        return [
            Waiting(
                id=id,
                slot=slot,
                seq=seq,
                wish=msgspec.msgpack.decode(open_sealed(self._key(slot), sealed, _context("wish", slot)), type=Wish),
            )
            for id, slot, seq, sealed in self._db.execute(query).fetchall()
            if self._key(slot) != _NO_KEY
        ]

    def try_wish(self, id: int, seq: int) -> None:
        """Note the sequence number with which a wish's entry is going to be signed; nothing else is signed with it."""
        with self._transaction():
            self._db.execute("UPDATE wish SET seq = ? WHERE id = ?", (seq, id))
            (slot,) = self._db.execute("SELECT slot FROM wish WHERE id = ?", (id,)).fetchone()
            self._advance(slot, seq)

    def end_wish(self, id: int, outcome: int | str) -> None:
        """Note where the entry of a wish stands, or why there is none."""
        column = "position" if isinstance(outcome, int) else "refusal"
        self._db.execute(f"UPDATE wish SET {column} = ? WHERE id = ?", (outcome, id))

    def outcome_of(self, id: int) -> int | str | None:
        """Give where the entry of a wish stands, or why there is none; None while it waits, and once it is gone."""
        row = self._db.execute("SELECT ifnull(position, refusal) FROM wish WHERE id = ?", (id,)).fetchone()
        found: int | str | None = None if row is None else row[0]
        return found

    def acts(self) -> list[tuple[int, int, Act]]:
        """Give the acts under way: slot, sequence number, act; in the order in which each person did them."""
        rows = self._db.execute("SELECT slot, seq, sealed FROM act ORDER BY slot, seq").fetchall()
        return [
            (
                slot,
                seq,
                msgspec.msgpack.decode(open_sealed(self._key(slot), sealed, _context("act", slot, seq)), type=Act),
            )
            for slot, seq, sealed in rows
            if self._key(slot) != _NO_KEY
        ]

    def prepare_acts(self, acts: Sequence[tuple[int, int, Act]], bases: Sequence[tuple[int, Base]] = ()) -> None:
        """Keep acts before anybody sees them, all of them or none.

        Args:
            acts: Slot, sequence number and act of each.
            bases: Base copies that they are about, each with its slot.
        """
        with self._transaction():
            self._db.executemany(
                "INSERT INTO act (slot, seq, sealed) VALUES (?, ?, ?)",
                [(slot, seq, _seal_row(self._key(slot), "act", slot, act, seq)) for slot, seq, act in acts],
            )
            for slot, base in bases:
                self._keep(slot, base.commitment, base)
            for slot, seq, _ in acts:
                self._advance(slot, seq)

    def settle_acts(self, standing: Sequence[tuple[int, int, Act]], refused: Sequence[tuple[int, int]] = ()) -> None:
        """Put acts that stand on the ledger into force, and forget those that it has refused.

        Args:
            standing: Slot, sequence number and act of each.
            refused: Slot and sequence number of each.
        """
        with self._transaction():
            for slot, _, act in standing:
                if act.kept is not None:
                    self._keep(slot, act.key, act.kept)
            ended = [*((slot, seq) for slot, seq, _ in standing), *refused]
            self._db.executemany("DELETE FROM act WHERE slot = ? AND seq = ?", ended)

    def kept(self, kind: type[_KeptT], slot: int, key: bytes) -> _KeptT | None:
        """Give what a device keeps of sharing by a digest, if it is of that kind."""
        row = self._db.execute("SELECT sealed FROM kept WHERE slot = ? AND key = ?", (slot, key)).fetchone()
        found = None if row is None else self._open_kept(slot, key, row[0])
        return found if isinstance(found, kind) else None

    def all_kept(self, kind: type[_KeptT], slot: int | None = None) -> Iterator[tuple[int, Digest, _KeptT]]:
        """Give slot, digest and row of all that devices, or one of them, keep of a kind."""
        which, whose = ("", ()) if slot is None else (" WHERE slot = ?", (slot,))
        rows = self._db.execute(f"SELECT slot, key, sealed FROM kept{which} ORDER BY slot, key", whose).fetchall()
        for owner, key, sealed in rows:
            if self._key(owner) == _NO_KEY:
                continue
            found = self._open_kept(owner, key, sealed)
            if isinstance(found, kind):
                yield owner, Digest(key), found

    def accept(self, slot: int, most: int | None) -> None:
        """Set how many copies of others a device takes, >= 0; None: as many as there are."""
        with self._transaction():
            self._db.execute("DELETE FROM acceptance WHERE slot = ?", (slot,))
            if most is not None:
                self._db.execute("INSERT INTO acceptance (slot, most) VALUES (?, ?)", (slot, most))

    def most_accepted(self, slot: int) -> int | None:
        """Give how many copies of others a device takes, those it holds included; None: as many as there are."""
        row = self._db.execute("SELECT most FROM acceptance WHERE slot = ?", (slot,)).fetchone()
        return None if row is None else int(row[0])

    def discard(self, keys: Sequence[tuple[int, bytes]]) -> None:
        """Forget what devices keep by digests, each with its slot: it is overwritten on return."""
        with self._transaction():
            self._db.executemany("DELETE FROM kept WHERE slot = ? AND key = ?", keys)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

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
        return None if accepted is None else keep_evidence(self._folder / "evidence", of_one_size(accepted, note))

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
            is_erased=self._key(slot) == _NO_KEY,
        )

    def _keep(self, slot: int, key: bytes, row: Kept) -> None:
        sealed = _seal_row(self._key(slot), "kept", slot, row, key.hex())
        self._db.execute("INSERT OR REPLACE INTO kept (slot, key, sealed) VALUES (?, ?, ?)", (slot, key, sealed))

    def _open_kept(self, slot: int, key: bytes, sealed: bytes) -> Kept:
        return _kept_decoder.decode(open_sealed(self._key(slot), sealed, _context("kept", slot, key.hex())))

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


def _context(table: str, *index: int | str) -> bytes:
    return f"{table}:{':'.join(map(str, index))}".encode()


def _seal_row(key: bytes, table: str, slot: int, row: msgspec.Struct, *index: int | str) -> bytes:
    if key == _NO_KEY:
        raise FederationError(f"device {slot} was erased: nothing is kept on it any more")
    return seal(key, msgspec.msgpack.encode(row), _context(table, slot, *index))

"""The database of one host's devices. Each participant's rows are sealed under a key of their own.

`devices.sqlite` holds the rows, `subjects.keys` the keys: overwriting a key erases its participant. Both files are
readable by their owner only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.signing import SigningKey
from liberate.database import Row, SqliteStore
from liberate.errors import FederationError
from liberate.federation.store.act_tables import ACT_SCHEMA, RecordedAct
from liberate.federation.store.device_rows import Device, DeviceData, PendingKeyChange
from liberate.federation.store.erasable_keys import ErasableKeys
from liberate.federation.store.history_tables import HISTORY_SCHEMA, HistoryTables
from liberate.federation.store.round_tables import ROUND_SCHEMA, RoundTables
from liberate.federation.store.sealed_rows import DATABASE_FILE, KEY_FILE, seal_row
from liberate.federation.store.sharing_tables import SHARING_SCHEMA, SharingTables
from liberate.federation.store.terms_tables import TERMS_SCHEMA, TermsTables
from liberate.files import fsync_path
from liberate.ledger.format.parts import KeyName

_TABLES = f"""
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
CREATE TABLE IF NOT EXISTS pending_key (slot INTEGER PRIMARY KEY REFERENCES device, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS revoked (
    slot INTEGER NOT NULL REFERENCES device,
    key TEXT NOT NULL,
    PRIMARY KEY (slot, key)
) STRICT;
CREATE TABLE IF NOT EXISTS awaited_key (
    slot INTEGER NOT NULL REFERENCES device,
    key TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, key)
) STRICT;
CREATE TABLE IF NOT EXISTS agreement (
    slot INTEGER PRIMARY KEY REFERENCES device,
    run INTEGER NOT NULL,
    epsilon_nano INTEGER NOT NULL,
    rho_nano INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS life_limit (
    slot INTEGER PRIMARY KEY REFERENCES device,
    epsilon_nano INTEGER NOT NULL,
    rho_nano INTEGER NOT NULL
) STRICT;
{ACT_SCHEMA}{HISTORY_SCHEMA}{ROUND_SCHEMA}{SHARING_SCHEMA}{TERMS_SCHEMA}"""

_SELECT_DEVICES = """
SELECT device.slot, user_id, number, last_seq, last_round, device.epsilon_nano, device.rho_nano,
    ifnull(run, 0), ifnull(agreement.epsilon_nano, 0), ifnull(agreement.rho_nano, 0),
    life_limit.epsilon_nano, life_limit.rho_nano,
    device.slot IN (SELECT slot FROM revoked), device.slot IN (SELECT slot FROM withdrawn),
    accepted_terms.hash
FROM device LEFT JOIN agreement USING (slot) LEFT JOIN life_limit USING (slot) LEFT JOIN accepted_terms USING (slot)"""

_INSERT_DEVICE = "INSERT INTO device (slot, user_id, sealed) VALUES (?, ?, ?)"

_OWNED = (
    "outbox",
    "secagg_state",
    "key_phases",
    "pending_key",
    "awaited_key",
    "revoked",
    "agreement",
    "life_limit",
    "accepted_terms",
    "pending_entry",
    "sharing_row",
    "copy_quota",
    "proved_history",
    "request",
)
"""Tables whose rows belong to a participant, beside `device`."""


class DeviceStore(RoundTables, SharingTables, HistoryTables, TermsTables):
    """The devices of one host.

    Args:
        folder: Holds `devices.sqlite` and `subjects.keys`.

    Raises:
        FederationError: The folder holds no device store.
    """

    def __init__(self, folder: Path) -> None:
        if not self.exists(folder):
            raise FederationError(f"no devices in {folder}", hint="give the folder of a run")
        super().__init__(folder, f"PRAGMA journal_mode = WAL;{_TABLES}")

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds a device store."""
        return (folder / DATABASE_FILE).exists()

    @classmethod
    def create(cls, folder: Path, holdings: Sequence[tuple[str, DeviceData]]) -> DeviceStore:
        """Create a store; it exists whole or not at all.

        Args:
            folder: Made if absent, readable by the owner only.
            holdings: (user id, data) of each device, in the order of their slots.

        Raises:
            FederationError: The folder holds a store already.
        """
        if cls.exists(folder):
            raise FederationError(f"{folder} already holds devices")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = folder / f"{DATABASE_FILE}.draft"
        draft.unlink(missing_ok=True)

        keys = ErasableKeys.create(folder / KEY_FILE)
        keys.add(0, len(holdings))
        with SqliteStore(draft, _TABLES) as store, store._transaction():
            store._execute_many(_INSERT_DEVICE, _device_rows(keys, 0, holdings))

        # The database gets its name last: whoever sees it finds all keys and rows.
        draft.rename(folder / DATABASE_FILE)
        fsync_path(folder)
        return cls(folder)

    def devices(self) -> list[Device]:
        """Return all devices in the order of their slots."""
        return [self._device(row) for row in self._rows(f"{_SELECT_DEVICES} ORDER BY device.slot")]

    def find(self, *, user_id: str | None = None, number: int | None = None) -> Device | None:
        """Find a device by its participant's id in the data set or number on the ledger."""
        row = self._row(f"{_SELECT_DEVICES} WHERE user_id = ? OR number = ?", (user_id, number))
        return None if row is None else self._device(row)

    def data_of(self, slot: int) -> DeviceData:
        """Return what a device stores for good.

        Raises:
            SealBroken: The device was erased.
        """
        ((sealed,),) = self._rows("SELECT sealed FROM device WHERE slot = ?", (slot,))
        return msgspec.msgpack.decode(self._unseal("device", slot, sealed), type=DeviceData)

    def signing_key(self, slot: int, which: KeyName) -> SigningKey:
        """Return one of the two signing keys on a device that was not erased."""
        return SigningKey.from_seed(self.data_of(slot).seed_of(which))

    def erase(self, slot: int) -> None:
        """Destroy what a device stores: first its sealing key, in place, then its rows. Repeating it changes nothing.

        The participant's id and number stay, and nothing that was sealed.
        """
        self._keys.erase(slot)
        with self._transaction():
            for table in _OWNED:
                self._execute(f"DELETE FROM {table} WHERE slot = ?", (slot,))
            self._execute("UPDATE device SET sealed = x'' WHERE slot = ?", (slot,))
        self._empty_log()

    def add(self, holdings: Sequence[tuple[str, DeviceData]]) -> None:
        """Add devices in the slots after the last one; all of them or none.

        Args:
            holdings: (user id, data) of each, in the order of their slots.
        """
        ((begin,),) = self._rows("SELECT count(*) FROM device")
        self._keys.add(begin, len(holdings))
        with self._transaction():
            self._execute_many(_INSERT_DEVICE, _device_rows(self._keys, begin, holdings))

    def replace_data(self, holdings: Sequence[tuple[int, DeviceData]]) -> None:
        """Replace what devices store, by slot; all of them or none.

        The sequence number of each commitment to ratings counts as signed from now on.
        """
        with self._transaction():
            self._execute_many(
                "UPDATE device SET sealed = ?, last_seq = max(last_seq, ?) WHERE slot = ?",
                [(self._seal("device", slot, data), data.dataset_seq, slot) for slot, data in holdings],
            )

    def record_numbers(self, numbers: Sequence[tuple[int, int]], *, seq: int) -> None:
        """Record the numbers that enrolment gave, and the sequence number the devices have signed last.

        Args:
            numbers: (slot, number) pairs.
            seq: Largest sequence number these devices have signed.
        """
        with self._transaction():
            self._execute_many(
                "UPDATE device SET number = ?, last_seq = max(last_seq, ?) WHERE slot = ?",
                [(number, seq, slot) for slot, number in numbers],
            )

    def record_agreement(
        self, run: int, slots: Sequence[int], *, cost: tuple[int, int], limits: tuple[int | None, int | None]
    ) -> None:
        """Record that participants agree to take part in a run, and to what may be spent by its end.

        The first time that a run costs something, the limits become the device's for life, or its cost where there are
        none: whatever a ledger or a coordinator says of limits later can only lower them. All agreements to earlier
        runs end. Repeated for the same run, nothing changes.

        Args:
            run: Number of the run.
            slots: The participants' devices.
            cost: Most that the run may spend from the epsilon and the rho account, in 1e-9, >= 0.
            limits: Most that all runs together may spend from each by the ledger, likewise; None: it has no limit.
        """
        most = [LARGEST_INTEGER if limit is None else limit for limit in limits]
        terms = (run, cost[0], most[0], cost[1], most[1])
        with self._transaction():
            if any(cost):
                self._execute_many(
                    "INSERT OR IGNORE INTO life_limit (slot, epsilon_nano, rho_nano)"
                    " VALUES (?, ifnull(?, ?), ifnull(?, ?))",
                    [(slot, limits[0], cost[0], limits[1], cost[1]) for slot in slots],
                )
            self._execute("DELETE FROM agreement WHERE run < ?", (run,))
            self._execute_many(
                "INSERT OR IGNORE INTO agreement (slot, run, epsilon_nano, rho_nano)"
                " SELECT slot, ?, min(device.epsilon_nano + ?, ifnull(life.epsilon_nano, 0), ?),"
                " min(device.rho_nano + ?, ifnull(life.rho_nano, 0), ?)"
                " FROM device LEFT JOIN life_limit AS life USING (slot) WHERE slot = ?",
                [(*terms, slot) for slot in slots],
            )

    def pending_key_changes(self) -> list[tuple[int, PendingKeyChange]]:
        """Return the changes of keys that are not known to be in the log, each with its slot."""
        return [
            (slot, msgspec.msgpack.decode(self._unseal("key", slot, sealed), type=PendingKeyChange))
            for slot, sealed in self._rows("SELECT slot, sealed FROM pending_key ORDER BY slot")
            if not self._keys.is_erased(slot)
        ]

    def put_key_change(self, slot: int, pending: PendingKeyChange, *, seq: int) -> None:
        """Store a change of key before anybody sees it.

        Args:
            slot: The device; no other change of its key is pending.
            pending: The change.
            seq: Largest sequence number this device has signed, that of the change included.
        """
        sealed = self._seal("key", slot, pending)
        with self._transaction():
            self._execute("INSERT INTO pending_key (slot, sealed) VALUES (?, ?)", (slot, sealed))
            if pending.seed is None:
                self._execute("INSERT OR IGNORE INTO revoked (slot, key) VALUES (?, ?)", (slot, pending.which))
            self._advance(slot, seq)

    def complete_key_change(
        self, slot: int, pending: PendingKeyChange, *, seq: int, act: RecordedAct | None = None
    ) -> None:
        """Carry out a change of key that is in the log.

        Args:
            slot: The device.
            pending: The change.
            seq: The participant's last sequence number on the ledger.
            act: Where the log proves it, under a checkpoint that continues the one accepted before.
        """
        with self._transaction():
            if pending.seed is not None:
                data = self.data_of(slot).with_seed(pending.which, pending.seed)
                sealed = self._seal("device", slot, data)
                self._execute("UPDATE device SET sealed = ? WHERE slot = ?", (sealed, slot))
                self._execute("DELETE FROM revoked WHERE slot = ? AND key = ?", (slot, pending.which))
            self._advance(slot, seq)
            self._execute("DELETE FROM pending_key WHERE slot = ?", (slot,))
            self._execute("DELETE FROM awaited_key WHERE slot = ? AND key = ?", (slot, pending.which))
            if act is not None:
                self._put_acts([(slot, act)], act.note)

    def awaited_seed(self, slot: int, which: KeyName) -> bytes | None:
        """Return the seed of a key that registrars are asked to approve, if there is one."""
        row = self._row("SELECT sealed FROM awaited_key WHERE slot = ? AND key = ?", (slot, which))
        if row is None:
            return None
        return msgspec.msgpack.decode(self._unseal("awaited", slot, row[0]), type=PendingKeyChange).seed

    def put_awaited_seed(self, slot: int, which: KeyName, seed: bytes) -> None:
        """Store the seed of a key that registrars are asked to approve."""
        sealed = self._seal("awaited", slot, PendingKeyChange(entry=b"", which=which, seed=seed))
        self._execute("INSERT OR REPLACE INTO awaited_key (slot, key, sealed) VALUES (?, ?, ?)", (slot, which, sealed))

    def drop_key_change(self, slot: int) -> None:
        """Delete a change of key that the ledger has refused."""
        self._execute("DELETE FROM pending_key WHERE slot = ?", (slot,))

    def _device(self, row: Row) -> Device:
        slot, user_id, number, last_seq, last_round, epsilon_nano, rho_nano, *rest = row
        run, epsilon_nano_agreed, rho_nano_agreed, epsilon_nano_limit, rho_nano_limit, *others = rest
        is_revoked, has_withdrawn, terms_hash = others

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
            epsilon_nano_limit=epsilon_nano_limit,
            rho_nano_limit=rho_nano_limit,
            is_revoked=bool(is_revoked),
            has_withdrawn=bool(has_withdrawn),
            terms_hash=terms_hash,
            is_erased=self._keys.is_erased(slot),
        )


def _device_rows(
    keys: ErasableKeys, begin: int, holdings: Sequence[tuple[str, DeviceData]]
) -> Iterator[tuple[int, str, bytes]]:
    """Yield slot, user id and sealed data of new devices, whose slots begin at `begin`."""
    for slot, (user_id, data) in enumerate(holdings, begin):
        yield slot, user_id, seal_row(keys, "device", slot, data)

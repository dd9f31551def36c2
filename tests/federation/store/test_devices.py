"""What lies on devices: whole or not at all, sealed per person, private to its owner."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from liberate.database import SqliteStore
from liberate.errors import FederationError, LiberateError, SealBroken
from liberate.federation.store.device_rows import DeviceData, OutboxMessage, PendingKeyChange, SecAggState
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.requests import WithdrawalRequest
from liberate.federation.store.sharing_rows import PendingEntry, ReceivedCopy
from tests.federation.crashes import Crash, crash_at

PEOPLE = ["anna", "bert", "cleo"]


def holding(slot: int) -> DeviceData:
    seed = bytes([slot] * 32)
    return DeviceData(
        person_seed=seed, device_seed=seed[::-1], dataset_salt=bytes(32), ratings=f"ratings of {slot}".encode()
    )


def outgoing(tag: str) -> OutboxMessage:
    return OutboxMessage(entry=tag.encode(), noise_key=bytes(32), upload_salt=bytes(32), profile_salt=bytes(32))


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[DeviceStore]:
    holdings = [(person, holding(slot)) for slot, person in enumerate(PEOPLE)]
    with DeviceStore.create(tmp_path / "devices", holdings) as devices:
        yield devices


def test_holdings_are_given_back(devices: DeviceStore) -> None:
    assert [device.user_id for device in devices.devices()] == PEOPLE
    assert [devices.data_of(slot) for slot in range(3)] == [holding(slot) for slot in range(3)]


def test_files_are_their_owners_only(devices: DeviceStore, tmp_path: Path) -> None:
    folder = tmp_path / "devices"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_nothing_is_readable_without_the_keys(devices: DeviceStore, tmp_path: Path) -> None:
    devices.put_answers(1, [(0, 2, outgoing("a secret entry"))], epsilon_nano=0, note="note")
    devices.close()

    stored = b"".join(path.read_bytes() for path in (tmp_path / "devices").glob("devices.sqlite*"))

    assert b"ratings of" not in stored
    assert b"a secret entry" not in stored


def test_rows_cannot_be_swapped_between_people(devices: DeviceStore, tmp_path: Path) -> None:
    devices._db.execute("UPDATE device SET sealed = (SELECT sealed FROM device WHERE slot = 1) WHERE slot = 0")

    with pytest.raises(LiberateError):
        devices.data_of(0)


def test_outbox_keeps_the_round_and_forgets_older_ones(devices: DeviceStore) -> None:
    devices.put_answers(1, [(0, 2, outgoing("first"))], epsilon_nano=5, note="one")
    devices.put_answers(2, [(0, 3, outgoing("second")), (2, 2, outgoing("other"))], epsilon_nano=5, note="two")

    assert devices.outbox_message(0, 1) is None
    assert [devices.outbox_message(slot, 2) for slot in range(3)] == [outgoing("second"), None, outgoing("other")]
    assert devices.checkpoint() == "two"
    first, second, third = devices.devices()
    assert (first.last_seq, first.last_round, first.epsilon_nano) == (3, 2, 10)
    assert (second.last_seq, second.last_round, second.epsilon_nano) == (0, 0, 0)
    assert (third.last_seq, third.last_round, third.epsilon_nano) == (2, 2, 5)


def test_post_is_all_or_nothing(devices: DeviceStore) -> None:
    devices.put_answers(1, [(0, 2, outgoing("first"))], epsilon_nano=5, note="one")

    with pytest.raises(Exception, match="UNIQUE"):
        devices.put_answers(1, [(1, 2, outgoing("x")), (0, 3, outgoing("y"))], epsilon_nano=5, note="two")

    assert [devices.outbox_message(slot, 1) for slot in range(3)] == [outgoing("first"), None, None]
    assert devices.checkpoint() == "one"
    assert [device.epsilon_nano for device in devices.devices()] == [5, 0, 0]


def test_people_are_found_by_id_and_number(devices: DeviceStore) -> None:
    devices.record_numbers([(0, 10), (1, 11), (2, 12)], seq=1)

    found = devices.find(user_id="bert")
    assert found is not None
    assert found == devices.find(number=11)
    assert devices.find(user_id="dora") is None


def test_killed_creation_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "devices"
    with monkeypatch.context() as patched:
        crash_at(patched, [(SqliteStore, "_execute_many")], 1, before=False)
        with pytest.raises(Crash):
            DeviceStore.create(folder, [("anna", holding(1)), ("bert", holding(2))])

    assert not DeviceStore.exists(folder)
    with DeviceStore.create(folder, [("anna", holding(0))]) as devices:
        assert devices.data_of(0) == holding(0)


def test_store_is_not_overwritten(devices: DeviceStore, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="already"):
        DeviceStore.create(tmp_path / "devices", [])


def test_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="no devices"):
        DeviceStore(tmp_path)


def test_further_devices_take_the_next_slots(devices: DeviceStore, tmp_path: Path) -> None:
    devices.add([("dora", holding(3)), ("emil", holding(4))])
    devices.close()

    with DeviceStore(tmp_path / "devices") as again:
        assert [device.user_id for device in again.devices()] == [*PEOPLE, "dora", "emil"]
        assert [again.data_of(slot) for slot in range(5)] == [holding(slot) for slot in range(5)]


def test_keys_of_devices_that_a_crash_did_not_add_are_written_over(devices: DeviceStore, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="UNIQUE"):
        devices.add([("dora", holding(3)), ("anna", holding(4))])
    devices.close()

    with DeviceStore(tmp_path / "devices") as again:
        assert [device.user_id for device in again.devices()] == PEOPLE
        again.add([("dora", holding(3))])
        assert [again.data_of(slot) for slot in range(4)] == [holding(slot) for slot in range(4)]


def test_replaced_ratings_count_their_commitment_as_signed(devices: DeviceStore) -> None:
    newer = msgspec.structs.replace(holding(1), ratings=b"others", dataset_seq=7)

    devices.replace_data([(1, newer)])

    assert [devices.data_of(slot) for slot in range(3)] == [holding(0), newer, holding(2)]
    assert [device.last_seq for device in devices.devices()] == [0, 7, 0]


def test_people_agree_to_one_run_at_a_time_and_to_what_may_be_spent_by_its_end(devices: DeviceStore) -> None:
    devices.record_agreement(1, [0, 1], cost=(5, 0), limits=(100, 100))
    devices.put_answers(1, [(0, 2, outgoing("first"))], epsilon_nano=5, note="one")
    devices.record_agreement(1, [0, 1], cost=(5, 0), limits=(100, 100))

    terms = [(device.run, device.epsilon_nano_agreed, device.rho_nano_agreed) for device in devices.devices()]
    assert terms == [(1, 5, 0), (1, 5, 0), (0, 0, 0)], "said again, it is no second agreement"

    devices.record_agreement(2, [0, 2], cost=(4, 9), limits=(8, 7))

    terms = [(device.run, device.epsilon_nano_agreed, device.rho_nano_agreed) for device in devices.devices()]
    assert terms == [(2, 8, 7), (0, 0, 0), (2, 4, 7)], "above what was spent before, never above the limits"


def test_erased_device_keeps_its_names_and_nothing_else(devices: DeviceStore, tmp_path: Path) -> None:
    folder = tmp_path / "devices"
    devices.record_numbers([(1, 9)], seq=1)
    devices.record_agreement(1, [0, 1], cost=(5, 0), limits=(100, 100))
    devices.put_answers(1, [(0, 2, outgoing("first")), (1, 2, outgoing("second"))], note="one")
    devices.put_secagg_states(1, [(1, SecAggState(round_hash=bytes(32), secret=bytes(32)))])
    devices.put_key_change(1, PendingKeyChange(entry=b"", which="person", seed=None), seq=3)
    key = (folder / "subjects.keys").read_bytes()[32:64]

    for _ in range(2):
        devices.erase(1)

    assert [device.is_erased for device in devices.devices()] == [False, True, False]
    erased = devices.find(number=9)
    assert erased is not None
    assert (erased.user_id, erased.slot) == (PEOPLE[1], 1)
    with pytest.raises(SealBroken):
        devices.data_of(1)
    assert [devices.data_of(slot) for slot in (0, 2)] == [holding(0), holding(2)]
    assert devices.outbox_message(0, 1) == outgoing("first")
    with closing(sqlite3.connect(folder / "devices.sqlite")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        owned = [t for t in tables if any(column[1] == "slot" for column in db.execute(f"PRAGMA table_info({t})"))]
        assert {"outbox", "secagg_state", "pending_key", "revoked", "agreement"} < set(owned)
        left = {t: db.execute(f"SELECT count(*) FROM {t} WHERE slot = 1").fetchone()[0] for t in owned}
        assert {table for table, count in left.items() if count} == {"device"}
        assert db.execute("SELECT sealed FROM device WHERE slot = 1").fetchone() == (b"",)
    assert not any(key in path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_erasure_that_was_broken_off_is_one_all_the_same(devices: DeviceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.put_key_change(1, PendingKeyChange(entry=b"", which="person", seed=None), seq=3)
    with monkeypatch.context() as patched:
        crash_at(patched, [(DeviceStore, "_transaction")], 1, before=True)
        with pytest.raises(Crash):
            devices.erase(1)

    assert devices.devices()[1].is_erased
    assert devices.pending_key_changes() == []
    devices.erase(1)
    assert devices.devices()[1].is_erased


def test_a_copy_that_was_taken_and_destroyed_leaves_no_sealed_row_behind(devices: DeviceStore, tmp_path: Path) -> None:
    """Its recipient still has the key that opens such rows, on its way to the device and where it was kept."""
    copy = ReceivedCopy(sender=1, copy=bytes(500), salt=bytes(32), max_shares=1, epsilon_nano=0)
    acts = [(0, 1, PendingEntry(entry=b"receipt", digest=bytes(32), row=copy))]
    devices.put_pending_entries(acts)
    (on_its_way,) = devices._db.execute("SELECT sealed FROM pending_entry").fetchone()
    devices.settle_pending_entries(acts)
    (kept,) = devices._db.execute("SELECT sealed FROM sharing_row").fetchone()

    devices.delete_sharing_rows([(0, bytes(32))])

    stored = b"".join(path.read_bytes() for path in (tmp_path / "devices").glob("devices.sqlite*"))
    assert on_its_way[-64:] not in stored
    assert kept[-64:] not in stored


def test_nothing_is_kept_any_more_for_who_was_erased(devices: DeviceStore) -> None:
    devices.erase(0)

    with pytest.raises(FederationError, match="was erased"):
        devices.put_request(0, WithdrawalRequest(consent=None))
    with pytest.raises(FederationError, match="was erased"):
        devices.put_key_change(0, PendingKeyChange(entry=b"", which="person", seed=bytes(32)), seq=1)

    devices.put_request(1, WithdrawalRequest(consent=None))
    assert [waiting.slot for waiting in devices.requests()] == [1]

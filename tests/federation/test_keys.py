"""Keys of participants are replaced between rounds: nothing is lost at any step, and nothing is spent anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, RefusedEntry, RolledBack
from liberate.federation.keys import KeyChange, recover_key, revoke_key, rotate_key
from liberate.federation.session import FederationSession
from liberate.federation.setup import open_federation
from liberate.federation.store.device_rows import Device, PendingKeyChange
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.sharing_records import Withdrawal
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.principal import Principal
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.codec import encode_model
from tests.federation.crashes import Crash, crash_at
from tests.worlds import World, access_to, low_rank_ratings, stage

WORLD = World(ratings=low_rank_ratings(6, 5), mode="local", epsilon=6.0, rounds=2, batch_size=3)
PERSON = "u2"
SEED = bytes(range(32))

Change = Callable[[FederationSession, Path], KeyChange]


@contextmanager
def standing(folder: Path) -> Iterator[FederationSession]:
    with open_federation(access_to(folder)) as federation:
        yield federation


def device_of(federation: FederationSession) -> Device:
    device = federation.devices.find(user_id=PERSON)
    assert device is not None
    return device


def principal_of(federation: FederationSession) -> Principal:
    return federation.ledger.state.principals[device_of(federation).number or 0]


def held_key(federation: FederationSession) -> SigningKey:
    return SigningKey.from_seed(federation.devices.data_of(device_of(federation).slot).person_seed)


def rotate(federation: FederationSession, folder: Path, seed: bytes = SEED) -> KeyChange:
    return rotate_key(federation.ledger, federation.devices, device_of(federation), "person", seed)


def rotate_to_the_same_key(federation: FederationSession, folder: Path) -> KeyChange:
    return rotate(federation, folder, federation.devices.data_of(device_of(federation).slot).person_seed)


def revoke(federation: FederationSession, folder: Path) -> KeyChange:
    return revoke_key(federation.ledger, federation.devices, device_of(federation), "person")


def recover(federation: FederationSession, folder: Path, seed: bytes = SEED) -> KeyChange:
    registrar = federation.access.registrar(federation.ledger)
    return recover_key(registrar, federation.devices, device_of(federation), "person", seed)


def trained(folder: Path, world: World = WORLD, rounds: int = 1) -> bytes:
    """Train some rounds in a folder; give the last model's bytes."""
    with stage(folder, world) as scene:
        return encode_model(scene.learn(rounds))


def goes_on(folder: Path) -> list[int]:
    """Carry out the second round; give the numbers of those whose update is in it."""
    with stage(folder, WORLD) as scene:
        ledger = scene.federation.ledger
        first = scene.store.load(1)
        scene.round(first)
        updates = [decode_entry(ledger.entry(position)).record for position in ledger.positions(kind="update")]
        participants = [update.author for update in updates if getattr(update, "round", 0) == 2]
    assert verify_ledger(folder / "ledger").ok
    return participants


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trained(tmp_path)
    return tmp_path


# --- rotation --------------------------------------------------------------------------------------------------------


def test_rotated_key_trains_on(folder: Path) -> None:
    with standing(folder) as federation:
        before = principal_of(federation)
        number, spent = device_of(federation).number, before.epsilon_nano
        participants = len(federation.ledger.state.principals)
        found = rotate(federation, folder)

        assert (found.act, found.number) == ("rotation", number)
        assert principal_of(federation).key == held_key(federation).public == SigningKey.from_seed(SEED).public
        assert device_of(federation).last_seq == principal_of(federation).sequence
        assert principal_of(federation).epsilon_nano == spent > 0
    assert number in goes_on(folder)
    with standing(folder) as federation:
        assert principal_of(federation).epsilon_nano == 2 * spent
        assert len(federation.ledger.state.principals) == participants, "nobody is enrolled anew for a new key"


def test_rotation_changes_no_model(tmp_path: Path) -> None:
    undisturbed = trained(tmp_path / "a", rounds=2)
    trained(tmp_path / "b")
    with standing(tmp_path / "b") as federation:
        rotate(federation, tmp_path / "b")

    goes_on(tmp_path / "b")

    with stage(tmp_path / "b", WORLD) as scene:
        assert encode_model(scene.store.load(2)) == undisturbed


def test_key_that_was_rotated_away_is_refused_with_its_reason(folder: Path) -> None:
    with standing(folder) as federation:
        old, number = held_key(federation), device_of(federation).number or 0
        rotate(federation, folder)
        seq = principal_of(federation).sequence + 1
        record = Withdrawal(origin=federation.ledger.origin, author=number, seq=seq, consent=None)

        outcomes = [federation.ledger.append([sign(record, key)])[0] for key in (old, held_key(federation))]

    assert isinstance(outcomes[0], RefusedEntry)
    assert outcomes[0].reason == "bad_signature"
    assert isinstance(outcomes[1], int)


def test_device_that_lost_its_key_is_told_to_recover(folder: Path) -> None:
    with standing(folder) as federation:
        stale = PendingKeyChange(entry=b"", which="person", seed=bytes(32))
        federation.devices.complete_key_change(device_of(federation).slot, stale, seq=0)

        with pytest.raises(FederationError, match="bad_signature") as found:
            rotate(federation, folder)

        assert "keys recover" in found.value.hint
        assert federation.devices.pending_key_changes() == []
        recover(federation, folder)
        assert principal_of(federation).key == held_key(federation).public
    goes_on(folder)


def test_key_that_was_somebodys_is_refused_and_the_old_one_stays(folder: Path) -> None:
    with standing(folder) as federation:
        before = held_key(federation)

        with pytest.raises(FederationError, match="key_used"):
            rotate_to_the_same_key(federation, folder)

        assert held_key(federation) == before
        assert federation.devices.pending_key_changes() == []
    goes_on(folder)


def test_rotation_waits_for_an_answer_under_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post = DeviceStore.put_answers

    def post_and_die(self: DeviceStore, *arguments: Any, **options: Any) -> None:
        post(self, *arguments, **options)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(DeviceStore, "put_answers", post_and_die)
        with pytest.raises(Crash):
            goes_on(folder)

    with standing(folder) as federation:
        number = device_of(federation).number
        with pytest.raises(FederationError, match="has answered round 2"):
            rotate(federation, folder)
    assert number in goes_on(folder)
    with standing(folder) as federation:
        rotate(federation, folder)


def test_answer_that_stands_on_the_ledger_counts_after_a_rotation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round is open, the answer was accepted: the same bytes, signed with the old key, keep their position."""
    commit, blocks = SqliteLedger._commit, 0

    def die_in_the_third_block(self: SqliteLedger, *arguments: Any, **options: Any) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 3:
            raise Crash
        commit(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteLedger, "_commit", die_in_the_third_block)
        with pytest.raises(Crash):
            goes_on(folder)

    with standing(folder) as federation:
        number = device_of(federation).number
        assert federation.ledger.state.open_round is not None
        rotate(federation, folder)
    participants = goes_on(folder)
    assert participants.count(number or 0) == 1
    assert len(participants) == 6


# --- revocation and recovery -----------------------------------------------------------------------------------------


def test_revoked_participant_is_not_asked_and_answers_nothing(folder: Path) -> None:
    with standing(folder) as federation:
        revoke(federation, folder)
        with pytest.raises(FederationError, match="revoked_author"):
            revoke(federation, folder)
        with pytest.raises(FederationError, match="revoked_author"):
            rotate(federation, folder)
        before = device_of(federation)

    participants = goes_on(folder)

    assert before.number not in participants
    assert len(participants) == 5
    with standing(folder) as federation:
        assert device_of(federation) == before
        assert before.is_revoked


def test_device_of_a_revoked_key_refuses_a_coordinator_who_asks_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing(folder) as federation:
        revoke(federation, folder)
        before = device_of(federation)
    with stage(folder, WORLD) as scene:
        monkeypatch.setattr(scene.coordinator, "_active", lambda: scene.host.numbers)
        assert before.number in scene.host.numbers
        scene.round(scene.store.load(1))

        ledger = scene.federation.ledger
        authors = [decode_entry(ledger.entry(position)).record.author for position in ledger.positions(kind="update")]
        assert authors.count(before.number or 0) == 1
        assert len(authors) == 11
        assert scene.federation.devices.find(user_id=PERSON) == before, "nothing was answered, nothing spent"


def test_recovery_gives_the_key_and_no_budget(folder: Path) -> None:
    with standing(folder) as federation:
        spent = principal_of(federation).epsilon_nano
        revoke(federation, folder)
        found = recover(federation, folder)

        entry = decode_entry(federation.ledger.entry(found.position))
        assert entry.record.author == 0
        assert not principal_of(federation).is_revoked
        assert not device_of(federation).is_revoked
        assert principal_of(federation).epsilon_nano == spent > 0
    assert found.number in goes_on(folder)
    with standing(folder) as federation:
        assert principal_of(federation).epsilon_nano == 2 * spent


# --- crashes ---------------------------------------------------------------------------------------------------------


DURABLE_STEPS = (
    (DeviceStore, "put_key_change"),
    (SqliteLedger, "_commit"),
    (DeviceStore, "complete_key_change"),
    (DeviceStore, "drop_key_change"),
)


def broken_off(monkeypatch: pytest.MonkeyPatch, folder: Path, act: Change, at: int, *, before: bool) -> None:
    """Begin a change and break off at its n-th durable step."""
    with standing(folder) as federation, monkeypatch.context() as patched:
        crash_at(patched, DURABLE_STEPS, at, before=before)
        with pytest.raises(Crash):
            act(federation, folder)


@pytest.mark.parametrize("act", [rotate, revoke, recover])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("is_training", [True, False], ids=["train", "act"])
def test_crash_at_every_durable_step_of_a_change_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Change, *, before: bool, is_training: bool
) -> None:
    """Whoever opens the federation next ends the change, or finds that it was never begun."""
    for at in range(1, 4):
        folder = tmp_path / str(at)
        trained(folder)
        broken_off(monkeypatch, folder, act, at, before=before)
        is_begun = not (at == 1 and before)
        is_under_way = is_begun and not (at == 3 and not before)

        participants = goes_on(folder) if is_training else []

        with standing(folder) as federation:
            number = device_of(federation).number
            assert [each.number for each in federation.finished] == [number] * (is_under_way and not is_training)
            assert federation.devices.pending_key_changes() == []
            changes = [federation.ledger.entry(p) for p in federation.ledger.positions(kind="key")]
            assert len(changes) == is_begun
            assert principal_of(federation).key == held_key(federation).public
            assert principal_of(federation).is_revoked == (is_begun and act is revoke)
            assert principal_of(federation).is_revoked == device_of(federation).is_revoked
            assert device_of(federation).last_seq == principal_of(federation).sequence
            assert len(federation.ledger.state.principals) == 9
            assert isinstance(federation.ledger, SqliteLedger)
            assert federation.ledger.equivocations() == []
            assert not is_training or (number in participants) != device_of(federation).is_revoked
        assert verify_ledger(folder / "ledger").ok


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_crash_while_a_refused_change_is_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    broken_off(monkeypatch, folder, rotate_to_the_same_key, 2, before=before)

    with standing(folder) as federation:
        assert federation.finished == ()
        assert federation.devices.pending_key_changes() == []
        assert principal_of(federation).key == held_key(federation).public
        assert federation.ledger.positions(kind="key") == []
    goes_on(folder)


def test_crash_in_the_middle_of_ending_a_change_loses_nothing_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off(monkeypatch, folder, rotate, 1, before=False)
    for _ in range(2):
        with monkeypatch.context() as patched:
            crash_at(patched, DURABLE_STEPS, 1, before=False)
            with pytest.raises(Crash), standing(folder):
                pass
    with standing(folder) as federation:
        assert principal_of(federation).key == held_key(federation).public == SigningKey.from_seed(SEED).public
        assert len(federation.ledger.positions(kind="key")) == 1


# --- the store -------------------------------------------------------------------------------------------------------


def test_next_key_is_sealed(folder: Path) -> None:
    with standing(folder) as federation:
        pending = PendingKeyChange(entry=b"a signed entry", which="person", seed=b"the seed of the next key, secret")
        federation.devices.put_key_change(2, pending, seq=7)

        assert federation.devices.pending_key_changes() == [(2, pending)]
        assert device_of(federation).last_seq == 7

    stored = b"".join(path.read_bytes() for path in (folder / "devices").glob("devices.sqlite*"))
    assert b"the next key" not in stored
    assert b"a signed entry" not in stored


def test_no_sequence_is_signed_twice(folder: Path) -> None:
    """A store put back from an older copy knows a smaller sequence than the ledger."""
    with standing(folder) as federation:
        device = replace(device_of(federation), last_seq=0)
        before = principal_of(federation).sequence

        found = rotate_key(federation.ledger, federation.devices, device, "person", SEED)

        assert decode_entry(federation.ledger.entry(found.position)).record.seq == before + 1
        assert isinstance(federation.ledger, SqliteLedger)
        assert federation.ledger.equivocations() == []


def test_rolled_back_ledger_is_refused_before_a_key_is_changed(folder: Path) -> None:
    older = (folder / "ledger" / "ledger.sqlite").read_bytes()
    goes_on(folder)
    for path in (folder / "ledger").glob("ledger.sqlite*"):
        path.unlink()
    (folder / "ledger" / "ledger.sqlite").write_bytes(older)

    with pytest.raises(RolledBack), standing(folder):
        pass


# --- the device's key ------------------------------------------------------------------------------------------------


def test_a_device_key_rotated_alone_trains_on(folder: Path) -> None:
    with standing(folder) as federation:
        device, before = device_of(federation), principal_of(federation).key
        rotate_key(federation.ledger, federation.devices, device, "device", SEED)

        held = federation.devices.signing_key(device.slot, "device").public
        assert principal_of(federation).device_key == held == SigningKey.from_seed(SEED).public
        assert principal_of(federation).key == before == held_key(federation).public
    assert device.number in goes_on(folder)


def test_a_person_whose_device_is_revoked_is_asked_no_more_and_replaces_it(folder: Path) -> None:
    with standing(folder) as federation:
        device = device_of(federation)
        revoke_key(federation.ledger, federation.devices, device, "device")
        assert device_of(federation).is_revoked
    assert device.number not in goes_on(folder)
    with standing(folder) as federation:
        rotate_key(federation.ledger, federation.devices, device_of(federation), "device", SEED)
        assert not device_of(federation).is_revoked
        assert principal_of(federation).can_answer


def test_a_recovered_person_does_not_bring_a_revoked_device_back(folder: Path) -> None:
    with standing(folder) as federation:
        revoke_key(federation.ledger, federation.devices, device_of(federation), "device")
        recover(federation, folder)

        assert device_of(federation).is_revoked
        assert not principal_of(federation).can_answer

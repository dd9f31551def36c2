"""Keys are replaced and revoked; number, role, accounts, sequence and history stay with the principal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.signing import SigningKey, verify_signature
from liberate.errors import RefusedEntry
from liberate.ledger.format.entries import decode_entry, new_key, sign, signed_bytes
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import EnrolmentPolicy, KeyName, NewKey
from liberate.ledger.format.records import KeyRecord, Record
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.transition import apply_entry, verify_signatures
from liberate.ledger.verification.verify import verify_ledger
from tests.ledger.world import (
    COORDINATOR,
    FOUNDER,
    HOST,
    LOG,
    LOG_KEY,
    LOG_VKEY,
    ORIGIN,
    BareRules,
    World,
    bare_world,
    create,
    device_key,
    genesis,
    key,
    next_key,
    reopen,
)

KEY_NAMES: tuple[KeyName, ...] = ("person", "device")
SMALL_ORDER = NewKey(public=b"\x01" + bytes(31), possession=bytes(64))


def refused(world: World, record: Record, by: SigningKey | None = None) -> str:
    """Why a record is refused; by the present key of its author unless another one signs."""
    before = [principal.encode() for principal in world.state.principals]

    [outcome] = world.target.append([sign(record, by or world.signer(record))])

    assert isinstance(outcome, RefusedEntry)
    assert [principal.encode() for principal in world.state.principals] == before
    return outcome.reason


def change(record: KeyRecord, **changes: object) -> KeyRecord:
    return msgspec.structs.replace(record, **changes)


def naming(world: World, number: int, following: SigningKey | NewKey, *, by: int | None = None) -> KeyRecord:
    """A record that gives a principal some key."""
    following = following if isinstance(following, NewKey) else new_key(following, ORIGIN, number)
    return change(world.new_key(number, by=by), key=following)


# --- rotation --------------------------------------------------------------------------------------------------------


def test_after_a_rotation_the_new_key_signs_and_the_old_one_does_not() -> None:
    world = bare_world()
    world.add(world.new_key(3))

    assert refused(world, world.consent(3, 4), by=key(3)) == "bad_signature"
    world.add(world.consent(3, 4))
    assert world.state.principals[3].key == next_key(key(3)).public


def test_a_rotation_is_signed_by_the_old_key() -> None:
    world = bare_world()

    assert refused(world, world.new_key(3), by=next_key(key(3))) == "bad_signature"


def test_everything_else_stays_with_the_principal() -> None:
    world = bare_world()
    world.add(world.round())
    world.add(world.update(3))
    before = world.state.principals[3]
    spent, sequence, count = before.epsilon_nano, before.sequence, before.about_count
    world.add(world.new_key(3))

    after = world.state.principals[3]
    assert (after.role, after.epsilon_nano, after.sequence, after.about_count) == (
        "participant",
        spent,
        sequence + 1,
        count + 1,
    )
    assert refused(world, world.update(3)) == "second_update"


@pytest.mark.parametrize("number", [FOUNDER, COORDINATOR, 3, HOST])
def test_everybody_but_the_log_rotates_the_own_key(number: int) -> None:
    world = bare_world()
    world.add(world.new_key(number))
    world.add(world.new_key(number))

    assert world.state.principals[number].key == next_key(next_key(key(number))).public


def test_the_key_of_the_log_stays() -> None:
    world = bare_world()

    assert refused(world, change(world.new_key(LOG), seq=9)) == "wrong_role"
    assert refused(world, world.new_key(LOG, by=FOUNDER)) == "not_registrar"
    assert refused(world, world.revocation(LOG, by=FOUNDER)) == "not_registrar"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param(lambda w: key(3), "key_used", id="the present key"),
        pytest.param(lambda w: key(4), "key_used", id="another's key"),
        pytest.param(lambda w: LOG_KEY, "key_used", id="the log's key"),
        pytest.param(lambda w: key(5), "key_used", id="another's former key"),
        pytest.param(lambda w: SMALL_ORDER, "bad_key", id="small order"),
        pytest.param(lambda w: new_key(key(9), ORIGIN, 4), "not_possessed", id="meant for another"),
        pytest.param(lambda w: new_key(key(9), "example.org/b", 3), "not_possessed", id="meant for another ledger"),
        pytest.param(
            lambda w: NewKey(public=key(9).public, possession=key(8).sign(b"")), "not_possessed", id="not held"
        ),
    ],
)
@pytest.mark.parametrize("by", [3, FOUNDER])
def test_a_key_that_was_used_or_is_not_held_is_refused(
    wrong: Callable[[World], SigningKey | NewKey], reason: str, by: int
) -> None:
    world = bare_world()
    world.add(world.new_key(5))

    assert refused(world, naming(world, 3, wrong(world), by=by)) == reason


def test_a_former_key_is_not_enrolled_again() -> None:
    world = bare_world()
    world.add(world.new_key(3))

    assert refused(world, msgspec.structs.replace(world.enrol(7, "host"), key=key(3).public)) == "key_used"


def test_the_key_of_nobody_cannot_be_changed() -> None:
    world = bare_world()

    assert refused(world, world.new_key(7, by=FOUNDER)) == "unknown_principal"
    assert refused(world, world.revocation(7, by=FOUNDER)) == "unknown_principal"


# --- revocation and recovery -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [3, FOUNDER])
def test_a_revoked_author_writes_nothing_until_it_is_recovered(by: int) -> None:
    world = bare_world()
    world.add(world.round())
    world.add(world.revocation(3, by=by))

    assert world.state.principals[3].encode()[65] == 1
    for record in (world.consent(3, 4), world.update(3), world.new_key(3), world.revocation(3)):
        assert refused(world, record) == "revoked_author"
    assert refused(world, world.revocation(3, by=FOUNDER)) == "already_revoked"
    world.add(world.new_key(3, by=FOUNDER))
    assert world.state.principals[3].encode()[65] == 0
    assert refused(world, world.consent(3, 4), by=key(3)) == "bad_signature"
    world.add(world.update(3))


def test_recovery_is_no_fresh_budget() -> None:
    world = bare_world()
    for _ in range(5):
        world.add(world.round(run=1 + world.state.round_number))
        world.add(world.update(3))
        world.add(world.aborted())
    world.add(world.revocation(3))
    world.add(world.new_key(3, by=FOUNDER))
    world.add(world.round(run=6))

    assert world.state.principals[3].epsilon_nano == 10
    assert refused(world, world.update(3)) == "over_budget"


def test_nobody_revoked_takes_part_through_a_host_or_a_cohort() -> None:
    world = bare_world()
    world.add(world.revocation(4))

    assert refused(world, msgspec.structs.replace(world.round(), cohort=to_ranges([3, 4]))) == "wrong_cohort"
    world.add(world.round())
    assert refused(world, world.update(HOST)) == "not_in_cohort"
    world.add(msgspec.structs.replace(world.update(HOST), participants=to_ranges([3, 5])))


@pytest.mark.parametrize("by", [COORDINATOR, 4, HOST])
def test_only_a_registrar_acts_for_others(by: int) -> None:
    world = bare_world()

    assert refused(world, world.new_key(3, by=by)) == "not_registrar"
    assert refused(world, world.revocation(3, by=by)) == "not_registrar"


def test_a_registrar_acts_for_the_roles_it_admits_only() -> None:
    """Principal 0 admits coordinators, 1 admits participants, 2 is the log."""
    world = World(BareRules())
    world.add(
        msgspec.structs.replace(
            genesis(),
            registrars=(key(0).public, key(8).public),
            enrolment_policy={
                "coordinator": EnrolmentPolicy(registrars=(0,), threshold=1),
                "participant": EnrolmentPolicy(registrars=(1,), threshold=1),
            },
        )
    )
    world.add(msgspec.structs.replace(world.enrol(3, "coordinator"), key=key(3).public))
    other = change(world.new_key(3, by=1), author=1)

    assert refused(world, other, by=key(8)) == "not_registrar"
    assert refused(world, change(other, number=0), by=key(8)) == "not_registrar"
    world.add(world.new_key(3, by=0))


def test_a_revoked_registrar_cannot_come_back() -> None:
    world = bare_world()
    world.add(world.revocation(FOUNDER))

    assert refused(world, world.enrol(7, "participant")) == "revoked_author"
    assert refused(world, world.new_key(FOUNDER)) == "revoked_author"


# --- validity by position --------------------------------------------------------------------------------------------


def rotating_batch(world: World) -> list[bytes]:
    """Entries around a rotation: the old key's, the rotation, the new key's, and the old key's too late."""
    seq, old, new = world.seq(3), key(3), next_key(key(3))
    records: list[tuple[Record, SigningKey]] = [
        (world.consent(3, 4), old),
        (world.new_key(3, seq=seq + 1), old),
        (msgspec.structs.replace(world.consent(3, 4), seq=seq + 2), new),
        (msgspec.structs.replace(world.consent(3, 4), seq=seq + 3), old),
        (msgspec.structs.replace(world.consent(3, 4), seq=seq + 4), new),
    ]
    return [sign(record, by) for record, by in records]


def test_a_batch_may_rotate_a_key_in_its_middle(tmp_path: Path) -> None:
    with closing(create(tmp_path)) as ledger:
        outcomes = ledger.append(rotating_batch(World(ledger).populate()))

    assert [o.reason if isinstance(o, RefusedEntry) else "" for o in outcomes] == ["", "", "", "bad_signature", ""]
    assert verify_ledger(tmp_path, key=LOG_VKEY).ok


def test_a_signature_verified_before_the_rotation_does_not_count_after_it() -> None:
    world = bare_world()
    entries = [decode_entry(data) for data in rotating_batch(world)]
    signed = verify_signatures(world.state, entries)

    assert {e.leaf_hash for e in entries if signed.get(e.leaf_hash) == key(3).public} == {
        entries[i].leaf_hash for i in (0, 1, 3)
    }
    for entry in entries[:3]:
        apply_entry(world.state, entry, world.state.size, verified_by=signed.get(entry.leaf_hash))
    with pytest.raises(RefusedEntry, match="bad_signature"):
        apply_entry(world.state, entries[3], world.state.size, verified_by=signed.get(entries[3].leaf_hash))


def rotate_often(ledger: SqliteLedger) -> World:
    world = World(ledger).populate()
    for number in (3, 4, 3, FOUNDER):
        world.add(world.new_key(number))
        world.add(world.consent(5, 3))
    world.add(world.revocation(4))
    world.add(world.new_key(4, by=FOUNDER))
    world.add(world.revocation(5))
    return world


def test_a_ledger_reopened_knows_every_key_that_ever_was(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    world = rotate_often(ledger)
    before = [[world.state.key_at(n, p) for n in range(7)] for p in range(ledger.size)]
    ledger.close()

    with closing(reopen(tmp_path)) as ledger:
        state = ledger.state
        after = [[state.key_at(n, p) for n in range(7)] for p in range(ledger.size)]
        assert after == before
        assert [state.number_of(k.public) for k in (key(3), next_key(key(3)), next_key(next_key(key(3))))] == [3, 3, 3]
        assert [p.is_revoked for p in state.principals] == [False] * 5 + [True, False]
        assert refused(World(ledger), naming(World(ledger), 3, key(FOUNDER))) == "key_used"


def test_each_entry_is_signed_with_the_key_of_its_position(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    rotate_often(ledger)

    for position, data in ledger.entries():
        entry = decode_entry(data)
        public = ledger.state.author_key(entry.record, position)
        verify_signature(public, signed_bytes(entry.body), entry.signature)
    ledger.close()
    assert verify_ledger(tmp_path, key=LOG_VKEY).ok


ACTS = st.tuples(st.sampled_from(["rotate", "recover", "revoke", "write"]), st.sampled_from([3, 4, COORDINATOR]))


@given(st.lists(st.tuples(ACTS, st.booleans()), max_size=12))
def test_any_order_of_acts_ends_as_a_plain_model_says(steps: list[tuple[tuple[str, int], bool]]) -> None:
    """An act by the owner needs a key that is not revoked; only the founder acts for others; a key returns never."""
    world = bare_world()
    revoked: dict[int, bool] = {}
    keys = {number: [key(number)] for number in (3, 4, COORDINATOR)}
    history: list[tuple[int, int, bytes]] = []
    for (act, number), by_founder in steps:
        by = FOUNDER if by_founder or act == "recover" else number
        match act:
            case "write":
                by, record = (
                    number,
                    world.consent(number, 5) if number != COORDINATOR else world.new_key(LOG, by=number),
                )
                follows = not revoked.get(number) and number != COORDINATOR
            case "revoke":
                record, follows = world.revocation(number, by=by), not revoked.get(number)
            case _:
                record, follows = world.new_key(number, by=by), by == FOUNDER or not revoked.get(number)
        position, signer = world.state.size, key(FOUNDER) if by == FOUNDER else keys[number][-1]
        [outcome] = world.target.append([sign(record, signer)])

        assert isinstance(outcome, int) == follows
        if follows:
            history.append((by, position, signer.public))
        if follows and act == "revoke":
            revoked[number] = True
        elif follows and act != "write":
            revoked[number] = False
            keys[number].append(next_key(keys[number][-1]))

    assert [world.state.principals[n].is_revoked for n in keys] == [revoked.get(n, False) for n in keys]
    assert all(world.state.number_of(each.public) == n for n, known in keys.items() for each in known)
    assert all(world.state.key_at(by, position) == public for by, position, public in history)


def test_blocks_leave_the_state_tree_as_it_is(tmp_path: Path) -> None:
    with closing(create(tmp_path)) as ledger:
        World(ledger).populate()
        last = decode_entry(ledger.entry(ledger.size - 1)).record

        assert last.kind == "block"
        assert getattr(last, "state_root", None) == ledger.state.root()
        assert ledger.state.principals[LOG].about_count == 1
        assert ledger.positions(about=LOG) == [0]
    with closing(SqliteLedger.open(tmp_path)) as reader:
        assert reader.state.root() == getattr(last, "state_root", None)


# --- two keys --------------------------------------------------------------------------------------------------------


def test_a_stolen_device_key_cannot_withdraw_or_share_or_take_the_person_over() -> None:
    world = bare_world()
    world.add(world.consent(3, 4))
    world.add(world.consent(4, 3))
    world.add(world.share(4, 3))
    thief = device_key(3)

    decisions: list[Record] = [
        world.consent(3, 5),
        world.share(3, 4),
        world.receipt(3, 4),
        world.withdrawal(3, world.consents(3)[0]),
        world.withdrawal(3),
        *(
            record
            for which in KEY_NAMES
            for record in (world.new_key(3, which=which), world.revocation(3, which=which))
        ),
    ]
    assert [refused(world, record, by=thief) for record in decisions] == ["bad_signature"] * len(decisions)

    world.add(world.withdrawal(3))
    assert refused(world, world.erasure(3), by=thief) == "bad_signature"


def test_a_persons_key_answers_no_round() -> None:
    world = bare_world()
    world.add(world.round())

    for record in (world.update(3), world.dataset(3)):
        assert refused(world, record, by=key(3)) == "bad_signature"
    world.add(world.update(3), msgspec.structs.replace(world.dataset(3), seq=world.seq(3) + 1))


def test_a_lost_device_key_is_replaced_by_its_person() -> None:
    world = bare_world()
    world.add(world.revocation(3, which="device"))
    world.add(world.round())

    assert world.state.principals[3].encode()[65] == 8
    for record in (world.update(3), world.dataset(3)):
        assert refused(world, record) == "revoked_device"
    assert refused(world, world.revocation(3, which="device")) == "already_revoked"
    world.add(world.new_key(3, which="device"))
    assert refused(world, world.update(3), by=device_key(3)) == "bad_signature"
    world.add(world.update(3))


def test_a_person_without_a_device_still_decides() -> None:
    world = bare_world()
    world.add(world.revocation(3, which="device"))

    assert refused(world, msgspec.structs.replace(world.round(), cohort=to_ranges([3, 4]))) == "wrong_cohort"
    world.add(world.round())
    assert refused(world, world.update(HOST)) == "not_in_cohort"
    world.add(world.consent(3, 4))
    world.add(world.share(3, 4))
    world.add(world.consent(5, 3))
    world.add(world.withdrawal(3))
    world.add(world.erasure(3))


def test_a_device_does_nothing_while_its_persons_key_is_revoked() -> None:
    world = bare_world()
    world.add(world.round())
    world.add(world.revocation(3))

    for record in (world.update(3), world.dataset(3), world.new_key(3, which="device")):
        assert refused(world, record) == "revoked_author"


@pytest.mark.parametrize("by", [3, FOUNDER])
@pytest.mark.parametrize("which", KEY_NAMES)
def test_either_key_rotates_alone(which: KeyName, by: int) -> None:
    world = bare_world()
    before = {name: world.state.principals[3].key_named(name) for name in KEY_NAMES}
    world.add(world.new_key(3, which=which, by=by))

    after = {name: world.state.principals[3].key_named(name) for name in KEY_NAMES}
    assert [name for name in KEY_NAMES if after[name] != before[name]] == [which]
    world.add(world.consent(3, 4))
    world.add(world.dataset(3))


def test_a_key_meant_for_the_device_does_not_become_the_persons() -> None:
    world = bare_world()
    for_device = new_key(key(9), ORIGIN, 3, "device")

    assert refused(world, naming(world, 3, for_device)) == "not_possessed"
    world.add(change(world.new_key(3, which="device"), key=for_device))


@pytest.mark.parametrize("which", KEY_NAMES)
def test_neither_key_is_used_twice(which: KeyName) -> None:
    world = bare_world()
    world.add(world.new_key(4, which="device"))

    for used in (key(3), device_key(3), key(5), device_key(5), device_key(4)):
        assert refused(world, change(world.new_key(3, which=which), key=new_key(used, ORIGIN, 3, which))) == "key_used"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device_key": None}, "wrong_device_key"),
        ({"device_key": key(7).public}, "wrong_device_key"),
        ({"device_key": device_key(3).public}, "key_used"),
        ({"device_key": bytes(32)}, "bad_key"),
        ({"role": "host"}, "wrong_device_key"),
        ({"role": "host", "device_key": None, "custody": "host"}, "wrong_custody"),
    ],
)
def test_a_participant_has_two_keys_and_everybody_else_one(changes: dict[str, object], reason: str) -> None:
    world = bare_world()

    assert refused(world, msgspec.structs.replace(world.enrol(7, "participant"), **changes)) == reason


def test_only_a_participant_has_a_device() -> None:
    world = bare_world()

    assert refused(world, world.revocation(HOST, which="device")) == "wrong_device_key"
    assert refused(world, change(world.new_key(HOST), which="device")) == "wrong_device_key"


def test_the_ledger_says_that_a_host_holds_somebodys_keys() -> None:
    world = bare_world()
    world.add(msgspec.structs.replace(world.enrol(7, "participant"), custody="host"))

    assert [world.state.principals[number].custody for number in (3, 7)] == ["own", "host"]
    assert world.state.principals[7].encode()[65] == 16

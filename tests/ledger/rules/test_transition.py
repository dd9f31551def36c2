"""What follows is accepted, what does not is refused with its reason, and a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.note import SignatureType, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import RefusedEntry
from liberate.identifiers import Account, Digest
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.number_sets import Range, numbers_in, to_ranges
from liberate.ledger.format.parts import EnrolmentPolicy, MechanismSpec, Witnesses
from liberate.ledger.format.records import ZERO, Genesis, Record, Update
from liberate.ledger.format.refusals import Reason
from liberate.ledger.rules.round_state import ModelReference, OpenRound
from liberate.ledger.rules.transition import LARGEST_SEQUENCE_STEP, apply_entry
from tests.ledger.world import (
    COORDINATOR,
    FOUNDER,
    HOST,
    LOG,
    LOG_KEY,
    LOG_VKEY,
    ORIGIN,
    PARTICIPANTS,
    BareRules,
    World,
    bare_world,
    device_key,
    digest,
    genesis,
    key,
)
from tests.strategies import records

RecordT = TypeVar("RecordT", bound=Record)


def change(record: RecordT, **changes: object) -> RecordT:
    """The record with other values."""
    return msgspec.structs.replace(record, **changes)


def reason_for(world: World, data: bytes) -> str:
    """Why an entry is refused; checks that the refusal leaves no trace."""
    before = deepcopy(world.state)
    with pytest.raises(RefusedEntry) as caught:
        apply_entry(world.state, decode_entry(data), world.state.size)
    assert snapshot(before) == snapshot(world.state)
    return caught.value.reason


def snapshot(state: Any) -> object:
    """All that a state holds, as comparable values."""
    current = state.open_round
    return (
        [principal.encode() for principal in state.principals],
        (state.genesis, state.size, state.height, state.block_hash, state.block_size, state.time_us),
        (state.run, state.round_number, state.model),
        (state._numbers, state._former_keys),
        deepcopy(state.sharing),
        None if current is None else (current.record, current.updates, current.answered, named(current)),
        None if current is None else current.pool.copy(),
        state.root(),
    )


def named(current: OpenRound) -> object:
    """What a round's sets are known to be."""
    return deepcopy(current.sets)


def refused(world: World, record: Record, by: SigningKey | None = None) -> str:
    """Why a record is refused."""
    return reason_for(world, sign(record, by or world.signer(record)))


# --- a case for each way to be refused: how the world got there, and the record that does not follow ---------------


def in_round(world: World) -> World:
    world.add(world.round())
    return world


def after_updates(world: World) -> World:
    in_round(world).add(*(world.update(number) for number in PARTICIPANTS))
    return world


def after_model(world: World) -> World:
    after_updates(world).add(world.model())
    return world


def after_run(world: World) -> World:
    for _ in range(3):
        world.add(world.round())
        world.add(world.update(3))
        world.add(world.model())
    return world


def with_late_participant(world: World) -> World:
    in_round(world).add(world.enrol(7, "participant"))
    return world


def with_cohort(world: World) -> World:
    world.add(change(world.round(), cohort=to_ranges([3, 5])))
    return world


def past_deadline(world: World) -> World:
    world.add(change(world.round(), deadline=world.state.height + 1))
    world.add(world.block())
    return world


def in_open_round(world: World) -> World:
    """A round is open in which answers spend nothing; the genesis has a limit."""
    world.add(world.round(spend=0))
    return world


def with_spent_rho(world: World) -> World:
    """3 has spent from one account; a round is open that spends from the other."""
    exchanged(world)
    world.add(world.update(3))
    world.add(world.aborted())
    world.add(world.round())
    return world


def with_little_left(world: World) -> World:
    after_model(world).add(world.round(run=2, spend=9))
    return world


def opened(world: World) -> World:
    world.add(world.round(masked=True))
    return world


def strict(world: World) -> World:
    """A masked round in which a third of the cohort may vanish late, and whose keys two have advertised."""
    world.add(world.terms(max_dropouts_permille=400, max_late_dropouts_permille=334))
    opened(world).add(world.round_set("advertised", *PARTICIPANTS))
    return world


def exchanged(world: World) -> World:
    opened(world).exchange_keys()
    return world


def exchanged_by_few(world: World) -> World:
    opened(world).exchange_keys(3, 4)
    return world


def half_advertised(world: World) -> World:
    opened(world).add(world.round_set("advertised", 3, 4, parts=2))
    return world


def masked(world: World) -> World:
    """A masked round, and an answer of everybody."""
    exchanged(world)
    world.add(*(world.update(number) for number in PARTICIPANTS))
    return world


def masked_for_host(world: World) -> World:
    exchanged(world)
    world.add(world.update(HOST))
    return world


def masked_with_few(world: World) -> World:
    world.add(change(world.round(masked=True), minimum=2))
    world.exchange_keys()
    world.add(world.update(3), world.update(4))
    return world


def named_with_few(world: World) -> World:
    masked_with_few(world).add(world.survivors(3, 4))
    return world


def half_named(world: World) -> World:
    masked(world).add(world.survivors(3, 4, parts=2))
    return world


def all_named(world: World) -> World:
    """Two of three survive."""
    masked(world).add(world.survivors(3, 5))
    return world


def as_it_is(world: World) -> World:
    return world


CROWD = tuple(Range(first=first, bitmap=b"\xff" * 20_000) for first in (0, 160_000))

Make = Callable[[World], Record]
CASES: list[tuple[Reason, str, Callable[[World], World], Make]] = [
    ("wrong_origin", "replayed from another ledger", as_it_is, lambda w: change(w.dataset(3), origin="example.org/b")),
    ("unknown_author", "nobody", as_it_is, lambda w: change(w.dataset(3), author=99)),
    ("wrong_role", "a host's data set", as_it_is, lambda w: w.dataset(HOST)),
    ("wrong_role", "a participant's round", as_it_is, lambda w: change(w.round(), author=3, seq=9)),
    ("wrong_role", "a participant admits", as_it_is, lambda w: change(w.enrol(7, "participant"), author=3, seq=9)),
    ("wrong_role", "a coordinator's update", in_round, lambda w: w.update(COORDINATOR)),
    ("wrong_role", "a participant's block", as_it_is, lambda w: change(w.block(), author=3)),
    ("stale_sequence", "the same sequence", as_it_is, lambda w: change(w.dataset(3), seq=1)),
    ("stale_sequence", "overtaken", in_round, lambda w: change(w.aborted(), seq=w.seq(COORDINATOR) - 1)),
    ("sequence_too_far", "too far", as_it_is, lambda w: change(w.dataset(3), seq=2 + LARGEST_SEQUENCE_STEP)),
    ("second_genesis", "again", as_it_is, lambda w: change(genesis(), seq=w.seq(FOUNDER))),
    ("not_registrar", "a role without a policy", as_it_is, lambda w: w.enrol(7, "auditor")),
    ("wrong_number", "a number left out", as_it_is, lambda w: w.enrol(8, "participant")),
    ("wrong_number", "a number taken", as_it_is, lambda w: change(w.enrol(7, "participant"), number=3)),
    ("bad_key", "small order", as_it_is, lambda w: change(w.enrol(7, "participant"), key=bytes(32))),
    ("bad_key", "no point", as_it_is, lambda w: change(w.enrol(7, "participant"), key=b"\x02" + bytes(31))),
    ("key_used", "twice", as_it_is, lambda w: change(w.enrol(7, "host"), key=key(3).public)),
    ("key_used", "the log", as_it_is, lambda w: change(w.enrol(7, "host"), key=LOG_KEY.public)),
    ("round_open", "second round", in_round, lambda w: w.round()),
    ("wrong_number", "a round left out", as_it_is, lambda w: change(w.round(), number=2)),
    ("wrong_number", "a round again", after_model, lambda w: change(w.round(), number=1)),
    ("wrong_run", "a first run that is not one", as_it_is, lambda w: change(w.round(), run=2)),
    ("wrong_run", "a run left out", after_model, lambda w: w.round(run=3)),
    ("wrong_run", "an earlier run", lambda w: after_next_run(w), lambda w: change(w.round(), run=1)),
    ("wrong_run", "other terms", after_model, lambda w: change(w.round(), rounds=4)),
    ("wrong_run", "no more terms", after_model, lambda w: change(w.round(), rounds=None)),
    ("run_complete", "a fourth of three", after_run, lambda w: w.round()),
    ("wrong_base_model", "first version is 0", as_it_is, lambda w: change(w.round(), base_version=1)),
    ("wrong_base_model", "another digest", after_model, lambda w: change(w.round(), base_digest=digest("other"))),
    ("wrong_base_model", "an older model", after_model, lambda w: change(w.round(), base_version=0)),
    ("wrong_base_model", "versions start again", after_model, lambda w: change(w.round(run=2), base_version=0)),
    ("wrong_spend", "spend without account", as_it_is, lambda w: change(w.round(), account="none")),
    ("wrong_spend", "account without spend", as_it_is, lambda w: change(w.round(), spend_nano=0)),
    ("too_late", "over when it opens", as_it_is, lambda w: change(w.round(), deadline=w.state.height)),
    ("wrong_cohort", "a host", as_it_is, lambda w: change(w.round(), cohort=to_ranges([3, HOST]))),
    ("wrong_cohort", "nobody", as_it_is, lambda w: change(w.round(), cohort=to_ranges([3, 7]))),
    ("wrong_cohort", "overlap", as_it_is, lambda w: change(w.round(), cohort=to_ranges([3]) * 2)),
    ("wrong_cohort", "disorder", as_it_is, lambda w: change(w.round(), cohort=to_ranges([5]) + to_ranges([3]))),
    (
        "wrong_cohort",
        "empty first bit",
        as_it_is,
        lambda w: change(w.round(), cohort=(Range(first=2, bitmap=b"\x02"),)),
    ),
    ("wrong_cohort", "empty end", as_it_is, lambda w: change(w.round(), cohort=(Range(first=3, bitmap=b"\x01\x00"),))),
    (
        "too_many_participants",
        "more than a record may name",
        as_it_is,
        lambda w: change(w.round(), cohort=CROWD),
    ),
    ("closed_round", "an update before any round", as_it_is, lambda w: any_update(w, 3)),
    ("closed_round", "an update after the model", after_model, lambda w: any_update(w, 3)),
    ("closed_round", "an update for a later round", in_round, lambda w: change(w.update(3), round=2)),
    ("closed_round", "a second model", after_model, lambda w: any_model(w)),
    ("closed_round", "a model for another round", in_round, lambda w: change(w.model(), round=2)),
    ("closed_round", "aborted twice", after_model, lambda w: change(any_aborted(w), round=1)),
    (
        "wrong_round",
        "another entry of that number",
        in_round,
        lambda w: change(w.update(3), round_hash=digest("other")),
    ),
    ("too_late", "an update after the deadline", past_deadline, lambda w: w.update(3)),
    ("wrong_spend", "less", in_round, lambda w: change(w.update(3), spend_nano=1)),
    ("wrong_spend", "another account", in_round, lambda w: change(w.update(3), account="rho")),
    (
        "wrong_participants",
        "a participant for others",
        in_round,
        lambda w: change(w.update(3), participants=to_ranges([4])),
    ),
    ("wrong_participants", "a host for nobody", in_round, lambda w: change(w.update(HOST), participants=())),
    (
        "wrong_participants",
        "a person twice",
        in_round,
        lambda w: change(w.update(HOST), participants=to_ranges([3]) * 2),
    ),
    ("not_in_cohort", "not chosen", with_cohort, lambda w: w.update(4)),
    ("not_in_cohort", "host's person not chosen", with_cohort, lambda w: w.update(HOST)),
    ("not_in_cohort", "enrolled later", with_late_participant, lambda w: w.update(7)),
    ("not_in_cohort", "a host's coordinator", in_round, lambda w: change(w.update(HOST), participants=to_ranges([2]))),
    ("not_in_cohort", "a host's nobody", in_round, lambda w: change(w.update(HOST), participants=to_ranges([70]))),
    ("second_update", "a participant again", after_updates, lambda w: w.update(3)),
    ("second_update", "by the host", after_updates, lambda w: change(w.update(HOST), participants=to_ranges([5]))),
    ("over_budget", "more than is left", with_little_left, lambda w: w.update(3)),
    ("over_budget", "one of the host's people", with_little_left, lambda w: w.update(HOST)),
    ("over_budget", "from a second account", with_spent_rho, lambda w: w.update(3)),
    ("unpriced", "an answer without a price under a limit", in_open_round, lambda w: w.update(3)),
    ("unpriced", "a host's answer without a price", in_open_round, lambda w: w.update(HOST)),
    ("wrong_parent", "another base", after_updates, lambda w: change(w.model(), parent=digest("other"))),
    ("wrong_version", "a version left out", after_updates, lambda w: change(w.model(), version=2)),
    ("wrong_updates", "another root", after_updates, lambda w: change(w.model(), updates_root=digest("other"))),
    ("wrong_updates", "one kept back", after_updates, lambda w: change(w.model(), updates_root=root(hashes(w)[:2]))),
    ("wrong_updates", "another order", after_updates, lambda w: change(w.model(), updates_root=root(hashes(w)[::-1]))),
    ("wrong_updates", "unused, no update", after_updates, lambda w: change(w.model(), unused=(0,))),
    ("wrong_updates", "unused, twice", after_updates, lambda w: change(w.model(), unused=unused(w, 0, 0))),
    ("wrong_updates", "unused, in disorder", after_updates, lambda w: change(w.model(), unused=unused(w, 1, 0))),
    ("too_few_updates", "nobody answered", in_round, lambda w: w.model()),
    ("too_few_updates", "nobody is used", after_updates, lambda w: w.model(unused=unused(w, 0, 1, 2))),
    ("closed_round", "survivors of no round", as_it_is, lambda w: any_survivors(w)),
    ("closed_round", "survivors of another round", masked, lambda w: change(w.survivors(3), round=2)),
    ("wrong_round", "survivors of another entry", masked, lambda w: change(w.survivors(3), round_hash=digest("other"))),
    ("wrong_role", "a participant names survivors", masked, lambda w: change(w.survivors(3), author=3, seq=9)),
    ("not_masked", "nothing to undo", after_updates, lambda w: w.survivors(3)),
    ("second_set", "another set", all_named, lambda w: w.survivors(3, 4)),
    ("second_set", "one more part", all_named, lambda w: w.survivors(6, part=2, parts=2)),
    ("wrong_part", "begins with the second", masked, lambda w: w.survivors(3, part=2, parts=2)),
    ("wrong_part", "beyond the last", masked, lambda w: w.survivors(3, part=2, parts=1)),
    ("wrong_part", "the first again", half_named, lambda w: w.survivors(5, parts=2)),
    ("wrong_part", "other parts", half_named, lambda w: w.survivors(5, part=2, parts=3)),
    ("wrong_participants", "nobody survives", masked, lambda w: w.survivors()),
    ("wrong_participants", "survivors named twice", half_named, lambda w: w.survivors(4, 5, part=2, parts=2)),
    (
        "wrong_participants",
        "survivors in disorder",
        masked,
        lambda w: change(w.survivors(), participants=to_ranges([5]) + to_ranges([3])),
    ),
    ("too_many_participants", "too large a part", masked, lambda w: change(w.survivors(), participants=CROWD)),
    ("no_answer", "who did not answer", masked_with_few, lambda w: w.survivors(3, 5)),
    ("not_in_set", "who is nobody", masked, lambda w: w.survivors(3, 70)),
    ("too_few_participants", "too few survivors", masked_with_few, lambda w: w.survivors(3)),
    ("wrong_cohort", "masks for whoever comes", as_it_is, lambda w: change(w.round(masked=True), cohort=())),
    ("not_masked", "keys without masks", in_round, lambda w: w.round_set("advertised", 3)),
    ("wrong_phase", "shares before keys", opened, lambda w: w.round_set("shared", 3)),
    ("wrong_phase", "a graph amid the keys", half_advertised, lambda w: w.round_set("graph", 3)),
    ("second_set", "other keys", exchanged, lambda w: w.round_set("advertised", 3, 4)),
    ("second_set", "other shares", exchanged, lambda w: w.round_set("shared", 3, 4)),
    ("wrong_root", "keys without a root", opened, lambda w: change(w.round_set("advertised", 3), root=ZERO)),
    ("wrong_root", "survivors with a root", masked, lambda w: change(w.survivors(3), root=digest("any"))),
    (
        "wrong_root",
        "another root in the second part",
        half_advertised,
        lambda w: change(w.round_set("advertised", 5, part=2, parts=2), root=digest("other")),
    ),
    ("not_in_set", "keys of a stranger", opened, lambda w: w.round_set("advertised", 3, 70)),
    ("not_in_set", "a survivor who did not share", exchanged_by_few, lambda w: w.survivors(3, 5)),
    ("not_in_set", "an answer of who did not share", exchanged_by_few, lambda w: w.update(5)),
    ("not_in_set", "a host's person who did not share", exchanged_by_few, lambda w: w.update(HOST)),
    ("not_shared", "an answer before the keys", opened, lambda w: w.update(3)),
    ("not_shared", "an answer amid the keys", half_advertised, lambda w: w.update(3)),
    ("too_few_participants", "too many vanish late", strict, lambda w: w.round_set("graph", 3)),
    ("wrong_updates", "half of a host's people", masked_for_host, lambda w: w.survivors(3, 5)),
    ("survivors_named", "an answer after the set", named_with_few, lambda w: w.update(5)),
    ("survivors_named", "an answer within the set", half_named, lambda w: w.update(3)),
    ("no_survivors", "a model without them", masked, lambda w: w.model()),
    ("no_survivors", "a model after half of them", half_named, lambda w: w.model()),
    ("wrong_updates", "a model of more than survive", all_named, lambda w: w.model()),
    ("wrong_updates", "a model of fewer than survive", all_named, lambda w: w.model(unused=unused(w, 0, 1))),
    ("other_coordinator", "model", lambda w: with_second_coordinator(w), lambda w: change(w.model(), author=7, seq=1)),
    (
        "other_coordinator",
        "abort",
        lambda w: with_second_coordinator(w),
        lambda w: change(w.aborted(), author=7, seq=1),
    ),
    ("wrong_height", "left out", in_round, lambda w: change(w.block(), seq=w.state.height + 2)),
    ("wrong_parent", "another block", in_round, lambda w: change(w.block(), parent=digest("other"))),
    ("wrong_count", "one too many", in_round, lambda w: change(w.block(), count=w.block().count + 1)),
    ("wrong_state", "another root", in_round, lambda w: change(w.block(), state_root=digest("other"))),
    ("wrong_time", "backwards", in_round, lambda w: change(w.block(), time_us=0)),
]


def after_next_run(world: World) -> World:
    after_model(world).add(world.round(run=2))
    world.add(world.aborted())
    return world


def with_second_coordinator(world: World) -> World:
    world.add(world.enrol(7, "coordinator"))
    return after_updates(world)


def any_update(world: World, author: int) -> Record:
    """An update that was fine in the first round."""
    other = in_round(bare_world())
    return change(other.update(author), seq=world.seq(author))


def any_model(world: World) -> Record:
    return change(after_updates(bare_world()).model(), seq=world.seq(COORDINATOR))


def any_survivors(world: World) -> Record:
    return change(masked(bare_world()).survivors(3), seq=world.seq(COORDINATOR))


def any_aborted(world: World) -> Record:
    return change(in_round(bare_world()).aborted(), seq=world.seq(COORDINATOR))


def hashes(world: World) -> list[Digest]:
    return [update.leaf_hash for update in world.open_round.updates.values()]


def unused(world: World, *which: int) -> tuple[int, ...]:
    positions = list(world.open_round.updates)
    return tuple(positions[index] for index in which)


@pytest.mark.parametrize(
    ("reason", "prepare", "make"), [pytest.param(r, p, m, id=f"{r}: {name}") for r, name, p, m in CASES]
)
def test_what_does_not_follow_is_refused(reason: Reason, prepare: Callable[[World], World], make: Make) -> None:
    world = prepare(bare_world())

    assert refused(world, make(world)) == reason


def witness_vkey(name: str, number: int) -> str:
    """The verifier key of a witness that signs with somebody's key."""
    return verifier_key(f"witness.example/{name}", key(number).public, SignatureType.COSIGNATURE_V1)


WITNESS_VKEY = witness_vkey("w", 9)
REPLAYING_VKEY = witness_vkey("w/replay", 8)

BAD_GENESES: list[tuple[Reason, str, Genesis]] = [
    ("bad_genesis", "another author", change(genesis(), author=1)),
    ("bad_genesis", "another sequence", change(genesis(), seq=2)),
    ("bad_genesis", "no registrar", change(genesis(), registrars=())),
    ("bad_genesis", "an registrar twice", change(genesis(), registrars=(key(0).public, key(0).public))),
    ("bad_genesis", "the founder as log", change(genesis(), log_vkey=verifier_key(ORIGIN, key(0).public))),
    ("bad_genesis", "the log of another origin", change(genesis(), log_vkey=verifier_key("other", LOG_KEY.public))),
    ("bad_key", "no log key", change(genesis(), log_vkey="log")),
    ("bad_key", "small order", change(genesis(), registrars=(key(0).public, bytes(32)))),
    (
        "bad_genesis",
        "a role for nobody",
        change(genesis(), enrolment_policy={"host": EnrolmentPolicy(registrars=(), threshold=1)}),
    ),
    (
        "bad_genesis",
        "an unknown registrar",
        change(genesis(), enrolment_policy={"host": EnrolmentPolicy(registrars=(1,), threshold=1)}),
    ),
    (
        "bad_genesis",
        "two of one",
        change(genesis(), enrolment_policy={"host": EnrolmentPolicy(registrars=(0,), threshold=2)}),
    ),
    ("bad_genesis", "too few witnesses", change(genesis(), witnesses=Witnesses(keys=(WITNESS_VKEY,), threshold=2))),
    ("bad_genesis", "a witness twice", change(genesis(), witnesses=Witnesses(keys=(WITNESS_VKEY,) * 2, threshold=1))),
    (
        "bad_genesis",
        "a registrar's key for a witness",
        change(genesis(), witnesses=Witnesses(keys=(witness_vkey("w", FOUNDER),), threshold=1)),
    ),
    (
        "bad_genesis",
        "the log's key for a witness",
        change(genesis(), witnesses=Witnesses(keys=(witness_vkey("w", LOG),), threshold=1)),
    ),
    ("bad_key", "no witness key", change(genesis(), witnesses=Witnesses(keys=("witness",), threshold=0))),
    ("bad_key", "a log's key for a witness", change(genesis(), witnesses=Witnesses(keys=(LOG_VKEY,), threshold=0))),
]


@pytest.mark.parametrize(
    ("reason", "record"), [pytest.param(r, record, id=f"{r}: {name}") for r, name, record in BAD_GENESES]
)
def test_a_genesis_that_nobody_could_follow_is_refused(reason: Reason, record: Genesis) -> None:
    assert refused(World(BareRules()), record, key(FOUNDER)) == reason


def test_a_ledger_begins_with_a_genesis() -> None:
    world = bare_world()

    assert refused(World(BareRules()), world.dataset(3)) == "no_genesis"


def test_a_genesis_is_signed_by_the_founder() -> None:
    assert refused(World(BareRules()), genesis(), key(1)) == "bad_signature"


@pytest.mark.parametrize(
    "make", [lambda w: w.dataset(3), lambda w: w.enrol(7, "participant"), lambda w: w.round(), lambda w: w.block()]
)
def test_a_signature_by_another_key_is_refused(make: Make) -> None:
    world = bare_world()

    assert refused(world, make(world), key(4)) == "bad_signature"


def test_a_signature_made_for_another_record_is_refused() -> None:
    world = bare_world()
    signature = sign(change(world.dataset(3), seq=5), device_key(3))[:64]

    assert reason_for(world, signature + sign(world.dataset(3), device_key(3))[64:]) == "bad_signature"


def test_noise_on_the_sum_is_for_simulations() -> None:
    world = World(BareRules())
    world.add(genesis(simulated=False))
    world.populate()

    assert refused(world, change(world.round(), noise_placement="on_sum")) == "not_simulated"


def test_masks_are_left_out_in_simulations_only() -> None:
    world = World(BareRules())
    world.add(change(genesis(simulated=False), witnesses=Witnesses(keys=(REPLAYING_VKEY,), threshold=1)))
    world.populate()
    bare = MechanismSpec(name="distributed_gaussian", parameters={"masked": 0})

    assert refused(world, change(world.round(masked=True), mechanism=bare)) == "not_simulated"
    world.add(world.round(masked=True))


@pytest.mark.parametrize(
    ("keys", "threshold"),
    [((), 0), ((WITNESS_VKEY,), 1), ((REPLAYING_VKEY,), 0), ((REPLAYING_VKEY, WITNESS_VKEY), 1)],
)
def test_a_masked_round_without_a_replaying_witness_in_every_quorum_is_refused(
    keys: tuple[str, ...], threshold: int
) -> None:
    world = World(BareRules())
    world.add(change(genesis(simulated=False), witnesses=Witnesses(keys=keys, threshold=threshold)))
    world.populate()

    assert refused(world, world.round(masked=True)) == "not_replayed"
    world.add(world.round())


def test_nobody_is_enrolled_with_the_key_of_a_witness() -> None:
    world = World(BareRules())
    world.add(change(genesis(), witnesses=Witnesses(keys=(witness_vkey("w", 2),), threshold=1)))

    assert refused(world, world.enrol(2, "coordinator")) == "key_used"


@pytest.mark.parametrize(("of", "unused_answers"), [(PARTICIPANTS, ()), ((3, 5), (1,)), ((5,), (0, 1))])
def test_a_masked_model_uses_the_survivors_updates(of: tuple[int, ...], unused_answers: tuple[int, ...]) -> None:
    world = masked(bare_world())
    world.add(*(world.survivors(n, part=i, parts=len(of), seq=20 + i) for i, n in enumerate(of, start=1)))

    assert world.open_round.has_survivors
    world.add(world.model(unused=unused(world, *unused_answers)))
    assert world.state.open_round is None


def test_a_masked_round_can_be_aborted_at_any_time() -> None:
    for prepare in (opened, half_advertised, exchanged, masked, half_named, all_named):
        world = prepare(bare_world())
        world.add(world.aborted())
        world.add(world.round(masked=True))

        assert not world.open_round.survivors


SHARING_REASONS = {
    "consent_expired",
    "consent_used_up",
    "no_consent",
    "not_received",
    "not_requested",
    "not_withdrawn",
    "consent_exceeded",
    "private_shares",
    "second_pool",
    "second_receipt",
    "second_request",
    "share_without_consent",
    "withdrawn",
    "wrong_copy",
    "wrong_erasure",
    "wrong_recipient",
    "wrong_shares",
}


def test_every_reason_is_exercised() -> None:
    """The log's own reasons are in test_log, the decoder's in test_records, those of keys in test_keys.

    Those of consent, sharing and leaving are in test_sharing_rules.
    """
    elsewhere = {"malformed", "too_large", "unknown_kind", "unknown_version", "log_only"}
    elsewhere |= {"already_revoked", "not_possessed", "revoked_author", "unknown_principal"}
    elsewhere |= {"bad_approval", "too_few_approvals", "wrong_approvals", "wrong_custody", "wrong_device_key"}
    elsewhere |= {"revoked_device", "revoked_registrar"}
    elsewhere |= SHARING_REASONS
    elsewhere |= {"bad_terms", "enrolment_full", "wrong_terms"}
    elsewhere |= {"bad_approval", "revoked_device", "revoked_registrar", "too_few_approvals"}
    elsewhere |= {"wrong_approvals", "wrong_custody", "wrong_device_key"}
    own = {"bad_signature", "no_genesis", "not_replayed", "not_simulated"}
    here = {reason for reason, *_ in CASES} | {reason for reason, *_ in BAD_GENESES} | own

    assert here | elsewhere == set(get_args(Reason))


# --- what is accepted, and what it changes ---------------------------------------------------------------------------


def test_a_position_that_is_not_the_next_is_a_mistake() -> None:
    world = bare_world()

    with pytest.raises(ValueError, match="next position"):
        apply_entry(world.state, decode_entry(sign(world.dataset(3), device_key(3))), 0)


def test_the_genesis_makes_the_first_principals() -> None:
    world = World(BareRules())
    world.add(change(genesis(), registrars=(key(0).public, key(7).public)))

    assert [principal.role for principal in world.state.principals] == ["registrar", "registrar", "log"]
    assert [world.state.number_of(k.public) for k in (key(0), key(7), LOG_KEY)] == [0, 1, 2]


def test_only_the_named_registrars_admit_a_role() -> None:
    world = World(BareRules())
    enrolment_policy = {"host": EnrolmentPolicy(registrars=(1,), threshold=1)}
    world.add(
        change(
            genesis(), registrars=(key(0).public, key(1).public), log_vkey=vkey(9), enrolment_policy=enrolment_policy
        )
    )
    enrolment = change(world.enrol(3, "host"), key=key(8).public)

    assert refused(world, enrolment) == "not_registrar"
    world.add(change(enrolment, author=1))
    assert world.state.principals[3].role == "host"


def vkey(number: int) -> str:
    return verifier_key(ORIGIN, key(number).public)


@pytest.mark.parametrize("first_run", [0, 1])
def test_runs_count_from_zero_or_one(first_run: int) -> None:
    world = bare_world()
    world.add(change(world.round(), run=first_run))
    world.add(world.aborted())
    world.add(change(world.round(), run=first_run + 1))

    assert world.state.run is not None
    assert world.state.run.number == first_run + 1


def test_a_model_carries_the_run_on() -> None:
    world = after_model(bare_world())

    assert world.state.model == ModelReference(1, world.state.model.digest if world.state.model else digest(0))
    assert world.state.open_round is None
    world.add(world.round())
    assert world.open_round.record.base_version == 1


def test_an_aborted_round_leaves_the_model_and_the_spend() -> None:
    world = after_model(bare_world())
    before = world.state.model
    world.add(world.round())
    world.add(world.update(3))
    world.add(world.aborted())

    assert world.state.model == before
    assert [world.state.principals[number].epsilon_nano for number in PARTICIPANTS] == [4, 2, 2]
    world.add(world.round())


def test_a_new_run_may_start_from_any_model_of_the_next_version() -> None:
    world = after_model(bare_world())
    world.add(change(world.round(run=2), base_digest=digest("fresh start"), rounds=None))
    world.add(world.aborted())

    assert refused(world, change(world.round(), rounds=None, base_digest=digest("another"))) == "wrong_base_model"
    world.add(change(world.round(), rounds=None))


def test_a_run_without_a_fixed_number_of_rounds_goes_on() -> None:
    world = World(BareRules())
    world.add(genesis(epsilon_nano_limit=None))
    world.populate()
    for _ in range(5):
        world.add(change(world.round(spend=0), rounds=None))
        world.add(world.update(3))
        world.add(world.model())

    assert world.state.run is not None
    assert world.state.run.opened == 5


def test_an_update_in_the_last_block_before_the_deadline_is_accepted() -> None:
    world = bare_world()
    world.add(change(world.round(), deadline=world.state.height + 2))
    world.add(world.block())

    world.add(world.update(3))


def test_a_host_answers_for_its_people_and_each_of_them_pays() -> None:
    world = in_round(bare_world())
    world.add(world.update(HOST))

    assert [world.state.principals[number].epsilon_nano for number in (*PARTICIPANTS, HOST)] == [2, 2, 2, 0]
    assert world.open_round.answered.keys() == set(PARTICIPANTS)


def test_the_minimum_counts_people() -> None:
    world = bare_world()
    world.add(change(world.round(), minimum=3))
    world.add(change(world.update(HOST), participants=to_ranges([3, 5])))

    assert refused(world, world.model()) == "too_few_updates"
    world.add(world.update(4))
    world.add(world.model())


@pytest.mark.parametrize("account", ["epsilon", "rho"])
def test_each_account_is_limited_by_its_own_limit(account: str) -> None:
    world = World(BareRules())
    world.add(change(genesis(epsilon_nano_limit=None), **{f"{account}_nano_limit": 5}))
    world.populate()
    world.add(change(world.round(spend=5), account=account))
    world.add(world.update(3))
    world.add(world.aborted())
    world.add(change(world.round(spend=1), account=account))

    assert refused(world, world.update(3)) == "over_budget"
    world.add(world.update(4))


@pytest.mark.parametrize(("first", "second"), [("epsilon", "rho"), ("rho", "epsilon")])
def test_whoever_has_a_limit_spends_from_one_account(first: Account, second: Account) -> None:
    """Each account may stay below its limit while both together are worth more than was agreed."""
    world = bare_world()
    world.add(world.round(spend=1, account=first))
    world.add(world.update(3))
    world.add(world.aborted())
    world.add(world.round(spend=1, account=second))

    assert refused(world, world.update(3)) == "over_budget"
    world.add(world.update(4))


def test_a_pool_needs_no_price_under_a_limit() -> None:
    """No device answers a pool's round: what its copies reveal is limited by their senders' consents."""
    world = bare_world()
    world.hand_over(3, COORDINATOR)
    world.add(world.round(spend=0))
    world.add(world.pool(3))

    world.add(world.model())


def test_an_account_without_a_limit_still_fits_its_field() -> None:
    world = World(BareRules())
    world.add(genesis(epsilon_nano_limit=None))
    world.populate()
    world.add(world.round(spend=LARGEST_INTEGER))
    world.add(world.update(3))
    world.add(world.aborted())
    world.add(world.round(spend=1))

    assert refused(world, world.update(3)) == "over_budget"


def test_a_fresh_sequence_need_not_be_the_next() -> None:
    world = bare_world()
    world.add(change(world.dataset(3), seq=1 + LARGEST_SEQUENCE_STEP))

    assert world.state.principals[3].sequence == 1 + LARGEST_SEQUENCE_STEP


STEPS = ["round", "masked round", "advertised", "graph", "shared", "update", "survivors", "model", "aborted"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), records()), max_size=8))
def test_whatever_is_offered_is_followed_or_refused(steps: list[tuple[str, Record]]) -> None:
    """Honest steps between made-up records signed by their authors' keys: nothing else than a refusal may come out."""
    world = bare_world()
    for step, record in steps:
        author = record.author % 7
        made_up = change(record, origin=ORIGIN, author=author, seq=world.seq(author) + record.seq % 3)
        world.target.append([world.sign(made_up)])
        if "round" in step or world.state.open_round is None:
            honest: Record = world.round(masked=step == "masked round")
        else:
            makers: dict[str, Callable[[], Record]] = {
                "update": lambda: world.update(4),
                "survivors": lambda: world.survivors(4),
                "advertised": lambda: world.round_set("advertised", *PARTICIPANTS),
                "graph": lambda: world.round_set("graph", *PARTICIPANTS),
                "shared": lambda: world.round_set("shared", *PARTICIPANTS),
                "model": world.model,
            }
            honest = makers.get(step, world.aborted)()
        world.target.append([world.sign(honest)])

    assert world.state.root() == root_by_hand(world)


def root_by_hand(world: World) -> Digest:
    return root([leaf_hash(principal.encode()) for principal in world.state.principals])


def test_a_host_of_many_is_named_by_ranges() -> None:
    update = in_round(bare_world()).update(HOST)

    assert isinstance(update, Update)
    assert tuple(numbers_in(update.participants)) == PARTICIPANTS

"""Terms on the ledger: in force from the genesis on, changed between rounds, and never outgrown."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from liberate.crypto.merkle import leaf_hash
from liberate.errors import RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from tests.ledger.world import FOUNDER, PARTICIPANTS, BareRules, World, bare_world, create, genesis, key, reopen

UNSOUND = [
    {"max_dropouts_permille": 1001},
    {"max_dropouts_permille": 10, "max_late_dropouts_permille": 11},
    {"max_colluders": 50_001},
    {"min_cohort": 50_001},
    {"min_honest": 1},
]


def reason(world: World, record: object) -> str:
    with pytest.raises(RefusedEntry) as refused:
        world.add(record)  # type: ignore[arg-type]
    return refused.value.reason


def test_the_terms_of_the_genesis_are_in_force_until_others_are() -> None:
    world = bare_world()
    founding, hash = world.state.founding.terms, world.state.terms_hash

    world.add(world.terms(max_colluders=7))

    assert hash == leaf_hash(sign(genesis(), key(FOUNDER)))
    assert world.state.terms == msgspec.structs.replace(founding, max_colluders=7)
    assert world.state.terms_hash != hash


def test_a_round_names_the_terms_in_force() -> None:
    world = bare_world()
    former = world.state.terms_hash
    world.add(world.terms(max_colluders=7))

    assert reason(world, msgspec.structs.replace(world.round(), terms=former)) == "wrong_terms"
    assert reason(world, msgspec.structs.replace(world.round(), terms=Digest(bytes(32)))) == "wrong_terms"
    world.add(world.round())


@pytest.mark.parametrize("changes", UNSOUND, ids=lambda changes: next(iter(changes)))
def test_terms_that_contradict_themselves_are_refused(changes: dict[str, int]) -> None:
    world = bare_world()
    assert reason(world, world.terms(**changes)) == "bad_terms"

    record = genesis()
    unsound = msgspec.structs.replace(record, terms=msgspec.structs.replace(record.terms, **changes))
    assert reason(World(BareRules()), unsound) == "bad_genesis"


def test_terms_do_not_change_while_a_round_is_open() -> None:
    world = bare_world()
    world.add(world.round())

    assert reason(world, world.terms(max_colluders=1)) == "round_open"


def test_only_a_coordinator_changes_terms() -> None:
    world = bare_world()
    record = msgspec.structs.replace(world.terms(), author=PARTICIPANTS[0], seq=world.seq(PARTICIPANTS[0]))

    assert reason(world, record) == "wrong_role"


def test_invented_people_beyond_the_agreed_number_need_new_terms() -> None:
    """Whoever was ever enrolled counts, those whose keys were revoked too; other roles do not."""
    world = bare_world()
    world.add(world.terms(max_participants=4))
    world.add(world.enrol(7, "participant"))
    world.add(world.revocation(3, by=FOUNDER))

    assert reason(world, world.enrol(8, "participant")) == "enrolment_full"
    assert reason(world, world.terms(max_participants=3)) == "bad_terms"
    world.add(world.enrol(8, "witness"))

    world.add(world.terms(max_participants=5))
    world.add(world.enrol(9, "participant"))
    assert reason(world, world.enrol(10, "participant")) == "enrolment_full"


def test_terms_are_found_again_when_a_ledger_is_opened(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    world = World(ledger).populate()
    world.add(world.terms(max_participants=3))
    terms, hash = world.state.terms, world.state.terms_hash
    ledger.close()

    with closing(reopen(tmp_path)) as reopened:
        again = World(reopened)

        assert (again.state.terms, again.state.terms_hash) == (terms, hash)
        assert again.state.participant_count == 3
        assert reason(again, again.enrol(7, "participant")) == "enrolment_full"

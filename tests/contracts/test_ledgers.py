"""What every ledger must keep, wherever its entries lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from liberate.crypto import merkle
from liberate.crypto.note import verify_checkpoint
from liberate.errors import LedgerError, RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, principals_of, sign
from liberate.ledger.format.records import Block
from liberate.ledger.interface import Ledger
from tests.ledger.world import (
    COORDINATOR,
    HOST,
    LOG,
    LOG_VKEY,
    ORIGIN,
    PARTICIPANTS,
    World,
    create,
    device_key,
    digest,
    genesis,
    key,
    write_history,
)

IMPLEMENTATIONS: dict[str, Callable[[Path], Ledger]] = {"sqlite": create}


@pytest.fixture(params=IMPLEMENTATIONS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with nothing but its genesis."""
    ledger = IMPLEMENTATIONS[request.param](tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(empty: Ledger) -> Ledger:
    """A ledger with one of everything."""
    write_history(empty)
    return empty


def leaves(ledger: Ledger) -> list[Digest]:
    return [merkle.leaf_hash(data) for _, data in ledger.entries()]


def test_a_new_ledger_holds_its_genesis_in_the_first_block(empty: Ledger) -> None:
    records = [decode_entry(data).record for _, data in empty.entries()]

    assert records[0] == genesis()
    assert [record.kind for record in records] == ["genesis", "block"]
    assert (empty.origin, empty.size, empty.height) == (ORIGIN, 2, 1)


def test_each_append_is_one_block(empty: Ledger) -> None:
    world = World(empty)
    before = empty.size

    positions = world.add(world.enrol(2, "coordinator"), world.enrol(3, "participant", seq=3))

    assert positions == [before, before + 1]
    assert (empty.size, empty.height) == (before + 3, 2)
    block = decode_entry(empty.entry(empty.size - 1)).record
    assert isinstance(block, Block)
    assert (block.author, block.seq, block.count) == (LOG, 2, 2)


def test_the_same_bytes_again_give_the_first_position(ledger: Ledger) -> None:
    entries = [data for _, data in ledger.entries()]
    checkpoint = ledger.checkpoint()

    assert ledger.append(entries) == list(range(len(entries)))
    assert ledger.checkpoint() == checkpoint


def test_the_same_bytes_twice_in_a_batch_are_one_entry(ledger: Ledger) -> None:
    data = sign(World(ledger).dataset(3), device_key(3))
    before = ledger.size

    assert ledger.append([data, data]) == [before, before]
    assert ledger.size == before + 2


def test_a_bad_entry_of_a_batch_is_refused_alone(ledger: Ledger) -> None:
    world = World(ledger)
    good = [world.sign(world.dataset(number)) for number in PARTICIPANTS]
    bad = [good[0][:-1], sign(world.dataset(HOST), key(HOST)), bytes(64) + good[1][64:]]
    before = ledger.size

    results = ledger.append([bad[0], good[0], bad[1], bad[2], good[1], good[2]])

    reasons = [result.reason if isinstance(result, RefusedEntry) else result for result in results]
    assert reasons == ["malformed", before, "wrong_role", "bad_signature", before + 1, before + 2]
    assert ledger.size == before + 4


def test_entries_of_one_batch_build_on_one_another(empty: Ledger) -> None:
    world = World(empty)
    enrolment = sign(world.enrol(2, "participant"), key(0))
    enrolled = sign(world.dataset(2), device_key(2))

    assert empty.append([enrolled, enrolment, enrolled])[1:] == [2, 3]


def test_nothing_new_makes_no_block(ledger: Ledger) -> None:
    before = ledger.checkpoint(), ledger.size, ledger.height

    ledger.append([])
    (refused,) = ledger.append([b"no entry"])

    assert isinstance(refused, RefusedEntry)
    assert (ledger.checkpoint(), ledger.size, ledger.height) == before


def test_blocks_are_written_by_the_log_alone(ledger: Ledger) -> None:
    block = World(ledger).block()

    (result,) = ledger.append([sign(block, key(LOG))])

    assert isinstance(result, RefusedEntry)
    assert result.reason == "log_only"


def test_another_entry_with_a_used_sequence_is_refused(ledger: Ledger) -> None:
    first = World(ledger).dataset(3)
    ledger.append([sign(first, device_key(3))])

    (result,) = ledger.append([sign(msgspec.structs.replace(first, commitment=digest("other")), device_key(3))])

    assert isinstance(result, RefusedEntry)
    assert result.reason == "stale_sequence"


def test_entries_are_given_by_position_and_range(ledger: Ledger) -> None:
    everything = list(ledger.entries())

    assert [position for position, _ in everything] == list(range(ledger.size))
    assert list(ledger.entries(3, 7)) == everything[3:7]
    assert list(ledger.entries(5)) == everything[5:]
    assert all(ledger.entry(position) == data for position, data in everything)


@pytest.mark.parametrize("position", [-1, 10_000])
def test_there_is_no_entry_outside(ledger: Ledger, position: int) -> None:
    with pytest.raises(LedgerError, match="no entry"):
        ledger.entry(position)


def test_positions_are_found_by_kind_author_and_subject(ledger: Ledger) -> None:
    records = {position: decode_entry(data).record for position, data in ledger.entries()}

    for kind in {record.kind for record in records.values()}:
        assert ledger.positions(kind=kind) == [p for p, record in records.items() if record.kind == kind]
    for number in range(len(ledger.state.principals)):
        assert ledger.positions(author=number) == [p for p, record in records.items() if record.author == number]
        assert ledger.positions(about=number) == [p for p, record in records.items() if number in principals_of(record)]
    assert ledger.positions() == list(records)
    assert ledger.positions(kind="update", author=3) == [
        p for p, record in records.items() if (record.kind, record.author) == ("update", 3)
    ]
    assert ledger.positions(kind="update", about=5) == [
        p for p, record in records.items() if record.kind == "update" and 5 in principals_of(record)
    ]
    assert ledger.positions(kind="consent") == []


def test_the_checkpoint_is_the_logs_and_over_all_entries(ledger: Ledger) -> None:
    checkpoint = verify_checkpoint(ledger.checkpoint(), LOG_VKEY)

    assert checkpoint.size == ledger.size
    assert checkpoint.root == merkle.root(leaves(ledger))


def test_every_entry_is_proved_in_every_tree_that_holds_it(ledger: Ledger) -> None:
    hashes = leaves(ledger)
    for size in range(1, ledger.size + 1):
        root = merkle.root(hashes[:size])
        for position in range(size):
            proof = ledger.inclusion_proof(position, size)
            merkle.verify_inclusion(hashes[position], position, size, proof, root)
    assert ledger.inclusion_proof(3) == ledger.inclusion_proof(3, ledger.size)


def test_every_tree_is_proved_to_begin_the_later_ones(ledger: Ledger) -> None:
    hashes = leaves(ledger)
    roots = [merkle.root(hashes[:size]) for size in range(ledger.size + 1)]
    for new in range(1, ledger.size + 1):
        for old in range(1, new + 1):
            merkle.verify_consistency(old, new, ledger.consistency_proof(old, new), roots[old], roots[new])


def test_no_proof_in_a_tree_that_is_not_there_yet(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="size"):
        ledger.inclusion_proof(0, ledger.size + 1)
    with pytest.raises(ValueError, match="size"):
        ledger.consistency_proof(1, ledger.size + 1)


def test_the_state_follows_the_entries(ledger: Ledger) -> None:
    state = ledger.state

    assert state.round_number == 4
    assert state.model is not None
    assert state.model.version == 3
    assert [state.principals[number].epsilon_nano for number in PARTICIPANTS] == [6, 8, 4]
    assert state.principals[COORDINATOR].about_count == len(ledger.positions(about=COORDINATOR))

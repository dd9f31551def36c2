"""A participant's data is followed into every model it reached, and nothing is said without its proof."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import verify_checkpoint
from liberate.errors import LedgerError
from liberate.ledger.format.entries import decode_entry, principals_of
from liberate.ledger.format.records import Enrol
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.trace.contributions import Contribution
from liberate.ledger.trace.participant import trace_participant
from tests.ledger.world import COORDINATOR, HOST, LOG_VKEY, PARTICIPANTS, World, create, key, write_history


def create_with_history(folder: Path) -> SqliteLedger:
    ledger = create(folder)
    write_history(ledger)
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = create_with_history(tmp_path)
    yield ledger
    ledger.close()


def said(contribution: Contribution) -> tuple[int, str, int | None, list[int]]:
    """Round, outcome, version, and versions built on it."""
    return (
        contribution.round.record.number,
        contribution.outcome,
        contribution.model.record.version if contribution.model else None,
        [model.record.version for model in contribution.descendants],
    )


def test_each_update_is_followed_to_its_models(ledger: SqliteLedger) -> None:
    """Rounds 1 and 2 belong to one run; round 3 was aborted; run 2 started from version 2 and made version 3."""
    traces = {number: trace_participant(ledger, number) for number in PARTICIPANTS}

    assert [said(each) for each in traces[3].contributions] == [
        (1, "used", 1, [2, 3]),
        (2, "used", 2, [3]),
        (4, "used", 3, []),
    ]
    assert [said(each) for each in traces[4].contributions] == [
        (1, "unused", None, []),
        (2, "used", 2, [3]),
        (3, "aborted", None, []),
        (4, "used", 3, []),
    ]
    assert [said(each) for each in traces[5].contributions] == [(1, "used", 1, [2, 3]), (2, "used", 2, [3])]
    assert [trace.principal.epsilon_nano for trace in traces.values()] == [6, 8, 4]
    assert [trace.principal.rho_nano for trace in traces.values()] == [0, 0, 0]


def test_a_fresh_start_is_no_descendant(ledger: SqliteLedger) -> None:
    world = World(ledger)
    world.add(msgspec.structs.replace(world.round(run=3), base_digest=leaf_hash(b"fresh")))
    world.add(world.update(5))
    world.add(world.model())

    assert said(trace_participant(ledger, 3).contributions[0]) == (1, "used", 1, [2, 3])
    assert said(trace_participant(ledger, 5).contributions[-1]) == (5, "used", 4, [])


def test_an_update_of_an_open_round_waits(ledger: SqliteLedger) -> None:
    world = World(ledger)
    world.add(world.round())
    world.add(world.update(5))

    assert said(trace_participant(ledger, 5).contributions[-1]) == (5, "open", None, [])


def test_the_history_is_all_that_concerns_the_participant(ledger: SqliteLedger) -> None:
    trace = trace_participant(ledger, 4)

    expected = [p for p, data in ledger.entries() if 4 in principals_of(decode_entry(data).record)]
    assert [each.position for each in trace.history] == expected
    assert isinstance(trace.history[0].entry.record, Enrol)
    assert trace.principal.key == key(4).public
    assert [each.update.entry.record.author for each in trace.contributions] == [4, HOST, 4, 4]


def test_every_proof_that_is_given_out_can_be_checked_again(ledger: SqliteLedger) -> None:
    trace = trace_participant(ledger, 5)
    checkpoint = verify_checkpoint(trace.checkpoint, LOG_VKEY)

    for contribution in trace.contributions:
        for step in (contribution.update, contribution.round, contribution.model, *contribution.descendants):
            assert step is not None
            leaf = leaf_hash(ledger.entry(step.position))
            verify_inclusion(leaf, step.position, checkpoint.size, step.proof, checkpoint.root)
            assert step.height == 1 + sum(position < step.position for position in ledger.positions(kind="block"))
            assert step.time_us == step.height * 1_000_000
        membership = contribution.membership
        assert membership is not None
        assert contribution.model is not None
        model = contribution.model.record
        update = contribution.update.entry.leaf_hash
        verify_inclusion(update, membership.index, membership.size, membership.proof, model.updates_root)
    assert [c.membership.size for c in trace.contributions if c.membership] == [2, 1]
    assert trace.proof_count > len(trace.history)


@pytest.mark.parametrize("number", [COORDINATOR, HOST, 99])
def test_only_participants_are_traced(ledger: SqliteLedger, number: int) -> None:
    with pytest.raises(LedgerError, match="no participant"):
        trace_participant(ledger, number)


@pytest.mark.parametrize(
    ("table", "column", "condition"),
    [
        ("entry", "entry", "kind = 'update'"),
        ("entry", "entry", "kind = 'model'"),
        ("node", "hash", "TRUE"),
        ("principal", "leaf", "number = 4"),
        ("checkpoint", "note", "TRUE"),
    ],
)
def test_a_damaged_ledger_is_not_believed(tmp_path: Path, table: str, column: str, condition: str) -> None:
    create_with_history(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        rows = other.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {condition}").fetchall()
        for (value,) in rows:
            damaged = bytes([value[0] ^ 1]) + value[1:]
            other.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (damaged, value))
    other.close()
    ledger = SqliteLedger.open(tmp_path)

    with pytest.raises(LedgerError):
        trace_participant(ledger, 5)
    ledger.close()

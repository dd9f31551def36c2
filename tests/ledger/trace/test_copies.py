"""Copies are followed to whoever used them, and models back to whoever shaped them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from liberate.crypto.merkle import verify_inclusion
from liberate.crypto.note import verify_checkpoint
from liberate.errors import LedgerError, ProofMismatch
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.trace.completeness import verify_completeness
from liberate.ledger.trace.copies import TracedCopy
from liberate.ledger.trace.model_ancestry import ModelAncestor, model_ancestry
from liberate.ledger.trace.participant import ParticipantTrace, trace_participant, trace_received
from liberate.ledger.trace.prover import ProvedEntry
from tests.ledger.world import AUDITOR, COORDINATOR, HOST, LOG_VKEY, World, create, digest, write_sharing

TWO = 2_000_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = create(tmp_path, auditors=True)
    write_sharing(ledger)
    yield ledger
    ledger.close()


def told(copy: TracedCopy) -> tuple[int, int, bool, bool]:
    """Sender, recipient, whether it was received and whether its consent holds."""
    return copy.sender, copy.recipient, copy.receipt is not None, copy.consent.is_active


def uses(trace: ParticipantTrace) -> list[tuple[int, int, str, int | None]]:
    """By whom, number of copies, what became of it, and the version of the model."""
    found: list[tuple[int, int, str, int | None]] = []
    for use in trace.uses:
        version = use.contribution.model.record.version if use.contribution.model else None
        found.append((use.recipient, len(use.copies), use.contribution.outcome, version))
    return found


def test_copies_are_followed_through_recipients_and_the_pool_to_models(ledger: SqliteLedger) -> None:
    """3's and 4's shares were in the pool of round 1, 4's in that of round 2; 4 and 5 used 3's copies, 3 used 5's."""
    three, four, five = (trace_participant(ledger, number) for number in (3, 4, 5))

    assert [told(copy) for copy in three.copies] == [(3, 4, True, False), (3, 5, True, False), (3, 2, True, False)]
    assert [told(copy) for copy in three.received] == [(5, 3, True, True)]
    assert uses(three) == [(COORDINATOR, 1, "used", 1), (4, 1, "used", 1), (5, 1, "used", 1)]
    assert uses(four) == [(COORDINATOR, 1, "used", 1), (COORDINATOR, 1, "used", 2)]
    assert uses(five) == [(3, 1, "used", 1), (3, 1, "used", 2)]
    assert [len(use.contribution.descendants) for use in three.uses] == [1, 1, 1]
    assert three.bases == {digest(("base", 3)): TWO}
    assert four.bases == {digest(("base", 4)): None}


def test_what_was_used_after_a_withdrawal_was_accepted_before(ledger: SqliteLedger) -> None:
    """4 answered round 2, was in its pool, and left before its model; nothing of 3 was used after its withdrawal."""
    three, four = trace_participant(ledger, 3), trace_participant(ledger, 4)

    assert four.withdrawal is not None
    assert [each.update.entry.record.kind for each in four.used_after_withdrawal()] == ["update", "pool"]
    assert all(each.update.position < four.withdrawal.position for each in four.used_after_withdrawal())
    assert three.withdrawal is None
    assert [consent.withdrawal is None for consent in three.consents] == [False]
    assert three.used_after_withdrawal() == ()


def test_leaving_and_looking_up_are_in_the_history(ledger: SqliteLedger) -> None:
    three, four = trace_participant(ledger, 3), trace_participant(ledger, 4)

    assert [each.entry.record.author for each in four.erasures] == [4, COORDINATOR]
    assert three.erasures == []
    assert [each.entry.record.author for each in (*three.disclosures, *four.disclosures)] == [AUDITOR, AUDITOR]


def test_what_was_spent_is_listed_by_run(ledger: SqliteLedger) -> None:
    world = World(ledger)
    world.add(world.round(run=2, spend=3))
    world.add(world.update(3))
    world.add(world.aborted())
    trace = trace_participant(ledger, 3)

    assert [(each.run, each.account, each.nano) for each in trace.spent] == [(2, "epsilon", 3)]
    assert trace.principal.epsilon_nano == 3


def test_a_pool_means_the_shares_that_live(ledger: SqliteLedger) -> None:
    """A second share is on its way, a third under a consent that was withdrawn: the next pool means the first only."""
    world = World(ledger)
    world.hand_over(5, COORDINATOR)
    world.add(world.share(5, COORDINATOR, base="on its way"))
    world.hand_over(5, COORDINATOR)
    world.add(world.withdrawal(5, world.consents(5)[-1]))
    world.add(world.round())
    world.add(world.pool(5))
    trace = trace_participant(ledger, 5)

    assert uses(trace)[-1] == (COORDINATOR, 1, "open", None)
    assert [told(copy)[1:] for copy in trace.copies[1:]] == [(2, True, True), (2, False, True), (2, True, False)]


def test_memberships_can_be_left_out(ledger: SqliteLedger) -> None:
    full, short = (trace_participant(ledger, 3, with_memberships=wanted) for wanted in (True, False))

    assert all(each.membership for each in full.contributions)
    assert not any(each.membership for each in short.contributions)
    assert [each.outcome for each in full.contributions] == [each.outcome for each in short.contributions]
    assert full.proof_count == short.proof_count + 4, "own answer and a host's, and those of 4 and 5 with a copy"


def test_recipients_see_what_they_received_from_whom(ledger: SqliteLedger) -> None:
    received = {number: trace_received(ledger, number) for number in (COORDINATOR, 3, 4, 5)}

    assert [told(copy) for copy in received[COORDINATOR].copies] == [(3, 2, True, False), (4, 2, True, False)]
    assert [told(copy) for copy in received[3].copies] == [(5, 3, True, True)]
    assert [told(copy) for copy in received[4].copies] == [(3, 4, True, False)]
    for number, each in received.items():
        assert each.number == number
        verify_completeness(each.completeness, LOG_VKEY)
        for copy in each.copies:
            assert copy.consent.entry.record.author == copy.sender
    for number in (HOST, 99):
        with pytest.raises(LedgerError, match="receives nothing"):
            trace_received(ledger, number)


def test_every_proof_of_copies_and_uses_can_be_checked_again(ledger: SqliteLedger) -> None:
    trace = trace_participant(ledger, 3)
    checkpoint = verify_checkpoint(trace.checkpoint, LOG_VKEY)
    entries: list[ProvedEntry[RecordBase]] = []
    entries += [entry for copy in (*trace.copies, *trace.received) for entry in (copy.share, copy.consent.entry)]
    entries += [entry for copy in trace.copies for entry in (copy.receipt, copy.consent.withdrawal) if entry]
    for use in trace.uses:
        assert use.contribution.model is not None
        entries += [use.contribution.update, use.contribution.round, use.contribution.model]

    assert len(entries) > 15
    for each in entries:
        verify_inclusion(each.entry.leaf_hash, each.position, checkpoint.size, each.proof, checkpoint.root)


def shaped(step: ModelAncestor) -> tuple[int, set[int], dict[int, int], set[int]]:
    """Version, people, for each sender how many updates used copies, and the pool."""
    return (
        step.model.record.version,
        set(step.participants),
        {sender: len(at) for sender, at in step.senders.items()},
        set(step.pooled),
    )


def test_a_model_is_followed_back_to_whoever_shaped_it(ledger: SqliteLedger) -> None:
    first = (1, {3, 4, 5}, {3: 2, 5: 1}, {3, 4})
    second = (2, {3, 4, 5}, {5: 1}, {4})

    assert [shaped(step) for step in model_ancestry(ledger, 2)] == [second, first]
    assert [shaped(step) for step in model_ancestry(ledger, 1)] == [first]


def test_a_fresh_start_ends_the_lineage(ledger: SqliteLedger) -> None:
    world = World(ledger)
    world.add(world.round(run=2))
    world.add(world.aborted())
    world.add(msgspec.structs.replace(world.round(run=3), base_digest=digest("fresh")))
    world.add(world.update(3))
    world.add(world.model())

    assert [shaped(step)[0] for step in model_ancestry(ledger, 3)] == [3]


@pytest.mark.parametrize("version", [0, 3])
def test_a_model_that_is_not_there_is_not_traced(ledger: SqliteLedger, version: int) -> None:
    with pytest.raises(LedgerError, match="there is no model"):
        next(model_ancestry(ledger, version))


@pytest.mark.parametrize("kind", ["update", "share", "receipt", "consent", "pool", "withdrawal"])
def test_a_damaged_ledger_is_not_believed(tmp_path: Path, kind: str) -> None:
    writer = create(tmp_path, auditors=True)
    write_sharing(writer)
    writer.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        rows = other.execute("SELECT position, entry FROM entry WHERE kind = ?", (kind,)).fetchall()
        for position, data in rows:
            damaged = bytes([data[0] ^ 1]) + data[1:]
            other.execute("UPDATE entry SET entry = ? WHERE position = ?", (damaged, position))
    other.close()

    with pytest.raises(LedgerError), closing(SqliteLedger.open(tmp_path)) as ledger:
        trace_participant(ledger, 3)


def test_a_model_whose_updates_are_not_there_is_not_believed(tmp_path: Path) -> None:
    writer = create(tmp_path, auditors=True)
    write_sharing(writer)
    first = writer.positions(kind="update")[0]
    assert decode_entry(writer.entry(first)).record.author == 3
    writer.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("DELETE FROM entry WHERE position = ?", (first,))
    other.close()
    ledger = SqliteLedger.open(tmp_path)

    with pytest.raises(ProofMismatch, match="the updates lead to"):
        next(model_ancestry(ledger, 1))
    ledger.close()

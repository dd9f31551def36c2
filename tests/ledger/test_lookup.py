"""Entries are found by kind, and one of another kind is never taken for the kind that was asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import liberate
from liberate.errors import LedgerError
from liberate.ledger.format.entries import decode_entry, decode_record, record_of
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import Enrol, Genesis, Update
from liberate.ledger.format.sharing_records import Consent
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.lookup import entries, entries_between, entry_at
from tests.ledger.world import create, write_sharing


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLedger]:
    ledger = create(tmp_path_factory.mktemp("lookup"), auditors=True)
    write_sharing(ledger)
    yield ledger
    ledger.close()


def test_entry_is_found_with_its_record_and_bytes(ledger: SqliteLedger) -> None:
    position = ledger.positions(kind="consent")[0]

    consent = entry_at(ledger, position, Consent)

    assert consent.position == position
    assert consent.entry == decode_entry(ledger.entry(position))
    assert consent.record == consent.entry.record
    assert consent.leaf_hash == consent.entry.leaf_hash


@pytest.mark.parametrize("beyond", [-1, 0])
def test_position_outside_the_log_is_refused(ledger: SqliteLedger, beyond: int) -> None:
    position = ledger.size if beyond == 0 else beyond

    with pytest.raises(LedgerError, match=f"entry {position} is beyond the ledger's {ledger.size} entries"):
        entry_at(ledger, position, RecordBase)


def test_entry_of_another_kind_is_refused(ledger: SqliteLedger) -> None:
    genesis = ledger.entry(0)

    with pytest.raises(LedgerError, match="entry 0 is of kind genesis, not of kind consent") as caught:
        entry_at(ledger, 0, Consent)
    assert "--kind consent" in caught.value.hint
    with pytest.raises(LedgerError, match="of kind genesis, not of kind consent"):
        decode_record(genesis, Consent)
    with pytest.raises(LedgerError, match="of kind genesis, not of kind consent"):
        record_of(decode_entry(genesis), Consent)
    assert decode_record(genesis, Genesis) == record_of(decode_entry(genesis), Genesis)


def test_bytes_that_are_no_entry_are_refused() -> None:
    with pytest.raises(LedgerError, match="malformed"):
        decode_record(b"no entry", Consent)


def test_entries_are_those_of_the_kind_in_ledger_order(ledger: SqliteLedger) -> None:
    decoded = [(position, decode_entry(data).record) for position, data in ledger.entries()]
    for kind in (Enrol, Consent, Update):
        expected = [(position, record) for position, record in decoded if isinstance(record, kind)]

        assert [(entry.position, entry.record) for entry in entries(ledger, kind)] == expected
        assert len(expected) > 1
    assert [entry.record for entry in entries(ledger, RecordBase)] == [record for _, record in decoded]


def test_entries_can_be_those_of_one_author_or_about_one_principal(ledger: SqliteLedger) -> None:
    consents = list(entries(ledger, Consent))
    recipient = next(iter(consents[0].record.subjects()))

    assert {consent.record.author for consent in entries(ledger, Consent, author=3)} == {3}
    about = [consent.position for consent in entries(ledger, Consent, about=recipient)]
    assert about == [consent.position for consent in consents if recipient in consent.record.subjects()]
    assert {entry.record.author for entry in entries(ledger, RecordBase, author=3)} == {3}


def test_range_is_half_open(ledger: SqliteLedger) -> None:
    positions = ledger.positions(kind="update")

    assert [u.position for u in entries_between(ledger, 0, ledger.size, Update)] == positions
    assert [u.position for u in entries_between(ledger, positions[0], positions[-1], Update)] == positions[:-1]


def test_entries_are_decoded_by_the_ledger_by_messages_and_by_replays_only() -> None:
    """Everybody else says which kind of record is wanted, and so never forgets to check it.

    Replays of a principal's or a round's entries take every kind.
    """
    source = Path(liberate.__file__).parent
    decoders = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and "decode_entry" in {alias.name for alias in node.names}
    }

    assert decoders
    rooms = ("ledger/", "federation/wire/")
    replays = {
        "federation/coordinator/own_histories.py",
        "federation/coordinator/round_sets.py",
        "federation/coordinator/secure_aggregation.py",
        "federation/participant/own_history.py",
        "federation/store/act_tables.py",
    }
    assert {path for path in decoders if not path.startswith(rooms)} <= replays

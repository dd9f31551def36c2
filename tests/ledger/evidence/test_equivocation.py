"""Whoever signs two entries with one sequence leaves a proof behind that anyone can check."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.canonical_json import encode
from liberate.errors import LedgerError, RefusedEntry
from liberate.ledger.evidence.equivocation import EquivocationFile, equivocation_file, verify_equivocation
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import DatasetRecord
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.verify import verify_ledger
from tests.ledger.world import LOG_VKEY, ORIGIN, World, create, device_key, digest, next_key, reopen


def dataset(name: str, *, author: int = 3, seq: int = 5, origin: str = ORIGIN) -> DatasetRecord:
    return DatasetRecord(origin=origin, author=author, seq=seq, commitment=digest(name))


FIRST, SECOND = (sign(dataset(name), device_key(3)) for name in ("one", "other"))


def test_a_file_proves_that_one_key_signed_both() -> None:
    found = verify_equivocation(equivocation_file(device_key(3).public, FIRST, SECOND))

    assert found.key == device_key(3).public
    assert (found.first.data, found.second.data) == (FIRST, SECOND)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(FIRST, id="the same entry"),
        pytest.param(sign(dataset("other", seq=6), device_key(3)), id="another sequence"),
        pytest.param(sign(dataset("other", author=4), device_key(3)), id="another author"),
        pytest.param(sign(dataset("other", origin="example.org/b"), device_key(3)), id="another ledger"),
        pytest.param(sign(dataset("other"), device_key(4)), id="another key"),
        pytest.param(bytes(64) + SECOND[64:], id="no signature"),
        pytest.param(b"entry", id="no entry"),
    ],
)
def test_what_does_not_contradict_is_no_evidence(second: bytes) -> None:
    with pytest.raises(LedgerError):
        equivocation_file(device_key(3).public, FIRST, second)
    with pytest.raises(LedgerError):
        verify_equivocation(encode(EquivocationFile(key=device_key(3).public, first=FIRST, second=second)))


@given(st.data())
def test_a_flipped_bit_anywhere_is_found(data: st.DataObject) -> None:
    flipped = bytearray(equivocation_file(device_key(3).public, FIRST, SECOND))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(LedgerError):
        verify_equivocation(bytes(flipped))


def refusals(ledger: SqliteLedger, *entries: bytes) -> list[str]:
    return [o.reason if isinstance(o, RefusedEntry) else "" for o in ledger.append(entries)]


@pytest.mark.parametrize("together", [True, False])
def test_the_log_keeps_what_contradicts_an_accepted_entry(tmp_path: Path, together: bool) -> None:
    with closing(create(tmp_path)) as ledger:
        World(ledger).populate()
        if together:
            assert refusals(ledger, FIRST, SECOND) == ["", "stale_sequence"]
        else:
            assert refusals(ledger, FIRST) + refusals(ledger, SECOND) == ["", "stale_sequence"]
        third = sign(dataset("third"), device_key(3))
        refusals(ledger, third)
        kept = ledger.equivocations()

    assert [(f.first.data, f.second.data) for f in map(verify_equivocation, kept)] == [(FIRST, SECOND)]
    assert verify_ledger(tmp_path, key=LOG_VKEY).ok
    with closing(SqliteLedger.open(tmp_path)) as reader:
        assert reader.equivocations() == kept


def test_an_honest_repetition_or_a_forgery_is_no_evidence(tmp_path: Path) -> None:
    with closing(create(tmp_path)) as ledger:
        world = World(ledger).populate()
        world.add(dataset("one"))
        forged = sign(dataset("other"), device_key(4))
        overtaken = sign(dataset("other", seq=4), device_key(3))

        assert refusals(ledger, FIRST, forged, overtaken) == ["", "stale_sequence", "stale_sequence"]
        assert ledger.equivocations() == []


def test_the_key_is_the_one_of_the_accepted_entry(tmp_path: Path) -> None:
    with closing(create(tmp_path)) as ledger:
        world = World(ledger).populate()
        world.add(dataset("one"))
        world.add(world.new_key(3, which="device"))
        by_new_key = sign(dataset("other"), next_key(device_key(3)))

        assert refusals(ledger, by_new_key) == ["stale_sequence"]
        assert ledger.equivocations() == []
        assert refusals(ledger, SECOND) == ["stale_sequence"]
        assert len(ledger.equivocations()) == 1
    with closing(reopen(tmp_path)) as ledger:
        assert len(ledger.equivocations()) == 1
    assert verify_ledger(tmp_path, key=LOG_VKEY).ok

"""The replay behind an audit: with or without processes that verify ahead, the same findings."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from liberate.ledger.verification import replay
from liberate.ledger.verification.verify import verify_ledger
from tests.ledger.publish.growing import grow
from tests.ledger.verification.test_verify import copied, damage, places
from tests.ledger.world import World, create, write_history


def test_with_processes_the_findings_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = create(tmp_path / "sound")
    write_history(ledger)
    ledger.close()
    folder = copied(tmp_path / "sound", tmp_path / "copy")
    expected = verify_ledger(folder)
    damage(folder, "UPDATE entry SET entry = CAST(zeroblob(64) || substr(entry, 65) AS BLOB) WHERE position = 9")
    found = verify_ledger(folder)

    monkeypatch.setattr(replay, "_WORTH_PROCESSES", 1)

    assert verify_ledger(tmp_path / "sound") == expected
    assert verify_ledger(folder) == found
    assert "entry 9" in places(found)


@pytest.mark.parametrize("with_processes", [False, True])
def test_memory_does_not_grow_with_the_number_of_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_processes: bool
) -> None:
    monkeypatch.setattr(replay, "_WORTH_PROCESSES", 1 if with_processes else 10**9)
    monkeypatch.setattr(replay, "_BYTES_AHEAD", 100_000)
    ledger = create(tmp_path)
    World(ledger).populate()
    peaks = []
    for size in (1_500, 6_000):
        grow(ledger, size)
        verify_ledger(tmp_path)  # what is imported and kept for good
        tracemalloc.start()
        assert verify_ledger(tmp_path).entry_count == size
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    ledger.close()

    assert peaks[1] < 1.2 * peaks[0], peaks

"""The replay behind an audit: with or without processes that verify ahead, the same findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from liberate.ledger import replay
from liberate.ledger.audit import verify
from tests.ledger.test_audit import copied, damage, places
from tests.ledger.world import create, write_history


def test_with_processes_the_findings_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = create(tmp_path / "sound")
    write_history(ledger)
    ledger.close()
    folder = copied(tmp_path / "sound", tmp_path / "copy")
    expected = verify(folder)
    damage(folder, "UPDATE entry SET entry = CAST(zeroblob(64) || substr(entry, 65) AS BLOB) WHERE position = 9")
    found = verify(folder)

    monkeypatch.setattr(replay, "_WORTH_PROCESSES", 1)

    assert verify(tmp_path / "sound") == expected
    assert verify(folder) == found
    assert "entry 9" in places(found)

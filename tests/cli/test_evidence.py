"""Evidence against authors on the command line: written out by whoever holds a ledger, checked by anyone."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from liberate.crypto.canonical_json import decode, encode
from liberate.crypto.signing import key_id
from liberate.ledger.evidence.equivocation import EquivocationFile
from tests.ledger.evidence.test_equivocation import FIRST, SECOND
from tests.ledger.world import ORIGIN, World, create, device_key, key


def call(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "liberate", "ledger", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """The file that a ledger gives against an author who signed two entries with one sequence number."""
    with closing(create(tmp_path / "ledger")) as ledger:
        World(ledger).populate()
        ledger.append([FIRST, SECOND])

    code, out = call("evidence", tmp_path, "--out", tmp_path / "out", "--json")

    assert code == 0
    (path,) = json.loads(out)["evidence"]
    return Path(path)


def test_evidence_against_an_author_is_checked_without_the_ledger(evidence: Path) -> None:
    code, out = call("verify-evidence", evidence, "--json")

    found: dict[str, Any] = json.loads(out)
    assert code == 0
    assert found == {
        "ok": True,
        "origin": ORIGIN,
        "author": 3,
        "key_id": key_id(device_key(3).public),
        "seq": 5,
        "first_kind": "dataset",
        "second_kind": "dataset",
    }


def test_forged_evidence_proves_nothing(evidence: Path) -> None:
    file = decode(evidence.read_bytes(), EquivocationFile)
    evidence.write_bytes(encode(EquivocationFile(key=key(4).public, first=file.first, second=file.second)))

    code, out = call("verify-evidence", evidence, "--json")

    assert code == 1
    assert json.loads(out)["ok"] is False


def test_evidence_against_a_log_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")

    assert call("verify-evidence", tmp_path / "other.json")[0] == 2

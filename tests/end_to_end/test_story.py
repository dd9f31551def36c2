"""The story that the tutorial tells: share, trace, leak, withdraw, erase; its commands are executed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.update_docs import find_blocks, run


@pytest.fixture
def told(
    repository: Path, real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Executes commands as documents do, beside a data folder with ml-100k, and gives what they print."""
    (tmp_path / "data" / "liberate").mkdir(parents=True)
    (tmp_path / "data" / "liberate" / "ml-100k").symlink_to(real_data("ml-100k"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return lambda command: run(command, tmp_path).partition("\n")[2]


def asked(told: Callable[[str], str], command: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(f"{command} --json"))
    return found


def test_the_story_of_the_tutorial(repository: Path, told: Callable[[str], str]) -> None:
    page = (repository / "docs" / "tutorial" / "share-and-leave.md").read_text("utf-8")
    training, *commands = [block.command for block in find_blocks(page)]
    acts = [shlex.split(command)[1] for command in commands]
    assert acts == ["consent", "share", "share", "trace", "-c", "trace", "withdraw", "erase", "trace"]

    told(training)
    granted, first, second, where, _, leak, left, erased, after = map(told, commands)

    positions = [re.search(r"entry +(\d+)", each) for each in (granted, first, second, left, erased)]
    consent, to_user_2, to_user_3, withdrawal, request = (int(found[1]) for found in positions if found)
    assert f"{to_user_2} " in where
    assert f"{to_user_3} " in where
    assert "accused: participant 4\n" in leak
    assert "silent" in erased
    assert f"erasure requested: entry {request}" in after
    traced = asked(told, "liberate trace runs/plain --participant user:1")
    assert [each["position"] for each in traced["shares"]] == [to_user_2, to_user_3]
    assert [each["position"] for each in traced["consents"]] == [consent]
    assert traced["withdrawal"] == withdrawal
    assert traced["used_after_withdrawal"] == []
    assert len(traced["disclosures"]) == 1
    assert asked(told, "liberate ledger verify runs/plain")["ok"]
    assert asked(told, "liberate erase runs/plain --participant user:1")["confirmed"] == [4, 5]
    assert len(told("head -2 runs/leak.csv").splitlines()) == 2
    rows = told(
        'python -c "import liberate; from liberate.runs.actions import received;'
        " print(received(liberate.load_run('runs/plain'), 'user:2').num_rows)\""
    )
    assert rows.strip() == "0", "the recipient has destroyed the copy"

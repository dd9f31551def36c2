"""A federation from its first run to its second, by commands alone: all of them work on both run folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worlds import low_rank_ratings, write_csv

WORLD = low_rank_ratings(n_users=40, n_items=25)
SMALL = (
    "model.n_factors=2",
    "federation.rounds=3",
    "federation.batch_size=10",
    "federation.max_participants=40",
    "federation.min_cohort=20",
)


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def liberate(call: Callable[..., tuple[int, str, str]]) -> Call:
    """Runs the command line in this process; gives exit code and all that was printed as an answer or an error."""

    def run(*arguments: object) -> tuple[int, str]:
        code, out, err = call(*arguments)
        return code, err if code else out

    return run


@pytest.fixture
def asked(liberate: Call) -> Callable[..., dict[str, Any]]:
    """Return the JSON that a command answers."""

    def ask(*arguments: object) -> dict[str, Any]:
        code, text = liberate(*arguments, "--json")
        assert code == 0, text
        found: dict[str, Any] = json.loads(text)
        return found

    return ask


@pytest.mark.parametrize(
    "settings",
    [
        ("privacy.mode=plain",),
        ("privacy.mode=distributed", "privacy.epsilon=4", "ledger.epsilon_limit=16", "privacy.secure_aggregation=true"),
        ("run.simulated=false",),
    ],
    ids=["plain", "masked", "real-keys"],
)
def test_commands_answer_about_both_runs(
    tmp_path: Path, liberate: Call, asked: Callable[..., dict[str, Any]], settings: tuple[str, ...]
) -> None:
    before = write_csv(tmp_path / "before.csv", WORLD.select(np.arange(30)).within(20))
    after = write_csv(tmp_path / "after.csv", WORLD.select(np.arange(40)))
    first, second = tmp_path / "first", tmp_path / "second"

    flags = [flag for setting in (*SMALL, *settings) for flag in ("--set", setting)]

    results = [
        asked("train", "--data", before, "--out", first, *flags),
        asked("train", "--data", after, "--out", second, "--ledger", first, *flags),
    ]

    key = results[0]["verifier_key"]
    assert key == results[1]["verifier_key"]
    assert results[0]["entry_count"] < results[1]["entry_count"]
    assert results[1]["root"] == asked("ledger", "verify", first, "--key", key)["root"]
    for run, result in zip((first, second), results, strict=True):
        assert asked("ledger", "verify", run, "--key", key)["ok"]
        if result["rmse"] is None:
            assert liberate("evaluate", run)[0] == 1, "nobody sees the errors of real people"
        else:
            assert asked("evaluate", run)["rmse"] == pytest.approx(result["rmse"])
        assert len(asked("recommend", run, "--participant", "user:u05", "-n", 3)["items"]) == 3
        traced = asked("trace", run, "--participant", "user:u05")
        assert len(traced["updates"]) == results[0]["rounds"] + results[1]["rounds"]
        assert asked("privacy", "report", run)["this_run"]["rounds_joined_most"] == result["rounds"]
        assert len(asked("privacy", "report", run, "--participant", "user:u05")["by_run"]) == 2
        assert len(asked("ledger", "show", run, "--kind", "dataset", "--limit", 100)["entries"]) == 70
        assert asked("ledger", "prove", run, "--participant", "user:u05")["ok"]
        assert asked("ledger", "export", run, "--tiles", tmp_path / f"{run.name}-tiles")["root"] == results[1]["root"]
        assert asked("keys", "show", run, "--participant", "user:u05")["status"] == "active"
        assert "All runs" in (run / "report.html").read_text() or run == first
    assert asked("keys", "rotate", second, "--participant", "user:u05")["act"] == "rotation"
    assert asked("ledger", "compare", first, second, "--key", key)["ok"]
    asked("recommend", second, "--participant", "user:u35")
    code, error = liberate("train", "--data", after, "--ledger", tmp_path / "none")
    assert code == 2
    assert "is no federation" in error

"""`liberate terms` from the outside: what is in force, who has to decide, and what deciding changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(call: Call, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=10, n_items=8))

    def run(out: str, *arguments: object) -> tuple[int, str, str]:
        small = ("--set", "model.n_factors=2", "--set", "federation.rounds=1")
        return call("train", "--data", data, "--out", tmp_path / out, *small, *arguments)

    return run


def answer(outcome: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = outcome
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_terms_are_shown_changed_and_accepted(call: Call, train: Call, tmp_path: Path) -> None:
    run = tmp_path / "first"
    assert train("first")[0] == 0

    shown = answer(call("terms", "show", run, "--json"))
    assert shown["terms"] == {
        "max_participants": 10,
        "max_colluders": 1,
        "max_dropouts_permille": 50,
        "max_late_dropouts_permille": 50,
        "min_cohort": 8,
        "min_honest": 2,
        "max_attempts": 64,
    }
    assert (shown["entry"], shown["enrolled"], shown["accepted"], shown["waiting"]) == (0, 10, 10, [])

    changed = answer(call("terms", "propose", run, "--set", "privacy.max_colluders=0", "--json"))
    assert (changed["accepted"], len(changed["waiting"])) == (0, 10)
    code, _, error = train("second", "--ledger", run)
    assert code == 1
    assert "only 0 of 10 people accept the terms" in error

    for number in changed["waiting"][:9]:
        accepted = answer(call("terms", "accept", run, "--participant", number, "--json"))
        assert (accepted["number"], accepted["terms"]["max_colluders"]) == (number, 0)
    assert train("second", "--ledger", run)[0] == 0
    assert answer(call("terms", "show", tmp_path / "second", "--json"))["waiting"] == changed["waiting"][9:]
    assert "max_colluders" in call("terms", "show", run)[1]


def test_terms_that_contradict_themselves_are_wrong_usage(call: Call, train: Call, tmp_path: Path) -> None:
    assert train("first")[0] == 0

    code, _, error = call("terms", "propose", tmp_path / "first", "--set", "federation.min_cohort=11")

    assert code == 2
    assert "contradict" in error

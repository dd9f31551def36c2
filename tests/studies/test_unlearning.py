"""The unlearning study: following the rounds forgets people, going on does not, and doing nothing fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liberate_studies import run_study
from liberate_studies.forgetting import UnlearningMethod

Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The numbers of a quick study."""
    folder: Path = tmp_path_factory.mktemp("unlearning")
    found: Tables = json.loads(run_study("unlearning", is_quick=True, out=folder).rows.read_bytes())
    return found


@pytest.fixture(scope="module")
def ways(tables: Tables) -> dict[str, dict[str, Any]]:
    """What was tried on all at once, by the first word of its name."""
    return {row["name"].split()[0].rstrip(":"): row for row in tables["all at once"]}


def test_doing_nothing_fails(ways: dict[str, dict[str, Any]]) -> None:
    assert ways["nothing"]["share_left"] == 1
    assert UnlearningMethod(**ways["nothing"]).verdict == "does not forget"


def test_following_the_rounds_leaves_less_than_the_last_round_alone(ways: dict[str, dict[str, Any]]) -> None:
    assert ways["exact"]["share_left"] < 0.05
    assert ways["fast"]["share_left"] <= 0.1
    assert ways["fast"]["share_left"] < 0.5 * ways["the"]["share_left"]
    assert ways["fast"]["rounds"] == 1 < ways["exact"]["rounds"]


def test_coins_of_canaries_are_told_before_and_by_chance_after(ways: dict[str, dict[str, Any]]) -> None:
    by_chance = ways["nothing"]["by_chance"]

    assert ways["nothing"]["told_by_all"] > 0.5 + by_chance
    for way in ("fast", "exact"):
        assert abs(ways[way]["told_by_all"] - 0.5) <= by_chance


def test_each_alone_is_forgotten_better_by_following_the_rounds(tables: Tables) -> None:
    assert {row["is_canary"] for row in tables["alone"]} == {False, True}
    assert all(row["estimate"] < row["last_round"] for row in tables["alone"])


def test_lists_are_forgotten_exactly(tables: Tables) -> None:
    (lists,) = tables["lists"]

    assert lists["before"] > 0
    assert lists["after"] == 0

"""The unlearning study: following the rounds forgets people, going on does not, and doing nothing fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from liberate_studies import run_study

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The numbers of a quick study."""
    folder: Path = tmp_path_factory.mktemp("unlearning")
    run_study("unlearning", is_quick=True, out=folder)
    found: Rows = pq.read_table(folder / "results.parquet").to_pylist()
    return found


@pytest.fixture(scope="module")
def ways(rows: Rows) -> dict[str, dict[str, Any]]:
    """What was tried on all at once, by the first word of its name."""
    return {row["name"].split()[0].rstrip(":"): row for row in rows if row["series"] == "all at once"}


def test_doing_nothing_fails(ways: dict[str, dict[str, Any]]) -> None:
    assert ways["nothing"]["share_left"] == 1
    assert ways["nothing"]["verdict"] == "does not forget"


def test_following_the_rounds_leaves_less_than_the_last_round_alone(ways: dict[str, dict[str, Any]]) -> None:
    assert ways["exact"]["share_left"] < 0.05
    assert ways["fast"]["share_left"] <= 0.1
    assert ways["fast"]["share_left"] < 0.5 * ways["the"]["share_left"]
    assert ways["fast"]["rounds"] == 1 < ways["exact"]["rounds"]


def test_coins_of_canaries_are_told_before_and_by_chance_after(ways: dict[str, dict[str, Any]]) -> None:
    by_chance = ways["nothing"]["auc_by_chance"]

    assert ways["nothing"]["canary_auc_all_else"] > 0.5 + by_chance
    for way in ("fast", "exact"):
        assert abs(ways[way]["canary_auc_all_else"] - 0.5) <= by_chance


def test_each_alone_is_forgotten_better_by_following_the_rounds(rows: Rows) -> None:
    alone = [row for row in rows if row["series"] == "alone"]

    assert {row["name"] for row in alone} == {"heavy rater", "canary"}
    assert all(row["share_left"] < row["share_left_last_round"] for row in alone)


def test_lists_are_forgotten_exactly(rows: Rows) -> None:
    (lists,) = (row for row in rows if row["series"] == "lists")

    assert lists["before"] > 0
    assert lists["after"] == 0

"""The leaks study: one leaked copy names its recipient, what no copy made names nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liberate_studies import run_study

Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The numbers of a quick study."""
    folder: Path = tmp_path_factory.mktemp("leaks")
    found: Tables = json.loads(run_study("leaks", is_quick=True, out=folder).rows.read_bytes())
    return found


def test_a_source_of_many_rows_is_accused_and_hardly_anybody_else(tables: Tables) -> None:
    assert {row["leak"]["epsilon"] for row in tables["attribution"]} == {None, 2.0}
    for row in tables["attribution"]:
        leak = row["leak"]
        assert row["falsely_accused"] <= 0.03
        if leak["sources"] == 1 and leak["rows"] == 400:
            assert row["source_named"] >= 0.95
        if leak["sources"] == 3 and leak["how"] == "at random" and not leak["altered"]:
            assert row["source_named"] >= 0.9


def test_altered_rows_and_short_leaks_hide_their_source(tables: Tables) -> None:
    named = {
        (row["leak"]["rows"], row["leak"]["altered"]): row["source_named"]
        for row in tables["attribution"]
        if row["leak"]["sources"] == 1 and row["leak"]["epsilon"] is None
    }

    assert named[40, 0.3] < named[100, 0.3] < named[400, 0.3]
    assert named[100, 0.3] < named[100, 0.0]


def test_votes_of_several_copies_hide_them_better_than_mixtures(tables: Tables) -> None:
    named = {
        row["leak"]["how"]: row["source_named"]
        for row in tables["attribution"]
        if row["leak"]["sources"] == 5 and not row["leak"]["altered"]
    }

    assert named["the commonest"] < named["at random"]


def test_marks_cost_accuracy(tables: Tables) -> None:
    assert len(tables["cost"]) == 2
    for row in tables["cost"]:
        assert row["rmse"] < row["rmse_marked"]

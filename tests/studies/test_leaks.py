"""The leaks study: one leaked copy names its recipient, what no copy made names nobody."""

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
    folder: Path = tmp_path_factory.mktemp("leaks")
    run_study("leaks", is_quick=True, out=folder)
    found: Rows = pq.read_table(folder / "results.parquet").to_pylist()
    return found


def test_a_source_of_many_rows_is_accused_and_hardly_anybody_else(rows: Rows) -> None:
    attributed = [row for row in rows if row["series"] == "attribution"]

    assert {row["epsilon"] for row in attributed} == {None, 2.0}
    for row in attributed:
        assert row["falsely_accused"] <= 0.03
        if row["sources"] == 1 and row["rows"] == 400:
            assert row["source_named"] >= 0.95
        if row["sources"] == 3 and row["how"] == "at random" and not row["altered"]:
            assert row["source_named"] >= 0.9


def test_altered_rows_and_short_leaks_hide_their_source(rows: Rows) -> None:
    named = {
        (row["rows"], row["altered"]): row["source_named"]
        for row in rows
        if row["series"] == "attribution" and row["sources"] == 1 and row["epsilon"] is None
    }

    assert named[40, 0.3] < named[100, 0.3] < named[400, 0.3]
    assert named[100, 0.3] < named[100, 0.0]


def test_votes_of_several_copies_hide_them_better_than_mixtures(rows: Rows) -> None:
    named = {
        row["how"]: row["source_named"]
        for row in rows
        if row["series"] == "attribution" and row["sources"] == 5 and not row["altered"]
    }

    assert named["the commonest"] < named["at random"]


def test_marks_cost_accuracy(rows: Rows) -> None:
    costs = [row for row in rows if row["series"] == "cost"]

    assert len(costs) == 2
    for row in costs:
        assert row["rmse"] < row["rmse_marked"]

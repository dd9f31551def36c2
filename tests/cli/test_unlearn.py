"""`liberate withdraw`, then `liberate unlearn`, by commands alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trained(tmp_path: Path, call: Call) -> Path:
    """A run in plain."""
    source, run = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=40, n_items=25)), tmp_path / "run"
    small = ("model.n_factors=2", "federation.rounds=4", "model.tolerance=0")
    assert call("train", "--data", source, "--out", run, *(part for text in small for part in ("--set", text)))[0] == 0
    return run


def test_unlearn_answers_what_became_of_whom(tmp_path: Path, call: Call, trained: Path) -> None:
    code, text, _ = call("withdraw", trained, "--participant", "user:u07", "--json")
    assert code == 0

    code, text, _ = call("unlearn", trained, "--out", tmp_path / "next", "--method", "fast", "--measure", "--json")

    found = json.loads(text)
    assert code == 0
    assert len(found["participants"]) == 1
    assert found["models"] == [1, 2, 3, 4]
    assert (found["method"], found["started_from"], found["proved"]) == ("fast", 4, None)
    assert 0 < found["distance_after"] < found["distance_before"]
    assert found["seconds"] > 0
    assert found["result"]["rounds"] == 1
    assert (tmp_path / "next" / "report.html").exists()


def test_unlearn_tells_a_person_what_was_done(tmp_path: Path, call: Call, trained: Path) -> None:
    call("withdraw", trained, "--participant", "user:u07")

    code, text, _ = call("unlearn", trained, "--out", tmp_path / "next")
    again = call("unlearn", tmp_path / "next", "--out", tmp_path / "third")

    assert code == 0
    assert "had these people never taken part" in text
    assert "no model" in again[1]
    assert not (tmp_path / "third").exists()


def test_unlearn_without_anybody_to_forget_fails(tmp_path: Path, call: Call, trained: Path) -> None:
    code, _, error = call("unlearn", trained, "--out", tmp_path / "next")

    assert code == 1
    assert "nobody has withdrawn" in error

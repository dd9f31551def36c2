"""`liberate ledger verify --recompute`: what it prints, and when it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from liberate.federation.store.uploads import UploadStore
from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call: Call, tmp_path: Path) -> Path:
    """A finished run that kept its uploads."""
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=30, n_items=20))
    settings = ["ledger.keep_uploads=true", "federation.rounds=2", "model.n_factors=2"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    assert call("train", "--data", data, "--out", tmp_path / "run", *flags)[0] == 0
    return tmp_path / "run"


def test_every_round_is_reported(call: Call, run: Path) -> None:
    code, out, _ = call("ledger", "verify", run, "--recompute", "--json")

    found = json.loads(out)
    assert code == 0
    assert (found["ok"], found["findings"]) == (True, [])
    assert [(each["round"], each["outcome"], each["kept"]) for each in found["rounds"]] == [
        (1, "follows", 30),
        (2, "follows", 30),
    ]


def test_what_does_not_follow_is_named_and_fails(call: Call, run: Path) -> None:
    with UploadStore(run / "uploads") as uploads:
        uploads.erase_participant(5)

    code, out, _ = call("ledger", "verify", run, "--recompute")

    assert code == 1
    assert out.count("FOUND upload ") == 2
    assert "fault" in out
    assert call("ledger", "verify", run)[0] == 0


def test_a_run_without_uploads_says_that_nothing_was_taken_again(call: Call, run: Path) -> None:
    shutil.rmtree(run / "uploads")

    code, out, _ = call("ledger", "verify", run, "--recompute")

    assert code == 0
    assert out.count("not_kept") == 3


def test_an_unsound_ledger_is_not_taken_again(call: Call, run: Path) -> None:
    path = run / "ledger" / "ledger.sqlite"
    data = path.read_bytes()
    at = data.index(b'"kind":"dataset"')
    path.write_bytes(data[: at - 40] + bytes([data[at - 40] ^ 1]) + data[at - 39 :])

    code, out, _ = call("ledger", "verify", run, "--recompute", "--json")

    found = json.loads(out)
    assert code == 1
    assert found["findings"]
    assert found["rounds"] is None

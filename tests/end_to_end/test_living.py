"""People act by command while a real training owns the ledger, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.worlds import low_rank_ratings, write_csv


def liberate(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "liberate", *map(str, arguments)]


def asked(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(liberate(*arguments, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_who_acts_while_a_training_goes_on_is_heeded_and_told(tmp_path: Path) -> None:
    data, run = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=60, n_items=40)), tmp_path / "run"
    settings = ["federation.rounds=30", "model.n_factors=3", "model.tolerance=0"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    training = liberate("train", "--data", data, "--out", run, *flags)
    with subprocess.Popen(training, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "round 2 " in line)
        left = asked("withdraw", run, "--participant", "user:u07")
        granted = asked("consent", run, "--participant", "user:u08", "--to", "user:u09")
        shared = asked("share", run, "--participant", "user:u08", "--to", "user:u09")
        erased = asked("erase", run, "--participant", "user:u08")
        process.stderr.read()
        assert process.wait() == 0

    assert not any(each["under_way"] for each in (left, granted, shared, erased))
    assert left["entry"] < granted["entry"] < shared["entry"] < erased["entry"]
    assert shared["received"]
    assert asked("ledger", "verify", run)["ok"]
    gone = asked("trace", run, "--participant", "user:u07")
    assert max(update["position"] for update in gone["updates"]) < left["entry"]
    assert len(asked("trace", run, "--participant", "user:u00")["updates"]) == 30

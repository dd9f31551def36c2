"""kill -9 a real training at random points: it goes on, nothing is recorded or noised twice, the result is the same."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worlds import low_rank_ratings, write_csv

MODES = {
    "plain": [],
    "local": ["--set", "privacy.mode=local", "--set", "privacy.epsilon=8", "--set", "ledger.epsilon_limit=32"],
}


def command(data: Path, out: Path, mode: str, ledger: Path | None = None) -> list[str]:
    settings = ["federation.rounds=4", "federation.batch_size=8", "model.n_factors=3", "model.tolerance=0"]
    settings.append("federation.max_participants=80")
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return [
        *(sys.executable, "-m", "liberate", "train", "--data", str(data), "--out", str(out), "--json"),
        *flags,
        *MODES[mode],
        *([] if ledger is None else ["--ledger", str(ledger)]),
    ]


def finish(data: Path, out: Path, mode: str, ledger: Path | None = None) -> dict[str, Any]:
    done = subprocess.run(command(data, out, mode, ledger), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kill_once(data: Path, out: Path, mode: str, delay_s: float, ledger: Path | None = None) -> bool:
    """Start a training, wait until it has begun its work and then for a random while, and kill it."""
    with subprocess.Popen(
        command(data, out, mode, ledger), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # "reading ...": the imports are done
        try:
            process.wait(timeout=delay_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode == -9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_training_ends_as_if_undisturbed(tmp_path: Path, mode: str, kills: int) -> None:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=80, n_items=40))
    undisturbed = finish(data, tmp_path / "undisturbed", mode)
    rng = random.Random(kills)
    done, trial = 0, 0

    while done < kills:
        out = tmp_path / f"killed-{trial}"
        trial += 1
        while not (out / "report.html").exists() and done < kills:
            # the same command each time: whatever was reached before is gone on with
            done += kill_once(data, out, mode, rng.uniform(0, undisturbed["seconds"] * 1.2))
        resumed = finish(data, out, mode)

        check_same(out, resumed, tmp_path / "undisturbed", undisturbed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_further_run_ends_as_if_undisturbed(tmp_path: Path, mode: str, kills: int) -> None:
    """The data set has more people, items and ratings than that of the first run: all of it joins under fire."""
    ratings = low_rank_ratings(n_users=80, n_items=40)
    before = write_csv(tmp_path / "before.csv", ratings.select(np.arange(60)).within(30))
    data = write_csv(tmp_path / "ratings.csv", ratings)
    finish(before, tmp_path / "a" / "first", mode)
    shutil.copytree(tmp_path / "a" / "first", tmp_path / "first")
    undisturbed = finish(data, tmp_path / "a" / "second", mode, tmp_path / "a" / "first")
    rng = random.Random(kills)
    done, trial = 0, 0

    while done < kills:
        trial += 1
        first, out = tmp_path / f"b{trial}" / "first", tmp_path / f"b{trial}" / "second"
        shutil.copytree(tmp_path / "first", first)
        while not (out / "report.html").exists() and done < kills:
            done += kill_once(data, out, mode, rng.uniform(0, undisturbed["seconds"] * 1.2), first)
        resumed = finish(data, out, mode, first)

        check_same(out, resumed, tmp_path / "a" / "second", undisturbed)
        assert (first / "items.parquet").read_bytes() == (tmp_path / "a" / "first" / "items.parquet").read_bytes()


def check_same(out: Path, resumed: dict[str, Any], whole: Path, undisturbed: dict[str, Any]) -> None:
    """Check that a run which was killed came to the figures, the ledger and the models of one that was not."""
    same = ("rmse", "ndcg_at_10", "epsilon", "rounds", "entry_count", "root", "verifier_key")
    assert {key: resumed[key] for key in same} == {key: undisturbed[key] for key in same}
    assert (out / "report.html").exists()
    models = sorted(path.name for path in (out / "model").iterdir())
    assert models == sorted(path.name for path in (whole / "model").iterdir())
    for name in models:
        assert (out / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    verify = [sys.executable, "-m", "liberate", "ledger", "verify", str(out), "--key", resumed["verifier_key"]]
    checked = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout

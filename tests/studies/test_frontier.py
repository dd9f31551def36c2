"""The frontier study goes on where it was broken off, and its table says what its results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from liberate.runs.run_record import Result
from liberate.runs.train import train
from liberate.settings import Settings
from liberate_studies import frontier, run_study
from liberate_studies.tables import number


class Broken(Exception):
    pass


def breaking_after(n_runs: int, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Let no more than some runs through; return the list that their settings are kept in."""
    trained: list[Settings] = []

    def limited(settings: Settings, out: Path) -> Result:
        if len(trained) == n_runs:
            raise Broken
        trained.append(settings)
        return train(settings, out)

    monkeypatch.setattr("liberate_studies.cells.train", limited)
    return trained


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave only the quickest series; return the number of runs of a quick study."""
    kept = tuple(s for s in frontier._SERIES if s.name in ("plain", "local, Gauss"))
    monkeypatch.setattr(frontier, "_SERIES", kept)
    return 2 * sum(len(frontier._QUICK_EPSILONS) if series.is_private else 1 for series in kept)


def test_study_that_was_broken_off_trains_nothing_twice(
    few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        before = breaking_after(3, patched)
        with pytest.raises(Broken):
            run_study("frontier", is_quick=True, out=tmp_path / "one")
    with monkeypatch.context() as patched:
        after = breaking_after(few, patched)
        resumed = run_study("frontier", is_quick=True, out=tmp_path / "one")
    again = breaking_after(0, monkeypatch)

    assert run_study("frontier", is_quick=True, out=tmp_path / "one").text == resumed.text
    assert (len(before), len(after), len(again)) == (3, few - 3, 0)
    assert {path.name for path in (tmp_path / "one").iterdir() if path.is_dir()} == set()


def test_numbers_of_the_table_are_those_of_the_results(few: int, tmp_path: Path) -> None:
    files = run_study("frontier", is_quick=True, out=tmp_path)

    runs = json.loads(files.rows.read_bytes())["runs"]
    (plain,) = [run for run in runs if (run["series"], run["objective"]) == ("plain", "explicit")]
    line = next(line for line in files.text.splitlines() if line.startswith("| plain"))
    assert line.split("|")[2].strip() == number(plain["rmse"])


def test_mean_is_written_with_the_spread_over_seeds() -> None:
    assert frontier._spread([0.9, 0.902, 0.901]) == "0.9010 ± 0.0010"
    assert frontier._spread([0.9]) == "0.9000"
    assert frontier._spread([]) == "-"

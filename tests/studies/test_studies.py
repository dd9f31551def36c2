"""Studies run in seconds when quick, and leave a table, a figure and all numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from liberate.errors import LiberateError
from liberate.ledger.verification.findings import Finding
from liberate.ledger.verification.verify import VerificationReport, verify_ledger
from liberate.settings import resolve
from liberate_studies import STUDIES, run_study
from liberate_studies.findings import number, table
from liberate_studies.worlds import made_up

_NOT_LEARNED = {"ledgered", "attacks", "leaks", "poisoning", "sharing", "unlearning"}
"""Studies whose numbers are not about how good a model is."""


@pytest.mark.parametrize("name", STUDIES)
def test_quick_study_leaves_table_figure_numbers_and_settings(name: str, tmp_path: Path) -> None:
    outcome = run_study(name, is_quick=True, out=tmp_path)

    page = outcome.table.read_text("utf-8")
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert outcome.table == tmp_path / "table.md"
    assert page.startswith(outcome.text)
    assert page.startswith("# ")
    assert "](figure.svg)" in page
    assert outcome.figure.read_text("utf-8").startswith("<?xml")
    assert outcome.figure.stat().st_size < 200_000
    assert {"user mean", "damped biases", "most popular"} <= {row["series"] for row in rows} or name in _NOT_LEARNED
    assert "| damped biases " in page or name in {"attacks", "leaks", "poisoning", "sharing", "unlearning"}
    assert resolve(tmp_path / "settings.toml", environment={}).run.seed == 42


def test_study_without_times_comes_out_the_same_each_time(tmp_path: Path) -> None:
    one, other = (run_study("federated", is_quick=True, out=tmp_path / name) for name in ("one", "other"))

    assert one.text == other.text
    assert one.figure.read_bytes() == other.figure.read_bytes()


def test_numbers_of_the_table_are_those_of_the_results(tmp_path: Path) -> None:
    outcome = run_study("centralised", is_quick=True, out=tmp_path)

    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    last = max((row for row in rows if row["series"] == "normal equations"), key=lambda row: row["round"])
    line = next(line for line in outcome.text.splitlines() if line.startswith("| normal equations"))
    assert [cell.strip() for cell in line.split("|")[2:5]] == [
        str(last["round"]),
        number(last["rmse"]),
        number(last["ndcg_at_10"]),
    ]


def test_private_study_says_that_nothing_is_learned(tmp_path: Path) -> None:
    assert "nothing is learned" in run_study("federated", is_quick=True, out=tmp_path).text


def test_ladder_prints_the_digest_that_both_upper_rungs_share(tmp_path: Path) -> None:
    text = run_study("ladder", is_quick=True, out=tmp_path).text

    assert "all 10 models are the same to the bit; SHA-256 of the last: `" in text


def test_quick_study_of_named_data_takes_its_densest_corner(tmp_path: Path) -> None:
    source = tmp_path / "mine.parquet"
    made_up(source)

    outcome = run_study("centralised", data=str(source), is_quick=True, out=tmp_path / "out")

    assert "The densest corner of mine: 120 users, 90 items" in outcome.text


def test_study_refuses_a_ledger_that_does_not_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_fault(folder: Path, *, key: str) -> VerificationReport:
        return replace(verify_ledger(folder, key=key), ok=False, findings=(Finding("entry 3", "it was swapped"),))

    monkeypatch.setattr("liberate_studies.ledgered.verify_ledger", find_fault)

    with pytest.raises(LiberateError, match="does not verify: entry 3: it was swapped"):
        run_study("ledgered", is_quick=True, out=tmp_path)


def test_unknown_study_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(LiberateError, match="no study 'diversions'") as caught:
        run_study("diversions", out=tmp_path / "out")

    assert caught.value.hint == "known are " + ", ".join(STUDIES)
    assert not (tmp_path / "out").exists()


def test_table_is_aligned_text_and_valid_markdown() -> None:
    assert table(["", "RMSE"], [["user mean", number(1.03967)], ["ours", number(None)]]) == (
        "|           |   RMSE |\n| --------- | -----: |\n| user mean | 1.0397 |\n| ours      |      - |"
    )

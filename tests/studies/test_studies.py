"""Studies run in seconds when quick, and leave a table, a figure and all numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from liberate.errors import LiberateError
from liberate.ledger.verification.findings import Finding
from liberate.ledger.verification.verify import VerificationReport, verify_ledger
from liberate.settings import resolve
from liberate_studies import STUDIES, run_study
from liberate_studies.stamp import Stamp
from liberate_studies.tables import number, table
from liberate_studies.worlds import made_up
from scripts.update_studies import FOLDER, pages


@pytest.mark.parametrize("name", STUDIES)
def test_quick_study_leaves_table_figure_numbers_and_settings(name: str, tmp_path: Path) -> None:
    outcome = run_study(name, is_quick=True, out=tmp_path)

    page = outcome.table.read_text("utf-8")
    rows = json.loads(outcome.rows.read_bytes())
    assert outcome.name == name
    assert outcome.table == tmp_path / "table.md"
    assert page.startswith(outcome.text)
    assert page.startswith("# ")
    assert outcome.figure.read_text("utf-8").startswith("<?xml")
    assert outcome.figure.stat().st_size < 200_000
    assert "](figure.svg)" in page
    assert str(msgspec.convert(rows["stamp"], Stamp)) == page.splitlines()[-1]
    assert rows["stamp"]["command"] == f"liberate study {name} --quick"
    assert "| damped biases " in page or name in {"attacks", "leaks", "poisoning", "sharing", "unlearning"}
    assert resolve(tmp_path / "settings.toml", environment={}).run.seed == 42


def test_study_without_times_comes_out_the_same_each_time(tmp_path: Path) -> None:
    one, other = (run_study("federated", is_quick=True, out=tmp_path / name) for name in ("one", "other"))

    assert one.text == other.text
    assert one.figure.read_bytes() == other.figure.read_bytes()


def test_numbers_of_the_table_are_those_of_the_results(tmp_path: Path) -> None:
    outcome = run_study("centralised", is_quick=True, out=tmp_path)

    (curve,) = (
        curve for curve in json.loads(outcome.rows.read_bytes())["curves"] if curve["name"] == "normal equations"
    )
    last = curve["metrics"][-1]
    line = next(line for line in outcome.text.splitlines() if line.startswith("| normal equations"))
    assert [cell.strip() for cell in line.split("|")[2:5]] == [
        str(len(curve["metrics"]) - 1),
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
    assert outcome.name == "centralised-mine"
    assert "`liberate study centralised --data mine --quick`" in outcome.table.read_text("utf-8")


def test_study_refuses_a_ledger_that_does_not_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_fault(folder: Path, *, key: str) -> VerificationReport:
        return replace(verify_ledger(folder, key=key), ok=False, findings=(Finding("entry 3", "it was swapped"),))

    monkeypatch.setattr("liberate_studies.ledgered.verify_ledger", find_fault)

    with pytest.raises(LiberateError, match="does not verify: entry 3: it was swapped"):
        run_study("ledgered", is_quick=True, out=tmp_path)


def test_study_without_matplotlib_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    monkeypatch.delitem(sys.modules, "liberate_studies.study")

    with pytest.raises(LiberateError, match="not installed") as caught:
        run_study("centralised", out=tmp_path / "out")

    assert caught.value.hint == "pip install 'liberate-rec[studies]'"
    assert not (tmp_path / "out").exists()


def test_pages_of_studies_are_those_that_the_script_writes() -> None:
    written = {kind: {path.stem for path in FOLDER.glob(f"*.{kind}")} for kind in ("md", "svg", "json")}

    assert written["md"] - {"index"} == written["svg"] == pages()
    assert written["json"] <= pages()
    listed = (FOLDER / "index.md").read_text("utf-8").partition("```{toctree}")[2].split()
    assert pages() <= set(listed)


def test_pages_of_studies_end_with_the_stamp_of_their_numbers() -> None:
    for path in FOLDER.glob("*.json"):
        stamp = msgspec.convert(json.loads(path.read_bytes())["stamp"], Stamp)

        assert path.with_suffix(".md").read_text("utf-8").splitlines()[-1] == str(stamp)


def test_unknown_study_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(LiberateError, match="no study 'diversions'") as caught:
        run_study("diversions", out=tmp_path / "out")

    assert caught.value.hint == "known are " + ", ".join(STUDIES)
    assert not (tmp_path / "out").exists()


def test_table_is_aligned_text_and_valid_markdown() -> None:
    assert table(["", "RMSE"], [["user mean", number(1.03967)], ["ours", number(None)]]) == (
        "|           |   RMSE |\n| --------- | -----: |\n| user mean | 1.0397 |\n| ours      |      - |"
    )

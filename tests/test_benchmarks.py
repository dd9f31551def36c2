"""Benchmarks: all are run by one command, a missed limit is called missed, and none breaks unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ledger, secure_aggregation, trace
from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Figure, show


def test_every_benchmark_is_run_by_the_command(repository: Path) -> None:
    modules = {path.stem for path in (repository / "benchmarks").glob("*.py")}

    assert set(BENCHMARKS) == modules - {"__main__", "figures"}


def test_every_benchmark_is_named_in_the_page(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "benchmarks.md").read_text("utf-8")

    assert all(f"| `{name}` |" in page for name in BENCHMARKS)


def test_line_says_the_limit_and_whether_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        [
            Figure(name="open", value=0.02, unit="s", at_most=0.5),
            Figure(name="share", value=0.46, at_least=0.65),
            Figure(name="rounds", value=12),
        ]
    )

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == ["open", "share", "rounds"]
    assert lines[0].endswith("0.02 s         at most 0.5: met")
    assert lines[1].endswith("at least 0.65: MISSED")
    assert lines[2].endswith(" -")


def test_ledger_and_trace_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "N_PARTICIPANTS", 1000)  # fewer take no time that a CPU clock sees
    monkeypatch.setattr(ledger, "ROUNDS", (1, 2))
    monkeypatch.setattr(trace, "N_PARTICIPANTS", 120)
    monkeypatch.setattr(trace, "ROUNDS", 3)

    assert {figure.name for figure in ledger.measure()} >= {"1,000 entries, open", "2,000 entries, appended"}
    assert {figure.name: figure.value for figure in trace.measure()}["a participant who shares: uses by others"] > 0


def test_secure_aggregation_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_aggregation, "N_PARTICIPANTS", 12)
    monkeypatch.setattr(secure_aggregation, "N_ITEMS", 20)

    figures = {figure.name: figure.value for figure in secure_aggregation.measure()}

    assert figures["sent, beside the upload without masks"] > 1

"""`liberate trace` puts each question to the ledger, and answers in words, as JSON and as a drawing."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from liberate.runs.folder import Run
from tests.cli.conftest import Call
from tests.runs.sharing import SENDERS, copies_of, leaky_run, rows_of, sharing_run, write_leak


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sharing_run(tmp_path_factory.mktemp("run"))


QUESTIONS = [["--participant", "3"], ["--share", "16"], ["--model", "2"], ["--recipient", "2"]]
KEYS = {"shares", "recipients", "updates", "models", "proofs"}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question[0])
def test_each_question_is_answered_and_drawn(call: Call, run: Run, tmp_path: Path, question: list[str]) -> None:
    code, out, _ = call("trace", run.folder, *question, "--svg", tmp_path / "trace.svg", "--json")

    found = json.loads(out)
    assert code == 0
    assert set(found) >= (KEYS if question[0] != "--recipient" else {"shares", "senders", "consents", "proofs"})
    assert found["proofs"] > 3
    assert (tmp_path / "trace.svg").read_text("utf-8").startswith("<svg ")
    assert f"checked {found['proofs']} proofs against 73 entries" in call("trace", run.folder, *question)[1]


def test_a_person_reads_what_became_of_copies(call: Call, run: Run) -> None:
    out = call("trace", run.folder, "--participant", "4")[1]

    assert "withdrawn from everything: entry 61\n" in out
    assert "model 2 came later and used entry 57, accepted before the withdrawal\n" in out
    assert "recipients notified: 2, 3; no reply from: 3\n" in out
    assert "models that contain the data: 1, 2\n" in out
    assert "block 17: receipt" not in out
    other = call("trace", run.folder, "--participant", 3)[1]
    assert "\nconsents were withdrawn\nno data was used after the withdrawal\n" in other


def test_a_share_is_told_with_its_consent(call: Call, run: Run) -> None:
    out = call("trace", run.folder, "--share", "16")[1]

    assert "entry 16: participant 3 gave participant 4 a copy, epsilon 2 each\n" in out
    assert "consent: entry 14, withdrawn, entry 52\naccepted: entry 18\n" in out
    assert "shaped models: 1\nmodels built on these: 2\nother copies of the same base: entry 20, entry 24\n" in out


@pytest.mark.parametrize("question", [[], ["--model", "1", "--share", "16"]])
def test_one_question_is_wanted(call: Call, run: Run, question: list[str]) -> None:
    code, _, err = call("trace", run.folder, *question)

    assert code == 2
    assert "exactly one of --participant" in err


def test_nothing_is_asked_that_cannot_be_drawn(call: Call, tmp_path: Path) -> None:
    run = leaky_run(tmp_path / "run")
    leak = write_leak(tmp_path / "leak.csv", ["u0,i1,3"])

    code, _, err = call("trace", run.folder, "--leak", leak, "--svg", tmp_path / "nowhere" / "leak.svg")

    assert (code, "there is no folder" in err) == (2, True)
    with closing(run.open_ledger()) as ledger:
        assert ledger.positions(kind="disclosure") == []


def test_a_leak_is_looked_up_in_the_open(call: Call, tmp_path: Path) -> None:
    run = leaky_run(tmp_path / "run")
    copies = copies_of(run)
    rows = [row for sender in SENDERS for row in rows_of(copies[sender, 4].copy, f"u{sender}", 100)]
    leak = write_leak(tmp_path / "leak.csv", rows)

    code, out, err = call("trace", run.folder, "--leak", leak, "--svg", tmp_path / "leak.svg")

    assert code == 0
    assert re.search(r"^note: entry \d+ announces that an auditor looks up copies of 3 ", err, re.MULTILINE)
    assert "300 rows, 300 of them from 3 base copies that were shared\n" in out
    accused = json.loads(call("trace", run.folder, "--leak", leak, "--json")[1])["candidates"][0]
    assert accused["user_id"] == "u4"
    assert f"\naccused: participant {accused['number']}\n" in out
    assert "Whose copies leaked" in (tmp_path / "leak.svg").read_text("utf-8")

"""An accusation is checked with the answer and the log's key alone, and nothing in it can be made up."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, LiberateError, ProofMismatch
from liberate.runs.folder import Run
from liberate.tracing.leak.evidence import check_accusations, is_accusation
from liberate.tracing.leak.lookup import trace_leak
from tests.cli.conftest import Call
from tests.cli.conftest import call as call
from tests.runs.sharing import RATINGS, SENDERS, copies_of, leaky_run, rows_of, write_leak
from tests.tracing.asking import asked

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return leaky_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def answer(run: Run, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The answer to a leak of 240 rows of one recipient."""
    copies = copies_of(run)
    rows = [row for sender in SENDERS[:2] for row in rows_of(copies[sender, 4].copy, f"u{sender}", 120)]
    path = write_leak(tmp_path_factory.mktemp("leak") / "leak.csv", rows)
    return json.dumps(asked(trace_leak, run, path)).encode()


def first(answer: Answer) -> Answer:
    found: Answer = answer["candidates"][0]
    return found


def turned(text: str) -> str:
    """Other bytes than these."""
    data = b64decode(text)
    return b64encode(bytes([data[0] ^ 1]) + data[1:]).decode()


def test_an_answer_proves_its_accusation_to_whoever_has_the_key(run: Run, answer: bytes) -> None:
    (found,) = check_accusations(answer, run.verifier_key)

    told = first(json.loads(answer))
    assert (found.number, found.rows, found.received) == (told["number"], 240, True)
    assert found.log10_likelihood == pytest.approx(told["log10_likelihood"])
    assert found.bound == pytest.approx(told["bound"])
    assert is_accusation(answer)


def accuse_another(answer: Answer) -> None:
    first(answer)["number"] = answer["candidates"][1]["number"]


def change_what_leaked(answer: Answer) -> None:
    for each in first(answer)["evidence"]:
        each["leaked"] = [(level + 1) % 5 for level in each["leaked"]]


def count_rows_twice(answer: Answer) -> None:
    each = first(answer)["evidence"][0]
    each["items"], each["leaked"] = each["items"] * 2, each["leaked"] * 2


def name_rows_of_nobody(answer: Answer) -> None:
    first(answer)["evidence"][0]["items"][-1] = 10**6


def change_scale(answer: Answer) -> None:
    first(answer)["evidence"][0]["scale"]["levels"] = 9


def leave_out(answer: Answer) -> None:
    first(answer)["evidence"] = []


def acknowledge_with_another(answer: Answer) -> None:
    one, two = first(answer)["evidence"][:2]
    one["receipt"] = two["receipt"]


def accuse_nobody(answer: Answer) -> None:
    first(answer)["accused"] = False


def replaced(name: str) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        each = first(answer)["evidence"][0]
        each[name] = turned(each[name])

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (accuse_another, "hands nothing to"),
        (change_what_leaked, "bound a false accusation"),
        (count_rows_twice, "count twice"),
        (name_rows_of_nobody, "none of its copy"),
        (change_scale, "all on one scale"),
        (leave_out, "wanted copies of"),
        (acknowledge_with_another, "does not acknowledge"),
        (accuse_nobody, "accuses nobody"),
        (replaced("copy"), "do not open"),
        (replaced("salt"), "do not open"),
        (replaced("base"), "do not open"),
        (replaced("base_salt"), "do not open"),
        (replaced("entry"), "inclusion"),
    ],
)
def test_nothing_in_an_accusation_can_be_made_up(
    run: Run, answer: bytes, change: Callable[[Answer], None], reason: str
) -> None:
    changed = json.loads(answer)
    change(changed)

    with pytest.raises(LiberateError, match=reason):
        check_accusations(json.dumps(changed).encode(), run.verifier_key)


def test_a_receipt_that_is_missing_is_told(run: Run, answer: bytes) -> None:
    changed = json.loads(answer)
    first(changed)["evidence"][0]["receipt"] = None

    assert not check_accusations(json.dumps(changed).encode(), run.verifier_key)[0].received


def test_a_candidate_cannot_be_accused_by_a_flag(run: Run, answer: bytes) -> None:
    changed = json.loads(answer)
    changed["candidates"][1] |= {"accused": True, "evidence": first(changed)["evidence"]}

    with pytest.raises(ProofMismatch, match="hands nothing to"):
        check_accusations(json.dumps(changed).encode(), run.verifier_key)


def test_another_log_key_proves_nothing(run: Run, answer: bytes) -> None:
    origin = run.record.origin
    with pytest.raises(InvalidRecord):
        check_accusations(answer, verifier_key(origin, SigningKey.from_seed(bytes(32)).public))


@pytest.mark.parametrize("format", ["liberate-leak/2", "", None])
def test_an_answer_of_another_format_is_refused(run: Run, answer: bytes, format: str | None) -> None:
    changed = json.loads(answer) | {"format": format}

    with pytest.raises(InvalidRecord, match="not an answer of trace --leak"):
        check_accusations(json.dumps(changed).encode(), run.verifier_key)
    del changed["format"]
    with pytest.raises(InvalidRecord, match="format"):
        check_accusations(json.dumps(changed).encode(), run.verifier_key)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"checkpoint": "", "candidates": 3}', b"[" * 10_000])
def test_what_is_no_answer_is_told_apart(data: bytes) -> None:
    assert not is_accusation(data)


def test_evidence_of_a_leak_is_verified_by_command(call: Call, run: Run, answer: bytes, tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_bytes(answer)
    file = str(tmp_path / "answer.json")

    code, out, _ = call("ledger", "verify-evidence", file, "--key", run.verifier_key, "--json")

    assert (code, json.loads(out)["ok"]) == (0, True)
    assert [each["rows"] for each in json.loads(out)["accusations"]] == [240]
    assert call("ledger", "verify-evidence", file)[0] == 2
    raw = [row for sender in SENDERS for row in rows_of(RATINGS.user_bytes(sender), f"u{sender}", 300)]
    innocent = json.dumps(asked(trace_leak, run, write_leak(tmp_path / "raw.csv", raw)))
    (tmp_path / "answer.json").write_text(innocent, "utf-8")
    code, out, _ = call("ledger", "verify-evidence", file, "--key", run.verifier_key, "--json")
    assert (code, json.loads(out)) == (1, {"ok": False, "reason": "the answer accuses nobody"})

"""Two of three registrars admit and recover: their keys lie in folders of their own, a file goes to and fro."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from liberate.ledger.log.sqlite import SqliteLedger
from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]
PERSON = ("--participant", "user:u04")


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=8, n_items=6))
    small = ["model.n_factors=2", "federation.rounds=1", "privacy.mode=local", "privacy.epsilon=6"]
    given = [f"data.source={data}", "data.rating_min=1", "data.rating_max=5", *small]
    return [part for assignment in given for part in ("--set", assignment)]


def reported(outcome: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = outcome
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def new_registrars(call: Call, folder: Path) -> list[str]:
    """Make keys of two registrars, each in a folder of its own, and return their verifier keys."""
    vkeys = []
    for name in ("ann", "bob"):
        (folder / name).mkdir()
        made = call("keys", "new", folder / name / "registrar.key", "--name", name, "--kind", "registrar", "--json")
        vkeys.append(reported(made)["verifier_key"])
    return vkeys


def test_two_of_three_registrars_admit_and_recover(call: Call, tmp_path: Path, settings: list[str]) -> None:
    run = tmp_path / "run"
    named = f"ledger.registrars={json.dumps(new_registrars(call, tmp_path))}"
    train = ["train", *settings, "--set", "run.simulated=false", "--set", named, "--out", run]

    code, _, err = call(*train)
    assert code == 1
    assert "9 entries need the approval of 1 more registrars" in err
    file = run / "approvals" / "enrolments.json"
    assert str(file) in err

    given = reported(call("keys", "approve", file, "--key", tmp_path / "bob" / "registrar.key", "--json"))
    assert (given["registrar"], len(given["records"])) == (2, 9)
    assert {(record["role"], record["custody"]) for record in given["records"]} == {
        ("coordinator", "own"),
        ("participant", "host"),
    }
    assert call(*train)[0] == 0
    assert not file.exists()
    enrolments = json.loads(call("ledger", "show", run, "--kind", "enrol", "--json")[1])["entries"]
    assert len(enrolments) == 9
    assert {each["approvals"][0]["registrar"] for each in enrolments} == {2}

    code, _, err = call("keys", "recover", run, *PERSON)
    assert code == 1
    (file,) = (run / "approvals").iterdir()
    reported(call("keys", "approve", file, "--key", tmp_path / "ann" / "registrar.key", "--json"))
    recovered = reported(call("keys", "recover", run, *PERSON, "--json"))
    history = reported(call("keys", "show", run, *PERSON, "--json"))["history"]
    assert [(step["signed_by"], step["approved_by"]) for step in history] == [(0, [2]), (0, [2]), (0, [1])]
    assert history[-1]["key_id"] == recovered["key_id"]
    assert not file.exists()
    assert reported(call("ledger", "verify", run, "--json"))["ok"]


def test_a_key_that_waits_for_approval_stays_the_same(call: Call, tmp_path: Path, settings: list[str]) -> None:
    run = tmp_path / "run"
    named = f"ledger.registrars={json.dumps(new_registrars(call, tmp_path))}"
    train = ["train", *settings, "--set", "run.simulated=false", "--set", named, "--out", run]
    call(*train)
    call("keys", "approve", run / "approvals" / "enrolments.json", "--key", tmp_path / "bob" / "registrar.key")
    assert call(*train)[0] == 0

    asked = []
    for _ in range(2):
        assert call("keys", "recover", run, *PERSON)[0] == 1
        (file,) = (run / "approvals").iterdir()
        asked.append(json.loads(file.read_text("utf-8"))["records"][0]["record"]["key"])

    assert asked[0] == asked[1]


def test_an_approval_of_others_is_not_one_of_mine(call: Call, tmp_path: Path, settings: list[str]) -> None:
    """Approvals stay with what they were given for, though the file is edited or a stranger signs it."""
    run, stranger = tmp_path / "run", tmp_path / "stranger.key"
    named = f"ledger.registrars={json.dumps(new_registrars(call, tmp_path))}"
    train = ["train", *settings, "--set", "run.simulated=false", "--set", named, "--out", run]
    call(*train)
    file = run / "approvals" / "enrolments.json"
    call("keys", "new", stranger, "--name", "eve", "--kind", "registrar")

    code, _, err = call("keys", "approve", file, "--key", stranger)
    assert (code, "is no registrar's" in err) == (1, True)

    reported(call("keys", "approve", file, "--key", tmp_path / "bob" / "registrar.key", "--json"))
    edited = json.loads(file.read_text("utf-8"))
    first, second = edited["records"][1:3]
    first["record"]["approvals"], second["record"]["approvals"] = (
        second["record"]["approvals"],
        first["record"]["approvals"],
    )
    file.write_text(json.dumps(edited), "utf-8")
    code, _, err = call(*train)
    assert code == 1
    assert "2 entries need the approval of 1 more registrars" in err

    file.write_text("{}", "utf-8")
    code, _, err = call(*train)
    assert code == 1
    assert "is no file of approvals" in err


def test_a_simulation_has_all_its_registrars(call: Call, tmp_path: Path, settings: list[str]) -> None:
    run = tmp_path / "run"

    code, _, err = call("train", *settings, "--set", "ledger.registrar_threshold=3", "--out", run)
    assert code == 0, err

    with closing(SqliteLedger.open(run / "ledger")) as ledger:
        assert len(ledger.state.founding.registrars) == 3
    history = reported(call("keys", "show", run, *PERSON, "--json"))["history"]
    assert {(step["signed_by"], *step["approved_by"]) for step in history} == {(0, 1, 2)}
    assert reported(call("keys", "recover", run, *PERSON, "--which", "device", "--json"))["act"] == "recovery"


def test_registrars_are_settled_at_the_start(call: Call, tmp_path: Path, settings: list[str]) -> None:
    ann, bob = new_registrars(call, tmp_path)
    real = ["--set", "run.simulated=false"]
    too_many = ["--set", f'ledger.registrars=["{ann}"]', "--set", "ledger.registrar_threshold=3"]
    cases = {
        "but there are 2 registrars": [*real, *too_many],
        "follow from the seed": ["--set", f'ledger.registrars=["{ann}", "{bob}"]'],
        "ledger.registrars:": [*real, "--set", 'ledger.registrars=["ann"]'],
    }
    for expected, given in cases.items():
        code, _, err = call("train", *settings, *given, "--out", tmp_path / "run")
        assert (code, expected in err) == (2, True), err
    assert not (tmp_path / "run" / "run.toml").exists()

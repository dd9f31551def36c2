"""`liberate keys` from end to end: a person's key on a run, by the commands alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from liberate.crypto.signing import load_key
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.randomness import SimulatedClock
from liberate.runs.train import train
from liberate.settings import resolve
from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]
PERSON = ("--participant", "user:u04")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("keys")
    data = write_csv(folder / "ratings.csv", low_rank_ratings(n_users=8, n_items=6))
    small = ["model.n_factors=2", "federation.rounds=2", "privacy.mode=local", "privacy.epsilon=6"]
    train(resolve(None, [f"data.source={data}", *small], environment={}), folder / "run")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(trained, tmp_path / "world")
    return tmp_path / "world" / "run"


def reported(outcome: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = outcome
    assert code == 0, err
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


def test_key_is_shown_rotated_revoked_and_recovered(call: Call, run: Path) -> None:
    shown = reported(call("keys", "show", run, *PERSON, "--json"))
    of_both = ["number", "user_id", "custody", "key_id", "public_key", "status"]
    of_both += ["device_key_id", "device_public_key", "device_status"]
    assert list(shown) == [*of_both, "under_way", "history", "simulated"]
    assert (shown["custody"], shown["device_status"]) == ("host", "active")
    assert (shown["number"], shown["user_id"], shown["status"], shown["under_way"]) == (7, "u04", "active", False)

    rotated = reported(call("keys", "rotate", run, *PERSON, "--json"))
    assert list(rotated) == [*of_both, "act", "which", "position", "published", "simulated"]
    assert (rotated["act"], rotated["status"], rotated["published"]) == ("rotation", "active", True)
    by_old_key = ("--participant", shown["key_id"])
    revoked = reported(call("keys", "revoke", run, *by_old_key, "--json"))
    assert (revoked["status"], revoked["key_id"]) == ("revoked", rotated["key_id"])
    recovered = reported(call("keys", "recover", run, *PERSON, "--json"))
    assert (recovered["status"], recovered["number"]) == ("active", 7)

    history = reported(call("keys", "show", run, *PERSON, "--json"))["history"]
    assert [step["act"] for step in history] == ["enrolment"] * 2 + ["rotation", "revocation", "recovery"]
    assert len({shown["key_id"], rotated["key_id"], recovered["key_id"]}) == 3
    assert reported(call("ledger", "verify", run, "--json"))["ok"]
    traced = reported(call("trace", run, *PERSON, "--json"))
    assert (traced["key_id"], traced["epsilon"]) == (recovered["key_id"], pytest.approx(6, abs=1e-6))
    assert reported(call("ledger", "prove", run, *PERSON, "--json"))["key_id"] == recovered["key_id"]
    assert set(reported(call("evaluate", run, "--json"))) >= {"rmse"}


def test_the_devices_key_is_rotated_revoked_and_recovered_alone(call: Call, run: Path) -> None:
    before = reported(call("keys", "show", run, *PERSON, "--json"))

    rotated = reported(call("keys", "rotate", run, *PERSON, "--which", "device", "--json"))
    revoked = reported(call("keys", "revoke", run, *PERSON, "--which", "device", "--json"))
    assert (revoked["status"], revoked["device_status"]) == ("active", "revoked")
    recovered = reported(call("keys", "recover", run, *PERSON, "--which", "device", "--json"))

    assert {each["key_id"] for each in (before, rotated, revoked, recovered)} == {before["key_id"]}
    assert len({before["device_key_id"], rotated["device_key_id"], recovered["device_key_id"]}) == 3
    shown = reported(call("keys", "show", run, "--participant", before["device_key_id"], "--json"))
    assert [(step["which"], step["signed_by"]) for step in shown["history"][2:]] == [("device", 7)] * 2 + [
        ("device", 0)
    ]


def test_words_for_a_person(call: Call, run: Path) -> None:
    for act in ("rotate", "revoke", "recover"):
        code, out, err = call("keys", act, run, *PERSON)
        assert (code, err) == (0, "")
        assert "key_id" in out

    code, out, _ = call("keys", "show", run, *PERSON)

    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[-5:-1]] == ["enrolment", "rotation", "revocation", "recovery"]
    assert "note:" not in out


@pytest.mark.parametrize("act", ["show", "rotate", "revoke", "recover"])
def test_nobody_has_no_key(call: Call, trained: Path, act: str) -> None:
    code, out, err = call("keys", act, trained / "run", "--participant", "user:nobody")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no participant 'user:nobody'" in err
    assert call("keys", act, trained / "run")[0] == 2
    assert "no run.toml here" in call("keys", act, trained, *PERSON)[2]


@pytest.mark.parametrize("act", ["rotate", "revoke"])
def test_revoked_key_signs_nothing_more(call: Call, run: Path, act: str) -> None:
    call("keys", "revoke", run, *PERSON)

    code, out, err = call("keys", act, run, *PERSON)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "revoked_author: the key of principal 7 was revoked" in err
    assert "keys recover" in err


@pytest.mark.parametrize("act", ["rotate", "revoke", "recover"])
def test_ledger_in_use_is_left_alone(call: Call, run: Path, act: str) -> None:
    with closing(SqliteLedger.open(run / "ledger", load_key(run / "keys" / "log.key"), SimulatedClock())):
        code, out, err = call("keys", act, run, *PERSON)

        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "in use by another process" in err
        shown = reported(call("keys", "show", run, *PERSON, "--json"))
        assert (len(shown["history"]), shown["under_way"]) == (2, False)


def test_next_key_never_stands_in_the_open(call: Call, run: Path) -> None:
    """Nothing secret is printed, logged or readable without the person's sealing key."""
    outcomes = [call("--verbose", "keys", act, run, *PERSON) for act in ("rotate", "show")]

    with DeviceStore(run / "devices") as devices:
        device = devices.find(user_id="u04")
        assert device is not None
        seed = devices.data_of(device.slot).person_seed
    printed = "".join(out + err for _, out, err in outcomes)
    assert seed.hex() not in printed
    stored = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert seed not in stored

"""Older files of a federation are put back after somebody has acted: the next command refuses, and says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from liberate.crypto.signing import SigningKey, load_key
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.evidence.split_view import verify_evidence
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import Enrol
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.proof_files import verify_inclusion_proof
from liberate.randomness import SimulatedClock
from liberate.runs import actions
from liberate.runs.folder import load_run
from liberate.runs.keys import change_key
from liberate.runs.train import train
from liberate.settings import resolve
from tests.worlds import find_person, low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]
PERSON = "user:u03"
SMALL = ("model.n_factors=2", "federation.rounds=1", "model.tolerance=0", "run.simulated=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in which somebody has given a consent."""
    folder = tmp_path_factory.mktemp("put-back")
    data = write_csv(folder / "ratings.csv", low_rank_ratings(n_users=8, n_items=6))
    train(resolve(None, [f"data.source={data}", *SMALL], environment={}), folder / "run")
    actions.consent(load_run(folder / "run"), PERSON, recipients=["pool"])
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Such a run of one's own; a copy of it as it was lies in `as-it-was` beside it."""
    shutil.copytree(trained, tmp_path / "world")
    shutil.copytree(trained / "run", tmp_path / "world" / "as-it-was")
    return tmp_path / "world" / "run"


def put_back(run: Path, *names: str) -> None:
    """Put older copies of some parts back; what was not there before is deleted."""
    for name in names:
        old, new = run.parent / "as-it-was" / name, run / name
        if new.is_dir():
            shutil.rmtree(new)
            shutil.copytree(old, new)
        else:
            shutil.copy(old, new)


def trains(call: Call, run: Path) -> tuple[int, str]:
    """Train a further run; return its exit code and its error."""
    settings = [flag for setting in SMALL for flag in ("--set", setting)]
    data = run.parent / "ratings.csv"
    code, _, err = call("train", "--data", data, "--out", run.parent / "second", "--ledger", run, *settings)
    return code, err


def withdraw_consent(folder: Path) -> None:
    run = load_run(folder)
    with closing(run.open_ledger()) as ledger:
        (given,) = ledger.positions(kind="consent")
    actions.withdraw(run, PERSON, consent=given)


ACTS: dict[str, Callable[[Path], object]] = {
    "withdrawal": lambda folder: actions.withdraw(load_run(folder), PERSON),
    "erasure": lambda folder: actions.erase(load_run(folder), PERSON),
    "consent": withdraw_consent,
    "key": lambda folder: change_key(load_run(folder), PERSON, "revocation", "person"),
}
LACKING = {"withdrawal": "withdrawal", "erasure": "withdrawal", "consent": "withdrawal", "key": "key"}


@pytest.mark.parametrize("checkpoint", ["kept", "deleted", "put-back"])
@pytest.mark.parametrize("act", ACTS)
def test_a_withdrawal_is_kept_though_the_ledger_is_put_back(call: Call, run: Path, act: str, checkpoint: str) -> None:
    number = find_person(load_run(run), PERSON).number
    ACTS[act](run)
    put_back(run, "ledger", *(["checkpoint"] if checkpoint == "put-back" else []))
    if checkpoint == "deleted":
        (run / "checkpoint").unlink()

    code, err = trains(call, run)

    assert code == 1
    assert "it was rolled back" in err
    assert f"it lacks the {LACKING[act]} of participant {number}" in err
    assert not (run.parent / "second" / "report.html").exists()
    files = list((run / "devices" / "evidence").iterdir())
    assert files
    for path in files:
        shown = verify_inclusion_proof(path.read_text("utf-8"), load_run(run).verifier_key)
        assert shown.entry.record.author == number, "the log's own proof that it had accepted the act"
        assert path.name in err


def test_a_log_that_goes_on_without_a_withdrawal_proves_its_own_lie(call: Call, run: Path) -> None:
    """The ledger is put back, and goes on past the withdrawal with an entry that its founder signs."""
    actions.withdraw(load_run(run), PERSON)
    put_back(run, "ledger", "checkpoint")
    founder, log_key = (load_key(run / "keys" / f"{name}.key") for name in ("founder", "log"))
    with closing(SqliteLedger.open(run / "ledger", log_key, SimulatedClock())) as ledger:
        state = ledger.state
        enrol = Enrol(
            origin=ledger.origin,
            author=0,
            seq=state.principals[0].sequence + 1,
            number=len(state.principals),
            key=SigningKey.from_seed(bytes(32)).public,
            device_key=None,
            custody="own",
            role="auditor",
            approvals=(),
        )
        assert ledger.append([sign(enrol, founder)]) == [ledger.size - 2]

    code, err = trains(call, run)

    assert code == 1
    assert "are not those that were published" in err
    evidence = [path.read_bytes() for path in (run / "devices" / "evidence").glob("*.json")]
    assert len(evidence) == 2
    for data in evidence:
        verify_evidence(data, load_run(run).verifier_key)


def test_a_missing_checkpoint_is_an_error(call: Call, run: Path) -> None:
    published = (run / "checkpoint").read_text("utf-8")
    (run / "checkpoint").unlink()
    code, err = trains(call, run)
    assert code == 1
    assert "checkpoint is gone, which says what was published" in err

    (run / "checkpoint").write_text("", "utf-8")
    code, err = trains(call, run)
    assert code == 1
    assert "says that nothing was published, but devices have answered rounds" in err

    (run / "checkpoint").write_text(published, "utf-8")
    assert trains(call, run)[0] == 0


def test_devices_that_are_put_back_are_refused(call: Call, run: Path) -> None:
    """An older copy of the devices has forgotten the withdrawal; the ledger has not."""
    actions.withdraw(load_run(run), PERSON)
    put_back(run, "devices")

    code, err = trains(call, run)

    assert code == 1
    assert "the devices are older than the ledger" in err


def test_everything_put_back_but_the_checkpoint_is_noticed(call: Call, run: Path) -> None:
    """What is not noticed without witnesses is a whole folder put back, with the checkpoint in it."""
    actions.withdraw(load_run(run), PERSON)
    put_back(run, "ledger", "devices")
    assert trains(call, run)[0] == 1
    (run / "checkpoint").unlink()
    assert trains(call, run)[0] == 1


@pytest.mark.parametrize("act", ["withdrawal", "key"])
def test_a_device_answers_nothing_after_its_own_act(run: Path, act: str) -> None:
    """From the signature on, before the ledger has the entry: nobody can keep the person in by refusing it."""
    number = find_person(load_run(run), PERSON).number
    ACTS[act](run)
    with DeviceStore(run / "devices") as devices:
        device = devices.find(number=number)
        assert device is not None
        assert (device.has_withdrawn, device.is_revoked) == (act == "withdrawal", act == "key")
        assert [recorded.entry.record.kind for _, recorded in devices.acts()] == ["consent", act]

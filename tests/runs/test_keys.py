"""Keys of a run's participants: whoever changes one can go on training, tracing and verifying."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liberate.crypto.note import SignatureType, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, LedgerLocked, LiberateError
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.keys import KeyChangeKind
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.evaluate import evaluate_run, recommend
from liberate.runs.folder import Run, load_run
from liberate.runs.keys import change_key, show_key
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.tracing.entries import read_entries
from liberate.tracing.proofs import prove_completeness
from liberate.tracing.traces import trace_participant
from tests.worlds import find_person, low_rank_ratings, write_csv

PERSON = "user:u03"

Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=8, n_items=6))

    def build(*assignments: str) -> Settings:
        small = ["model.n_factors=2", "federation.rounds=2", "privacy.mode=local", "privacy.epsilon=6"]
        scale = ["data.rating_min=1", "data.rating_max=5"]
        return resolve(None, [f"data.source={data}", *scale, *small, *assignments], environment={})

    return build


class Killed(BaseException):
    """Stands for kill -9: no handler may catch it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Break off before a step."""

    def killed(*arguments: Any, **options: Any) -> None:
        raise Killed

    monkeypatch.setattr(owner, name, killed)


def half_trained(folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that was killed between its two rounds."""
    run_round, rounds = Coordinator.run_round, 0

    def once(*arguments: Any, **options: Any) -> Any:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise Killed
        return run_round(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Coordinator, "run_round", once)
        with pytest.raises(Killed):
            train(settings, folder)
    return load_run(folder)


@pytest.mark.parametrize("simulated", ["true", "false"])
def test_run_goes_on_and_is_checked_after_a_rotation(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, simulated: str
) -> None:
    settings = configure(f"run.simulated={simulated}")
    run = half_trained(tmp_path / "run", settings, monkeypatch)
    before = show_key(run, PERSON)

    found = change_key(run, PERSON, "rotation", "person")

    result = train(settings, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert (found.number, found.status, found.act, found.published) == (6, "active", "rotation", True)
    assert found.key_id != before.key_id
    assert verify_ledger(run.ledger_folder, key=result.verifier_key).ok
    if settings.run.simulated:
        assert evaluate_run(run).metrics.rmse == pytest.approx(result.rmse)
    traced = trace_participant(run, PERSON)
    assert [entry.kind for entry in traced.entries] == ["enrol", "dataset", "update", "key", "update"]
    assert [update.outcome for update in traced.updates] == [traced.updates[0].outcome] * 2
    assert traced.epsilon == pytest.approx(6, abs=1e-6)
    assert prove_completeness(run, PERSON).key_id == found.key_id
    entries = read_entries(run, kind="update", author=PERSON, limit=2)
    assert [entry.key_id for entry in entries] == [before.device_key_id] * 2
    assert len(recommend(run, found.key_id, 3)[1]) == 3


def test_finished_run_is_checked_after_every_act(tmp_path: Path, configure: Configure) -> None:
    result = train(configure(), tmp_path / "run")
    run, acts = load_run(tmp_path / "run"), list[KeyChangeKind](["rotation", "revocation", "recovery", "rotation"])
    first = show_key(run, PERSON)
    kept = (run.folder / "checkpoint").read_text("utf-8")

    found = [change_key(run, PERSON, act, "person") for act in acts]

    shown = show_key(run, PERSON)
    assert [each.status for each in found] == ["active", "revoked", "active", "active"]
    assert [step.act for step in shown.history] == ["enrolment", "enrolment", *acts]
    assert [step.signed_by for step in shown.history] == [0, 0, 6, 6, 0, 6]
    assert [step.position for step in shown.history][2:] == [each.position for each in found]
    assert [step.key_id for step in shown.history] == [
        first.key_id,
        first.device_key_id,
        found[0].key_id,
        None,
        found[2].key_id,
        found[3].key_id,
    ]
    assert len({step.public_key for step in shown.history}) == 6
    assert shown.key_id == found[3].key_id
    assert find_person(run, first.key_id).number == 6, "a former key still names the person"
    assert trace_participant(run, PERSON).epsilon == pytest.approx(6, abs=1e-6), "no act gives a budget back"
    assert verify_ledger(run.ledger_folder, key=result.verifier_key, checkpoint=kept).ok
    newest = (run.folder / "checkpoint").read_text("utf-8")
    assert newest != kept, "the change is published"
    assert verify_ledger(run.ledger_folder, key=result.verifier_key, checkpoint=newest).ok
    assert train(configure(), tmp_path / "run") == result


@pytest.mark.parametrize("simulated", ["true", "false"])
def test_next_key_follows_from_seed_and_ledger_in_a_simulation_only(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, simulated: str
) -> None:
    half_trained(tmp_path / "a", configure(f"run.simulated={simulated}"), monkeypatch)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    first, second = (
        [change_key(load_run(tmp_path / name), PERSON, "rotation", "person").key_id for _ in range(2)]
        for name in ("a", "b")
    )

    assert (first == second) == (simulated == "true")
    assert first[0] != first[1]


@pytest.mark.parametrize("act", ["rotation", "revocation", "recovery"])
@pytest.mark.parametrize(
    "step", [(SqliteLedger, "_commit"), (DeviceStore, "complete_key_change")], ids=lambda step: step[1]
)
def test_the_same_command_ends_what_was_broken_off(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, act: KeyChangeKind, step: tuple[type, str]
) -> None:
    run = half_trained(tmp_path / "run", configure(), monkeypatch)
    with monkeypatch.context() as patched:
        kill_at(patched, *step)
        with pytest.raises(Killed):
            change_key(run, PERSON, act, "person")
    assert show_key(run, PERSON).under_way

    found = change_key(run, PERSON, act, "person")

    shown = show_key(run, PERSON)
    assert not shown.under_way
    assert [each.position for each in shown.history][2:] == [found.position], "ended, not done twice"
    assert (shown.key_id, shown.status) == (found.key_id, found.status)
    train(configure(), tmp_path / "run")
    assert verify_ledger(run.ledger_folder).ok


def test_errors_say_what_to_do(tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = half_trained(tmp_path / "run", configure(), monkeypatch)

    for name in ("user:nobody", "0", "2", "0123456789abcdef"):
        with pytest.raises(LiberateError, match="no participant"):
            change_key(run, name, "rotation", "person")
    change_key(run, PERSON, "revocation", "person")
    for act in list[KeyChangeKind](["revocation", "rotation"]):
        with pytest.raises(FederationError, match="revoked_author"):
            change_key(run, PERSON, act, "person")
    (run.folder / "keys" / "founder.key").unlink()
    with pytest.raises(LiberateError, match="no key file"):
        change_key(run, PERSON, "recovery", "person")
    assert show_key(run, PERSON).status == "revoked"


def test_running_training_keeps_keys_as_they_are(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_round = Coordinator.run_round
    tried: list[str] = []

    def try_to_rotate(*arguments: Any, **options: Any) -> Any:
        before = show_key(load_run(tmp_path / "run"), PERSON)
        with pytest.raises(LedgerLocked):
            change_key(load_run(tmp_path / "run"), PERSON, "rotation", "person")
        assert show_key(load_run(tmp_path / "run"), PERSON) == before
        tried.append(before.key_id)
        return run_round(*arguments, **options)

    monkeypatch.setattr(Coordinator, "run_round", try_to_rotate)
    train(configure(), tmp_path / "run")

    assert len(tried) == 2


def test_change_stands_when_the_witnesses_are_away(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = half_trained(tmp_path / "run", configure(), monkeypatch)
    vkey = verifier_key("witness.example/1", SigningKey.from_seed(bytes(32)).public, SignatureType.COSIGNATURE_V1)
    settings = resolve(None, [f'ledger.witnesses=["http://127.0.0.1:1 {vkey}"]'], environment={})
    away = Run(run.folder, settings, run.record)

    found = change_key(away, PERSON, "rotation", "person")

    assert not found.published
    assert show_key(run, PERSON).key_id == found.key_id

"""Run folders: claimed once, resumed with the same settings only, readable ever after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from liberate.arrays import FixedPointStatistics
from liberate.errors import BadUpload, BudgetExceeded, LiberateError, PrivacyError, SettingsError
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.wire.round_messages import RoundAnswer
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.evaluate import evaluate_run, recommend
from liberate.runs.folder import free_folder, load_run
from liberate.runs.plan import plan_run
from liberate.runs.privacy_forecast import forecast
from liberate.runs.privacy_report import privacy_report
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.tracing.traces import trace_participant
from liberate.units import from_nano
from tests.federation.crashes import interrupted_after_the_first_round
from tests.worlds import find_person, low_rank_ratings, write_csv

Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=30, n_items=20))

    def build(*assignments: str) -> Settings:
        small = ["model.n_factors=2", "federation.rounds=3", "federation.batch_size=10"]
        return resolve(None, [f"data.source={data}", *small, *assignments], environment={})

    return build


def test_run_folder_holds_what_it_says(tmp_path: Path, configure: Configure) -> None:
    settings = configure()

    result = train(settings, tmp_path / "run")

    run = load_run(tmp_path / "run")
    assert run.result == result
    assert run.settings == replace(settings, data=replace(settings.data, source="../ratings.csv"))
    assert run.model().version == result.rounds
    curve = pq.read_table(tmp_path / "run" / "metrics.parquet")
    assert curve["version"].to_pylist() == list(range(result.rounds + 1))
    assert curve["rmse"].to_pylist()[-1] == result.rmse
    assert {"fit", "noise", "hash", "sign", "verify", "store", "sum", "solve"} <= set(run.record.seconds)
    assert (tmp_path / "run" / "devices").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run" / "keys").iterdir()} == {0o600}


def test_broken_off_run_goes_on_with_the_same_settings_only(tmp_path: Path, configure: Configure) -> None:
    whole = train(configure(), tmp_path / "whole")

    with interrupted_after_the_first_round():
        train(configure(), tmp_path / "broken")

    with pytest.raises(LiberateError, match="not finished"):
        _ = load_run(tmp_path / "broken").result
    with pytest.raises(SettingsError, match="other settings"):
        train(configure("model.n_factors=3"), tmp_path / "broken")
    resumed = train(configure(), tmp_path / "broken")
    assert replace(resumed, run="", seconds=0) == replace(whole, run="", seconds=0)
    assert train(configure(), tmp_path / "broken") == resumed
    with pytest.raises(SettingsError, match="other settings"):
        train(configure("model.n_factors=3"), tmp_path / "broken")


def test_device_mode_sends_nothing(tmp_path: Path, configure: Configure) -> None:
    result = train(configure("privacy.mode=device"), tmp_path / "run")

    assert (result.rounds, result.epsilon, result.delta) == (0, 0.0, 0.0)
    trace = trace_participant(load_run(tmp_path / "run"), "user:u03")
    assert [entry.kind for entry in trace.entries] == ["enrol", "dataset"]
    assert trace.updates == ()
    assert trace.complete is True
    assert len(trace.completeness.entries) == 2
    assert len(recommend(load_run(tmp_path / "run"), "user:u03", 3)[1]) == 3
    spent = privacy_report(load_run(tmp_path / "run"))
    assert (spent.epsilon_basic, spent.rounds_joined_most) == (0.0, 0)


def test_plain_mode_promises_nothing(tmp_path: Path, configure: Configure) -> None:
    train(configure(), tmp_path / "run")

    spent = privacy_report(load_run(tmp_path / "run"))

    assert spent.epsilon_basic is None
    assert "trusted" in spent.adversary
    assert forecast(configure()).signal_to_noise is None


def test_spending_is_read_from_the_ledger(tmp_path: Path, configure: Configure) -> None:
    settings = configure("privacy.mode=local", "privacy.epsilon=6")
    train(settings, tmp_path / "run")

    spent, planned = privacy_report(load_run(tmp_path / "run")), forecast(settings)

    for key in ("epsilon_basic", "epsilon_rdp", "epsilon_pld"):
        assert getattr(spent, key) == pytest.approx(getattr(planned, key))
        assert 0 < getattr(spent, key) <= 6
    assert from_nano(spent.ledger_epsilon_nano_most) == pytest.approx(spent.epsilon_basic, abs=3e-9)


def test_run_that_no_account_allows_is_refused_before_anything_is_written(tmp_path: Path, configure: Configure) -> None:
    settings = configure("privacy.mode=local", "privacy.epsilon=6", "ledger.epsilon_limit=4")

    with pytest.raises(BudgetExceeded, match=r"takes 6 from the epsilon account.* 0 of 4 is spent"):
        train(settings, tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_epsilon_too_small_for_its_rounds_is_refused_before_anything_is_written(
    tmp_path: Path, configure: Configure
) -> None:
    with pytest.raises(PrivacyError):
        train(configure("privacy.mode=local", "privacy.epsilon=0.000000001"), tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_private_runs_fix_their_rounds(configure: Configure) -> None:
    plan = plan_run(configure("privacy.mode=local", "privacy.epsilon=6"), 30, 20)

    (planned,) = plan.stages
    assert (plan.rounds, planned.stage.statistic.name, planned.stage.statistic.shape[2]) == (3, "gradient", 0)


REAL = ("run.simulated=false", "privacy.mode=local", "privacy.epsilon=6")


def test_no_private_model_shows_a_scale_found_in_the_ratings(tmp_path: Path, configure: Configure) -> None:
    with pytest.raises(SettingsError, match=r"scale .* was found in them") as caught:
        train(configure(*REAL), tmp_path / "run")

    assert "data.rating_min=1" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_real_keys_make_another_ledger_each_time(tmp_path: Path, configure: Configure) -> None:
    settings = configure(*REAL, "data.rating_min=1", "data.rating_max=5")

    results = [train(settings, tmp_path / name) for name in ("a", "b")]

    assert results[0].root != results[1].root
    assert results[0].verifier_key != results[1].verifier_key
    audit = verify_ledger(tmp_path / "a" / "ledger", key=results[0].verifier_key)
    assert audit.ok
    assert audit.trusted
    assert not audit.simulated
    assert "exact" in privacy_report(load_run(tmp_path / "a")).sampler


def test_evaluation_agrees_with_the_result(tmp_path: Path, configure: Configure) -> None:
    result = train(configure(), tmp_path / "run")

    found = evaluate_run(load_run(tmp_path / "run"))

    assert found.metrics.rmse == pytest.approx(result.rmse)
    assert found.metrics.ndcg_at_10 == pytest.approx(result.ndcg_at_10)
    assert found.predictions is not None
    assert len(found.predictions) == found.test.n_ratings


def test_a_finished_run_is_never_in_the_way(tmp_path: Path, configure: Configure) -> None:
    first = tmp_path / "world-device"

    assert free_folder(first) == first
    for wanted in ("world-device", "world-device-2"):
        train(configure("privacy.mode=device"), free_folder(first))
        assert (tmp_path / wanted / "run.toml").exists()
    assert free_folder(first) == tmp_path / "world-device-3"


def test_run_folder_moves_with_its_ratings(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(configure(), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    for name in ("run", "ratings.csv"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    monkeypatch.chdir(tmp_path / "elsewhere" / "run")

    assert evaluate_run(load_run(".")).metrics.rmse == pytest.approx(result.rmse)
    (tmp_path / "elsewhere" / "ratings.csv").unlink()
    assert len(recommend(load_run("."), "user:u03", 3)[1]) == 3, "a person's own side needs no data set"


def test_recommendations_leave_out_what_was_rated(tmp_path: Path, configure: Configure) -> None:
    train(configure(), tmp_path / "run")
    run = load_run(tmp_path / "run")
    dataset = run.dataset()

    person, items = recommend(run, "user:u03", 20)

    device_items = {dataset.item_ids[i] for i in evaluate_run(run).top[3]}
    assert person == find_person(run, str(person.number))
    assert [item.item_id for item in items][:3] == [dataset.item_ids[i] for i in evaluate_run(run).top[3][:3]]
    assert device_items <= {item.item_id for item in items}
    predictions = [item.prediction for item in items if item.prediction is not None]
    assert len(predictions) == len(items)
    assert predictions == sorted(predictions, reverse=True)


def test_last_ratings_are_held_out_by_time(tmp_path: Path) -> None:
    lines = ["user,item,rating,timestamp"]
    lines += [f"u{u},i{i},{1 + (u * i) % 5},{100 * u + i}" for u in range(8) for i in range(6)]
    (tmp_path / "timed.csv").write_text("\n".join(lines))
    settings = resolve(
        None, [f"data.source={tmp_path / 'timed.csv'}", "data.split=last", "federation.rounds=2"], environment={}
    )

    train(settings, tmp_path / "run")

    held_out = evaluate_run(load_run(tmp_path / "run")).test
    assert held_out.items.tolist() == [5] * 8


def test_masks_change_no_bit_of_a_run(tmp_path: Path, configure: Configure) -> None:
    digests, said = [], ("privacy.mode=distributed", "privacy.epsilon=8")
    for name, how in (("masked", "privacy.secure_aggregation=true"), ("bare", "run.noise_placement=per_upload")):
        train(configure(*said, how), tmp_path / name)
        digests.append([path.read_bytes() for path in sorted((tmp_path / name / "model").glob("*.model"))])
        run = load_run(tmp_path / name)
        assert verify_ledger(run.folder / "ledger", key=run.verifier_key).ok
        assert str(privacy_report(run).masks).startswith({"masked": "on every upload", "bare": "left out"}[name])

    assert len(digests[0]) > 1
    assert digests[0] == digests[1]


def test_training_tells_how_many_answers_were_refused(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = UploadValidator.check

    def strict(self: UploadValidator, sender: int, answer: RoundAnswer) -> FixedPointStatistics:
        if sender == 5:
            raise BadUpload("oversized", "a test says so")
        return original(self, sender, answer)

    monkeypatch.setattr(UploadValidator, "check", strict)
    told: list[str] = []

    result = train(configure(), tmp_path / "run", progress=told.append)

    assert f"{result.rounds} answers were refused: oversized" in told

"""What a run's plan and report say of Gaussian noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from liberate.json_edge import to_json
from liberate.runs.folder import load_run
from liberate.runs.privacy_forecast import forecast
from liberate.runs.privacy_report import privacy_report
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.units import from_nano
from tests.worlds import low_rank_ratings, write_csv


def settings_of(tmp_path: Path, *assignments: str) -> Settings:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=30, n_items=20))
    small = [f"data.source={data}", "model.n_factors=2", "federation.rounds=3", "privacy.epsilon=6"]
    return resolve(None, [*small, *assignments], environment={})


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_gaussian_noise_is_charged_to_rho_and_keeps_its_epsilon(tmp_path: Path, mode: str) -> None:
    settings = settings_of(tmp_path, f"privacy.mode={mode}", "privacy.mechanism=gaussian")

    result = train(settings, tmp_path / "run")

    spent, planned = privacy_report(load_run(tmp_path / "run")), forecast(settings)
    assert result.epsilon == spent.epsilon_pld == pytest.approx(planned.epsilon_pld, rel=1e-9)
    assert spent.epsilon_pld is not None
    assert spent.epsilon_rdp is not None
    assert spent.epsilon_basic is not None
    assert 5.9 < spent.epsilon_pld <= 6
    assert spent.epsilon_pld <= spent.epsilon_rdp <= spent.epsilon_basic
    assert result.delta == spent.delta == 1e-5
    assert spent.ledger_epsilon_nano_most == 0
    assert from_nano(spent.ledger_rho_nano_most) == pytest.approx(spent.rho, abs=from_nano(spent.rounds_joined_most))
    assert "discrete Gaussian" in spent.mechanism
    assert spent.warning is not None
    assert "not counted" in spent.warning


def test_a_report_says_what_colluding_participants_would_learn(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "privacy.mode=distributed")
    train(settings, tmp_path / "run")

    spent, planned = privacy_report(load_run(tmp_path / "run")), forecast(settings)

    assert isinstance(spent.epsilon_if_colluding, dict)
    assert list(spent.epsilon_if_colluding) == ["1", "3", "9"]
    assert spent.epsilon_if_colluding == pytest.approx(planned.epsilon_if_colluding, rel=1e-9)
    assert [spent.epsilon_pld, *spent.epsilon_if_colluding.values()] == sorted(
        {spent.epsilon_pld, *spent.epsilon_if_colluding.values()}
    )


def test_modes_without_shares_say_nothing_of_collusion(tmp_path: Path) -> None:
    assert "epsilon_if_colluding" not in to_json(forecast(settings_of(tmp_path, "privacy.mode=local")))

"""What a run's plan and report say of Gaussian noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from liberate.federation.terms import mask_assumptions
from liberate.json_edge import to_json
from liberate.privacy.accounting import PrivacyLoss, privacy_loss
from liberate.privacy.events import DistributedGaussianRelease
from liberate.privacy.mask_parameters import mask_parameters, masks_bear
from liberate.runs.coalitions import epsilon_by_colluders, known_shares
from liberate.runs.folder import load_run
from liberate.runs.privacy_forecast import forecast
from liberate.runs.privacy_report import privacy_report
from liberate.runs.terms import founding_terms
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
    assert isinstance(planned.epsilon_if_colluding, dict)
    assert list(spent.epsilon_if_colluding) == ["3", "6", "9"]
    assert {n: e and round(e, 9) for n, e in spent.epsilon_if_colluding.items()} == {
        n: e and round(e, 9) for n, e in planned.epsilon_if_colluding.items()
    }
    assert spent.epsilon_if_colluding["3"] == spent.epsilon_pld, "so many were agreed to, and counted"


def test_no_epsilon_is_printed_against_more_colluders_than_masks_bear() -> None:
    """Where masks fall, a sum of a few can be read, and its noise is theirs alone."""
    terms = founding_terms(Settings(), 943)
    masks = mask_parameters(mask_assumptions(terms, 943))

    def spent(known: int) -> PrivacyLoss:
        return privacy_loss([(DistributedGaussianRelease(sensitivity=900, share=30, honest=800), 1)], 1e-5, known)

    printed = epsilon_by_colluders([(terms, 943)], terms, spent)

    for number, epsilon in printed.items():
        borne = masks_bear(masks, mask_assumptions(replace(terms, max_colluders=int(number)), 943))
        assert (epsilon is not None) == borne, number
    assert printed["95"] == spent(0).epsilon
    assert None in printed.values()
    assert [known_shares(terms, 943, c) for c in (0, 95)] == [0, 0]
    assert (known_shares(terms, 943, 96) or 1) >= 1


def test_what_was_agreed_is_said_with_its_numbers(tmp_path: Path) -> None:
    promised = forecast(settings_of(tmp_path, "privacy.mode=distributed", "privacy.max_dropouts=0.1"))

    assert "at most 3 of the 30 people who may ever be enrolled" in str(promised.colluders)
    assert "at most 3 of the 30 people of a round" in str(promised.dropouts)
    assert "that of 24 people" in str(promised.noise)
    assert "2**-40" in str(promised.masks)
    assert "on top of delta" in str(promised.delta_beyond)


def test_modes_without_shares_say_nothing_of_collusion(tmp_path: Path) -> None:
    assert "epsilon_if_colluding" not in to_json(forecast(settings_of(tmp_path, "privacy.mode=local")))

"""The attacks study: plain uploads give everything away, claims survive audits, planted bugs do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liberate.privacy.auditing import AuditResult
from liberate_studies import run_study

Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tables]:
    """The page and the numbers of a quick study."""
    folder: Path = tmp_path_factory.mktemp("attacks")
    files = run_study("attacks", is_quick=True, out=folder)
    return files.text, json.loads(files.rows.read_bytes())


def test_plain_uploads_give_ratings_and_items_away_and_noisy_ones_do_not(outcome: tuple[str, Tables]) -> None:
    found = {row["name"]: row for row in outcome[1]["recovery"]}
    guess = found["no upload: the most frequent rating"]["ratings"]

    for name, row in found.items():
        if name.startswith("plain"):
            assert row["ratings"] > 0.99
            assert row["item_auc"] == 1.0
        if name.startswith("local"):
            assert row["ratings"] < guess + 0.05
            assert row["item_auc"] == pytest.approx(0.5, abs=0.05)
    masked, unmasked = found["distributed, ε = 8, one upload"], found["the same, were there no masks"]
    assert masked["item_auc"] == pytest.approx(0.5, abs=0.05)
    assert unmasked["item_auc"] > 0.7


def test_error_of_the_mean_falls_with_the_root_of_the_rounds(outcome: tuple[str, Tables]) -> None:
    averaged = outcome[1]["averaging"]

    for row in averaged:
        assert row["relative_error"] == pytest.approx(row["rounds"] ** -0.5, rel=0.1)
        assert row["epsilon_pld"] <= row["epsilon_basic"] == pytest.approx(0.1 * row["rounds"])
    assert averaged[-1]["canary_auc"] > averaged[0]["canary_auc"] + 0.1


def test_every_claim_survives_and_every_planted_bug_is_caught(outcome: tuple[str, Tables]) -> None:
    audited = outcome[1]["audits"]

    assert {row["name"] for row in audited} == {"local, Laplace", "local, Gauss", "distributed, sum"}
    for row in audited:
        for what, wanted in (("honest", "not refuted"), ("quiet", "refuted"), ("unclipped", "refuted")):
            result = AuditResult(**row[what])
            expected = wanted if row["claim"] < result.ceiling else "not refutable by this audit"
            assert result.verdict(row["claim"]) == expected, (what, row)


def test_misused_noise_is_found_and_honest_noise_is_not(outcome: tuple[str, Tables]) -> None:
    text, _ = outcome

    assert "- honest: 0\n- one noise for all rounds: 120\n- fresh noise when asked again: 120\n" in text

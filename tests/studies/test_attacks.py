"""The attacks study: plain uploads give everything away, claims survive audits, planted bugs do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from liberate_studies import run_study

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Rows]:
    """The page and the numbers of a quick study."""
    folder: Path = tmp_path_factory.mktemp("attacks")
    text = run_study("attacks", is_quick=True, out=folder).text
    return text, pq.read_table(folder / "results.parquet").to_pylist()


def test_plain_uploads_give_ratings_and_items_away_and_noisy_ones_do_not(outcome: tuple[str, Rows]) -> None:
    found = {row["name"]: row for row in outcome[1] if row["series"] == "recovery"}
    guess = found["no upload: the most frequent rating"]["ratings_recovered"]

    for name, row in found.items():
        if name.startswith("plain"):
            assert row["ratings_recovered"] > 0.99
            assert row["item_auc"] == 1.0
        if name.startswith("local"):
            assert row["ratings_recovered"] < guess + 0.05
            assert row["item_auc"] == pytest.approx(0.5, abs=0.05)
    masked, unmasked = found["distributed, ε = 8, one upload"], found["the same, were there no masks"]
    assert masked["item_auc"] == pytest.approx(0.5, abs=0.05)
    assert unmasked["item_auc"] > 0.7


def test_error_of_the_mean_falls_with_the_root_of_the_rounds(outcome: tuple[str, Rows]) -> None:
    averaged = [row for row in outcome[1] if row["series"] == "averaging"]

    for row in averaged:
        assert row["relative_error"] == pytest.approx(row["rounds"] ** -0.5, rel=0.1)
        assert row["epsilon_pld"] <= row["epsilon_basic"] == pytest.approx(0.1 * row["rounds"])
    assert averaged[-1]["canary_auc"] > averaged[0]["canary_auc"] + 0.1


def test_every_claim_survives_and_every_planted_bug_is_caught(outcome: tuple[str, Rows]) -> None:
    audited = [row for row in outcome[1] if row["series"] == "audit"]

    assert {row["name"] for row in audited} == {"local, Laplace", "local, Gauss", "distributed, sum"}
    for row in audited:
        wanted = "not refuted" if row["bug"] == "none" else "refuted"
        assert row["verdict"] == (wanted if row["claim"] < row["ceiling"] else "not refutable by this audit"), row


def test_misused_noise_is_found_and_honest_noise_is_not(outcome: tuple[str, Rows]) -> None:
    text, _ = outcome

    assert "- honest: 0\n- one noise for all rounds: 120\n- fresh noise when asked again: 120\n" in text

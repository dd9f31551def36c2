"""The poisoning study: without limits a few spoil everything, within them they do not, and the trace finds many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liberate_studies import run_study

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The numbers of a quick study."""
    folder: Path = tmp_path_factory.mktemp("poisoning")
    trials: Rows = json.loads(run_study("poisoning", is_quick=True, out=folder).rows.read_bytes())["trials"]
    return [trial["attack"] | trial["outcome"] | {"aim": trial["aim"]} for trial in trials]


def error(rows: Rows, statistic: str, defence: str, aim: str, share: float) -> float | None:
    """RMSE of the others; `aim` is the beginning of a name."""
    (found, *_) = (
        row["rmse"]
        for row in rows
        if (row["statistic"], row["defence"], row["share"]) == (statistic, defence, share)
        and row["aim"].startswith(aim)
    )
    return None if found is None else float(found)


@pytest.mark.parametrize("aim", ["random", "sign flip"])
def test_without_limits_a_few_spoil_everything(rows: Rows, aim: str) -> None:
    assert error(rows, "normal", "none", aim, 0.05) is None
    spoilt, quiet = error(rows, "gradient", "none", aim, 0.05), error(rows, "gradient", "none", "promotion", 0.0)
    assert spoilt is not None
    assert quiet is not None
    assert spoilt > quiet + 0.1


@pytest.mark.parametrize("statistic", ["normal", "gradient"])
@pytest.mark.parametrize("aim", ["random", "sign flip"])
def test_within_limits_a_model_always_follows_and_a_few_do_little(rows: Rows, statistic: str, aim: str) -> None:
    quiet, few, many = (
        error(rows, statistic, "limits", name, share) for name, share in (("promotion", 0.0), (aim, 0.05), (aim, 0.2))
    )

    assert quiet is not None
    assert few is not None
    assert many is not None
    assert few < quiet + 0.06
    assert many < quiet + 0.2


def test_limits_and_trimming_take_nothing_from_the_honest_or_little(rows: Rows) -> None:
    quiet = {
        (row["statistic"], row["defence"]): row["rmse"] for row in rows if row["share"] == 0 and "seldom" in row["aim"]
    }

    assert quiet["normal", "limits"] == quiet["normal", "none"]
    assert quiet["gradient", "limits"] == quiet["gradient", "none"]
    assert quiet["gradient", "limits and trimming"] < quiet["gradient", "limits"] + 0.03


def test_a_trimmed_sum_keeps_an_item_off_the_lists(rows: Rows) -> None:
    listed = {
        row["defence"]: row["listed"]
        for row in rows
        if row["statistic"] == "gradient" and row["share"] == 0.2 and row["aim"].endswith("rated often")
    }

    assert listed["limits and trimming"] < 0.2
    assert listed["limits"] > 0.8


def test_the_trace_finds_who_flips_signs(rows: Rows) -> None:
    found = {
        (row["defence"], row["share"]): row["by_fit"]
        for row in rows
        if row["statistic"] == "normal" and row["aim"] == "sign flip"
    }

    assert found["limits", 0.05] >= 0.8
    assert found["limits", 0.2] >= 0.8


def test_whoever_goes_beyond_all_limits_is_found_by_size(rows: Rows) -> None:
    sizes = [row["by_size"] for row in rows if row["defence"] == "none" and row["share"]]

    assert sizes
    assert min(sizes) == 1.0

"""Numbers as people read them, and honest comparisons."""

from __future__ import annotations

import math

import pytest

from liberate.report import words

BASELINES = {"user mean": {"rmse": 1.0}, "damped biases": {"rmse": 0.9}, "most popular": {"ndcg_at_10": 0.2}}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05294, "0.0529"), (8.0, "8"), (7.98996, "7.99"), (0.0, "0"), (1234.5, "1,234"), (0.5, "0.5"), (None, "–")],
)
def test_three_digits_count(value: float | None, text: str) -> None:
    assert words.significant(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-5, "10⁻⁵"), (2.5e-6, "2.5 × 10⁻⁶"), (0.1, "10⁻¹")])
def test_small_numbers_are_powers_of_ten(value: float, text: str) -> None:
    assert words.scientific(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.034, "0.03 s"), (3.04, "3.0 s"), (59.94, "59.9 s"), (124.6, "2 min 5 s")]
)
def test_durations_fit_their_size(value: float, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0 %"), (0.004, "< 1 %"), (0.456, "46 %")])
def test_shares_are_percent(value: float, text: str) -> None:
    assert words.percent(value) == text


def test_missing_values_are_dashes() -> None:
    assert [words.decimal(value) for value in (None, math.nan, 1234.56789)] == ["–", "–", "1,234.5679"]


def test_epsilon_without_a_bound_says_so() -> None:
    assert (words.epsilon(None), words.epsilon(0.0), words.epsilon(8.0)) == ("no bound", "0", "8")


def test_counts_agree_with_their_noun() -> None:
    assert [words.count(n, "entry", "entries") for n in (1, 12320)] == ["1 entry", "12,320 entries"]


def test_places_in_a_drawing_are_short() -> None:
    assert [words.pixels(value) for value in (12.0, 12.04, 12.26)] == ["12", "12", "12.3"]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("rmse", 0.85, "0.050 better than the free baseline “damped biases”"),
        ("rmse", 1.5, "0.600 worse than the free baseline “damped biases”"),
        ("rmse", 0.9003, "as good as the free baseline “damped biases”"),
        ("ndcg_at_10", 0.1, "0.100 worse than the free baseline “most popular”"),
        ("ndcg_at_10", 0.3, "0.100 better than the free baseline “most popular”"),
        ("rmse", math.nan, "nothing was held out to judge it by"),
    ],
)
def test_a_metric_is_set_beside_the_best_free_baseline(key: str, value: float, text: str) -> None:
    assert words.comparison(key, value, BASELINES) == text


def test_the_best_of_a_column_is_marked_where_better_has_a_meaning() -> None:
    run = {"rmse": 0.85, "ndcg_at_10": 0.1, "recall_at_10": 0.1, "coverage": 0.5, "gini": 0.9, "ild": None}

    columns, rows = words.metric_table({"this run": run, **BASELINES})

    assert [column.title for column in columns] == ["RMSE", "NDCG@10", "Recall@10", "Coverage", "Gini"]
    assert [cell.is_best for cell in rows["this run"]] == [True, False, True, False, False]
    assert [cell.is_best for cell in rows["most popular"]] == [False, True, False, False, False]
    assert [cell.text for cell in rows["most popular"]] == ["–", "0.2000", "–", "–", "–"]


def test_a_column_of_zeros_is_a_column() -> None:
    columns, rows = words.metric_table({"this run": {"rmse": None, "recall_at_10": 0.0}})

    assert [column.title for column in columns] == ["Recall@10"]
    assert [cell.text for cell in rows["this run"]] == ["0.0000"]

"""Runs whose aim is a good list (`model.objective=implicit`), in every mode."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from liberate.cli.output import print_json, print_pairs
from liberate.data.ratings import Ratings
from liberate.errors import LiberateError
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import ModelRecord, Round
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.evaluate import evaluate_run, recommend, write_predictions, write_top
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from tests.worlds import write_csv

Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    users, items = (index.ravel() for index in np.indices((60, 30)))
    board = Ratings.from_triples(users, items, np.where((users + items) % 2 == 0, 5.0, 1.0), 60, 30)
    data = write_csv(tmp_path / "ratings.csv", board)

    def build(*assignments: str) -> Settings:
        return resolve(None, [f"data.source={data}", "model.objective=implicit", *assignments], environment={})

    return build


def records(run: Run) -> list[Round | ModelRecord]:
    """The rounds and models of a run, in their order."""
    ledger = run.open_ledger()
    found = [decode_entry(ledger.entry(position)).record for position in range(ledger.size)]
    ledger.close()
    return [record for record in found if isinstance(record, Round | ModelRecord)]


@pytest.mark.parametrize(
    ("settings", "solvers", "least"),
    [
        ((), ["ease/1"], 0.99),
        (("model.statistic=normal", "model.n_factors=2", "federation.rounds=6"), ["weighted/1"], 0.99),
        (("privacy.mode=device",), [], 0.0),
        (("privacy.mode=local", "privacy.epsilon=8"), ["popular/1"], 0.0),
        (("privacy.mode=distributed", "privacy.epsilon=200"), ["popular/1", "ease/1"], 0.9),
    ],
)
def test_every_mode_learns_lists_as_far_as_it_may(
    tmp_path: Path, configure: Configure, settings: tuple[str, ...], solvers: list[str], least: float
) -> None:
    result = train(configure(*settings), tmp_path / "run")

    run = load_run(tmp_path / "run")
    assert math.isnan(result.rmse)
    assert result.ndcg_at_10 >= least
    assert sorted({record.solver for record in records(run) if isinstance(record, ModelRecord)}) == sorted(solvers)
    assert evaluate_run(run).metrics.ndcg_at_10 == pytest.approx(result.ndcg_at_10)
    curve = pq.read_table(tmp_path / "run" / "metrics.parquet")
    assert len(curve) == result.rounds + 1
    assert verify_ledger(run.ledger_folder).ok


def test_a_private_run_is_two_releases_each_with_its_spend(tmp_path: Path, configure: Configure) -> None:
    train(configure("privacy.mode=distributed", "privacy.epsilon=200"), tmp_path / "run")

    rounds = [record for record in records(load_run(tmp_path / "run")) if isinstance(record, Round)]

    popularity, gram = rounds
    assert (popularity.statistic, popularity.shape) == ("popularity", (30, 1, 0))
    assert (gram.statistic, gram.shape) == ("gram", (30 * 31 // 2, 1, 0))
    assert [record.account for record in rounds] == ["rho", "rho"]
    assert 0 < popularity.spend_nano < gram.spend_nano
    assert popularity.rounds == gram.rounds == 2


def test_a_list_comes_with_titles_and_ranks_but_no_predicted_ratings(tmp_path: Path, configure: Configure) -> None:
    train(configure(), tmp_path / "run")
    run = load_run(tmp_path / "run")

    _, items = recommend(run, "user:u03", 3)
    write_top(tmp_path / "top.parquet", run, evaluate_run(run))

    assert [item.rank for item in items] == [1, 2, 3]
    assert [item.prediction for item in items] == [None] * 3
    assert all(int(item.item_id[1:]) % 2 == 1 for item in items)  # an odd user likes odd items
    assert len(pq.read_table(tmp_path / "top.parquet")) > 0
    with pytest.raises(LiberateError, match="orders items and predicts no ratings"):
        write_predictions(tmp_path / "predictions.parquet", run, evaluate_run(run))


def test_what_is_not_predicted_is_null_in_json_and_a_dash_in_a_table(
    tmp_path: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    train(configure(), tmp_path / "run")
    metrics = asdict(evaluate_run(load_run(tmp_path / "run")).metrics)

    print_json(metrics)
    printed = json.loads(capsys.readouterr().out)
    print_pairs(metrics)
    table = capsys.readouterr().out

    assert printed["rmse"] is None
    assert printed["ndcg_at_10"] > 0.99
    assert "nan" not in table

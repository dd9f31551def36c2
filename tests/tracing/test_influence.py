"""Which uploads hurt a model, asked of the uploads that a run kept."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liberate.arrays import RealStatistics
from liberate.cli import main
from liberate.data.ratings import Ratings
from liberate.errors import LiberateError
from liberate.model.model import Model
from liberate.model.statistics import NormalEquations
from liberate.model.upload_bounds import _FactorLimits
from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate.settings import resolve
from liberate.tracing.influence import trace_influence
from tests.tracing.asking import asked
from tests.worlds import low_rank_ratings, write_csv

Train = Callable[..., Path]


@pytest.fixture
def trained(tmp_path: Path) -> Train:
    """Trains on 40 people's ratings and keeps all uploads; gives the run folder."""
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=40, n_items=12))

    def build(*assignments: str, keep: bool = True) -> Path:
        fixed = [
            f"data.source={data}",
            "data.rating_min=1",
            "data.rating_max=5",
            "model.n_factors=2",
            "federation.rounds=3",
        ]
        kept = [f"ledger.keep_uploads={str(keep).lower()}"]
        train(resolve(None, [*fixed, *kept, *assignments], environment={}), tmp_path / "run")
        return tmp_path / "run"

    return build


def test_whoever_sends_the_opposite_is_the_worst(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    original = NormalEquations.compute

    def hostile(self: NormalEquations, model: Model, ratings: Ratings) -> RealStatistics:
        computed = original(self, model, ratings)
        if ratings.n_users < 40:
            return computed
        own = slice(computed.indptr[11], computed.indptr[12])
        rows = computed.rows.copy()
        rows[own, -3:] *= -8
        return replace(computed, rows=rows)

    monkeypatch.setattr(_FactorLimits, "check", lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(NormalEquations, "compute", hostile)
        folder = trained("federation.batch_size=100", "model.tolerance=0")

    found = asked(trace_influence, load_run(folder), 1)

    worst = found["participants"][0]
    assert (worst["user_id"], found["round"], found["missing"]) == ("u11", 1, 0)
    assert worst["fit"] > 0
    assert worst["held_out"] is not None
    assert len(found["participants"]) == 40
    assert found["median"] == pytest.approx(float(np.median([each["size"] for each in found["participants"]])))


def test_a_clip_is_the_bound_of_every_norm(trained: Train) -> None:
    folder = trained("privacy.mode=distributed", "privacy.epsilon=100")

    found = asked(trace_influence, load_run(folder), 1)

    assert (found["statistic"], found["norm"]) == ("bias", "l2")
    assert found["bound"] == pytest.approx(1, rel=1e-3)
    assert all(each["size"] <= found["bound"] for each in found["participants"])
    assert {(each["fit"], each["held_out"]) for each in found["participants"]} == {(None, None)}


def test_noised_uploads_are_measured_as_they_are_bounded(trained: Train) -> None:
    folder = trained("privacy.mode=local", "privacy.epsilon=50")

    found = asked(trace_influence, load_run(folder), 1)

    assert found["norm"] == "l1"
    assert 0 < found["median"] <= found["bound"]
    assert {each["fit"] for each in found["participants"]} == {None}


def test_rows_are_measured_beside_the_whole(trained: Train) -> None:
    found = asked(trace_influence, load_run(trained("model.objective=implicit")), 1)

    assert found["statistic"] == "gram"
    for each in found["participants"]:
        assert each["size"] == pytest.approx(1, rel=1e-3)
        n_pairs = round((each["size"] / each["row"]) ** 2)
        n_items = (math.isqrt(8 * n_pairs + 1) - 1) // 2
        assert n_items * (n_items + 1) // 2 == n_pairs


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "uploads" / "uploads.sqlite")) as database, database:
        database.execute(statement)


def test_forgotten_uploads_are_counted(trained: Train) -> None:
    folder = trained()
    change(folder, "DELETE FROM upload WHERE participant < 6")

    found = asked(trace_influence, load_run(folder), 1)

    assert (found["missing"], len(found["participants"])) == (3, 37)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE upload SET salt = zeroblob(32)", "not_opened"),
        ("DELETE FROM upload", "no upload of model 1"),
        ("INSERT INTO upload VALUES (1, 1, 5, zeroblob(32), zeroblob(9))", "the model did not use the upload"),
    ],
)
def test_uploads_that_are_not_the_ledgers_are_refused(trained: Train, statement: str, message: str) -> None:
    folder = trained()
    change(folder, statement)

    with pytest.raises(LiberateError, match=message):
        asked(trace_influence, load_run(folder), 1)


@pytest.mark.parametrize(
    ("assignments", "keep", "version", "message"),
    [
        ((), False, 1, "kept no uploads"),
        ((), True, 9, "no round .* ended in model 9"),
        (("privacy.mode=distributed", "privacy.epsilon=2", "privacy.secure_aggregation=true"), True, 1, "masked"),
    ],
)
def test_what_cannot_be_told_is_said(
    trained: Train, assignments: tuple[str, ...], keep: bool, version: int, message: str
) -> None:
    folder = trained(*assignments, keep=keep)

    with pytest.raises(LiberateError, match=message):
        asked(trace_influence, load_run(folder), version)


def test_the_command_prints_the_worst_first(
    trained: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained()

    def printed(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["liberate", "trace", str(folder), *arguments])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    fits = [each["fit"] for each in json.loads(printed("--model", "1", "--influence", "--json"))["participants"]]
    assert fits == sorted(fits, reverse=True)
    assert "the worst first" in printed("--model", "1", "--influence")
    assert printed("--participant", "5", "--influence") == ""

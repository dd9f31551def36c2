"""What real people hold out: known to their devices alone, which show them their own error."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.errors import LiberateError, SettingsError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_out_ratings, held_ratings
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.model.metrics import rmse
from liberate.model.profiles import fit_devices, predict
from liberate.runs.evaluate import evaluate_run, own_error, recommend
from liberate.runs.folder import Run, load_run
from liberate.runs.run_data import held_out_of, load_dataset, load_source
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from tests.federation.crashes import interrupted_after_the_first_round
from tests.service.replaying import replaying
from tests.worlds import low_rank_ratings

FIXED_ENTROPY = Path(__file__).with_name("fixed_entropy")
SCALE = ("data.rating_min=1", "data.rating_max=5")
REAL = ("run.simulated=false", "data.test_fraction=0.25", *SCALE)
SMALL = ("model.n_factors=2", "federation.rounds=2")
N_ITEMS = 12


def write_ratings(path: Path, ratings: Ratings, replaced: Mapping[int, tuple[str, float]] | None = None) -> Path:
    """Write ratings of users 10, 11, ... and items 100, 101, ...; some rows name another item and value."""
    lines = ["user,item,rating"]
    for row, (user, item, value) in enumerate(zip(ratings.users(), ratings.items, ratings.values, strict=True)):
        name, rating = (replaced or {}).get(row, (str(100 + item), value))
        lines.append(f"{10 + user},{name},{rating:g}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def held_out_rows(n_ratings: int) -> list[int]:
    """Return the rows that a random split with the default seed holds out at a fraction of 0.25."""
    rows: list[int] = np.random.default_rng(42).permutation(n_ratings)[: round(0.25 * n_ratings)].tolist()
    return rows


def two_worlds(folder: Path) -> tuple[Path, Path]:
    """Write two sets of ratings, each in a folder of its own, that differ in held-out ratings alone.

    In one, people have rated other items, all differently, and some items that are new and whose names sort the others
    in another order.
    """
    ratings = low_rank_ratings(n_users=12, n_items=N_ITEMS)
    other = {
        row: (f"new {row}" if place % 2 else str(900 + row), 6 - float(ratings.values[row]))
        for place, row in enumerate(held_out_rows(ratings.n_ratings))
    }
    for name, replaced in (("one", {}), ("other", other)):
        (folder / name).mkdir()
        write_ratings(folder / name / "mine.csv", ratings, replaced)
    return folder / "one", folder / "other"


def settings_for(data: Path, *assignments: str) -> Settings:
    return resolve(None, [f"data.source={data}", *SMALL, *assignments], environment={})


@pytest.fixture
def ratings_file(tmp_path: Path) -> Path:
    return write_ratings(tmp_path / "mine.csv", low_rank_ratings(n_users=12, n_items=N_ITEMS))


def run_in(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a process of its own, with the same entropy and the same clock each time."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FIXED_ENTROPY), *sys.path]), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "liberate", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def files_outside_devices(folder: Path) -> dict[str, bytes]:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if "devices/" not in name}


@pytest.mark.parametrize(
    "mode", [("privacy.mode=plain",), ("privacy.mode=distributed", "privacy.epsilon=8")], ids=["plain", "distributed"]
)
def test_two_worlds_that_differ_in_held_out_ratings_look_the_same(tmp_path: Path, mode: tuple[str, ...]) -> None:
    worlds = two_worlds(tmp_path)
    assignments = [text for setting in (*SMALL, *REAL, *mode) for text in ("--set", setting)]

    # The witness's address is in the run's settings: it is the same in both worlds, one after the other.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = []
    for world in worlds:
        with replaying(world / "run", port) as witness:
            watched = [text for setting in witness for text in ("--set", setting)]
            said.append(run_in(world, "train", "--data", "mine.csv", *assignments, *watched, "--out", "run"))

    assert said[0][0] == 0, said[0][2]
    assert said[0] == said[1]
    one, other = (files_outside_devices(world / "run") for world in worlds)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert {"run.toml", "report.html", "ledger/ledger.sqlite", "model/items.parquet"} <= one.keys()
    assert (worlds[0] / "mine.csv").read_bytes() != (worlds[1] / "mine.csv").read_bytes()


def test_evaluate_refuses_outside_a_simulation(tmp_path: Path, ratings_file: Path) -> None:
    train(settings_for(ratings_file, *REAL), tmp_path / "run")

    with pytest.raises(LiberateError, match="does not leave their devices") as caught:
        evaluate_run(load_run(tmp_path / "run"))

    assert "liberate recommend" in caught.value.hint


def test_result_of_a_real_run_has_no_error_of_anybody(tmp_path: Path, ratings_file: Path) -> None:
    result = train(settings_for(ratings_file, *REAL), tmp_path / "run")

    assert math.isnan(result.rmse)
    assert math.isnan(result.ndcg_at_10)
    written = (tmp_path / "run" / "run.toml").read_text("utf-8")
    assert "rmse" not in written
    assert "ndcg" not in written
    assert not (tmp_path / "run" / "metrics.parquet").exists()
    assert load_run(tmp_path / "run").result.entry_count == result.entry_count


def held_by_device(run: Run, user_id: str) -> tuple[Ratings, Ratings]:
    """Return what a device of a run learns from, and what it holds out."""
    n_items = run.model().n_items
    with DeviceStore(run.devices_folder) as devices:
        return held_ratings(devices, [user_id], n_items), held_out_ratings(devices, [user_id], n_items)


def test_each_person_sees_their_own_error(tmp_path: Path, ratings_file: Path) -> None:
    train(settings_for(ratings_file, *REAL), tmp_path / "run")
    run = load_run(tmp_path / "run")
    own, held_out = held_by_device(run, "13")

    seen = own_error(run, "user:13")

    assert held_out.n_ratings > 0
    assert not held_out.rated_in(own).any()
    model = run.model()
    predicted = predict(model, fit_devices(model, own), held_out.users(), held_out.items)
    assert seen is not None
    assert (seen.rmse, seen.ratings) == (rmse(predicted, held_out.values), held_out.n_ratings)
    assert len(recommend(run, "user:13", 3)[1]) == 3


def test_nobody_has_an_error_where_nothing_is_held_out(tmp_path: Path, ratings_file: Path) -> None:
    train(settings_for(ratings_file, "run.simulated=false", *SCALE), tmp_path / "run")

    assert own_error(load_run(tmp_path / "run"), "user:13") is None


def test_simulation_that_holds_nothing_out_has_no_error(tmp_path: Path, ratings_file: Path) -> None:
    result = train(settings_for(ratings_file, "data.test_fraction=0"), tmp_path / "run")

    assert math.isnan(result.rmse)
    assert math.isnan(result.ndcg_at_10)
    assert load_run(tmp_path / "run").result == result
    assert evaluate_run(load_run(tmp_path / "run")).test.n_ratings == 0


def test_devices_hold_what_the_source_holds_out_of_items_that_the_run_knows(tmp_path: Path) -> None:
    folder = two_worlds(tmp_path)[0]
    settings = settings_for(folder / "mine.csv", *REAL)
    source, dataset = load_source(settings), load_dataset(settings)

    held_out = held_out_of(source, settings, dataset)

    rows = held_out_rows(len(source.values))
    wanted = {
        (source.user_ids[source.users[row]], source.item_ids[source.items[row]], float(source.values[row]))
        for row in rows
        if source.item_ids[source.items[row]] in dataset.item_ids
    }
    users, items = held_out.users(), held_out.items
    names = [dataset.user_ids[user] for user in users], [dataset.item_ids[item] for item in items]
    assert set(zip(*names, held_out.values.tolist(), strict=True)) == wanted
    assert len(dataset.values) == len(source.values) - len(rows)


def test_run_of_other_held_out_ratings_commits_to_nothing_new(tmp_path: Path) -> None:
    one, other = two_worlds(tmp_path)
    train(settings_for(one / "mine.csv", *REAL), tmp_path / "first")
    before = held_by_device(load_run(tmp_path / "first"), "13")

    train(settings_for(other / "mine.csv", *REAL), tmp_path / "second", ledger=tmp_path / "first")

    after = held_by_device(load_run(tmp_path / "second"), "13")
    assert np.array_equal(before[0].values, after[0].values)
    assert not np.array_equal(before[1].items, after[1].items)
    with closing(SqliteLedger.open(tmp_path / "first" / "ledger")) as ledger:
        assert len(ledger.positions(kind="dataset")) == 12


def test_run_goes_on_with_what_devices_hold_out_though_the_source_has_changed(tmp_path: Path) -> None:
    """Else an upload that was committed to before a crash could come out otherwise after it."""
    one, other = two_worlds(tmp_path)
    file = tmp_path / "mine.csv"
    file.write_bytes((one / "mine.csv").read_bytes())

    with interrupted_after_the_first_round():
        train(settings_for(file, *REAL, "model.tolerance=0"), tmp_path / "run")
    with DeviceStore(tmp_path / "run" / "devices") as devices:
        before = held_out_ratings(devices, ["13"], N_ITEMS)

    file.write_bytes((other / "mine.csv").read_bytes())
    train(settings_for(file, *REAL, "model.tolerance=0"), tmp_path / "run")

    with DeviceStore(tmp_path / "run" / "devices") as devices:
        after = held_out_ratings(devices, ["13"], N_ITEMS)
    assert before.n_ratings > 0
    assert np.array_equal(before.items, after.items)
    assert np.array_equal(before.values, after.values)


def test_scale_found_in_ratings_that_are_held_out_is_refused(tmp_path: Path, ratings_file: Path) -> None:
    with pytest.raises(SettingsError, match="was found in them"):
        train(settings_for(ratings_file, "run.simulated=false", "data.test_fraction=0.25"), tmp_path / "run")


def test_run_that_would_hold_everything_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("user,item,rating\n1,2,3\n", "utf-8")
    settings = settings_for(tmp_path / "one.csv", "run.simulated=false", "data.test_fraction=0.9", *SCALE)

    with pytest.raises(SettingsError, match="nothing is left to learn from"):
        load_dataset(settings)

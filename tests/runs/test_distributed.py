"""Mode `distributed` from settings to model: the releases a design names, their price, and what is learned."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import Round
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.folder import load_run
from liberate.runs.privacy_forecast import forecast
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from tests.worlds import write_csv

Configure = Callable[..., Settings]


def camps(n_users: int = 160, n_items: int = 40) -> Ratings:
    """People rate mostly items of their camp, and rate them higher."""
    rng = np.random.default_rng(0)
    is_own = rng.integers(0, 2, n_users)[:, None] == np.arange(n_items) % 2
    users, items = np.nonzero(rng.random((n_users, n_items)) < np.where(is_own, 0.6, 0.1))
    scores = 3.3 + rng.normal(0, 0.5, n_items)[items] + np.where(is_own[users, items], 0.6, -0.6)
    values = np.clip(np.rint(scores + rng.normal(0, 0.4, len(users))), 1, 5)
    return Ratings.from_triples(users, items, values, n_users, n_items)


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    data = write_csv(tmp_path / "ratings.csv", camps())

    def build(*assignments: str) -> Settings:
        fixed = [f"data.source={data}", "data.rating_min=1", "data.rating_max=5", "privacy.mode=distributed"]
        return resolve(None, [*fixed, *assignments], environment={})

    return build


def rounds_of(folder: Path) -> list[Round]:
    with closing(load_run(folder).open_ledger()) as ledger:
        records = [decode_entry(ledger.entry(position)).record for position in ledger.positions(kind="round")]
    return [record for record in records if isinstance(record, Round)]


def test_the_ledger_names_every_release_of_the_design(tmp_path: Path, configure: Configure) -> None:
    result = train(configure("privacy.epsilon=100"), tmp_path / "run")

    rounds = rounds_of(tmp_path / "run")
    assert [record.statistic for record in rounds] == ["bias", "gram", *["moments"] * 5, "residuals"]
    assert {record.noise_placement for record in rounds} == {"on_sum"}
    assert {record.mechanism.name for record in rounds} == {"distributed_gaussian"}
    assert all(record.shape[2] == 0 for record in rounds)
    assert result.epsilon is not None
    assert result.epsilon <= 100
    assert verify_ledger(tmp_path / "run" / "ledger").ok


def test_less_noise_predicts_better_and_few_people_get_item_biases_alone(tmp_path: Path, configure: Configure) -> None:
    errors = [train(configure(f"privacy.epsilon={e}"), tmp_path / str(e)).rmse for e in (0.05, 4, 100)]

    assert errors[0] > errors[1] + 0.01 > errors[2] + 0.02
    assert [record.statistic for record in rounds_of(tmp_path / "4")] == ["bias", "residuals"]


def test_a_plan_says_why_and_looks_at_no_rating(tmp_path: Path, configure: Configure) -> None:
    settings = configure("privacy.epsilon=4")
    found = forecast(settings)
    text = (tmp_path / "ratings.csv").read_text("utf-8")
    (tmp_path / "ratings.csv").write_text(text.replace(",5\n", ",1\n"), "utf-8")

    assert found.reasons[0].startswith("no Gram")
    assert forecast(settings) == found


def test_without_public_features_there_are_none(tmp_path: Path) -> None:
    ratings = camps()
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "ratings.dat").write_text(
        "".join(
            f"{user + 1}::{item + 1}::{value:g}::0\n"
            for user, item, value in zip(ratings.users(), ratings.items, ratings.values, strict=True)
        ),
        "utf-8",
    )
    genres = ("Comedy", "Drama")
    (folder / "movies.dat").write_text("".join(f"{i + 1}::A (1990)::{genres[i % 2]}\n" for i in range(40)), "utf-8")

    def trained(*assignments: str) -> tuple[int, float]:
        settings = resolve(None, [f"data.source={folder}", "privacy.mode=device", *assignments], environment={})
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        result = train(settings, out)
        return load_run(out).model().n_factors, result.rmse

    n_with, with_features = trained()
    n_without, without = trained("data.public_features=false")

    assert (n_with, n_without) == (3, 0)
    assert with_features < without - 0.03

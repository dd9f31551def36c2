"""Two worlds that differ in one person's ratings have ledgers that differ in digests and commitments only."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.ledger.format.entries import decode_entry
from liberate.runs.actions import consent, erase, share, withdraw
from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate.settings import resolve
from tests.worlds import low_rank_ratings, write_csv

N_USERS, N_ITEMS = 24, 30
PERSON = 4

SETTINGS = {
    "peers": ["privacy.mode=plain", "sharing.user_fraction=1", "sharing.recipients=peers", "sharing.n_recipients=3"],
    "pool": ["privacy.mode=device", "sharing.user_fraction=1", "sharing.rating_fraction=0.5"],
    "perturbed": ["privacy.mode=plain", "sharing.user_fraction=0.5", "sharing.epsilon=1"],
    "local": ["privacy.mode=local", "privacy.epsilon=4"],
    "distributed": ["privacy.mode=distributed", "privacy.epsilon=8", "run.noise_placement=per_upload"],
    "masked": [
        "privacy.mode=distributed",
        "privacy.epsilon=8",
        "privacy.max_dropouts=0.3",
        "privacy.secure_aggregation=true",
    ],
}


def other_ratings(ratings: Ratings) -> Ratings:
    """Let one person have rated other items, fewer, otherwise."""
    users, person = ratings.users(), PERSON
    rest = users != person
    lacking = np.setdiff1d(np.arange(N_ITEMS), ratings.items[~rest])[:5]
    return Ratings.from_triples(
        np.append(users[rest], np.full(len(lacking), person)),
        np.append(ratings.items[rest], lacking),
        np.append(ratings.values[rest], np.full(len(lacking), 1.0)),
        N_USERS,
        N_ITEMS,
    )


def everything_that_happens(folder: Path, ratings: Ratings, settings: list[str]) -> Path:
    """Train, then let the person consent, share, and leave."""
    folder.mkdir()
    data = write_csv(folder / "ratings.csv", ratings)
    always = ["model.n_factors=2", "federation.rounds=2", "model.tolerance=0", "ledger.origin=test.invalid/one"]
    train(resolve(None, [f"data.source={data}", *always, *settings], environment={}), folder / "run")
    run, name = load_run(folder / "run"), f"user:u{PERSON:02}"
    options: dict[str, Any] = {"blocks": 500, "max_shares": 3, "epsilon": None, "rating_fraction": 1.0, "purpose": "x"}
    consent(run, name, recipients=["pool", "5"], wait=lambda: False, **options)
    for recipient in ("pool", "5"):
        share(run, name, recipient=recipient, consent=None, wait=lambda: False)
    withdraw(run, name, consent=None, wait=lambda: False)
    erase(run, name, wait=lambda: False)
    return folder / "run"


def told(value: Any) -> Any:
    """What a record says beside 32-byte values, and that those are there."""
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [told(each) for each in value]
    return "32 bytes" if isinstance(value, bytes) and len(value) == 32 else value


def ledger_of(folder: Path) -> list[Any]:
    with closing(load_run(folder).open_ledger()) as ledger:
        return [
            (len(data), told(msgspec.to_builtins(decode_entry(data).record, builtin_types=(bytes,))))
            for _, data in ledger.entries(0, ledger.size)
        ]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_ledgers_of_two_worlds_say_the_same(tmp_path: Path, settings: list[str]) -> None:
    ratings = low_rank_ratings(N_USERS, N_ITEMS)
    assert other_ratings(ratings).n_ratings != ratings.n_ratings

    one = ledger_of(everything_that_happens(tmp_path / "one", ratings, settings))
    other = ledger_of(everything_that_happens(tmp_path / "other", other_ratings(ratings), settings))

    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine == theirs
    kinds = {record["kind"] for _, record in one}
    assert {"consent", "share", "receipt", "withdrawal", "erasure", "model"} <= kinds

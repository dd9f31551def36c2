"""What a study learns from: a whole data set, a dense corner of one, or a made-up world with a known answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from liberate.arrays import Float64Array
from liberate.data.dataset import Dataset
from liberate.data.rating_scale import RatingScale
from liberate.data.splits import Split
from liberate.errors import DataError
from liberate.model.metrics import baselines, rmse
from liberate.runs.plan import Plan, plan_run, public_features
from liberate.runs.run_data import load_dataset, split_dataset
from liberate.settings import Settings, resolve

SEED = 42
QUICK_USERS, QUICK_ITEMS = 120, 90

_RANK = 3
_NOISE = 0.5
_DENSITY = 0.3


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to learn: settings, and the ratings they name.

    Attributes:
        settings: Resolved settings.
        dataset: The ratings, in the order of the file.
        split: What is learned from, and what is held out.
    """

    settings: Settings
    dataset: Dataset
    split: Split

    @property
    def plan(self) -> Plan:
        """What the settings come to for these ratings."""
        features = public_features(self.settings, self.dataset)
        return plan_run(self.settings, self.split.train.n_users, self.split.train.n_items, features.shape[1])


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How good something is, on held-out ratings.

    Attributes:
        name: What was judged.
        rmse: In rating points; NaN for what predicts no ratings.
        ndcg_at_10: 0 to 1; NaN for what ranks nothing.
    """

    name: str
    rmse: float
    ndcg_at_10: float


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Ratings that any number of jobs can share.

    Attributes:
        assignments: Settings that name the ratings, `section.key=value` each.
        dataset: The ratings.
        name: What they are called in a page.
        truth: What each rating would be without chance, shape (n_users, n_items), where the world is made up.
    """

    assignments: tuple[str, ...]
    dataset: Dataset
    name: str
    truth: Float64Array | None = None

    def job(self, *assignments: str) -> Job:
        """Return a job on these ratings. Settings come from here alone: a study does not depend on the environment."""
        settings = resolve(None, (*self.assignments, f"run.seed={SEED}", *assignments), {})
        return Job(settings, self.dataset, split_dataset(self.dataset, settings))

    @property
    def sentence(self) -> str:
        """What the ratings are, in words."""
        data = self.dataset
        sizes = f"{len(data.user_ids):,} users, {len(data.item_ids):,} items, {len(data.values):,} ratings"
        return f"{self.name}: {sizes}." + "".join(f" Note: {note}." for note in data.notes)


def open_world(source: str) -> World:
    """Load a data set by name or path."""
    return _load(f"data.source={dumps(source)}")


def corner(world: World, n_users: int, n_items: int, path: Path) -> World:
    """Keep the densest corner of a world, chosen by counting alone and kept as a file.

    First the `n_items` items with most ratings, then the `n_users` users who rated most of these; of equals, the one
    that comes first in the data set.

    Args:
        world: Where to choose from; its users and items may be fewer.
        n_users: Users to keep, > 0.
        n_items: Items to keep, > 0.
        path: The Parquet file to write.
    """
    dataset = world.dataset
    kept = np.isin(dataset.items, _largest(np.bincount(dataset.items), n_items))
    kept &= np.isin(dataset.users, _largest(np.bincount(dataset.users[kept]), n_users))
    table = pa.table(
        {
            "user": pa.array(dataset.user_ids).take(pa.array(dataset.users[kept])),
            "item": pa.array(dataset.item_ids).take(pa.array(dataset.items[kept])),
            "rating": dataset.values[kept],
        }
    )
    return keep_ratings(path, table, dataset.low, dataset.high, f"The densest corner of {world.name}")


def made_up(path: Path) -> World:
    """Make up a world of low rank with noise, so that the best possible error is known, and keep it as a file.

    A rating is 3.5 + b_u + b_i + p_u·q_i (three factors) plus normal noise of deviation 0.5, clipped to 1 to 5; about
    three tenths of all pairs are rated, some items more than others.
    """
    rng = np.random.default_rng(SEED)
    n, m = QUICK_USERS, QUICK_ITEMS
    biases = rng.normal(0, 0.4, (n, 1)) + rng.normal(0, 0.5, m)
    truth = 3.5 + biases + 0.45 * rng.normal(size=(n, _RANK)) @ rng.normal(size=(_RANK, m))
    popularity = rng.beta(2, 2, m) * 2 * _DENSITY

    users, items = np.nonzero(rng.random((n, m)) < popularity)
    values = np.clip(truth[users, items] + rng.normal(0, _NOISE, len(users)), 1, 5).astype(np.float32)
    table = pa.table({"user": users + 1, "item": items + 1, "rating": values})

    # The file is read with its users and items in its own order, and the truth has to follow it.
    world = keep_ratings(path, table, 1.0, 5.0, "A made-up world of low rank with noise")
    rows, columns = (np.array([int(i) - 1 for i in ids]) for ids in (world.dataset.user_ids, world.dataset.item_ids))
    return replace(world, truth=np.clip(truth, 1, 5)[np.ix_(rows, columns)])


def on_levels(world: World, path: Path) -> World:
    """Return a world whose ratings are on a scale of few levels: the same, or rounded to whole numbers and kept.

    Copies can be handed out of such ratings only: their marks are levels.
    """
    dataset = world.dataset
    try:
        RatingScale.of(dataset.values, dataset.low, dataset.high)
    except DataError:
        users, items = (np.array(ids) for ids in (dataset.user_ids, dataset.item_ids))
        columns = {"user": users[dataset.users], "item": items[dataset.items], "rating": np.rint(dataset.values)}
        return keep_ratings(path, pa.table(columns), dataset.low, dataset.high, f"{world.name}, rounded")
    return world


def free(world: World, job: Job) -> dict[str, Accuracy]:
    """Judge what costs nothing, by name. In a made-up world also who knows how it was made."""
    known = baselines(job.split, world.dataset.low, world.dataset.high, None)
    if world.truth is not None:
        test = job.split.test
        known["the world's own truth"] = {"rmse": rmse(world.truth[test.users(), test.items], test.values)}
    return {
        name: Accuracy(name, metrics.get("rmse", math.nan), metrics.get("ndcg_at_10", math.nan))
        for name, metrics in known.items()
    }


def keep_ratings(path: Path, ratings: pa.Table, low: float, high: float, name: str) -> World:
    """Keep ratings as a file, and load them from there as any others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(ratings, path)
    world = _load(f"data.source={dumps(str(path))}", f"data.rating_min={low}", f"data.rating_max={high}")
    return replace(world, name=name)


def _load(*assignments: str) -> World:
    dataset = load_dataset(resolve(None, assignments, {}))
    return World(assignments=assignments, dataset=dataset, name=dataset.name)


def _largest(counts: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    return np.argsort(-counts, kind="stable")[:n]

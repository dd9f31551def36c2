"""Measure lists in every mode, and what a Gram over part of the catalogue costs; `python -m benchmarks.lists`.

Prints a table for each data set, as docs/explanation/lists.md shows it. Splits are the default ones.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.__main__ import source
from liberate.data.dataset import Dataset
from liberate.data.public_datasets import load
from liberate.data.ratings import Ratings
from liberate.data.splits import random_split
from liberate.errors import DataError
from liberate.model.cooccurrence import Gram, Popularity
from liberate.model.item_model import initial_items
from liberate.model.item_solvers import Ease, MostPopular
from liberate.model.metrics import RankingMetrics, baselines, evaluate_model
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics
from liberate.runs.evaluate import evaluate_run
from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate.settings import resolve

SIZES = (150, 300, 600, 1200)
RUNS = {
    "device": ["privacy.mode=device"],
    "local, ε = 8": ["privacy.mode=local", "privacy.epsilon=8"],
    "plain, Gram": [],
    "plain, 16 factors": ["model.statistic=normal", "model.n_factors=16"],
    "plain, 32 factors": ["model.statistic=normal", "model.n_factors=32"],
}
PRIVATE = {f"distributed, ε = {e}": ["privacy.mode=distributed", f"privacy.epsilon={e}"] for e in (1, 4, 8, 16)}
BLIND = {f"{name}, no features": [*given, "data.public_features=false"] for name, given in PRIVATE.items()}
SEEDS = (42, 43, 44)


def without_noise(ratings: Ratings, dataset: Dataset, n_chosen: int) -> Model:
    """Learn by the two releases of a private run over a number of items, and add no noise."""
    model = initial_items(ratings.n_items, dataset.low, dataset.high, statistic="popularity", noisy=False)
    model = MostPopular(n_chosen).solve(model, aggregate_statistics(Popularity(ratings.n_items), model, ratings))
    return Ease().solve(model, aggregate_statistics(Gram(n_chosen), model, ratings))


def run(name: str, given: list[str], seed: int) -> RankingMetrics:
    """Train a federation and judge its lists."""
    fixed = [f"data.source={source(name)}", "model.objective=implicit", f"run.seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        train(resolve(None, [*fixed, *given], environment={}), Path(folder) / "run")
        return evaluate_run(load_run(Path(folder) / "run")).metrics


def show(name: str, found: list[RankingMetrics]) -> None:
    """Print a row of the table: the mean over seeds."""
    columns = ("ndcg_at_10", "recall_at_10", "coverage", "gini")
    means = [sum(getattr(metrics, column) for metrics in found) / len(found) for column in columns]
    print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |", flush=True)


def measure(name: str) -> None:
    """Print the table of a data set."""
    dataset = load(source(name))
    split = random_split(dataset)
    print(f"\n{dataset.name}: {split.train.n_users:,} people, {split.train.n_items:,} items\n")
    print("| | NDCG@10 | recall@10 | coverage | Gini |\n|---|--:|--:|--:|--:|")
    popular = baselines(split, dataset.low, dataset.high, None)["most popular"]
    show("most popular", [RankingMetrics(**popular, ild=None)])
    for size in SIZES:
        model = without_noise(split.train, dataset, size)
        show(f"Gram over {size:,}, no noise", [evaluate_model(model, fit_devices(model, split.train), split, None)])
    for label, given in (RUNS | PRIVATE | BLIND).items():
        seeds = SEEDS if "ε" in label else SEEDS[:1]
        show(label, [run(name, given, seed) for seed in seeds])


def main() -> None:
    """Measure what is there."""
    for name in ("ml-100k", "ml-1m"):
        try:
            measure(name)
        except DataError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()

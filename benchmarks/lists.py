"""How good lists are in every mode, and what a Gram over part of the catalogue costs.

NDCG@10, recall@10, coverage and Gini coefficient, as docs/explanation/lists.md shows them; those with an epsilon are
means over seeds. Splits are the default ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, data_sets, show
from liberate.data.dataset import Dataset
from liberate.data.public_datasets import load
from liberate.data.ratings import Ratings
from liberate.data.splits import random_split
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


def run(source: str, given: list[str], seed: int) -> RankingMetrics:
    """Train a federation and judge its lists."""
    fixed = [f"data.source={source}", "model.objective=implicit", f"run.seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        train(resolve(None, [*fixed, *given], environment={}), Path(folder) / "run")
        return evaluate_run(load_run(Path(folder) / "run")).metrics


def figures(name: str, judged: list[RankingMetrics]) -> Iterator[Figure]:
    """Return the mean over seeds of each metric."""
    for metric in ("ndcg_at_10", "recall_at_10", "coverage", "gini"):
        mean = sum(getattr(metrics, metric) for metrics in judged) / len(judged)
        yield Figure(name=f"{name}: {metric}", value=mean)


def measure() -> Iterator[Figure]:
    """Judge what costs nothing, what no noise would leave, and every mode, on both data sets."""
    for name, source in data_sets("ml-100k", "ml-1m"):
        dataset = load(source)
        split = random_split(dataset)
        popular = baselines(split, dataset.low, dataset.high, None)["most popular"]
        yield from figures(f"{name}, most popular", [RankingMetrics(**popular, ild=None)])

        for size in SIZES:
            model = without_noise(split.train, dataset, size)
            metrics = evaluate_model(model, fit_devices(model, split.train), split, None)
            yield from figures(f"{name}, Gram over {size:,}, no noise", [metrics])

        for label, given in (RUNS | PRIVATE | BLIND).items():
            seeds = SEEDS if "ε" in label else SEEDS[:1]
            yield from figures(f"{name}, {label}", [run(source, given, seed) for seed in seeds])


if __name__ == "__main__":
    show(measure())

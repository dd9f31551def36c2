"""Learning without federation: what devices compute, the sum and the solve, and what the defaults reach.

Times of a round's parts are the best of five rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from benchmarks.figures import Figure, data_sets, seconds, show
from liberate.data.dataset import Dataset
from liberate.data.public_datasets import load
from liberate.data.ratings import Ratings
from liberate.data.splits import Split, random_split
from liberate.model.config import ModelConfig
from liberate.model.kernels import server
from liberate.model.metrics import evaluate_model
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method, fit
from liberate.model.solvers import has_converged
from liberate.model.statistics import Statistic

SECRET = bytes(32)
BATCH = 512
LIMITS: dict[Literal["normal", "gradient"], int] = {"normal": 15, "gradient": 80}


def best_ms(act: Callable[[], object]) -> float:
    """Return the shortest time of five, in milliseconds; a first call, which may compile, does not count."""
    act()
    return 1000 * seconds(act)


def batches(ratings: Ratings) -> Iterator[Ratings]:
    """Return the devices a batch at a time."""
    for begin in range(0, ratings.n_users, BATCH):
        yield ratings.select(np.arange(begin, min(begin + BATCH, ratings.n_users)))


def compute_all(statistic: Statistic, model: Model, ratings: Ratings) -> None:
    """Compute for all devices, a batch at a time, and keep nothing."""
    for batch in batches(ratings):
        statistic.compute(model, batch)


def measure_round(config: ModelConfig, split: Split, model: Model) -> dict[str, float]:
    """Return the milliseconds of each part of a round."""
    statistic, solver = build_method(config, split.train.n_items, noisy=False)
    total = aggregate_statistics(statistic, model, split.train)
    computed = [statistic.compute(model, batch) for batch in batches(split.train)]
    on_grid = [np.rint(batch.rows * 2.0**20).astype(np.int32) for batch in computed]
    sums = np.zeros(statistic.shape[:2], np.int64)

    return {
        "devices": best_ms(lambda: compute_all(statistic, model, split.train)),
        "sum": best_ms(
            lambda: [server.add_rows(sums, batch.indices, rows) for batch, rows in zip(computed, on_grid, strict=True)]
        ),
        "solve": best_ms(lambda: solver.solve(model, total)),
    }


def learn(config: ModelConfig, split: Split, low: float, high: float, limit: int) -> Model:
    """Learn until convergence, for so many rounds at most."""
    for previous, model in pairwise(fit(config, split.train, low, high, SECRET)):
        if model.version == limit or has_converged(previous, model, config.tolerance):
            return model
    raise AssertionError("fit goes on for ever")


def figures(name: str, config: ModelConfig, dataset: Dataset, limit: int) -> Iterator[Figure]:
    """Measure one statistic on a data set."""
    split = random_split(dataset)
    learn(config, split, dataset.low, dataset.high, 1)
    begin = time.perf_counter()
    model = learn(config, split, dataset.low, dataset.high, limit)
    yield Figure(name=f"{name}, learn", value=time.perf_counter() - begin, unit="s")

    profiles = fit_devices(model, split.train)
    evaluate = partial(evaluate_model, model, profiles, split, dataset.catalogue)
    for part, milliseconds in (measure_round(config, split, model) | {"evaluate": best_ms(evaluate)}).items():
        yield Figure(name=f"{name}, {part}", value=milliseconds, unit="ms")
    metrics = evaluate()
    yield Figure(name=f"{name}, rounds", value=model.version)
    yield Figure(name=f"{name}, RMSE", value=metrics.rmse)
    yield Figure(name=f"{name}, NDCG@10", value=metrics.ndcg_at_10)


def measure() -> Iterator[Figure]:
    """Measure both statistics on both data sets."""
    for name, source in data_sets("ml-100k", "ml-1m"):
        dataset = load(source)
        for statistic, limit in LIMITS.items():
            yield from figures(f"{name}, {statistic}", ModelConfig(statistic=statistic), dataset, limit)


if __name__ == "__main__":
    show(measure())

"""Measure learning without federation: what devices compute, the sum and the solve; `python -m benchmarks.model`.

Prints one JSON object: for each data set and statistic the milliseconds of a round's parts, the best of five rounds,
and what the defaults reach.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import Literal

import numpy as np

from benchmarks.__main__ import machine, source
from liberate.data.dataset import Catalogue
from liberate.data.public_datasets import load
from liberate.data.ratings import Ratings
from liberate.data.splits import Split, random_split
from liberate.errors import DataError
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


def best_ms(action: Callable[[], object]) -> float:
    """Give the shortest time of five, in milliseconds; a first call, which may compile, does not count."""
    times = []
    action()
    for _ in range(5):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return round(min(times) * 1000, 2)


def batches(ratings: Ratings) -> Iterator[Ratings]:
    """Give the devices a batch at a time."""
    for begin in range(0, ratings.n_users, BATCH):
        yield ratings.select(np.arange(begin, min(begin + BATCH, ratings.n_users)))


def compute_all(statistic: Statistic, model: Model, ratings: Ratings) -> None:
    """Compute for all devices, a batch at a time, and keep nothing."""
    for batch in batches(ratings):
        statistic.compute(model, batch)


def measure_round(config: ModelConfig, split: Split, model: Model) -> dict[str, float]:
    """Give the milliseconds of each part of a round."""
    statistic, solver = build_method(config, split.train.n_items, noisy=False)
    total = aggregate_statistics(statistic, model, split.train)
    computed = [statistic.compute(model, batch) for batch in batches(split.train)]
    on_grid = [np.rint(batch.rows * 2.0**20).astype(np.int32) for batch in computed]
    sums = np.zeros(statistic.shape[:2], np.int64)
    return {
        "devices_ms": best_ms(lambda: compute_all(statistic, model, split.train)),
        "sum_ms": best_ms(
            lambda: [server.add_rows(sums, batch.indices, rows) for batch, rows in zip(computed, on_grid, strict=True)]
        ),
        "solve_ms": best_ms(lambda: solver.solve(model, total)),
    }


def learn(config: ModelConfig, split: Split, low: float, high: float, limit: int) -> Model:
    """Learn until convergence, for so many rounds at most."""
    for previous, model in pairwise(fit(config, split.train, low, high, SECRET)):
        if model.version == limit or has_converged(previous, model, config.tolerance):
            return model
    raise AssertionError("fit goes on for ever")


def measure(split: Split, low: float, high: float, catalogue: Catalogue | None) -> dict[str, dict[str, float | None]]:
    """Measure both statistics on a data set."""
    found: dict[str, dict[str, float | None]] = {}
    for name, limit in LIMITS.items():
        config = ModelConfig(statistic=name)
        learn(config, split, low, high, 1)
        begin = time.perf_counter()
        model = learn(config, split, low, high, limit)
        seconds = time.perf_counter() - begin
        profiles = fit_devices(model, split.train)
        metrics = evaluate_model(model, profiles, split, catalogue)
        found[name] = {
            **measure_round(config, split, model),
            "evaluate_ms": best_ms(partial(evaluate_model, model, profiles, split, catalogue)),
            "rounds": model.version,
            "learn_s": round(seconds, 3),
            "rmse": round(metrics.rmse, 4),
            "ndcg_at_10": round(metrics.ndcg_at_10, 4),
        }
    return found


def main() -> None:
    """Measure and print."""
    found: dict[str, object] = {}
    for name in ("ml-100k", "ml-1m"):
        try:
            dataset = load(source(name))
        except DataError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            continue
        found[name] = measure(random_split(dataset), dataset.low, dataset.high, dataset.catalogue)
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("numba", "numpy")}
    print(json.dumps({"machine": machine(), "versions": versions, "data": found}, indent=2))


if __name__ == "__main__":
    main()

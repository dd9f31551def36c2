from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from liberate.arrays import Int64Array
from liberate.data.dataset import Dataset
from liberate.data.public_datasets import load
from liberate.data.ratings import Ratings
from liberate.data.splits import random_split
from liberate.model.config import ModelConfig
from liberate.model.implicit_factors import WeightedBayes
from liberate.model.item_solvers import Ease, MostPopular
from liberate.model.kernels import server
from liberate.model.metrics import baselines, evaluate_model
from liberate.model.model import Model, initial
from liberate.model.private.solvers import Embeddings, ItemBiases, ItemResiduals, LearnedPrior
from liberate.model.profiles import fit_devices
from liberate.model.registry import build_method, fit, solver_from
from liberate.model.solvers import AggregatedStatistics, Descent, Solver, VariationalBayes, has_converged
from tests.model.worlds import SECRET, checkerboard, held_out_error, learned

Statistic = Literal["normal", "gradient"]
GRID = 2.0**20


@pytest.mark.parametrize(("statistic", "rounds"), [("normal", 15), ("gradient", 80)])
def test_factors_tell_the_colours_of_a_checkerboard(statistic: Statistic, rounds: int) -> None:
    split = checkerboard()
    config = ModelConfig(statistic=statistic, n_factors=4, reg=2.0)

    before, after = (held_out_error(learned(config, split.train, n), split) for n in (0, rounds))

    assert before > 1.9
    assert after < 0.7


@pytest.mark.parametrize(
    ("statistic", "noisy", "names"),
    [
        ("auto", False, ("normal", "variational/1")),
        ("auto", True, ("gradient", "adam/1")),
        ("gradient", False, ("gradient", "adam/1")),
        ("normal", True, ("normal", "variational/1")),
    ],
)
def test_method_of_a_configuration(
    statistic: Literal["auto", "normal", "gradient"], noisy: bool, names: tuple[str, str]
) -> None:
    found, solver = build_method(ModelConfig(statistic=statistic), 4, noisy=noisy)

    assert (found.name, solver.name) == names


def fit_on_grid(config: ModelConfig, ratings: Ratings, rounds: int) -> tuple[Model, float]:
    """Learn from integer sums on a grid of 2**-20, as a federation does; also give the largest row value uploaded."""
    statistic, solver = build_method(config, ratings.n_items, noisy=False)
    model, largest = initial(config, ratings.n_items, 1.0, 5.0, SECRET), 0.0
    for _ in range(rounds):
        rows: Int64Array = np.zeros(statistic.shape[:2], np.int64)
        batch = statistic.compute(model, ratings)
        largest = max(largest, float(np.abs(batch.rows).max()))
        server.add_rows(rows, batch.indices, np.rint(batch.rows * np.float32(GRID)).astype(np.int32))
        tail = np.rint(batch.tails * GRID).astype(np.int64).sum(axis=0)
        model = solver.solve(model, AggregatedStatistics(rows / GRID, tail / GRID, ratings.n_users))
    return model, largest


@pytest.mark.parametrize(("statistic", "rounds"), [("normal", 12), ("gradient", 40)])
def test_the_grid_costs_nothing_and_uploads_fit_in_32_bits(statistic: Statistic, rounds: int) -> None:
    """2**31 grid units are 2,048: the largest value leaves room for forty times as much."""
    split = checkerboard(200, 100)
    config = ModelConfig(statistic=statistic, n_factors=8)

    on_grid, largest = fit_on_grid(config, split.train, rounds)

    exact = held_out_error(learned(config, split.train, rounds), split)
    assert held_out_error(on_grid, split) == pytest.approx(exact, abs=1e-4)
    assert largest < 50


def train_to_the_end(statistic: Statistic, train: Ratings, dataset: Dataset) -> Model:
    """Learn until convergence, with the defaults and the usual limits on rounds."""
    config = ModelConfig(statistic=statistic)
    limit = {"normal": 15, "gradient": 80}[statistic]
    previous = None
    for model in fit(config, train, dataset.low, dataset.high, SECRET):
        if model.version == limit or (previous is not None and has_converged(previous, model, config.tolerance)):
            return model
        previous = model
    raise AssertionError("unreachable: fit goes on for ever")


@pytest.mark.parametrize(
    ("name", "normal", "gradient", "device", "damped", "popular"),
    [("ml-100k", 0.897, 0.914, 1.041, 0.9376, 0.184), ("ml-1m", 0.845, 0.856, 1.036, 0.9077, 0.177)],
)
def test_defaults_reach_the_published_figures(
    name: str,
    normal: float,
    gradient: float,
    device: float,
    damped: float,
    popular: float,
    real_data: Callable[[str], Path],
) -> None:
    dataset = load(real_data(name))
    split = random_split(dataset)
    alone = initial(ModelConfig(n_factors=0), split.train.n_items, dataset.low, dataset.high, SECRET)
    models = {
        "normal": train_to_the_end("normal", split.train, dataset),
        "gradient": train_to_the_end("gradient", split.train, dataset),
        "device": alone,
    }

    errors = {
        key: evaluate_model(model, fit_devices(model, split.train), split, dataset.catalogue).rmse
        for key, model in models.items()
    }
    free = baselines(split, dataset.low, dataset.high, dataset.catalogue)

    assert errors["normal"] <= normal
    assert errors["gradient"] <= gradient
    assert errors["device"] <= device
    assert free["damped biases"]["rmse"] == pytest.approx(damped, abs=1e-4)
    assert free["most popular"]["ndcg_at_10"] == pytest.approx(popular, abs=1e-3)


def test_real_uploads_stay_far_within_the_grid(real_data: Callable[[str], Path]) -> None:
    split = random_split(load(real_data("ml-100k")))

    on_grid, largest = fit_on_grid(ModelConfig(), split.train, 12)

    assert largest < 100
    exact = held_out_error(learned(ModelConfig(), split.train, 12), split)
    assert held_out_error(on_grid, split) == pytest.approx(exact, abs=1e-4)


SOLVERS: list[Solver] = [
    VariationalBayes(3),
    WeightedBayes(3),
    Descent("sgd", 3, 2, 4, 5),
    Descent("momentum", 3, 2, 4, 5),
    Descent("adam", 3, 2, 4, 5),
    MostPopular(7),
    Ease(),
    Ease(client_noise_nano=9),
    ItemBiases(9, 7),
    Embeddings(9, 5, 2),
    LearnedPrior(2),
    ItemResiduals(9),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_a_solver_is_rebuilt_from_what_its_model_entry_says(solver: Solver) -> None:
    assert solver_from(solver.name, solver.parameters()) == solver


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("variational/2", {"n_factors": 3}),
        ("variational/1", {}),
        ("variational/1", {"n_factors": 3, "reg_nano": 1}),
        ("ease/1", Ease().parameters() | {"repeats_within_nano": 10**9}),
    ],
)
def test_a_solver_that_is_none_is_refused(name: str, parameters: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="solver"):
        solver_from(name, parameters)

"""Which statistic and which solver a configuration means, and learning with both in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Literal, TypeVar, assert_never

import numpy as np

from liberate.data.ratings import Ratings
from liberate.model.config import ModelConfig
from liberate.model.cooccurrence import Gram, Popularity
from liberate.model.implicit_factors import WeightedBayes, initial_weighted
from liberate.model.item_model import initial_items
from liberate.model.item_solvers import Ease, MostPopular
from liberate.model.kernels import server
from liberate.model.model import Model, initial, statistic_name
from liberate.model.private.evaluation import ErrorRelease, OwnErrors
from liberate.model.private.solvers import Embeddings, ItemBiases, ItemResiduals, LearnedPrior
from liberate.model.private.statistics import BiasSums, Moments, Residuals, n_directions
from liberate.model.solvers import AggregatedStatistics, Descent, ModelSource, Solver, VariationalBayes
from liberate.model.statistics import Gradient, NormalEquations, Statistic
from liberate.units import to_nano

_BATCH = 512
MOST_AUTO_ITEMS = 6_000
"""Largest catalogue for which the Gram is the default: its sum is then 18 million numbers, its solve 2 GB."""
_SOLVERS: Mapping[str, Callable[..., Solver]] = {
    "variational/1": VariationalBayes,
    "weighted/1": WeightedBayes,
    "sgd/1": partial(Descent, "sgd"),
    "momentum/1": partial(Descent, "momentum"),
    "adam/1": partial(Descent, "adam"),
    "popular/1": MostPopular,
    "ease/1": Ease,
    "item_biases/1": ItemBiases,
    "embeddings/1": Embeddings,
    "learned_prior/1": LearnedPrior,
    "item_residuals/1": ItemResiduals,
    "error_release/1": ErrorRelease,
}
SourceT = TypeVar("SourceT", bound=ModelSource)
_LEARNING_RATE = {"sgd": 2.0, "momentum": 1.0, "adam": 0.1}
_CAUTION = 0.1


def statistic_of(model: Model, *, noisy: bool) -> Statistic:
    """Return the statistic that the next round computes from a model; `noisy` says whether noise is added to it.

    Raises:
        ValueError: No statistic has the name that the model states.
    """
    match model.statistic:
        case "normal":
            return NormalEquations(model.n_items, model.n_factors)
        case "gradient":
            return Gradient(model.n_items, model.n_factors, noisy)
        case "popularity":
            return Popularity(model.n_items)
        case "gram" if "gram_items" in model.arrays:
            return Gram(len(model.arrays["gram_items"]))

        # Releases of bounded norm, for noise on their sum.
        case "bias":
            return BiasSums(model.n_items)
        case "residuals":
            return Residuals(model.n_items, n_directions(model))
        case "moments":
            return Moments(model.n_factors)
        case "evaluation" if noisy and model.predicts_ratings:
            return OwnErrors()

        case other:
            raise ValueError(f"no statistic is called {other!r}")


def build_method(config: ModelConfig, n_items: int, *, noisy: bool) -> tuple[Statistic, Solver]:
    """Return what devices compute and how the server solves it; `noisy` says whether noise is added in between.

    Where noise is added to every upload nothing but popularity survives, so that is all an implicit objective asks for.
    """
    if config.objective == "implicit":
        return _implicit(config, n_items, noisy=noisy)
    match statistic_name(config, noisy=noisy):
        case "normal":
            return NormalEquations(n_items, config.n_factors), VariationalBayes(config.n_factors)
        case "gradient":
            rate = config.learning_rate or _LEARNING_RATE[config.optimizer] * (_CAUTION if noisy else 1)
            descent = Descent(
                config.optimizer, config.n_factors, to_nano(rate), to_nano(config.reg), to_nano(config.bias_reg)
            )
            return Gradient(n_items, config.n_factors, noisy), descent
        case other:
            assert_never(other)


def _implicit(config: ModelConfig, n_items: int, *, noisy: bool) -> tuple[Statistic, Solver]:
    match _implicit_statistic(config, n_items, noisy=noisy):
        case "popularity":
            return Popularity(n_items), MostPopular(0)
        case "gram":
            return Gram(n_items), Ease()
        case "normal":
            return NormalEquations(n_items, config.n_factors), WeightedBayes(config.n_factors)
        case other:
            assert_never(other)


def _implicit_statistic(config: ModelConfig, n_items: int, *, noisy: bool) -> Literal["popularity", "gram", "normal"]:
    """Return the name of the statistic that good lists are learned by."""
    if noisy:
        return "popularity"
    match config.statistic:
        case "normal":
            return "normal"
        case "auto" if n_items > MOST_AUTO_ITEMS:
            return "normal"
        case _:
            return "gram"


def solver_from(name: str, parameters: Mapping[str, int]) -> Solver:
    """Rebuild the solver that a model entry names.

    Raises:
        ValueError: No solver has this name, or this one does not have exactly these parameters.
    """
    return rebuilt("solver", _SOLVERS, name, parameters)


def rebuilt(
    what: str, makers: Mapping[str, Callable[..., SourceT]], name: str, parameters: Mapping[str, int]
) -> SourceT:
    """Rebuild what made a model from its name and its parameters, some of which may follow from the others.

    Args:
        what: Names the kind of thing in the message.
        makers: What makes one, by name.
        name: See above.
        parameters: See above.

    Raises:
        ValueError: Nothing has this name, or what has does not have exactly these parameters.
    """
    if name not in makers:
        raise ValueError(f"no {what} is called {name!r}")
    taken = signature(makers[name]).parameters
    try:
        source = makers[name](**{key: value for key, value in parameters.items() if key in taken})
    except TypeError as error:
        raise ValueError(f"{what} {name} does not take {dict(parameters)}") from error
    if (source.name, source.parameters()) != (name, dict(parameters)):
        raise ValueError(f"{what} {name} does not take {dict(parameters)}")
    return source


def first_model(
    config: ModelConfig, n_items: int, low: float, high: float, secret: bytes, *, noisy: bool = False
) -> Model:
    """Return the model before the first round; arguments as of `model.initial`."""
    if config.objective == "explicit":
        return initial(config, n_items, low, high, secret, noisy=noisy)
    match _implicit_statistic(config, n_items, noisy=noisy):
        case "popularity" | "gram" as statistic:
            return initial_items(n_items, low, high, statistic=statistic, noisy=noisy)
        case "normal":
            return initial_weighted(config.n_factors, n_items, low, high, secret)
        case other:
            assert_never(other)


def fit(config: ModelConfig, ratings: Ratings, low: float, high: float, secret: bytes) -> Iterator[Model]:
    """Learn with all ratings in one place, without noise and without end: the initial model, then one model per round.

    Sums are float64 here; a federation's are integers on a grid, and its models differ by that rounding only.
    """
    statistic, solver = build_method(config, ratings.n_items, noisy=False)
    model = first_model(config, ratings.n_items, low, high, secret)
    yield model
    while True:
        model = solver.solve(model, aggregate_statistics(statistic, model, ratings))
        yield model


def aggregate_statistics(statistic: Statistic, model: Model, ratings: Ratings) -> AggregatedStatistics:
    """Add up what all devices compute, in float64."""
    n_rows, width, n_tail = statistic.shape
    rows = np.zeros((n_rows, width))
    tail = np.zeros(n_tail)
    for begin in range(0, ratings.n_users, _BATCH):
        batch = statistic.compute(model, ratings.select(np.arange(begin, min(begin + _BATCH, ratings.n_users))))
        server.add_rows(rows, batch.indices, batch.rows)
        tail += batch.tails.sum(axis=0)
    return AggregatedStatistics(rows, tail, ratings.n_users)

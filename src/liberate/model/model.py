"""The public model, its bytes and its digest, and the side that each device fits for itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from liberate.arrays import Float32Array, Float64Array
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.model.config import ModelConfig
from liberate.model.kernels import linear_algebra
from liberate.randomness import generator

Array = npt.NDArray[np.floating]
"""An array of a model: float32 or float64."""

_CENTRE = 0.625
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
INITIAL_NOISE_PRECISION = 1.3
_BIAS_VARIANCE = 0.2
_FACTOR_VARIANCE = 0.1
_INITIAL_DEVIATION = {"normal": 0.3, "gradient": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything public about what has been learned. `Model.of` makes one.

    A rating r is learned in standard units, (r - centre) / unit, so that a scale of any range looks like 1 to 5.
    Centre and unit follow from the scale alone: no number taken from ratings is needed before the first round.

    There are two kinds, told apart by their arrays; other arrays belong to the statistic and its solver.

    A factor model scores an item by p_u·q_i + b_u + b_i. With K = n_factors + 1 it has

    - `item_means`, (q_i, b_i), float32, shape (n_items, K);
    - `user_mean` and `user_precision`, the users' prior, float64, shapes (K,) and (K, K);
    - `noise_precision` of a rating, float64, shape (1,).

    An item model scores an item by the person's other items: see `items`. It has

    - `popularity` of each item, float64, shape (n_items,);
    - `gram_weights`, what a rating counts at each quarter of the scale, float64, shape (5,);
    - `item_weights`, if learned: what each chosen item says for each other, float32, shape (M, M);
    - `item_features`, if any: two items are publicly as alike as the product of their rows, shape (n_items, p).

    Either may have `gram_items`, the M chosen items: integers, strictly increasing, shape (M,).

    Attributes:
        version: Rounds behind this model, >= 0.
        statistic: Name of the statistic it is learned from.
        centre: Rating that is zero in standard units.
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
        arrays: Named arrays of float32 or float64, read only, in standard units.
    """

    version: int
    statistic: str
    centre: float
    low: float
    high: float
    arrays: Mapping[str, Array]

    @classmethod
    def of(cls, version: int, statistic: str, low: float, high: float, arrays: Mapping[str, Array]) -> Model:
        """Make a model of arrays, which become read only.

        Raises:
            ValueError: The scale is empty, an array is missing, of another shape, or holds impossible numbers.
        """
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"a scale from {low} to {high} has room for no two ratings")
        _check_arrays(arrays)
        for array in arrays.values():
            array.setflags(write=False)
        centre = low + _CENTRE * (high - low)
        return cls(version=version, statistic=statistic, centre=centre, low=low, high=high, arrays=dict(arrays))

    def next_version(self, statistic: str, arrays: Mapping[str, Array]) -> Model:
        """Return the model that follows this one, on the same scale.

        Raises:
            FederationError: The arrays make no model: somebody uploaded what no ratings lead to.
        """
        try:
            return Model.of(self.version + 1, statistic, self.low, self.high, arrays)
        except ValueError as error:
            raise FederationError(f"no model follows from the round's sum: {error}") from error

    @property
    def unit(self) -> float:
        """Rating points of one standard unit: a quarter of the scale."""
        return (self.high - self.low) / 4

    @property
    def is_item_model(self) -> bool:
        return "item_means" not in self.arrays

    @property
    def predicts_ratings(self) -> bool:
        """Whether scores are ratings to be expected, and not just an order."""
        return not (self.is_item_model or "level_targets" in self.arrays)

    @property
    def n_items(self) -> int:
        return len(self.arrays["popularity" if self.is_item_model else "item_means"])

    @property
    def n_factors(self) -> int:
        """Factors besides the bias; 0 in an item model, which has neither."""
        return 0 if self.is_item_model else int(self.arrays["item_means"].shape[1]) - 1

    @property
    def item_means(self) -> Float32Array:
        """(q_i, b_i) of each item in standard units, shape (n_items, n_factors + 1)."""
        return self.arrays["item_means"].astype(np.float32, copy=False)

    def float64(self, name: str) -> Float64Array:
        """Return an array of the model in float64."""
        return self.arrays[name].astype(np.float64, copy=False)

    def targets(self, ratings: Ratings) -> Float32Array:
        """Return what the scores of rated items are fitted to, shape (n_ratings,).

        That is the ratings in standard units; or, where the aim is a good list and not a good prediction, the number
        that `level_targets` has for the rating's level.
        """
        if "level_targets" in self.arrays:
            return level_weights(self.float64("level_targets"), ratings.values, self.low, self.high)
        return (ratings.values - np.float32(self.centre)) / np.float32(self.unit)


def level_weights(table: Float64Array, values: Float32Array, low: float, high: float) -> Float32Array:
    """Return the weight of each rating, shape (n_ratings,).

    Args:
        table: Weights at the quarters of the scale, lowest rating first, shape (5,).
        values: The ratings, shape (n_ratings,).
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
    """
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.interp(shares, _QUARTERS, table).astype(np.float32)


def _check_arrays(arrays: Mapping[str, Array]) -> None:
    """Raise ValueError unless the arrays every device reads are there, fit together and are finite."""
    is_item_model = "popularity" in arrays and "item_means" not in arrays
    shapes = _shapes_of_item_model(arrays) if is_item_model else _shapes_of_factor_model(arrays)
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            raise ValueError(f"no array {name} of shape {shape}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite")

    if "noise_precision" in arrays and not arrays["noise_precision"][0] > 0:
        raise ValueError("noise_precision is not positive")
    for name in ("gram_weights", "level_targets"):
        if name in arrays and not (arrays[name].shape == (5,) and 0 <= arrays[name].min() <= arrays[name].max() <= 1):
            raise ValueError(f"{name} are not five numbers from 0 to 1")
    if "gram_items" in arrays:
        _check_chosen(arrays["gram_items"], len(arrays["popularity" if is_item_model else "item_means"]))


def _shapes_of_item_model(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the arrays of an item model must have, given what it has.

    Raises:
        ValueError: It has no weights of ratings.
    """
    if "gram_weights" not in arrays:
        raise ValueError("no array gram_weights")
    n = arrays["popularity"].size
    shapes: dict[str, tuple[int, ...]] = {"popularity": (n,)}
    if "item_features" in arrays:
        shapes["item_features"] = (n, arrays["item_features"].size // max(n, 1))
    if "item_weights" in arrays:
        n_chosen = len(arrays["item_weights"])
        shapes |= {"gram_items": (n_chosen,), "item_weights": (n_chosen, n_chosen)}
    return shapes


def _shapes_of_factor_model(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the arrays of a factor model must have, given what it has.

    Raises:
        ValueError: It has no table of item means.
    """
    if "item_means" not in arrays or arrays["item_means"].ndim != 2:
        raise ValueError("no table of item means")
    n, k = arrays["item_means"].shape
    shapes = {"item_means": (n, k), "user_mean": (k,), "user_precision": (k, k), "noise_precision": (1,)}
    return shapes | ({"item_moments": (n, packed_size(k))} if "item_moments" in arrays else {})


def _check_chosen(chosen: Array, n_items: int) -> None:
    """Raise ValueError unless these are items of the catalogue, each once and in order."""
    are_items = chosen.ndim == 1 and (chosen == np.floor(chosen)).all() and (np.diff(chosen) > 0).all()
    if not are_items or (len(chosen) and not 0 <= chosen[0] <= chosen[-1] < n_items):
        raise ValueError(f"gram_items are not items 0 <= item < {n_items} in increasing order")


def packed_size(k: int) -> int:
    """Return the size of a packed symmetric matrix of shape (k, k)."""
    return k * (k + 1) // 2


def initial(config: ModelConfig, n_items: int, low: float, high: float, secret: bytes, *, noisy: bool = False) -> Model:
    """Return the model before the first round: small random item factors, and priors from public constants alone.

    Args:
        config: With n_factors = 0 items are all zero, and a device fits its bias and nothing else.
        n_items: Size of the catalogue, >= 0.
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
        secret: 32 bytes that fix the random factors.
        noisy: Whether noise will be added to what devices compute.

    Raises:
        ValueError: The scale is empty.
    """
    statistic = statistic_name(config, noisy=noisy)
    k = config.n_factors + 1

    means = np.zeros((n_items, k), np.float32)
    factors = generator(secret).standard_normal((n_items, k - 1), dtype=np.float32)
    means[:, :-1] = factors * np.float32(_INITIAL_DEVIATION[statistic])

    arrays: dict[str, Array] = {"item_means": means, "user_mean": np.zeros(k)}
    match statistic:
        case "normal":
            arrays |= {
                "item_moments": linear_algebra.outer(means),
                "item_mean": np.zeros(k),
                "item_precision": initial_precision(k),
                "user_precision": initial_precision(k),
                "noise_precision": np.array([INITIAL_NOISE_PRECISION]),
            }
        case "gradient":
            ridge = np.append(np.full(k - 1, config.reg), config.bias_reg)
            arrays |= {"user_precision": np.diag(ridge), "noise_precision": np.ones(1)}
        case other:
            assert_never(other)
    return Model.of(0, statistic, low, high, arrays)


def statistic_name(config: ModelConfig, *, noisy: bool) -> Literal["normal", "gradient"]:
    """Return the name of the statistic that explicit ratings are learned by."""
    match config.statistic:
        case "normal" | "gradient" as name:
            return name
        case _:
            return "gradient" if noisy else "normal"


def initial_precision(k: int) -> Float64Array:
    """Return the precision matrix of the prior that users and items start from, shape (k, k)."""
    return np.diag(1 / np.append(np.full(k - 1, _FACTOR_VARIANCE), _BIAS_VARIANCE))

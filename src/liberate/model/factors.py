"""The public model, its bytes and its digest, and the side that each device fits for itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from liberate.arrays import Digest, Float32Array, Float64Array, Int32Array
from liberate.errors import DataError
from liberate.model import kernels
from liberate.model.ratings import Ratings
from liberate.randomness import generator

Array = npt.NDArray[np.floating]
"""An array of a model: float32 or float64."""

_MAGIC = b"liberate model 1\n"
_DTYPES = ("<f4", "<f8")
_MOST_FACTORS = 128
_SMALLEST_STEP, _LARGEST_STEP = 1e-9, 1e9
_CENTRE = 0.625
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
INITIAL_NOISE_PRECISION = 1.3
_BIAS_VARIANCE = 0.2
_FACTOR_VARIANCE = 0.1
_INITIAL_DEVIATION = {"normal": 0.3, "gradient": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What is learned, and how.

    Attributes:
        objective: What is asked of the model: to predict ratings (`explicit`), or to order items for good lists
            (`implicit`).
        statistic: What a device computes in mode `plain`, and for explicit ratings in `local`: its normal equations,
            the paper's gradient, which items it rated together (`gram`), or by mode and objective (`auto`). For
            explicit that is the gradient where noise is added, else the normal equations; for implicit the Gram up to
            6,000 items, else the normal equations. `distributed` chooses its releases by public numbers.
        n_factors: Numbers in a user's and an item's factor besides the bias, 0 <= n_factors <= 128. 0 fits biases only.
        optimizer: How the server follows the gradient.
        learning_rate: Step of the optimizer, > 0: in standard units for adam, else per unit of a participant's mean
            gradient. Unset = adam 0.1, momentum 1, sgd 2; a tenth of that where noise is added.
        reg: Ridge of user and item factors under the gradient, in ratings, > 0. (Normal equations learn their own.)
        bias_reg: Ridge of user and item biases under the gradient, in ratings, > 0.
        tolerance: Learning without noise ends when the training error changes by no more than this share in a round,
            >= 0. Unset = 0.005 with normal equations, 0.0001 with the gradient.
    """

    objective: Literal["explicit", "implicit"] = "explicit"
    statistic: Literal["auto", "normal", "gradient", "gram"] = "auto"
    n_factors: int = 15
    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    learning_rate: float | None = None
    reg: float = 13.0
    bias_reg: float = 4.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.statistic == {"explicit": "gram", "implicit": "gradient"}[self.objective]:
            others = {"explicit": "normal, gradient", "implicit": "gram, normal"}[self.objective]
            raise ValueError(
                f"statistic {self.statistic} is not one for the objective {self.objective}, wanted auto, {others}"
            )
        if not 0 <= self.n_factors <= _MOST_FACTORS:
            raise ValueError(f"n_factors is {self.n_factors}, wanted 0 <= n_factors <= {_MOST_FACTORS}")
        for name, value in (("learning_rate", self.learning_rate), ("reg", self.reg), ("bias_reg", self.bias_reg)):
            if value is not None and not _SMALLEST_STEP <= value <= _LARGEST_STEP:
                raise ValueError(f"{name} is {value}, wanted {_SMALLEST_STEP} <= {name} <= {_LARGEST_STEP}")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance}, wanted 0 <= tolerance < 1")


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
        centre: Rating that stands for zero.
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
            raise ValueError(f"a scale from {low} to {high} holds no two ratings")
        _check_arrays(arrays)
        for array in arrays.values():
            array.setflags(write=False)
        centre = low + _CENTRE * (high - low)
        return cls(version=version, statistic=statistic, centre=centre, low=low, high=high, arrays=dict(arrays))

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
        """Give an array of the model in float64."""
        return self.arrays[name].astype(np.float64, copy=False)

    def targets(self, ratings: Ratings) -> Float32Array:
        """Give what the scores of rated items are fitted to, shape (n_ratings,).

        That is the ratings in standard units; or, where the aim is a good list and not a good prediction, the number
        that `level_targets` has for the rating's level.
        """
        if "level_targets" in self.arrays:
            return level_weights(self.float64("level_targets"), ratings.values, self.low, self.high)
        return (ratings.values - np.float32(self.centre)) / np.float32(self.unit)


def level_weights(table: Float64Array, values: Float32Array, low: float, high: float) -> Float32Array:
    """Give the weight of each rating, shape (n_ratings,).

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
    shapes: dict[str, tuple[int, ...]]
    if "popularity" in arrays and "item_means" not in arrays:
        n = arrays["popularity"].size
        shapes = {"popularity": (n,)}
        if "gram_weights" not in arrays:
            raise ValueError("no array gram_weights")
        if "item_features" in arrays:
            shapes["item_features"] = (n, arrays["item_features"].size // max(n, 1))
        if "item_weights" in arrays:
            shapes["gram_items"] = (len(arrays["item_weights"]),)
            shapes["item_weights"] = (len(arrays["item_weights"]),) * 2
    else:
        if "item_means" not in arrays or arrays["item_means"].ndim != 2:
            raise ValueError("no table of item means")
        n, k = arrays["item_means"].shape
        shapes = {"item_means": (n, k), "user_mean": (k,), "user_precision": (k, k), "noise_precision": (1,)}
        if "item_moments" in arrays:
            shapes["item_moments"] = (n, packed_size(k))
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
        _check_chosen(arrays["gram_items"], n)


def _check_chosen(chosen: Array, n_items: int) -> None:
    """Raise ValueError unless these are items of the catalogue, each once and in order."""
    are_items = chosen.ndim == 1 and (chosen == np.floor(chosen)).all() and (np.diff(chosen) > 0).all()
    if not are_items or (len(chosen) and not 0 <= chosen[0] <= chosen[-1] < n_items):
        raise ValueError(f"gram_items are not items 0 <= item < {n_items} in increasing order")


def packed_size(k: int) -> int:
    """Give the size of a packed symmetric matrix of shape (k, k)."""
    return k * (k + 1) // 2


def initial(config: ModelConfig, n_items: int, low: float, high: float, secret: bytes, *, noisy: bool = False) -> Model:
    """Give the model before the first round: small random item factors, and priors from public constants alone.

    Args:
        config: With n_factors = 0 items are all zero, and a device fits its own bias and nothing else.
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
                "item_moments": kernels.outer(means),
                "item_mean": np.zeros(k),
                "item_precision": initial_precision(k),
                "user_precision": initial_precision(k),
                "noise_precision": np.array([INITIAL_NOISE_PRECISION]),
            }
        case "gradient":
            ridge = np.full(k, config.reg)
            ridge[-1] = config.bias_reg
            arrays |= {"user_precision": np.diag(ridge), "noise_precision": np.ones(1)}
        case other:
            assert_never(other)
    return Model.of(0, statistic, low, high, arrays)


def statistic_name(config: ModelConfig, *, noisy: bool) -> Literal["normal", "gradient"]:
    """Give the name of the statistic that explicit ratings are learned by."""
    match config.statistic:
        case "normal" | "gradient" as name:
            return name
        case _:
            return "gradient" if noisy else "normal"


def initial_precision(k: int) -> Float64Array:
    """Give the precision matrix of the prior that users and items start from, shape (k, k)."""
    variances = np.full(k, _FACTOR_VARIANCE)
    variances[-1] = _BIAS_VARIANCE
    return np.diag(1 / variances)


@dataclass(frozen=True, slots=True)
class Profiles:
    """What devices know about themselves, in standard units.

    Attributes:
        means: E[(p_u, b_u)], shape (n_devices, K).
        moments: Second moments of the same, packed, shape (n_devices, K * (K + 1) / 2).
        errors: Expected squared error over the device's ratings, shape (n_devices,).
    """

    means: Float32Array
    moments: Float32Array
    errors: Float64Array


def item_moments_of(model: Model) -> Float32Array:
    """Give E[w wᵀ] of each item, packed, shape (n_items, P): of points where the model says no more."""
    moments = model.arrays.get("item_moments")
    return kernels.outer(model.item_means) if moments is None else moments.astype(np.float32, copy=False)


def fit_profiles(model: Model, ratings: Ratings, targets: Float32Array) -> Profiles:
    """Fit each device's own side with its uncertainty. `targets` are `model.targets(ratings)`.

    Raises:
        ValueError: The ratings are of another catalogue.
    """
    if ratings.n_items != model.n_items:
        raise ValueError(f"ratings of {ratings.n_items} items, but a model of {model.n_items}")
    item_means, item_moments = model.item_means, item_moments_of(model)
    precision = model.float64("user_precision")
    item_moments.setflags(write=False)  # as a model's own: kernels are compiled once
    n, k = ratings.n_users, item_means.shape[1]
    profiles = Profiles(
        np.empty((n, k), np.float32), np.empty((n, item_moments.shape[1]), np.float32), np.empty(n, np.float64)
    )
    kernels.fit_profiles(
        ratings.indptr,
        ratings.items,
        targets,
        item_means,
        item_moments,
        np.float32(model.float64("noise_precision")[0]),
        precision.astype(np.float32),
        kernels.multiply(precision, model.float64("user_mean")).astype(np.float32),
        profiles.means,
        profiles.moments,
        profiles.errors,
    )
    return profiles


def fit_devices(model: Model, ratings: Ratings) -> Float32Array:
    """Fit each device's own side (p_u, b_u), exactly, given the model and the device's own ratings.

    Returns:
        Profiles in standard units, bias last, shape (n_users, n_factors + 1). A user's row depends on nobody else's.
        An item model has nothing to fit: shape (n_users, 0).
    """
    if model.is_item_model:
        return np.zeros((ratings.n_users, 0), np.float32)
    return fit_profiles(model, ratings, model.targets(ratings)).means


def predict(model: Model, profiles: Float32Array, users: Int32Array, items: Int32Array) -> Float32Array:
    """Predict the rating of each (user, item) pair, clipped to the scale; `users` are rows of `profiles`.

    Raises:
        ValueError: The model orders items and predicts no ratings.
        IndexError: A user or an item is out of range.
    """
    if not model.predicts_ratings:
        raise ValueError("the model orders items and predicts no ratings")
    for index, size in ((users, len(profiles)), (items, model.n_items)):
        if len(index) and not 0 <= index.min() <= index.max() < size:
            raise IndexError(f"an index outside 0 <= index < {size}")
    scores = kernels.predict_pairs(profiles, model.item_means, users, items)
    scores = scores * np.float32(model.unit) + np.float32(model.centre)
    return np.clip(scores, np.float32(model.low), np.float32(model.high), out=scores)


def encode(model: Model) -> bytes:
    """Encode a model: a line that names the format, a line of JSON, then the arrays by name, little-endian."""
    arrays = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in sorted(model.arrays.items())}
    header = {
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
        "high": float(model.high),
        "low": float(model.low),
        "statistic": model.statistic,
        "version": model.version,
    }
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    return b"".join([_MAGIC, text, b"\n", *(array.tobytes() for array in arrays.values())])


def decode(data: bytes) -> Model:
    """Read a model back from its bytes.

    Raises:
        DataError: the bytes are no encoded model, or not the one encoding of it.
    """
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("the format is unknown")
        end = data.index(b"\n", len(_MAGIC))
        header = json.loads(data[len(_MAGIC) : end])
        arrays: dict[str, Array] = {}
        place = end + 1
        for name, dtype, shape in header["arrays"]:
            if dtype not in _DTYPES:
                raise ValueError(f"{name} is of type {dtype}")
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(data, dtype, count, place).reshape(shape)
            place += arrays[name].nbytes
        result = Model.of(header["version"], header["statistic"], header["low"], header["high"], arrays)
        if encode(result) != data:
            raise ValueError("it is not in canonical form")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"these bytes are no model: {error}") from error
    return result


def model_digest(data: bytes) -> Digest:
    """Give the SHA-256 of an encoded model."""
    return Digest(sha256(data).digest())

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
INITIAL_NOISE_PRECISION = 1.3
_BIAS_VARIANCE = 0.2
_FACTOR_VARIANCE = 0.1
_INITIAL_DEVIATION = {"normal": 0.3, "gradient": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What is learned, and how.

    Attributes:
        statistic: What a device computes: its normal equations, the paper's gradient, or by the mode (`auto`): the
            gradient where noise is added, else the normal equations.
        n_factors: Numbers in a user's and an item's factor besides the bias, 0 <= n_factors <= 128. 0 fits biases only.
        optimizer: How the server follows the gradient.
        learning_rate: Step of the optimizer, > 0: in standard units for adam, else per unit of a participant's mean
            gradient. Unset = adam 0.1, momentum 1, sgd 2; a tenth of that where noise is added.
        reg: Ridge of user and item factors under the gradient, in ratings, > 0. (Normal equations learn their own.)
        bias_reg: Ridge of user and item biases under the gradient, in ratings, > 0.
        tolerance: Learning without noise ends when the training error changes by no more than this share in a round,
            >= 0. Unset = 0.005 with normal equations, 0.0001 with the gradient.
    """

    statistic: Literal["auto", "normal", "gradient"] = "auto"
    n_factors: int = 15
    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    learning_rate: float | None = None
    reg: float = 13.0
    bias_reg: float = 4.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
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

    With K = n_factors + 1 these arrays are always there; others belong to the statistic's solver:

    - `item_means`, (q_i, b_i), float32, shape (n_items, K);
    - `user_mean` and `user_precision`, the users' prior, float64, shapes (K,) and (K, K);
    - `noise_precision` of a rating, float64, shape (1,).

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
    def n_items(self) -> int:
        return len(self.arrays["item_means"])

    @property
    def n_factors(self) -> int:
        return int(self.arrays["item_means"].shape[1]) - 1

    @property
    def item_means(self) -> Float32Array:
        """(q_i, b_i) of each item in standard units, shape (n_items, n_factors + 1)."""
        return self.arrays["item_means"].astype(np.float32, copy=False)

    def float64(self, name: str) -> Float64Array:
        """Give an array of the model in float64."""
        return self.arrays[name].astype(np.float64, copy=False)

    def targets(self, ratings: Ratings) -> Float32Array:
        """Give the ratings in standard units, shape (n_ratings,)."""
        return (ratings.values - np.float32(self.centre)) / np.float32(self.unit)


def _check_arrays(arrays: Mapping[str, Array]) -> None:
    """Raise ValueError unless the arrays every device reads are there, fit together and are finite."""
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
    if not arrays["noise_precision"][0] > 0:
        raise ValueError("noise_precision is not positive")


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
    """Give the name of the statistic that `auto` stands for."""
    if config.statistic != "auto":
        return config.statistic
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


def fit_profiles(model: Model, ratings: Ratings, targets: Float32Array) -> Profiles:
    """Fit each device's own side with its uncertainty. `targets` are `model.targets(ratings)`.

    Raises:
        ValueError: The ratings are of another catalogue.
    """
    if ratings.n_items != model.n_items:
        raise ValueError(f"ratings of {ratings.n_items} items, but a model of {model.n_items}")
    item_means = model.item_means
    moments = model.arrays.get("item_moments")
    item_moments = kernels.outer(item_means) if moments is None else moments.astype(np.float32, copy=False)
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
    """
    return fit_profiles(model, ratings, model.targets(ratings)).means


def predict(model: Model, profiles: Float32Array, users: Int32Array, items: Int32Array) -> Float32Array:
    """Predict the rating of each (user, item) pair, clipped to the scale; `users` are rows of `profiles`.

    Raises:
        IndexError: A user or an item is out of range.
    """
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
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"these bytes are no model: {error}") from error
    return result


def model_digest(data: bytes) -> Digest:
    """Give the SHA-256 of an encoded model."""
    return Digest(sha256(data).digest())

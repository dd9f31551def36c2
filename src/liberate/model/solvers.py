"""What the sum over devices becomes: the next public model.

Every solve runs in float64 in one fixed order of IEEE operations, so that whoever has the sum repeats the model to the
bit. Parameters are integers for the same reason: they are printed in the ledger, in billionths where the name says so.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from liberate.arrays import Float64Array
from liberate.model import model
from liberate.model.kernels import linear_algebra, server
from liberate.model.model import Array, Model, packed_size
from liberate.model.statistics import require
from liberate.units import from_nano, to_nano

FIRST_VERSION = "first_version"
"""Array of a model of a further run: the version that the run started at, shape (1,); without it, 0."""

_PSEUDO_COUNT = 10.0
_MOMENTUM = 0.9
_ADAM_MEAN_DECAY = 0.9
_ADAM_SQUARE_DECAY = 0.99
_ADAM_FLOOR = 1e-8
_LARGEST = 8.0
_KEPT_BY_DESCENT = ("user_mean", "user_precision", "noise_precision", FIRST_VERSION)
_TOLERANCE = {"normal": 5e-3, "gradient": 1e-4}


@dataclass(frozen=True, slots=True)
class AggregatedStatistics:
    """The sum of what devices computed.

    Attributes:
        rows: Sum of each item's rows, shape (n_items, width).
        tail: Sum of the tails, shape (n_tail,).
        n_devices: Devices in the sum, >= 0.
        n_copies: Weight of the copies of others' ratings that devices have added to their own, in people, >= 0.
    """

    rows: Float64Array
    tail: Float64Array
    n_devices: int
    n_copies: float = 0.0

    @property
    def n_participants(self) -> float:
        """Whose ratings are in the sum, in people."""
        return self.n_devices + self.n_copies


class ModelSource(Protocol):
    """What made a model, as its entry in the ledger names it."""

    @property
    def name(self) -> str:
        """Name and version, such as `adam/1`; the version changes with the bits of the result."""

    def parameters(self) -> dict[str, int]:
        """Return all that the result depends on besides the base model and what was learned from."""


class Solver(ModelSource, Protocol):
    """Turns a sum into the next model."""

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        """Return the model of the next version.

        Raises:
            ValueError: The model belongs to another statistic or has another number of factors.
            FederationError: No finite model follows from the sum: somebody uploaded what no ratings lead to.
        """


@dataclass(frozen=True, slots=True)
class IntegerSolver:
    """A solver whose result depends on its fields alone, all of them integers, besides model and sum.

    Attributes:
        repeats_within: Largest difference of an array of the model when the same sum is solved elsewhere: LAPACK is
            needed; 0 where the solver repeats to the bit.
    """

    repeats_within: ClassVar[float] = 0.0

    def parameters(self) -> dict[str, int]:
        tolerance = {"repeats_within_nano": to_nano(self.repeats_within)} if self.repeats_within else {}
        return asdict(self) | tolerance


@dataclass(frozen=True, slots=True)
class VariationalBayes(IntegerSolver):
    """Solves each item's normal equations, then learns the priors and the noise precision (empirical Bayes).

    Priors are Gaussians with a mean and a full covariance, learned as if ten more users (items) of the initial prior
    had been seen: with few participants they stay proper.

    Source: Lim and Teh 2007, with a bias on each side and full priors instead of diagonal ones.

    Attributes:
        n_factors: Factors of the model, >= 0.
    """

    n_factors: int

    name: ClassVar[str] = "variational/1"

    def items(self, model: Model, noise_precision: float, rows: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Solve some items, each by its own sums.

        Args:
            model: The base model.
            noise_precision: Of a rating, > 0.
            rows: Sums of the items, shape (n, width).

        Returns:
            E[w] and E[w wᵀ], packed, of these items, shapes (n, K) and (n, K(K + 1)/2).
        """
        precision = model.float64("item_precision")
        return solve_items(
            rows, noise_precision, precision, linear_algebra.multiply(precision, model.float64("item_mean"))
        )

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "normal", self.n_factors)
        n_packed = packed_size(self.n_factors + 1)
        counts = total.rows[:, n_packed - 1]
        count, error = math.fsum(counts), float(total.tail[-1])

        user_mean, user_precision = _learned_prior(total.tail[:n_packed], total.tail[n_packed:-1], total.n_participants)
        means, moments = self.items(model, noise_precision_of(count, error), total.rows)
        change = server.error_change(
            total.rows, means, moments, model.float64("item_means"), model.float64("item_moments")
        )
        noise_precision = noise_precision_of(count, error + change)

        # Items that nobody rated lie where the prior puts them: they say nothing of it.
        rated = counts > 0
        item_mean, item_precision = _learned_prior(
            server.column_sums(moments[rated]), server.column_sums(means[rated]), int(rated.sum())
        )
        return model.next_version(
            model.statistic,
            {
                "item_means": means.astype(np.float32),
                "item_moments": moments.astype(np.float32),
                "user_mean": user_mean,
                "user_precision": user_precision,
                "item_mean": item_mean,
                "item_precision": item_precision,
                "noise_precision": np.array([noise_precision]),
                "training_error": np.array([1 / noise_precision]),
            },
        )


def solve_items(
    rows: Float64Array, noise_precision: float, prior_precision: Float64Array, prior_target: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Return E[w] and E[w wᵀ], packed, of each item by its sums; arguments as of `kernels.server.solve_items`."""
    k = len(prior_target)
    means, moments = np.empty((len(rows), k)), np.empty((len(rows), packed_size(k)))
    server.solve_items(rows, noise_precision, prior_precision, prior_target, means, moments)
    return means, moments


def noise_precision_of(count: float, error: float) -> float:
    """Return the noise precision of `count` ratings with a sum of squared errors, one pseudo-rating included."""
    return (count + 1) / (error + 1 / model.INITIAL_NOISE_PRECISION)


def _learned_prior(moment_sum: Float64Array, mean_sum: Float64Array, n: float) -> tuple[Float64Array, Float64Array]:
    """Return mean and precision of the Gaussian that fits n posteriors, from sums of packed moments and of means."""
    k = len(mean_sum)
    mean = mean_sum / (n + _PSEUDO_COUNT)
    covariance = np.diag(_PSEUDO_COUNT / np.diag(model.initial_precision(k)))
    lower = np.tril_indices(k)
    covariance[lower] += moment_sum
    covariance /= n + _PSEUDO_COUNT
    covariance -= np.outer(mean, mean)
    return mean, linear_algebra.invert(covariance)


@dataclass(frozen=True, slots=True)
class Descent:
    """Follows the gradient: plain steps, momentum, or Adam.

    Factors and biases are kept within ±8 standard units, twice the width of the scale: a sum that is mostly noise
    cannot carry the model away. Sums that are not noisy never get there.

    Source: Kingma and Ba 2015, "Adam: a method for stochastic optimization"; decays 0.9 and 0.99. Momentum 0.9.

    Attributes:
        optimizer: How to follow the gradient.
        n_factors: Factors of the model, >= 0.
        learning_rate_nano: Step, in billionths, > 0: in standard units for adam, else per unit of a device's mean
            gradient.
        reg_nano: Ridge of an item's factors, in billionths of a rating, > 0.
        bias_reg_nano: Ridge of an item's bias, likewise.
    """

    optimizer: Literal["sgd", "momentum", "adam"]
    n_factors: int
    learning_rate_nano: int
    reg_nano: int
    bias_reg_nano: int

    @property
    def name(self) -> str:
        return f"{self.optimizer}/1"

    def parameters(self) -> dict[str, int]:
        return {
            "n_factors": self.n_factors,
            "learning_rate_nano": self.learning_rate_nano,
            "reg_nano": self.reg_nano,
            "bias_reg_nano": self.bias_reg_nano,
        }

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, "gradient", self.n_factors)
        means = model.float64("item_means")
        ridge = np.append(np.full(self.n_factors, from_nano(self.reg_nano)), from_nano(self.bias_reg_nano))
        gradient = (total.rows - ridge * means) / max(1, total.n_participants)
        step, state = self._step(model, gradient)
        moved = np.clip(means + from_nano(self.learning_rate_nano) * step, -_LARGEST, _LARGEST)

        kept = [name for name in _KEPT_BY_DESCENT if name in model.arrays]
        arrays: dict[str, Array] = {name: model.float64(name) for name in kept}
        arrays["item_means"] = moved.astype(np.float32)
        if len(total.tail):
            arrays["training_error"] = total.tail.copy()
        return model.next_version(model.statistic, arrays | state)

    def _step(self, model: Model, gradient: Float64Array) -> tuple[Float64Array, dict[str, Array]]:
        """Return the direction to move in, per unit of learning rate, and the optimizer's next state."""
        match self.optimizer:
            case "sgd":
                return gradient, {}
            case "momentum":
                velocity = _MOMENTUM * _state(model, "velocity", gradient) + gradient
                return velocity, {"velocity": velocity}
            case "adam":
                mean = _ADAM_MEAN_DECAY * _state(model, "gradient_mean", gradient) + (1 - _ADAM_MEAN_DECAY) * gradient
                square = _state(model, "gradient_square", gradient)
                square = _ADAM_SQUARE_DECAY * square + (1 - _ADAM_SQUARE_DECAY) * (gradient * gradient)
                steps = model.version + 1 - int(_state(model, FIRST_VERSION, np.zeros(1))[0])
                unbiased = mean / (1 - _power(_ADAM_MEAN_DECAY, steps))
                scale = np.sqrt(square / (1 - _power(_ADAM_SQUARE_DECAY, steps))) + _ADAM_FLOOR
                return unbiased / scale, {"gradient_mean": mean, "gradient_square": square}


def _state(model: Model, name: str, like: Float64Array) -> Float64Array:
    """Return an array of the optimizer's state, zero at first."""
    return model.float64(name) if name in model.arrays else np.zeros_like(like)


def _power(base: float, exponent: int) -> float:
    """Multiply in one order: the mathematical library's power may differ between machines."""
    return math.prod([base] * exponent)


def has_converged(previous: Model, current: Model, tolerance: float | None) -> bool:
    """Tell whether the training error of two models that follow each other differs by no more than a share.

    Args:
        previous: A model.
        current: The next one.
        tolerance: The share, >= 0; None = the statistic's own, see `ModelConfig`.

    Returns:
        False for a model without a training error: the first of a run, and all that noise was added to.
    """
    if "training_error" not in previous.arrays or "training_error" not in current.arrays:
        return False
    share = _TOLERANCE[current.statistic] if tolerance is None else tolerance
    before, after = float(previous.float64("training_error")[0]), float(current.float64("training_error")[0])
    return abs(before - after) <= share * before

"""How good predictions are, as one release: a sum of people's own errors, noised, and the figure that follows from it.

With m_u the mean squared error of a person's held-out ratings, in squared standard units, and [h_u] whether any is held
out, the person adds (clip(m_u - c, ±b), k) [h_u]. Of the noisy sums y₁ and y₂ over people

    sqrt(c + k y₁ / y₂)

is the RMSE over people, each with the same weight, an m_u above c + b counted as that. The nearer c is to the mean of
m_u, and the nearer k² is to b times their distance, the less the noise moves it. All constants are public: they belong
to the scale, of which a standard unit is a quarter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from liberate.arrays import RealStatistics
from liberate.data.ratings import Ratings
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.model.solvers import AggregatedStatistics, IntegerSolver
from liberate.model.statistics import require
from liberate.units import from_nano

EVALUATION = "evaluation"
"""Name of the statistic, and of the array in which a model has its noisy sums."""

CENTRE = 1.5
"""c: squared error about which people's own is counted."""
REACH = 1.5
"""b: so far from it at most."""
EXPECTED = 0.9
"""What the mean of people's squared errors is taken to be: that of films rated from 1 to 5."""
PRESENCE = math.sqrt(REACH * (CENTRE - EXPECTED))
"""k: what somebody who holds ratings out adds to the second sum."""
EVALUATION_NORM = math.hypot(REACH, PRESENCE)
"""L2 norm that a person adds at most: the sensitivity under zero-out."""

_LEAST_SIGNAL = 4.0
"""Deviations of noise that the second sum must exceed: else its quotient means nothing."""


@dataclass(frozen=True, slots=True)
class PeopleError:
    """The RMSE over people, each with the same weight, as a noisy release tells it.

    Attributes:
        rmse: In rating points, >= 0; a person's mean squared error above 3 squared standard units is counted as that.
        deviation: Standard deviation of what the noise does to it, in rating points, to first order.
    """

    rmse: float
    deviation: float


@dataclass(frozen=True, slots=True)
class OwnErrors:
    """A person's error on what the device holds out: see the module. One row of two numbers, both zero of nothing."""

    name: ClassVar[str] = EVALUATION
    shape: ClassVar[tuple[int, int, int]] = (1, 2, 0)

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        """Compute for devices that hold nothing out."""
        return self.measure(model, ratings, ratings.where(np.zeros(ratings.n_ratings, np.bool_)))

    def measure(self, model: Model, ratings: Ratings, held_out: Ratings) -> RealStatistics:
        """Compute for devices, from what they learn from and what they hold out.

        Raises:
            ValueError: The model belongs to another statistic, or predicts no ratings.
        """
        require(model, self.name)
        n, owners = ratings.n_users, held_out.users()
        predicted = predict(model, fit_devices(model, ratings), owners, held_out.items).astype(np.float64)

        # bincount adds in the order of the ratings, so that a device's bits do not depend on its batch
        squares = np.bincount(owners, ((predicted - held_out.values) / model.unit) ** 2, n)
        counts = np.diff(held_out.indptr)
        errors = np.clip(squares / np.maximum(counts, 1) - CENTRE, -REACH, REACH)
        rows = np.stack([errors, np.full(n, PRESENCE)], axis=1) * (counts > 0)[:, None]

        return RealStatistics(
            indptr=np.arange(n + 1, dtype=np.int64),
            indices=np.zeros(n, np.int32),
            rows=rows.astype(np.float32),
            tails=np.zeros((n, 0)),
        )


@dataclass(frozen=True, slots=True)
class ErrorRelease(IntegerSolver):
    """Leaves the model as it is, and puts the noisy sums and the deviation of their noise beside it.

    Attributes:
        client_noise_nano: Standard deviation of one client's noise in each coordinate, in billionths; 0 without noise.
    """

    client_noise_nano: int

    name: ClassVar[str] = "error_release/1"

    def solve(self, model: Model, total: AggregatedStatistics) -> Model:
        require(model, EVALUATION)
        deviation = from_nano(self.client_noise_nano) * math.sqrt(total.n_devices)
        released = np.append(total.rows[0], deviation)
        return model.next_version(EVALUATION, dict(model.arrays) | {EVALUATION: released})


def people_error(model: Model) -> PeopleError | None:
    """Return the figure that a model carries; None where none was released, or noise has drowned it."""
    if EVALUATION not in model.arrays:
        return None
    errors, people, noise = model.float64(EVALUATION).tolist()
    if people <= _LEAST_SIGNAL * noise or people <= 0:
        return None

    ratio = errors / people
    square = CENTRE + PRESENCE * ratio
    if square <= 0:
        return None
    return PeopleError(model.unit * math.sqrt(square), model.unit * _deviation(square, ratio, noise / people))


def expected_deviation(noise: float, n_participants: int) -> float:
    """Return what noise of a deviation is expected to do to the figure, as a standard deviation in standard units."""
    people = PRESENCE * n_participants
    return _deviation(EXPECTED, (EXPECTED - CENTRE) / PRESENCE, noise / people)


def _deviation(square: float, ratio: float, noise: float) -> float:
    """Return the standard deviation of the root of `square`, to first order; noise is that of a sum in parts of y₂."""
    return PRESENCE * noise * math.hypot(1, ratio) / (2 * math.sqrt(square))

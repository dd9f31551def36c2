"""What a device computes from its own ratings and the public model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from liberate.arrays import RealStatistics
from liberate.data.ratings import Ratings
from liberate.model.kernels import device
from liberate.model.model import Model, packed_size
from liberate.model.profiles import fit_profiles


class Statistic(Protocol):
    """What devices compute: rows of a table with `n_rows` rows of `width` numbers, and a tail of `n_tail` numbers."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows of the table, numbers in a row, numbers in the tail: (n_rows, width, n_tail)."""

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        """Compute for a batch of devices, in standard units.

        What a device gets follows, to the bit, from the model and its own ratings: neither the batch nor the number of
        cores matters.

        Raises:
            ValueError: The model belongs to another statistic or has another number of factors.
        """


@dataclass(frozen=True, slots=True)
class Gradient:
    """The paper's upload: the negative gradient of half the squared error by (q_i, b_i), the user's side fitted first.

    A row is e·(p_u, 1), e the error. The tail is the squared error over its ratings where no noise is added, and
    empty where it is: a private round releases nothing on the side.

    Attributes:
        n_items: Size of the catalogue, >= 0.
        n_factors: Factors of the model, >= 0.
        noisy: Whether noise will be added.
    """

    n_items: int
    n_factors: int
    noisy: bool

    name: ClassVar[str] = "gradient"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n_items, self.n_factors + 1, 0 if self.noisy else 1

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        require(model, self.name, self.n_factors)
        targets = model.targets(ratings)
        means = fit_profiles(model, ratings, targets).means
        _, width, n_tail = self.shape
        rows = np.empty((ratings.n_ratings, width), np.float32)
        errors = np.empty(ratings.n_users)
        device.gradient_rows(ratings.indptr, ratings.items, targets, means, model.item_means, rows, errors)
        tails = errors[:, None][:, :n_tail]
        return RealStatistics(indptr=ratings.indptr, indices=ratings.items, rows=rows, tails=tails)


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """A device's part in the items' normal equations, its own side integrated out (variational federated ALS).

    With K = n_factors + 1, x = (p_u, b_u), z = (p_u, 1) and y a rating in standard units, a row is E[z zᵀ], its lower
    triangle row by row (P = K(K + 1)/2 numbers, the last of them 1), then E[(y - b_u) z] (K numbers).
    The tail is E[x xᵀ] (P numbers), E[x] (K numbers) and the expected squared error over the device's ratings.

    Attributes:
        n_items: Size of the catalogue, >= 0.
        n_factors: Factors of the model, >= 0.
    """

    n_items: int
    n_factors: int

    name: ClassVar[str] = "normal"

    @property
    def shape(self) -> tuple[int, int, int]:
        width = packed_size(self.n_factors + 1) + self.n_factors + 1
        return self.n_items, width, width + 1

    def compute(self, model: Model, ratings: Ratings) -> RealStatistics:
        require(model, self.name, self.n_factors)
        targets = model.targets(ratings)
        sides = fit_profiles(model, ratings, targets)
        rows = np.empty((ratings.n_ratings, self.shape[1]), np.float32)
        device.normal_rows(ratings.indptr, targets, sides.means, sides.moments, rows)
        tails = np.concatenate([sides.moments, sides.means, sides.errors[:, None]], axis=1)
        return RealStatistics(indptr=ratings.indptr, indices=ratings.items, rows=rows, tails=tails)


def require(model: Model, statistic: str, n_factors: int | None = None) -> None:
    """Refuse a model that belongs to another statistic or, if that matters, has another number of factors.

    Raises:
        ValueError: It does.
    """
    if model.statistic != statistic and n_factors is None:
        raise ValueError(f"the model is of {model.statistic}, not of {statistic}")
    if n_factors is not None and (model.statistic, model.n_factors) != (statistic, n_factors):
        raise ValueError(
            f"the model is of {model.statistic} with {model.n_factors} factors, not {statistic} with {n_factors}"
        )

"""What a device computes from its own ratings and the public model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from liberate.arrays import RealRows
from liberate.model import kernels
from liberate.model.factors import Model, fit_profiles, packed_size
from liberate.model.ratings import Ratings


class Statistic(Protocol):
    """What devices compute: one row of `width` numbers per rated item, and a tail of `tail` numbers per device."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def tail(self) -> int: ...

    def compute(self, model: Model, ratings: Ratings) -> RealRows:
        """Compute for a batch of devices, in standard units.

        What a device gets follows, to the bit, from the model and its own ratings: neither the batch nor the number of
        cores matters. One row per rating, in the order of `ratings`.

        Raises:
            ValueError: the model belongs to another statistic or has another number of factors.
        """
        ...


@dataclass(frozen=True, slots=True)
class Gradient:
    """The paper's upload: the negative gradient of half the squared error by (q_i, b_i), the own side fitted first.

    A row is e·(p_u, 1), e the error. The tail is the squared error over the own ratings where no noise is added, and
    empty where it is: a private round releases nothing on the side.

    Attributes:
        n_factors: Factors of the model, >= 0.
        noisy: Whether noise will be added.
    """

    n_factors: int
    noisy: bool

    @property
    def name(self) -> str:
        return "gradient"

    @property
    def width(self) -> int:
        return self.n_factors + 1

    @property
    def tail(self) -> int:
        return 0 if self.noisy else 1

    def compute(self, model: Model, ratings: Ratings) -> RealRows:
        require(model, self.name, self.n_factors)
        targets = model.targets(ratings)
        means = fit_profiles(model, ratings, targets).means
        rows = np.empty((ratings.n_ratings, self.width), np.float32)
        errors = np.empty(ratings.n_users)
        kernels.gradient_rows(ratings.indptr, ratings.items, targets, means, model.item_means, rows, errors)
        tails = errors[:, None][:, : self.tail]
        return RealRows(indptr=ratings.indptr, items=ratings.items, rows=rows, tails=tails)


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """A device's part in the items' normal equations, its own side integrated out (variational federated ALS).

    With K = n_factors + 1, x = (p_u, b_u), z = (p_u, 1) and y a rating in standard units, a row is E[z zᵀ], its lower
    triangle row by row (P = K(K + 1)/2 numbers, the last of them 1), then E[(y - b_u) z] (K numbers).
    The tail is E[x xᵀ] (P numbers), E[x] (K numbers) and the expected squared error over the own ratings.

    Attributes:
        n_factors: Factors of the model, >= 0.
    """

    n_factors: int

    @property
    def name(self) -> str:
        return "normal"

    @property
    def width(self) -> int:
        return packed_size(self.n_factors + 1) + self.n_factors + 1

    @property
    def tail(self) -> int:
        return self.width + 1

    def compute(self, model: Model, ratings: Ratings) -> RealRows:
        require(model, self.name, self.n_factors)
        targets = model.targets(ratings)
        own = fit_profiles(model, ratings, targets)
        rows = np.empty((ratings.n_ratings, self.width), np.float32)
        kernels.normal_rows(ratings.indptr, targets, own.means, own.moments, rows)
        tails = np.concatenate([own.moments, own.means, own.errors[:, None]], axis=1)
        return RealRows(indptr=ratings.indptr, items=ratings.items, rows=rows, tails=tails)


def require(model: Model, statistic: str, n_factors: int) -> None:
    """Refuse a model that belongs to another statistic or has another number of factors.

    Raises:
        ValueError: it does.
    """
    if (model.statistic, model.n_factors) != (statistic, n_factors):
        raise ValueError(
            f"the model is of {model.statistic} with {model.n_factors} factors, not {statistic} with {n_factors}"
        )

"""Settings of what is learned, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_MOST_FACTORS = 128
_SMALLEST_STEP, _LARGEST_STEP = 1e-9, 1e9


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
        warm_start: Whether a further run of a federation starts from the last model, where it learns the same; unset =
            yes without noise, no with it.
    """

    objective: Literal["explicit", "implicit"] = "explicit"
    statistic: Literal["auto", "normal", "gradient", "gram"] = "auto"
    n_factors: int = 15
    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    learning_rate: float | None = None
    reg: float = 13.0
    bias_reg: float = 4.0
    tolerance: float | None = None
    warm_start: bool | None = None

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

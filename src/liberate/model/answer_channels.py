"""Copies of perturbed ratings as answers over a known channel, and what they tell of the ratings beside a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from liberate.arrays import Float64Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.model.kernels import ranking
from liberate.model.model import Model
from liberate.model.profiles import fit_profiles
from liberate.units import from_nano

RATING_PRECISION = 1.4
"""Of a rating about its prediction, where only answers tell of ratings: a public constant."""

_GRID = 401
_LOWEST = -2.5  # the lowest rating in standard units, whatever the scale
_LEAST_SHARE = 0.05
"""Answers that tell less of levels are taken for numbers nearer to the prediction: none is 6 units away from it."""


@dataclass(frozen=True, slots=True)
class AnswerChannel:
    """How answers come about: a level is kept, or one of the others given, each as likely.

    Attributes:
        levels: The scale in standard units, shape (n_levels,).
        chances: Of each answer (column) to each level (row), shape (n_levels, n_levels).
    """

    levels: Float64Array
    chances: Float64Array

    @classmethod
    def of(cls, n_levels: int, epsilon: float) -> AnswerChannel:
        weights = np.full((n_levels, n_levels), math.exp(-epsilon))
        np.fill_diagonal(weights, 1.0)
        return cls(_LOWEST + 4 * np.linspace(0, 1, n_levels), weights / weights[0].sum())

    def undone(self, predicted: Float64Array, answers: Int64Array) -> Float64Array:
        """Return numbers that tell what answers tell, in standard units.

        Let m be what the model predicts, the levels' chances a normal curve about it, and s what an answer says of the
        level beside that. The number is m + (s - E[s | m]) / w: unbiased about m, where w is the part of the levels'
        variance that answers tell, mean over all ratings.

        Args:
            predicted: What the model predicts of each rating, in standard units, shape (n,).
            answers: The levels that were answered, shape (n,).
        """
        grid = np.linspace(self.levels[0], self.levels[-1], _GRID)
        places = np.rint((np.clip(predicted, grid[0], grid[-1]) - grid[0]) / (grid[-1] - grid[0]) * (_GRID - 1))
        at = places.astype(np.int64)

        expected, told, shares = self._tables(grid)
        share = max(float(shares[at].mean()) if len(at) else 1.0, _LEAST_SHARE)
        return np.asarray(grid[at] + (told[at, answers] - expected[at]) / share)

    def _tables(self, grid: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Return, for each prediction, the level to expect, that after each answer, and the part that answers tell."""
        prior = np.exp(-RATING_PRECISION / 2 * (grid[:, None] - self.levels) ** 2)
        prior /= prior.sum(axis=1, keepdims=True)
        expected = prior @ self.levels
        answered = prior @ self.chances
        told = (prior * self.levels) @ self.chances / answered
        variance = (prior * (self.levels - expected[:, None]) ** 2).sum(axis=1)
        shares = (answered * (told - expected[:, None]) ** 2).sum(axis=1) / variance
        return expected, told, shares


@dataclass(frozen=True, slots=True)
class AnswerChannels:
    """The channels that copies came through.

    Attributes:
        by_answers: Each channel with the answers that came through it, as rows of the copies; open ones are in none.
    """

    by_answers: list[tuple[AnswerChannel, Int64Array]]

    @classmethod
    def of(cls, n_levels: int, copies: Ratings, epsilons: Sequence[int]) -> AnswerChannels:
        """Find the channels of copies, by the epsilon of each sender, in billionths; 0: open."""
        of_rows = np.asarray(epsilons, np.int64)[copies.users()]
        return cls(
            [
                (AnswerChannel.of(n_levels, from_nano(int(nano))), np.flatnonzero(of_rows == nano))
                for nano in np.unique(of_rows)
                if nano
            ]
        )

    def undone(self, model: Model, copies: Ratings, taken: Ratings) -> Ratings:
        """Return copies with a number in each answer's place that tells what it tells.

        Args:
            model: What predicts.
            copies: The answers.
            taken: The numbers now in their places, to which people's sides are fitted.
        """
        owners, values = copies.users(), copies.values.copy()

        sides = fit_profiles(model, taken, model.targets(taken)).means
        predicted = ranking.predict_pairs(sides, model.item_means, owners, copies.items).astype(np.float64)
        for channel, rows in self.by_answers:
            answers = np.rint((values[rows] - model.low) / (model.high - model.low) * (len(channel.levels) - 1))
            numbers = channel.undone(predicted[rows], answers.astype(np.int64))
            values[rows] = (numbers * model.unit + model.centre).astype(np.float32)
        return replace(copies, values=values)

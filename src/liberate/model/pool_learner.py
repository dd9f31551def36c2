"""Learning from copies that people have shared with the pool: all of them in one place, before or instead of rounds.

A rating is c + w_u·f_i + p_u·q_i + b_u + b_i: f_i are the item's public features, known beforehand, and (q_i, b_i) is
learned by variational Bayes. Its prior mean is a regression on the features and on how often the pool has the item, so
that items the pool hardly knows start from what others like them are. People's sides have one prior with a full
covariance, learned from the senders; it serves those who share nothing.

Copies of perturbed ratings are answers over a known channel. Each round puts in a rating's place what its answer says
of it beside the prediction (expectation maximisation over the levels), so that the noise is undone where the model can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, assert_never, get_args

import numpy as np

from liberate.arrays import Float32Array
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.model.answer_channels import RATING_PRECISION, AnswerChannels
from liberate.model.model import Model
from liberate.model.pool_world import LearnedItems, PoolWorld, restarted
from liberate.model.private.solvers import after_moments
from liberate.model.private.statistics import initial_features
from liberate.model.registry import aggregate_statistics, rebuilt
from liberate.model.solvers import FIRST_VERSION
from liberate.units import to_nano

FollowingStage = Literal["nothing", "normal", "gradient", "bias", "moments"]
"""The statistic that devices compute from the pool's model, if any."""

POOL_FACTORS = 8
"""Factors besides public features, where nothing else asks for a number of them."""

REPEATS_WITHIN = 1e-2
"""Largest difference of an array of the model when the same copies are learned from elsewhere."""

POOL_STATISTIC = "pool"
"""Of a round that no device answers: its model is learned from copies."""

_ROUNDS = 25
_FIRST_UNDONE = 2
"""Answers are taken for ratings before this round: until then the model predicts too little."""


def initial_pool(features: Float32Array, low: float, high: float) -> Model:
    """Return the model before the pool's round: public features and public constants alone.

    Args:
        features: Public features of the items, shape (n_items, n_features); no column where none are used.
        low: Lowest rating of the scale.
        high: Highest rating of the scale, > low.
    """
    return initial_features(features, low, high, statistic=POOL_STATISTIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLearner:
    """Turns the copies of a pool into a model.

    Attributes:
        follows: What devices compute next; after `nothing` the model is final.
        n_factors: Factors to learn besides the public features, >= 0.
        n_levels: Levels of the scale, evenly spaced, >= 2.
        n_participants: Before `bias` and `moments`: people of the rounds that follow, >= 0, to scale popularity.
        moments_rounds: Before `moments`: how many rounds of them, >= 0; with 0 residuals come at once.
        n_directions: Likewise: directions of taste in which residuals will be asked for, >= 0.
    """

    follows: FollowingStage
    n_factors: int
    n_levels: int
    n_participants: int = 0
    moments_rounds: int = 0
    n_directions: int = 0

    @property
    def name(self) -> str:
        return f"pool_for_{self.follows}/1"

    def parameters(self) -> dict[str, int]:
        """Return all that the result depends on besides the first model and the copies."""
        return {
            "n_factors": self.n_factors,
            "n_levels": self.n_levels,
            "n_participants": self.n_participants,
            "moments_rounds": self.moments_rounds,
            "n_directions": self.n_directions,
            "repeats_within_nano": to_nano(REPEATS_WITHIN),
        }

    def learn(self, base: Model, copies: Ratings, epsilons: Sequence[int] | None = None) -> Model:
        """Return the next version, learned from copies.

        Args:
            base: The model before, see `initial_pool`.
            copies: Copies as received, a user per sender, of items of the model's catalogue. Whatever a sender has put
                in them, ratings beyond the scale count as its ends.
            epsilons: At which each sender's ratings were perturbed, in billionths, shape (n_senders,); 0 where they are
                open; None: all are.

        Raises:
            ValueError: The model is no first model of a pool, or the copies are of another catalogue.
            FederationError: No finite model follows from the copies.
        """
        if base.statistic != POOL_STATISTIC or base.n_items != copies.n_items:
            raise ValueError(f"wanted a first model of a pool over {copies.n_items} items")
        copies = replace(copies, values=copies.values.clip(base.low, base.high))
        world = PoolWorld.of(base, copies, self.n_factors)

        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the model that results is checked
                return self._follower(base, world, self._learned(world, copies, epsilons))
        except (ValueError, np.linalg.LinAlgError) as error:
            raise FederationError(f"no model follows from the pool's copies: {error}") from error

    def _learned(self, world: PoolWorld, copies: Ratings, epsilons: Sequence[int] | None) -> LearnedItems:
        """Take turns between people and items."""
        channels = AnswerChannels.of(self.n_levels, copies, epsilons or [0] * copies.n_users)
        learned, taken = world.first(), copies

        for count in range(_ROUNDS):
            model = world.model(learned)
            if channels.by_answers and count >= _FIRST_UNDONE:
                taken = channels.undone(model, copies, taken)
            learned = world.step(learned, aggregate_statistics(world.statistic, model, taken), learns_priors=count > 0)

        return replace(learned, precision=RATING_PRECISION) if channels.by_answers else learned

    def _follower(self, base: Model, world: PoolWorld, learned: LearnedItems) -> Model:
        """Put what was learned in the form that comes next."""
        arrays = world.people(learned) | {"item_means": learned.means.astype(np.float32)}
        match self.follows:
            case "normal":
                arrays = restarted(learned, self.n_factors)
            case "bias":
                first = initial_features(world.columns(learned), base.low, base.high, statistic="bias")
                arrays = dict(first.arrays)
            case "moments":
                arrays |= {
                    "bias_variance": learned.covariances[:, -1, -1],
                    "popularity": world.popularity * self.n_participants,
                }
            case "nothing" | "gradient":
                pass
            case other:
                assert_never(other)

        # What comes next still counts its steps from the start of the run.
        arrays |= {name: base.float64(name) for name in (FIRST_VERSION,) if name in base.arrays}
        if self.follows == "moments":
            return after_moments(base, arrays, self.moments_rounds, self.n_directions)
        statistic = POOL_STATISTIC if self.follows == "nothing" else self.follows
        return Model.of(base.version + 1, statistic, base.low, base.high, arrays)


def learner_from(name: str, parameters: Mapping[str, int]) -> PoolLearner:
    """Rebuild the learner that a model entry names.

    Raises:
        ValueError: No learner has this name, or this one does not have exactly these parameters.
    """
    makers = {f"pool_for_{follows}/1": partial(PoolLearner, follows=follows) for follows in get_args(FollowingStage)}
    return rebuilt("learner", makers, name, parameters)

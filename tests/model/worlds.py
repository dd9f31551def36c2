"""Small worlds of ratings with a known answer, and short words for learning in them."""

from __future__ import annotations

import itertools

import numpy as np

from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.model.config import ModelConfig
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.model.registry import fit

SECRET = bytes(range(32))


def checkerboard(n_users: int = 40, n_items: int = 30, seed: int = 0) -> Split:
    """Users give 5 to every other item and 1 to the rest, even users to even items, odd to odd; a fifth is held out.

    Every user, every item and the whole have the same mean, so only factors can tell.
    """
    users, items = (index.ravel() for index in np.indices((n_users, n_items)))
    values = np.where((users + items) % 2 == 0, 5.0, 1.0)
    held_out = np.random.default_rng(seed).random(len(users)) < 0.2
    train, test = (
        Ratings.from_triples(users[part], items[part], values[part], n_users, n_items) for part in (~held_out, held_out)
    )
    return Split(train, test)


def noisy_world(n_users: int = 60, n_items: int = 40, seed: int = 0) -> Ratings:
    """Ratings from 1 to 5 with two true factors and noise; each user rated about half the items."""
    rng = np.random.default_rng(seed)
    scores = 3.5 + rng.normal(0, 0.7, (n_users, 2)) @ rng.normal(0, 0.7, (2, n_items)) + rng.normal(0, 0.5, n_items)
    values = np.clip(np.rint(scores + rng.normal(0, 0.3, scores.shape)), 1, 5)
    users, items = np.nonzero(rng.random(scores.shape) < 0.5)
    return Ratings.from_triples(users, items, values[users, items], n_users, n_items)


def learned(config: ModelConfig, ratings: Ratings, rounds: int, low: float = 1.0, high: float = 5.0) -> Model:
    """Return the model after some rounds."""
    return next(itertools.islice(fit(config, ratings, low, high, SECRET), rounds, None))


def held_out_error(model: Model, split: Split) -> float:
    """Return the RMSE on the held-out part, the devices fitted on the other."""
    profiles = fit_devices(model, split.train)
    return rmse(predict(model, profiles, split.test.users(), split.test.items), split.test.values)

from __future__ import annotations

import numpy as np

from liberate.model.config import ModelConfig
from liberate.model.profiles import fit_devices, predict
from liberate.model.ranking import top_n
from tests.model.worlds import learned, noisy_world


def test_top_n_gives_unrated_items_best_first_with_their_predictions() -> None:
    own = noisy_world()
    model = learned(ModelConfig(n_factors=3), own, 5)
    profiles = fit_devices(model, own)

    items, scores = top_n(model, profiles, own, 7)

    for user in range(own.n_users):
        rated = set(own.items[own.indptr[user] : own.indptr[user + 1]].tolist())
        left = np.array([item for item in range(own.n_items) if item not in rated], np.int32)
        expected = predict(model, profiles, np.full(len(left), user, np.int32), left)
        clipped = np.clip(scores[user, : min(7, len(left))], 1, 5)
        assert not rated & set(items[user].tolist())
        np.testing.assert_allclose(clipped, np.sort(expected)[::-1][:7], rtol=1e-5)


def test_top_n_marks_places_that_nothing_is_left_for() -> None:
    own = noisy_world(3, 4)
    model = learned(ModelConfig(n_factors=1), own, 1)

    items, scores = top_n(model, fit_devices(model, own), own, 10)

    for user in range(own.n_users):
        n_left = 4 - int(own.indptr[user + 1] - own.indptr[user])
        assert (items[user, :n_left] >= 0).all()
        assert (items[user, n_left:] == -1).all()
        assert np.isneginf(scores[user, n_left:]).all()

from __future__ import annotations

import numpy as np

from liberate.data.dataset import Catalogue
from liberate.data.item_features import item_features
from liberate.data.ratings import Ratings
from liberate.model.metrics import rmse
from liberate.model.private.statistics import initial_features
from liberate.model.profiles import fit_devices, predict


def catalogue(genres: list[tuple[str, ...]], years: list[int]) -> Catalogue:
    return Catalogue(titles=("",) * len(years), years=np.array(years, np.int32), genres=tuple(genres))


def test_a_column_per_genre_and_one_per_decade() -> None:
    known = catalogue([("Drama",), ("Comedy", "Drama"), ()], [1994, 1987, 1999])

    features = item_features(known, 3)

    half = np.sqrt(0.5)
    np.testing.assert_allclose(features, [[0, 1, 0, 1], [half, half, 1, 0], [0, 0, 0, 1]], rtol=1e-6)


def test_the_earliest_decades_count_as_one_and_an_unknown_year_as_none() -> None:
    features = item_features(catalogue([(), (), (), ()], [1895, 1925, 0, 1931]), 4)

    np.testing.assert_array_equal(features, [[1, 0], [1, 0], [0, 0], [0, 1]])


def test_nothing_known_gives_no_column() -> None:
    assert item_features(None, 5).shape == (5, 0)
    assert item_features(catalogue([()] * 5, [0] * 5), 5).shape == (5, 0)


def test_a_device_alone_learns_its_taste_in_genres() -> None:
    """Everybody loves one genre and hates the other; nobody's ratings are seen by anybody else."""
    rng = np.random.default_rng(0)
    genre = np.arange(60) % 2
    known = catalogue([(("Comedy",), ("Drama",))[g] for g in genre], [1990] * 60)
    taste = rng.integers(0, 2, 30)
    users, items = np.nonzero(rng.random((30, 60)) < 0.4)
    train = Ratings.from_triples(users, items, np.where(taste[users] == genre[items], 5.0, 2.0), 30, 60)
    everyone, everything = (index.ravel().astype(np.int32) for index in np.indices((30, 60)))
    truth = np.where(taste[everyone] == genre[everything], 5.0, 2.0)

    errors = []
    for features in (item_features(known, 60), item_features(None, 60)):
        model = initial_features(features, 1.0, 5.0, statistic="bias")
        errors.append(rmse(predict(model, fit_devices(model, train), everyone, everything), truth.astype(np.float32)))

    assert errors[0] < 0.7 < 1.4 < errors[1]

"""Limits let every upload pass that ratings give, and refuse what none can."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liberate.arrays import FixedPointStatistics, RealStatistics
from liberate.data.ratings import Ratings
from liberate.errors import BadUpload
from liberate.model.config import ModelConfig
from liberate.model.model import Model
from liberate.model.registry import fit, statistic_of
from liberate.model.upload_bounds import rating_bounds
from liberate.privacy.mechanism_base import PLAIN_FRACTION_BITS, Plain
from tests.strategies import ratings
from tests.worlds import HIGH, LOW, low_rank_ratings

CONFIGS = {
    "normal": ModelConfig(n_factors=3),
    "gradient": ModelConfig(n_factors=3, statistic="gradient"),
    "biases": ModelConfig(n_factors=0),
    "gram": ModelConfig(objective="implicit"),
    "weighted": ModelConfig(objective="implicit", statistic="normal", n_factors=3),
}
METHODS = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def models(config: ModelConfig, own: Ratings, seed: int, rounds: int) -> Iterator[Model]:
    """Models of a few rounds; an item model has one round only."""
    for model in fit(config, own, LOW, HIGH, bytes([seed]) * 32):
        if model.version > rounds or (model.is_item_model and model.version):
            return
        yield model


def uploads(model: Model, own: Ratings) -> list[FixedPointStatistics]:
    """What each device sends."""
    statistic = statistic_of(model, noisy=False)
    sent = Plain().release(statistic.compute(model, own), statistic.shape[0], [], exact=False)
    ends = sent.indptr
    return [
        FixedPointStatistics(
            indptr=np.array([0, end - begin]),
            indices=sent.indices[begin:end],
            rows=sent.rows[begin:end],
            tails=sent.tails[device : device + 1],
        )
        for device, (begin, end) in enumerate(pairwise(ends))
    ]


def added(parts: list[FixedPointStatistics]) -> FixedPointStatistics:
    """One upload of several people's parts, each rounded by itself."""
    items = np.unique(np.concatenate([part.indices for part in parts]))
    rows = np.zeros((len(items), parts[0].rows.shape[1]), np.int32)
    for part in parts:
        rows[np.searchsorted(items, part.indices)] += part.rows
    tails = np.sum([part.tails for part in parts], axis=0)
    return FixedPointStatistics(indptr=np.array([0, len(items)]), indices=items, rows=rows, tails=tails)


def one_upload_of_all(model: Model, own: Ratings) -> FixedPointStatistics:
    """What one device sends for everybody: parts are added up first, and rounded once."""
    statistic = statistic_of(model, noisy=False)
    parts = statistic.compute(model, own)
    items, places = np.unique(parts.indices, return_inverse=True)
    rows = np.zeros((len(items), parts.rows.shape[1]))
    np.add.at(rows, places, parts.rows)
    whole = RealStatistics(
        indptr=np.array([0, len(items)]),
        indices=items,
        rows=rows.astype(np.float32),
        tails=parts.tails.sum(axis=0, keepdims=True),
    )
    return Plain().release(whole, statistic.shape[0], [], exact=False)


@METHODS
@settings(max_examples=15)
@given(own=ratings(), learned_from=ratings(), seed=st.integers(0, 9))
def test_what_ratings_give_passes(config: ModelConfig, own: Ratings, learned_from: Ratings, seed: int) -> None:
    """Whatever the model was learned from; also the sum of several people's parts."""
    n_items = min(own.n_items, learned_from.n_items)
    own, learned_from = (_first_items(each, n_items) for each in (own, learned_from))
    for model in models(config, learned_from, seed, rounds=3):
        limits, parts = rating_bounds(model), uploads(model, own)
        for part in parts:
            limits.check(part, PLAIN_FRACTION_BITS, 1)
        limits.check(one_upload_of_all(model, own), PLAIN_FRACTION_BITS, len(parts))


def _first_items(own: Ratings, n_items: int) -> Ratings:
    kept = own.items < n_items
    return Ratings.from_triples(own.users()[kept], own.items[kept], own.values[kept], own.n_users, n_items)


@METHODS
@pytest.mark.parametrize("values", ["lowest", "highest", "torn"])
def test_extreme_ratings_pass(config: ModelConfig, values: str) -> None:
    own = low_rank_ratings(n_users=20, n_items=60)
    numbers = {"lowest": LOW, "highest": HIGH, "torn": np.where(own.items % 2, LOW, HIGH)}[values]
    extreme = Ratings.from_triples(own.users(), own.items, np.full(len(own.items), numbers), own.n_users, own.n_items)
    for model in models(config, own, 1, rounds=4):
        limits = rating_bounds(model)
        for part in uploads(model, extreme):
            limits.check(part, PLAIN_FRACTION_BITS, 1)


def edited(
    part: FixedPointStatistics, what: Literal["all", "row", "tail", "moments"], value: int
) -> FixedPointStatistics:
    rows, tails = part.rows.astype(np.int64), part.tails.copy()
    match what:
        case "all":
            rows, tails = rows * value, tails * value
        case "row":
            rows[0] = value
        case "tail":
            tails[0, 0] = value
        case "moments":
            rows[:, 0] = value
            tails[0, 0] = value
    return FixedPointStatistics(
        indptr=part.indptr, indices=part.indices, rows=np.clip(rows, -(2**31), 2**31 - 1).astype(np.int32), tails=tails
    )


@METHODS
@pytest.mark.parametrize(("what", "value"), [("all", 1000), ("row", 2**31 - 1), ("row", -(2**31))])
def test_what_no_ratings_give_is_refused(config: ModelConfig, what: Literal["all", "row"], value: int) -> None:
    own = low_rank_ratings()
    for model in models(config, own, 1, rounds=2):
        limits = rating_bounds(model)
        for part in uploads(model, own):
            with pytest.raises(BadUpload) as caught:
                limits.check(edited(part, what, value), PLAIN_FRACTION_BITS, 1)
            assert caught.value.reason in ("oversized", "no_moments")


@pytest.mark.parametrize("statistic", ["normal", "gradient"])
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**40])
def test_a_tail_that_would_overflow_is_refused(statistic: str, value: int) -> None:
    own = low_rank_ratings()
    (model,) = models(CONFIGS[statistic], own, 1, rounds=0)

    with pytest.raises(BadUpload):
        rating_bounds(model).check(edited(uploads(model, own)[0], "tail", value), PLAIN_FRACTION_BITS, 1)


def test_moments_that_no_vector_has_are_refused() -> None:
    """However small they are: a sum of them might have no solution."""
    own = low_rank_ratings()
    (model,) = models(CONFIGS["normal"], own, 1, rounds=0)

    with pytest.raises(BadUpload) as caught:
        rating_bounds(model).check(edited(uploads(model, own)[0], "moments", -(2**10)), PLAIN_FRACTION_BITS, 1)

    assert caught.value.reason == "no_moments"


@pytest.mark.parametrize("statistic", ["normal", "gradient", "gram"])
def test_nobody_counts_twice(statistic: str) -> None:
    """An upload of two people's parts passes as that of two, not as that of one, where ratings leave no room."""
    own = low_rank_ratings()
    *_, model = models(CONFIGS[statistic], own, 1, rounds=0)
    limits, parts = rating_bounds(model), uploads(model, own)
    both = added([parts[0], parts[0]])

    limits.check(both, PLAIN_FRACTION_BITS, 2)
    if statistic != "gradient":
        with pytest.raises(BadUpload):
            limits.check(both, PLAIN_FRACTION_BITS, 1)


def test_what_is_clipped_anyway_has_no_limit_of_its_own() -> None:
    own = low_rank_ratings()
    (model,) = models(CONFIGS["normal"], own, 1, rounds=0)

    with pytest.raises(ValueError, match="without a clip 'moments' has no limit"):
        rating_bounds(Model.of(0, "moments", LOW, HIGH, model.arrays))


@pytest.mark.parametrize("factor", [-1, 2])
def test_an_error_too_small_for_the_moments_is_refused(factor: int) -> None:
    """Flipped or enlarged right-hand sides are within every bound, but the error that goes with them is another."""
    own = low_rank_ratings()
    *_, model = models(CONFIGS["normal"], own, 1, rounds=2)
    part = uploads(model, own)[0]
    rows = part.rows.copy()
    rows[:, -4:] *= factor
    lying = FixedPointStatistics(indptr=part.indptr, indices=part.indices, rows=rows, tails=part.tails)

    with pytest.raises(BadUpload) as caught:
        rating_bounds(model).check(lying, PLAIN_FRACTION_BITS, 1)

    assert caught.value.reason == "no_moments"

"""What an adversary recovers from uploads, mode by mode, and from sending the same again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from liberate.arrays import BoolArray, FixedPointStatistics, Float32Array, Float64Array, Int32Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.federation.coordinator.config import RoundMethod
from liberate.model.model import Model
from liberate.privacy.accounting import privacy_loss
from liberate.privacy.attacks import (
    GradientView,
    auc,
    averaging_errors,
    nearest,
    ratings_from_gradients,
    ratings_from_normal_equations,
    weights_from_gram,
)
from liberate.privacy.auditing import reach_of, run_canary_game
from liberate.privacy.clipping import clip_to_grid
from liberate.privacy.secure_aggregation import add_mask, signed_sum
from liberate.randomness import SimulatedRandomness
from liberate_studies.rungs import federated, first_secret
from liberate_studies.worlds import SEED, Job, World

ROUND_EPSILON = 0.1
"""Of each round in which the same is sent."""

_EPSILON = 8
_AVERAGED = (1, 4, 16, 64, 256)
_DELTA = 1e-5
_LIKED = 3
"""Quarters of the scale from which on a rating says that somebody liked an item."""


@dataclass(frozen=True, slots=True)
class RecoveredRatings:
    """What uploads of one kind give away.

    Attributes:
        name: The mode, and what is attacked.
        ratings: Share of the people's ratings recovered exactly; None where nothing is to be tried.
        item_auc: How well an upload tells rated items from others: mean AUC over people.
    """

    name: str
    ratings: float | None
    item_auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaged:
    """What some rounds of the same statistic come to.

    Attributes:
        rounds: How many.
        relative_error: Root mean square error of the mean of all uploads, as a share of that of one.
        canary_auc: How surely a canary is told apart.
        epsilon_basic: Epsilon spent, by basic composition.
        epsilon_pld: Epsilon spent, by the privacy loss distribution at delta 1e-5.
    """

    rounds: int
    relative_error: float
    canary_auc: float
    epsilon_basic: float
    epsilon_pld: float


def leaks(world: World, n_participants: int) -> list[RecoveredRatings]:
    """Attack the uploads of some people in each mode."""
    participants = np.arange(min(n_participants, world.job().split.train.n_users))
    gradient = world.job("privacy.mode=plain", 'model.statistic="gradient"', "federation.rounds=3")
    normal = world.job("privacy.mode=plain", 'model.statistic="normal"', "federation.rounds=3")
    gram = world.job("privacy.mode=plain", 'model.objective="implicit"', 'model.statistic="gram"')
    laplace, gauss = (world.job(*local(name), "federation.rounds=10") for name in ("laplace", "gaussian"))
    summed = world.job("privacy.mode=distributed", f"privacy.epsilon={_EPSILON}")
    bound = f"ε = {_EPSILON}"

    return [
        _leak("plain, gradient, one upload", gradient, participants, (1,)),
        _leak("plain, gradient, two uploads", gradient, participants, (1, 2)),
        _leak("plain, normal equations, one upload", normal, participants, (1,)),
        _gram_leak("plain, Gram, one upload: liked or not", gram, participants),
        _leak(f"local, Laplace, {bound}, two uploads", laplace, participants, (1, 2)),
        _leak(f"local, Gauss, {bound}, two uploads", gauss, participants, (1, 2)),
        _masked_leak(f"distributed, {bound}, one upload", summed, participants, is_masked=True),
        _masked_leak("the same, were there no masks", summed, participants, is_masked=False),
        RecoveredRatings("no upload: the most frequent rating", _guessed(gradient, participants), 0.5),
    ]


def local(mechanism: str) -> tuple[str, ...]:
    return ("privacy.mode=local", f'privacy.mechanism="{mechanism}"', f"privacy.epsilon={_EPSILON}")


def _guessed(job: Job, participants: Int64Array) -> float:
    """Return the share of the most frequent rating."""
    _, counts = np.unique(job.split.train.select(participants).values, return_counts=True)
    return float(counts.max() / counts.sum())


def by_person(ratings: Ratings) -> Iterator[tuple[int, Int32Array, Float32Array]]:
    """Return each person's number, items and values."""
    for person in range(ratings.n_users):
        part = slice(ratings.indptr[person], ratings.indptr[person + 1])
        yield person, ratings.items[part], ratings.values[part]


def _leak(name: str, job: Job, participants: Int64Array, rounds: Sequence[int]) -> RecoveredRatings:
    """Attack what some people upload to some rounds. Who attacks ratings is told for free which items they are of."""
    models = federated(job).models
    model = models[rounds[0]]
    attacked = job.split.train.select(participants)
    uploads = [(models[number], *_upload(job, models[number], attacked, number)) for number in rounds]
    levels = np.unique(job.dataset.values).tolist()

    right, items = 0, []
    for person, rated, truth in by_person(attacked):
        values = _recover([(model, rows[person], tails[person]) for model, rows, tails in uploads], rated)
        right += int((nearest(values * model.unit + model.centre, levels) == truth).sum())
        strength = sum(np.square(rows[person]).sum(axis=1) for _, rows, _ in uploads)
        items.append(auc(np.asarray(strength), _marked(rated, attacked.n_items)))
    return RecoveredRatings(name, right / attacked.n_ratings, float(np.nanmean(items)))


def _gram_leak(name: str, job: Job, participants: Int64Array) -> RecoveredRatings:
    """Attack the Gram that some people upload: tell which items they rated, and which of these they liked."""
    model = job.plan.first_model(job.dataset, bytes(32))
    attacked = job.split.train.select(participants)
    release = released(job.plan.stage_after(model), model, attacked, 0)
    weights = model.float64("gram_weights")
    chosen = model.arrays["gram_items"].astype(np.int64)
    diagonal = np.arange(len(chosen)) * (np.arange(len(chosen)) + 3) // 2

    right, items = 0, []
    for person, rated, values in by_person(attacked):
        begin, end = release.indptr[person : person + 2]
        is_diagonal = np.isin(release.indices[begin:end], diagonal)
        seen = chosen[np.searchsorted(diagonal, release.indices[begin:end][is_diagonal])]
        items.append(auc(_marked(seen, attacked.n_items), _marked(rated, attacked.n_items)))
        recovered = weights_from_gram(release.rows[begin:end][is_diagonal, 0].astype(np.float64), weights[-1])
        liked = (values - model.low) / (model.high - model.low) >= _LIKED / 4
        right += int(((recovered > 0.99 * weights[_LIKED]) == liked).sum())
    return RecoveredRatings(name, right / attacked.n_ratings, float(np.nanmean(items)))


def _masked_leak(name: str, job: Job, participants: Int64Array, *, is_masked: bool) -> RecoveredRatings:
    """Tell rated items from others in the first upload of `distributed`, as it is or without the masks on it."""
    model = job.plan.first_model(job.dataset, bytes(32))
    attacked = job.split.train.select(participants)
    rows = released(job.plan.stage_after(model), model, attacked, 0).rows.reshape(attacked.n_users, -1)

    items = []
    for person, rated, _ in by_person(attacked):
        sent = np.ascontiguousarray(rows[person]).view(np.uint32)
        if is_masked:
            add_mask(sent, SimulatedRandomness(SEED).secret("mask", person))
        strength = np.square(signed_sum(sent).astype(np.float64).reshape(attacked.n_items, -1)).sum(axis=1)
        items.append(auc(strength, _marked(rated, attacked.n_items)))
    return RecoveredRatings(name, None, float(np.nanmean(items)))


def _upload(job: Job, model: Model, attacked: Ratings, number: int) -> tuple[Float64Array, Float64Array]:
    """Return what leaves some devices in the round after a model: a row for every item, zero if absent, and tails."""
    stage = job.plan.stage_after(model)
    release = released(stage, model, attacked, number)
    n_rows, width, _ = stage.statistic.shape
    unit = 2.0**-stage.mechanism.fraction_bits
    rows = np.zeros((attacked.n_users, n_rows, width))
    rows[np.repeat(np.arange(attacked.n_users), np.diff(release.indptr)), release.indices] = release.rows * unit
    return rows, np.asarray(release.tails * unit)


def released(stage: RoundMethod, model: Model, ratings: Ratings, number: int) -> FixedPointStatistics:
    """Return what leaves each device in a round, with noise that follows from the round's number and the person's."""
    keys = [SimulatedRandomness(SEED).secret("attacked", number, person) for person in range(ratings.n_users)]
    return stage.mechanism.release(stage.statistic.compute(model, ratings), stage.statistic.shape[0], keys, exact=False)


def _recover(uploads: Sequence[tuple[Model, Float64Array, Float64Array]], rated: Int32Array) -> Float64Array:
    """Recover one person's ratings, in standard units, from uploads to some rounds."""
    if uploads[0][0].statistic == "normal":
        recovered = [ratings_from_normal_equations(rows[rated], tail) for _, rows, tail in uploads]
        return np.asarray(np.mean(recovered, axis=0))

    return ratings_from_gradients(
        [
            GradientView(
                rows=rows[rated],
                item_means=model.item_means[rated],
                user_mean=model.float64("user_mean"),
                user_precision=model.float64("user_precision"),
                noise_precision=float(model.float64("noise_precision")[0]),
            )
            for model, rows, _ in uploads
        ]
    )


def _marked(items: Int32Array | Int64Array, n_items: int) -> BoolArray:
    return np.isin(np.arange(n_items), items)


def averages(world: World, n_canaries: int) -> list[Averaged]:
    """Let one statistic be sent again and again, each time at the same price."""
    job = world.job("privacy.mode=local", f"privacy.epsilon={ROUND_EPSILON}", "federation.rounds=1")
    errors = _errors_of_means(job, _AVERAGED[-1])
    return [_averaged(job, rounds, n_canaries, float(errors[rounds - 1] / errors[0])) for rounds in _AVERAGED]


def _averaged(job: Job, rounds: int, n_canaries: int, relative_error: float) -> Averaged:
    mechanism = job.plan.stages[0].stage.mechanism
    game = run_canary_game(
        mechanism,
        rounds=rounds,
        n_canaries=n_canaries,
        reach=reach_of(mechanism),
        randomness=SimulatedRandomness(SEED, b"averaging"),
    )
    spent = privacy_loss([(mechanism.event(), rounds)], _DELTA)
    assert spent.epsilon_basic is not None  # the mechanism is pure
    assert spent.epsilon_pld is not None

    return Averaged(
        rounds=rounds,
        relative_error=relative_error,
        canary_auc=auc(game.scores, game.coins),
        epsilon_basic=spent.epsilon_basic,
        epsilon_pld=spent.epsilon_pld,
    )


def _errors_of_means(job: Job, rounds: int) -> Float64Array:
    """Return the error of the mean of the first 1, 2, ... uploads of one person to rounds that start from one model."""
    stage = job.plan.stages[0].stage
    model = job.plan.first_model(job.dataset, first_secret(job))
    same = job.split.train.select(np.zeros(rounds, np.int64))
    release = released(stage, model, same, 0)

    alone = same.select(np.zeros(1, np.int64))
    clip_units = stage.mechanism.parameters["clip_units"]
    clipped, _ = clip_to_grid(stage.statistic.compute(model, alone), clip_units, stage.mechanism.fraction_bits, "l1")
    truth = np.zeros(stage.statistic.shape[:2], np.int64)
    truth[alone.items] = clipped
    return averaging_errors(release.rows.reshape(rounds, -1).astype(np.int64), truth.ravel())

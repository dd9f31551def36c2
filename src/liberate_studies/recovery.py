"""What an adversary recovers from uploads, mode by mode, and from sending the same again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from liberate.arrays import BoolArray, FixedPointStatistics, Float64Array, Int32Array, Int64Array
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
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED
from liberate_studies.rungs import federated
from liberate_studies.worlds import SEED, Job, World

ROUND_EPSILON = 0.1
"""Of each round in which the same is sent."""

_EPSILON = 8
_AVERAGED = (1, 4, 16, 64, 256)
_DELTA = 1e-5
_LIKED = 3
"""Quarters of the scale from which on a rating says that somebody liked an item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredRatings:
    """What uploads of one kind give away.

    Attributes:
        name: The mode, and what is attacked.
        ratings: Share of the people's ratings recovered exactly; None where nothing is to be tried.
        items: How well an upload tells rated items from others: mean AUC over people.
        colour: In the figure.
    """

    name: str
    ratings: float | None
    items: float
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaged:
    """What some rounds of the same statistic come to.

    Attributes:
        rounds: How many.
        error: Root mean square error of the mean of all uploads, as a share of that of one.
        auc: How surely a canary is told apart.
        basic: Epsilon spent, by basic composition.
        tight: Epsilon spent, by the privacy loss distribution at delta 1e-5.
    """

    rounds: int
    error: float
    auc: float
    basic: float
    tight: float


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
        _leak("plain, gradient, one upload", gradient, participants, (1,), OPEN),
        _leak("plain, gradient, two uploads", gradient, participants, (1, 2), OPEN),
        _leak("plain, normal equations, one upload", normal, participants, (1,), OPEN),
        _gram_leak("plain, Gram, one upload: liked or not", gram, participants),
        _leak(f"local, Laplace, {bound}, two uploads", laplace, participants, (1, 2), PRIVATE),
        _leak(f"local, Gauss, {bound}, two uploads", gauss, participants, (1, 2), PRIVATE),
        _masked_leak(f"distributed, {bound}, one upload", summed, participants, is_masked=True),
        _masked_leak("the same, were there no masks", summed, participants, is_masked=False),
        RecoveredRatings(
            name="no upload: the most frequent rating", ratings=_guessed(gradient, participants), items=0.5, colour=FREE
        ),
    ]


def local(mechanism: str) -> tuple[str, ...]:
    return ("privacy.mode=local", f'privacy.mechanism="{mechanism}"', f"privacy.epsilon={_EPSILON}")


def _guessed(job: Job, participants: Int64Array) -> float:
    """Give the share of the most frequent rating."""
    _, counts = np.unique(job.split.train.select(participants).values, return_counts=True)
    return float(counts.max() / counts.sum())


def _leak(name: str, job: Job, participants: Int64Array, rounds: Sequence[int], colour: str) -> RecoveredRatings:
    """Attack what some people upload to some rounds. Who attacks ratings is told for free which items they are of."""
    models = federated(job).models
    own = job.split.train.select(participants)
    uploads = [(models[number], *_upload(job, models[number], own, number)) for number in rounds]
    levels = np.unique(job.dataset.values).tolist()
    right, items = 0, []
    for person in range(own.n_users):
        rated = own.items[own.indptr[person] : own.indptr[person + 1]]
        truth = own.values[own.indptr[person] : own.indptr[person + 1]]
        values = _recover([(model, rows[person], tails[person]) for model, rows, tails in uploads], rated)
        model = models[rounds[0]]
        right += int((nearest(values * model.unit + model.centre, levels) == truth).sum())
        strength = sum(np.square(rows[person]).sum(axis=1) for _, rows, _ in uploads)
        items.append(auc(np.asarray(strength), _marked(rated, own.n_items)))
    return RecoveredRatings(name=name, ratings=right / own.n_ratings, items=float(np.nanmean(items)), colour=colour)


def _gram_leak(name: str, job: Job, participants: Int64Array) -> RecoveredRatings:
    """Attack the Gram that some people upload: tell which items they rated, and which of these they liked."""
    model = job.plan.first_model(job.dataset, bytes(32))
    own = job.split.train.select(participants)
    release = released(job.plan.stage_after(model), model, own, 0)
    weights = model.float64("gram_weights")
    threshold = 0.99 * weights[_LIKED]
    chosen = model.arrays["gram_items"].astype(np.int64)
    diagonal = np.arange(len(chosen)) * (np.arange(len(chosen)) + 3) // 2
    right, items = 0, []
    for person in range(own.n_users):
        begin, end = release.indptr[person : person + 2]
        found = np.isin(release.indices[begin:end], diagonal)
        rated = chosen[np.searchsorted(diagonal, release.indices[begin:end][found])]
        recovered = weights_from_gram(release.rows[begin:end][found, 0].astype(np.float64), weights[-1])
        part = slice(own.indptr[person], own.indptr[person + 1])
        items.append(auc(_marked(rated, own.n_items), _marked(own.items[part], own.n_items)))
        truth = (own.values[part] - model.low) / (model.high - model.low) >= _LIKED / 4
        right += int(((recovered > threshold) == truth).sum())
    return RecoveredRatings(name=name, ratings=right / own.n_ratings, items=float(np.nanmean(items)), colour=OPEN)


def _masked_leak(name: str, job: Job, participants: Int64Array, *, is_masked: bool) -> RecoveredRatings:
    """Tell rated items from others in the first upload of `distributed`, as it is or without the masks on it."""
    model = job.plan.first_model(job.dataset, bytes(32))
    stage, own = job.plan.stage_after(model), job.split.train.select(participants)
    rows = released(stage, model, own, 0).rows.reshape(own.n_users, -1)
    items = []
    for person in range(own.n_users):
        sent = np.ascontiguousarray(rows[person]).view(np.uint32)
        if is_masked:
            add_mask(sent, SimulatedRandomness(SEED).secret("mask", person))
        strength = np.square(signed_sum(sent).astype(np.float64).reshape(own.n_items, -1)).sum(axis=1)
        rated = own.items[own.indptr[person] : own.indptr[person + 1]]
        items.append(auc(strength, _marked(rated, own.n_items)))
    colour = RECORDED if is_masked else FREE
    return RecoveredRatings(name=name, ratings=None, items=float(np.nanmean(items)), colour=colour)


def _upload(job: Job, model: Model, own: Ratings, number: int) -> tuple[Float64Array, Float64Array]:
    """Give what leaves some devices in the round after a model: a row for every item, zero if absent, and tails."""
    stage = job.plan.stage_after(model)
    release = released(stage, model, own, number)
    n_rows, width, _ = stage.statistic.shape
    unit = 2.0**-stage.mechanism.fraction_bits
    rows = np.zeros((own.n_users, n_rows, width))
    rows[np.repeat(np.arange(own.n_users), np.diff(release.indptr)), release.indices] = release.rows * unit
    return rows, np.asarray(release.tails * unit)


def released(stage: RoundMethod, model: Model, own: Ratings, number: int) -> FixedPointStatistics:
    keys = [SimulatedRandomness(SEED).secret("attacked", number, person) for person in range(own.n_users)]
    return stage.mechanism.release(stage.statistic.compute(model, own), stage.statistic.shape[0], keys, exact=False)


def _recover(uploads: Sequence[tuple[Model, Float64Array, Float64Array]], rated: Int32Array) -> Float64Array:
    """Recover one person's ratings, in standard units, from uploads to some rounds."""
    if uploads[0][0].statistic == "normal":
        return np.asarray(
            np.mean([ratings_from_normal_equations(rows[rated], tail) for _, rows, tail in uploads], axis=0)
        )
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
    stage = job.plan.stages[0].stage
    errors = _errors_of_means(job, stage, _AVERAGED[-1])
    found = []
    for rounds in _AVERAGED:
        reach, randomness = reach_of(stage.mechanism), SimulatedRandomness(SEED, b"averaging")
        game = run_canary_game(
            stage.mechanism, rounds=rounds, n_canaries=n_canaries, reach=reach, randomness=randomness
        )
        spent = privacy_loss([(stage.mechanism.event(), rounds)], _DELTA)
        assert spent.epsilon_basic is not None  # the mechanism is pure
        assert spent.epsilon_pld is not None
        found.append(
            Averaged(
                rounds=rounds,
                error=float(errors[rounds - 1] / errors[0]),
                auc=auc(game.scores, game.coins),
                basic=spent.epsilon_basic,
                tight=spent.epsilon_pld,
            )
        )
    return found


def _errors_of_means(job: Job, stage: RoundMethod, rounds: int) -> Float64Array:
    """Give the error of the mean of the first 1, 2, ... uploads of one person to rounds that start from one model."""
    model = job.plan.first_model(job.dataset, SimulatedRandomness(SEED).secret("initial model", 1))
    one = job.split.train.select(np.zeros(rounds, np.int64))
    release = released(stage, model, one, 0)
    mechanism = stage.mechanism
    clip_units = mechanism.parameters["clip_units"]
    clipped, _ = clip_to_grid(
        stage.statistic.compute(model, one.select(np.zeros(1, np.int64))), clip_units, mechanism.fraction_bits, "l1"
    )
    truth = np.zeros(stage.statistic.shape[:2], np.int64)
    truth[one.items[: one.indptr[1]]] = clipped
    return averaging_errors(release.rows.reshape(rounds, -1).astype(np.int64), truth.ravel())

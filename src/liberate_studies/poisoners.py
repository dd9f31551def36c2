"""Rounds in which some of the people send what they like: three aims, and as much as the coordinator lets pass.

The arithmetic is a federation's, statistic -> grid -> check -> sum -> solve, without messages, signatures and ledger.
A poisoner knows the model, the limits and the other people's median row, and sends the largest upload that passes;
where nothing is checked, one that is a hundred times as large as an honest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from liberate.arrays import BoolArray, FixedPointStatistics, Float64Array, Int32Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.errors import BadUpload, FederationError, PrivacyError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.config import RoundMethod
from liberate.model.leave_one_out import HeldOut, LeaveOneOut
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.model.ranking import top_n
from liberate.model.upload_bounds import RatingBounds, rating_bounds
from liberate.randomness import SimulatedRandomness, generator
from liberate.units import to_nano
from liberate_studies.rungs import first_secret
from liberate_studies.worlds import SEED, Job

Aim = Literal["random", "sign flip", "promotion"]
Statistic = Literal["normal", "gradient"]
Defence = Literal["none", "limits", "limits and trimming"]

TRIM = 0.2
"""Part of the uploads that a trimmed sum leaves out at either end."""

WATCHED = 3
"""Rounds, from the first on, in which uploads are looked at to find poisoners."""

UNCHECKED = 100.0
"""Size of an upload that nothing checks, in honest ones."""
_REACHES = tuple(2.0**-step for step in range(-8, 5))
"""How far poisoners try to go, in units of honest uploads, the farthest first."""

_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoning:
    """One kind of attack on one way of learning.

    Attributes:
        statistic: What devices compute.
        defence: What the coordinator does about it.
        aim: What the poisoners want; None: nobody is one.
        share: Part of the people who are poisoners.
        target: Item to be promoted.
    """

    statistic: Statistic = "normal"
    defence: Defence = "none"
    aim: Aim | None = None
    share: float = 0.0
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningEffect:
    """What an attack came to.

    Attributes:
        rmse: Of the others' held-out ratings; None where no model followed.
        predicted: The target's mean prediction for others who have not rated it.
        listed: Part of them who have it among their ten best items.
        by_size: Part of the poisoners found among as many people whose rows are the largest.
        by_fit: Likewise, because of whose uploads the others' error is the largest, as their own uploads state it.
        by_held_out: Likewise, as held-out ratings know it.
    """

    rmse: float | None = None
    predicted: float | None = None
    listed: float | None = None
    by_size: float | None = None
    by_fit: float | None = None
    by_held_out: float | None = None


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """How much each person stands out, by three measures, summed over the rounds watched; each of shape (n_users,).

    Attributes:
        size: Root of the mean squared norm of the person's rows, in units.
        fit: By how much everybody else errs more because of the person, as the others' own uploads state it.
        held_out: Likewise, as held-out ratings know it.
    """

    size: Float64Array
    fit: Float64Array
    held_out: Float64Array


def poisoners_of(n_users: int, share: float) -> BoolArray:
    """Choose who poisons, at random."""
    chosen = np.zeros(n_users, np.bool_)
    order = generator(SimulatedRandomness(SEED).secret("poisoners")).permutation(n_users)
    chosen[order[: round(share * n_users)]] = True
    return chosen


def poisoned(job: Job, attack: Poisoning, rounds: int) -> PoisoningEffect:
    """Learn some rounds beside poisoners, and judge what came of it."""
    train_part, plan = job.split.train, job.plan
    is_hostile = poisoners_of(train_part.n_users, attack.share)
    attackers = {int(user): _Poisoner(attack, int(user)) for user in np.flatnonzero(is_hostile)}
    suspicion = _Suspicion(*np.zeros((3, train_part.n_users)))

    model = plan.first_model(job.dataset, first_secret(job))
    for number in range(rounds):
        stage = plan.stage_after(model)
        try:
            sent = _uploads(model, stage, train_part, attack, attackers)
            trimmed_nano = to_nano(TRIM) if attack.defence == "limits and trimming" else 0
            total = _sum(stage, sent, trimmed_nano)
            if attackers and number < WATCHED:
                _watch(suspicion, job, model, stage, sent)
            model = stage.solver.solve(model, total.total(stage.mechanism.fraction_bits))
        except (FederationError, PrivacyError):  # no model, or one from which honest numbers leave the grid
            return PoisoningEffect(by_size=_share_found(suspicion.size, is_hostile))

    return replace(
        _judge(job, model, is_hostile, attack),
        by_size=_share_found(suspicion.size, is_hostile),
        by_fit=_share_found(suspicion.fit, is_hostile),
        by_held_out=_share_found(suspicion.held_out, is_hostile),
    )


_Sent = Sequence[FixedPointStatistics | None]
"""What is accepted in a round, by person; None of whom was refused."""


def _uploads(
    model: Model, stage: RoundMethod, ratings: Ratings, attack: Poisoning, attackers: Mapping[int, _Poisoner]
) -> _Sent:
    n_rows, bits = stage.statistic.shape[0], stage.mechanism.fraction_bits
    honest = stage.mechanism.release(stage.statistic.compute(model, ratings), n_rows, [], exact=False)
    limits = None if attack.defence == "none" else rating_bounds(model)
    uploads: list[FixedPointStatistics | None] = [_part(honest, user) for user in range(ratings.n_users)]
    for user, poisoner in attackers.items():
        uploads[user] = poisoner.upload(model, _part(honest, user), limits, bits)
    return uploads


def _sum(stage: RoundMethod, sent: _Sent, trimmed_nano: int = 0) -> UploadAggregate:
    total = UploadAggregate.empty(stage.statistic.shape, trimmed_nano)
    for upload in sent:
        if upload is not None:
            total.add(upload)
    total.settle()
    return total


def _part(sent: FixedPointStatistics, user: int) -> FixedPointStatistics:
    """Return what one of the devices sends."""
    begin, end = int(sent.indptr[user]), int(sent.indptr[user + 1])
    return FixedPointStatistics(
        indptr=np.array([0, end - begin]),
        indices=sent.indices[begin:end],
        rows=sent.rows[begin:end],
        tails=sent.tails[user : user + 1],
    )


class _Poisoner:
    """One of the hostile people: remembers how far it could go last time."""

    def __init__(self, attack: Poisoning, user: int) -> None:
        self._attack = attack
        self._rng = generator(SimulatedRandomness(SEED).secret("poison", user))
        self._first = 0  # place of the reach to begin with

    def upload(
        self, model: Model, honest: FixedPointStatistics, limits: RatingBounds | None, fraction_bits: int
    ) -> FixedPointStatistics | None:
        """Return what is sent instead of an honest upload; None where nothing of the kind would pass."""
        forge = self._forgery(model, honest, fraction_bits)
        if limits is None:
            return forge(UNCHECKED)
        for place in range(max(0, self._first - 1), len(_REACHES)):
            candidate = forge(_REACHES[place])
            try:
                limits.check(candidate, fraction_bits, 1)
            except BadUpload:
                continue
            self._first = place
            return candidate
        return None

    def _forgery(
        self, model: Model, honest: FixedPointStatistics, fraction_bits: int
    ) -> Callable[[float], FixedPointStatistics]:
        """Return what makes the upload of each reach."""
        scale, k = math.ldexp(1.0, fraction_bits), model.n_factors + 1
        low, high = (model.low - model.centre) / model.unit, (model.high - model.centre) / model.unit
        spread = np.sqrt(np.diag(np.linalg.inv(model.float64("user_precision"))))

        items = honest.indices
        match self._attack.aim:
            case None:
                return lambda reach: honest
            case "sign flip":
                return lambda reach: _flipped(honest, reach, k, self._attack)
            case "random":
                direction = spread * self._rng.standard_normal(k)
                targets = self._rng.choice(np.array([low, high]), len(items))
            case "promotion":
                items = np.union1d(items, [self._attack.target]).astype(np.int32)
                direction = np.append(np.zeros(k - 1), -spread[-1])
                targets = np.where(items == self._attack.target, high, low)

        if self._attack.statistic == "normal":
            return lambda reach: _of_side(items, reach * direction, targets, scale)
        return lambda reach: _of_errors(items, reach * direction, reach * np.sign(targets), honest.tails[0], scale)


def _flipped(honest: FixedPointStatistics, reach: float, k: int, attack: Poisoning) -> FixedPointStatistics:
    """Send the negative of what is learned from: of the gradient all, of normal equations the right-hand side."""
    rows, tails = honest.rows.astype(np.float64), honest.tails.astype(np.float64)
    if attack.statistic == "gradient" or attack.defence == "none":
        rows *= -reach
    else:
        rows[:, -k:] *= -reach
    return _upload(honest.indices, rows, tails[0])


def _of_side(items: Int32Array, side: Float64Array, targets: Float64Array, scale: float) -> FixedPointStatistics:
    """Return the normal equations of somebody with a certain side (p_u, b_u), and with such targets."""
    lower, z = np.tril_indices(len(side)), np.append(side[:-1], 1.0)
    errors = targets - side[-1]
    rows = np.concatenate([np.tile(np.outer(z, z)[lower], (len(items), 1)), errors[:, None] * z], axis=1)
    tail = np.concatenate([np.outer(side, side)[lower], side, [(errors**2).sum()]])
    return _upload(items, rows * scale, tail * scale)


def _of_errors(
    items: Int32Array, side: Float64Array, errors: Float64Array, tail: Int64Array, scale: float
) -> FixedPointStatistics:
    """Return the gradient of somebody with a certain side (p_u, b_u) and such errors; the tail is an honest one."""
    rows = errors[:, None] * np.append(side[:-1], 1.0)
    return _upload(items, rows * scale, tail.astype(np.float64))


def _upload(items: Int32Array, rows: Float64Array, tail: Float64Array) -> FixedPointStatistics:
    largest = 2.0**31 - 1
    return FixedPointStatistics(
        indptr=np.array([0, len(items)]),
        indices=items.astype(np.int32),
        rows=np.clip(np.rint(rows), -largest, largest).astype(np.int32),
        tails=np.clip(np.rint(tail), -(2.0**44), 2.0**44).astype(np.int64)[None],
    )


def _share_found(scores: Float64Array, is_hostile: BoolArray) -> float | None:
    """Return which part of the poisoners is among as many people of the highest scores; None where nobody is one."""
    n = int(is_hostile.sum())
    named: Int64Array = np.argsort(-scores, kind="stable")[:n]
    return float(is_hostile[named].mean()) if n else None


def _judge(job: Job, model: Model, is_hostile: BoolArray, attack: Poisoning) -> PoisoningEffect:
    """Judge a model by the held-out ratings of those who are no poisoners."""
    train_part, test = job.split.train, job.split.test
    profiles = fit_devices(model, train_part)
    others = test.where(~is_hostile[test.users()])
    error = rmse(predict(model, profiles, others.users(), others.items), others.values)

    raters = train_part.users()[train_part.items == attack.target]
    asked = np.setdiff1d(np.flatnonzero(~is_hostile), raters).astype(np.int32)
    predicted = predict(model, profiles, asked, np.full(len(asked), attack.target, np.int32))
    lists, _ = top_n(model, profiles, train_part, _LISTED)
    return PoisoningEffect(
        rmse=error,
        predicted=float(predicted.mean()),
        listed=float((lists[asked] == attack.target).any(axis=1).mean()),
    )


def _watch(suspicion: _Suspicion, job: Job, base: Model, stage: RoundMethod, sent: _Sent) -> None:
    """Add what one round says of each person, as `trace --influence` does."""
    bits = stage.mechanism.fraction_bits
    for user, upload in enumerate(sent):
        if upload is not None:
            suspicion.size[user] += math.sqrt((upload.rows.astype(np.float64) ** 2).sum(axis=1).mean())

    # After the sizes, which count also where no model follows and this fails.
    held_out = HeldOut.of(base, fit_devices(base, job.split.train), job.split.test)
    n_rows = sum(len(upload.rows) for upload in sent if upload is not None)
    without = LeaveOneOut.of(stage.solver, base, _sum(stage, sent).total(bits), n_rows, held_out)
    assert without is not None  # both statistics are solved item by item
    for user, upload in enumerate(sent):
        if upload is not None:
            effect = without.effect(upload.indices, upload.rows * np.float64(math.ldexp(1.0, -bits)))
            suspicion.fit[user] += effect.fit
            suspicion.held_out[user] += effect.held_out or 0.0

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
from liberate.model.leave_one_out import Effect, HeldOut, LeaveOneOut
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.model.ranking import top_n
from liberate.model.upload_bounds import RatingBounds, rating_bounds
from liberate.randomness import SimulatedRandomness, generator
from liberate.units import to_nano
from liberate_studies.worlds import SEED, Job

Aim = Literal["random", "sign flip", "promotion"]
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

    statistic: Literal["normal", "gradient"]
    defence: Defence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonedUploads:
    """What was accepted in a round.

    Attributes:
        base: The model it started from.
        sent: By person; None of whom was refused.
        sum: Of it.
    """

    base: Model
    sent: Sequence[FixedPointStatistics | None]
    sum: UploadAggregate


def poisoners_of(n_users: int, share: float) -> BoolArray:
    """Choose who poisons, at random."""
    chosen = np.zeros(n_users, np.bool_)
    order = generator(SimulatedRandomness(SEED).secret("poisoners")).permutation(n_users)
    chosen[order[: round(share * n_users)]] = True
    return chosen


def poisoned(job: Job, attack: Poisoning, rounds: int) -> PoisoningEffect:
    """Learn some rounds beside poisoners, and judge what came of it."""
    own, plan = job.split.train, job.plan
    is_hostile = poisoners_of(own.n_users, attack.share)
    model = plan.first_model(job.dataset, SimulatedRandomness(SEED).secret("initial model", 1))
    attackers = {int(user): _Poisoner(attack, int(user)) for user in np.flatnonzero(is_hostile)}
    size, fit, held_out = np.zeros(own.n_users), np.zeros(own.n_users), np.zeros(own.n_users)
    for number in range(rounds):
        stage = plan.stage_after(model)
        try:
            seen = _round(model, stage, own, attack, attackers)
            if attackers and number < WATCHED:
                size += sizes(seen)
                found = effects(job, stage, seen)
                fit += [effect.fit for effect in found]
                held_out += [effect.held_out or 0.0 for effect in found]
            model = stage.solver.solve(model, seen.sum.total(stage.mechanism.fraction_bits))
        except (FederationError, PrivacyError):  # no model, or one from which honest numbers leave the grid
            return PoisoningEffect(by_size=_found(size, is_hostile))
    return replace(
        _judged(job, model, is_hostile, attack),
        by_size=_found(size, is_hostile),
        by_fit=_found(fit, is_hostile),
        by_held_out=_found(held_out, is_hostile),
    )


def _round(
    model: Model, stage: RoundMethod, own: Ratings, attack: Poisoning, attackers: Mapping[int, _Poisoner]
) -> PoisonedUploads:
    n_rows, bits = stage.statistic.shape[0], stage.mechanism.fraction_bits
    sent = stage.mechanism.release(stage.statistic.compute(model, own), n_rows, [], exact=False)
    limits = None if attack.defence == "none" else rating_bounds(model)
    uploads: list[FixedPointStatistics | None] = [_part(sent, user) for user in range(own.n_users)]
    for user, poisoner in attackers.items():
        uploads[user] = poisoner.upload(model, _part(sent, user), limits, bits)
    trimmed_nano = to_nano(TRIM) if attack.defence == "limits and trimming" else 0
    total = UploadAggregate.empty(stage.statistic.shape, trimmed_nano)
    for upload in uploads:
        if upload is not None:
            total.add(upload)
    total.settle()
    return PoisonedUploads(base=model, sent=uploads, sum=total)


def _part(sent: FixedPointStatistics, user: int) -> FixedPointStatistics:
    """Give what one of the devices sends."""
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
        """Give what is sent instead of an honest upload; None where nothing of the kind would pass."""
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
        """Give the upload for each reach."""
        low, high = (model.low - model.centre) / model.unit, (model.high - model.centre) / model.unit
        k, n = model.n_factors + 1, len(honest.indices)
        scale = math.ldexp(1.0, fraction_bits)
        items = honest.indices
        direction, targets = np.zeros(k), np.zeros(n)
        spread = np.sqrt(np.diag(np.linalg.inv(model.float64("user_precision"))))
        match self._attack.aim:
            case None:
                return lambda reach: honest
            case "random":
                direction = spread * self._rng.standard_normal(k)
                targets = self._rng.choice(np.array([low, high]), n)
            case "sign flip":
                return lambda reach: _flipped(honest, reach, k, self._attack)
            case "promotion":
                items = np.union1d(items, [self._attack.target]).astype(np.int32)
                direction[-1] = -spread[-1]
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
    """Give the normal equations of somebody with a certain side (p_u, b_u), and with such targets."""
    k = len(side)
    lower = np.tril_indices(k)
    z = np.append(side[:-1], 1.0)
    rows = np.concatenate([np.tile(np.outer(z, z)[lower], (len(items), 1)), (targets - side[-1])[:, None] * z], axis=1)
    errors = float(((targets - side[-1]) ** 2).sum())
    return _upload(items, rows * scale, np.concatenate([np.outer(side, side)[lower], side, [errors]]) * scale)


def _of_errors(
    items: Int32Array, side: Float64Array, errors: Float64Array, tail: Int64Array, scale: float
) -> FixedPointStatistics:
    """Give the gradient of somebody with a certain side (p_u, b_u), and with such errors; the tail is an honest one."""
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


def _found(scores: Float64Array, is_hostile: BoolArray) -> float | None:
    """Give which part of the poisoners is among as many people of the highest scores; None where nobody is one."""
    n = int(is_hostile.sum())
    named: Int64Array = np.argsort(-scores, kind="stable")[:n]
    return float(is_hostile[named].mean()) if n else None


def _judged(job: Job, model: Model, is_hostile: BoolArray, attack: Poisoning) -> PoisoningEffect:
    """Judge a model by the held-out ratings of those who are no poisoners."""
    own, test = job.split.train, job.split.test
    profiles = fit_devices(model, own)
    others = test.where(~is_hostile[test.users()])
    error = rmse(predict(model, profiles, others.users(), others.items), others.values)
    rated = np.zeros(own.n_users, np.bool_)
    rated[own.users()[own.items == attack.target]] = True
    asked = np.flatnonzero(~is_hostile & ~rated).astype(np.int32)
    predicted = predict(model, profiles, asked, np.full(len(asked), attack.target, np.int32))
    lists, _ = top_n(model, profiles, own, _LISTED)
    return PoisoningEffect(
        rmse=error,
        predicted=float(predicted.mean()),
        listed=float((lists[asked] == attack.target).any(axis=1).mean()),
    )


def sizes(seen: PoisonedUploads) -> Float64Array:
    """Give the root of the mean squared norm of each person's rows, in units, shape (n_users,)."""
    found = [
        0.0 if each is None else float((each.rows.astype(np.float64) ** 2).sum(axis=1).mean()) for each in seen.sent
    ]
    return np.sqrt(found)


def effects(job: Job, stage: RoundMethod, seen: PoisonedUploads) -> list[Effect]:
    """Give by how much everybody else errs more because of each person's upload, as `trace --influence` does."""
    total = UploadAggregate.empty(stage.statistic.shape)
    accepted = [upload for upload in seen.sent if upload is not None]
    for upload in accepted:
        total.add(upload)
    bits, own = stage.mechanism.fraction_bits, job.split.train
    held_out = HeldOut.of(seen.base, fit_devices(seen.base, own), job.split.test)
    n_rows = sum(len(upload.rows) for upload in accepted)
    without = LeaveOneOut.of(stage.solver, seen.base, total.total(bits), n_rows, held_out)
    assert without is not None  # both statistics are solved item by item
    unit = np.float64(math.ldexp(1.0, -bits))
    return [
        Effect(0.0, 0.0) if upload is None else without.effect(upload.indices, upload.rows * unit)
        for upload in seen.sent
    ]

"""The rungs of the paper's ladder: learning in one place, federated, and federated on a ledger.

`federated` does the federation's arithmetic, statistic -> mechanism -> sum -> solve, without messages, signatures and
ledger. Given the seed and the ledger's root at the start of a recorded run it draws the same noise, and comes to the
same models to the bit: `require_same` compares their digests to those on the ledger.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from liberate.errors import LiberateError
from liberate.federation.coordinator.config import RoundMethod
from liberate.identifiers import Digest
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.lookup import entries
from liberate.model.codec import encode_model, model_digest
from liberate.model.kernels.server import add_rows
from liberate.model.metrics import Metrics, evaluate_model
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import fit
from liberate.model.solvers import AggregatedStatistics, has_converged
from liberate.randomness import SimulatedRandomness
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.timing import Stopwatch, measure
from liberate_studies.worlds import Job

REPEATS = 3
"""Runs of which the fastest is taken: what else goes on on the machine only ever slows one down."""

TIMES = f"Times are the best of {REPEATS} runs on one machine: their ratios count."

FIRST_PARTICIPANT = 3
"""On a new ledger the founder, the log and the coordinator have the numbers below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a rung came to.

    Attributes:
        models: Every version, from 0.
        seconds: From the first step to the last model.
        parts: Seconds by part of the work; what is missing to `seconds` is everything else.
    """

    models: tuple[Model, ...]
    seconds: float
    parts: Mapping[str, float]

    @property
    def rounds(self) -> int:
        return len(self.models) - 1

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Digest of each version from 1."""
        return tuple(model_digest(encode_model(model)) for model in self.models[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgered(Learned):
    """What a federation on a ledger came to.

    Attributes:
        run: Its run folder.
        recorded: The models' digests as the ledger records them.
    """

    run: Run
    recorded: tuple[Digest, ...]

    @property
    def first_root(self) -> bytes:
        """Root of the ledger when the run began; its noise depends on it."""
        return b64decode(self.run.record.first_root)


def centralised(job: Job) -> Learned:
    """Learn with all ratings in one place and without noise, until it converges or the rounds are over."""
    config, rounds = job.settings.model, job.plan.rounds
    models: list[Model] = []
    begin = time.perf_counter()
    for model in fit(config, job.split.train, job.dataset.low, job.dataset.high, first_secret(job)):
        models.append(model)
        if model.version == rounds or _is_over(models, config.tolerance):
            break
    return Learned(models=tuple(models), seconds=time.perf_counter() - begin, parts={})


def federated(job: Job, first_root: bytes = b"") -> Learned:
    """Do a federation's arithmetic without messages, signatures and ledger.

    Args:
        job: What to learn; its mode is `plain` or `local`.
        first_root: The ledger root that a recorded run's noise depends on.
    """
    plan = job.plan
    if not plan.stages:
        raise ValueError("in mode device there is nothing to federate")

    randomness, stopwatch = SimulatedRandomness(job.settings.run.seed, first_root), Stopwatch()
    begin = time.perf_counter()
    models = [plan.first_model(job.dataset, first_secret(job))]
    # A noisy run never stops early: its rounds were announced, and paid for, before the first.
    while models[-1].version < plan.rounds and (plan.is_noisy or not _is_over(models, job.settings.model.tolerance)):
        stage = plan.stage_after(models[-1])
        with stopwatch.running():
            total = _collect(job, models[-1], stage, randomness)
            with measure("solve"):
                models.append(stage.solver.solve(models[-1], total))
    return Learned(models=tuple(models), seconds=time.perf_counter() - begin, parts=dict(stopwatch.seconds))


def first_secret(job: Job) -> bytes:
    """Return what a simulated run draws its first model from."""
    return SimulatedRandomness(job.settings.run.seed).secret("initial model", 1)


def _is_over(models: Sequence[Model], tolerance: float | None) -> bool:
    return len(models) > 1 and has_converged(models[-2], models[-1], tolerance)


def _collect(
    job: Job,
    model: Model,
    stage: RoundMethod,
    randomness: SimulatedRandomness,
) -> AggregatedStatistics:
    """Add up what leaves all devices in the round that follows a model."""
    train_part, batch_size = job.split.train, job.settings.federation.batch_size
    n_rows, width, n_tail = stage.statistic.shape
    rows, tail = np.zeros((n_rows, width), np.int64), np.zeros(n_tail, np.int64)

    for begin in range(0, train_part.n_users, batch_size):
        slots = np.arange(begin, min(begin + batch_size, train_part.n_users))
        keys = [randomness.secret("noise", model.version + 1, FIRST_PARTICIPANT + slot) for slot in slots.tolist()]
        with measure("fit"):
            batch = stage.statistic.compute(model, train_part.select(slots))
        with measure("noise"):
            release = stage.mechanism.release(batch, n_rows, keys, exact=False)
        with measure("sum"):
            add_rows(rows, release.indices, release.rows)
            tail += release.tails.sum(axis=0)

    unit = np.float64(2.0**-stage.mechanism.fraction_bits)
    return AggregatedStatistics(rows * unit, tail * unit, train_part.n_users)


def ledgered(job: Job, folder: Path) -> Ledgered:
    """Train a federation as `liberate train` does: keys, messages, signatures and the ledger in a new folder."""
    result = train(job.settings, folder)
    run = load_run(folder)
    with closing(run.open_ledger()) as ledger:
        recorded = tuple(Digest(entry.record.digest) for entry in entries(ledger, ModelRecord))
    return Ledgered(
        models=tuple(run.model(version) for version in range(result.rounds + 1)),
        seconds=result.seconds,
        parts=run.record.seconds,
        run=run,
        recorded=recorded,
    )


def require_same(free: Learned, recorded: Sequence[Digest]) -> None:
    """Check that a run without ledger came to the models that are recorded on one.

    Raises:
        LiberateError: They differ; the first round that does is named.
    """
    for number, (one, other) in enumerate(zip(free.digests, recorded, strict=False), start=1):
        if one != other:
            raise LiberateError(
                f"round {number}: the model is {one.hex()[:16]} without the ledger and {other.hex()[:16]} on it"
            )
    if free.rounds != len(recorded):
        raise LiberateError(f"{free.rounds} rounds without the ledger, {len(recorded)} on it")


def judge(job: Job, model: Model) -> Metrics:
    """Judge a model by the held-out ratings: the simulator's view, which no participant has."""
    return evaluate_model(model, fit_devices(model, job.split.train), job.split, None)


def judge_ends(jobs: Sequence[Job]) -> tuple[list[Metrics], list[Metrics]]:
    """Federate each job, and judge its first models, before which nothing is sent, and its last ones."""
    learned = [federated(job).models for job in jobs]
    first, last = ([judge(job, models[end]) for job, models in zip(jobs, learned, strict=True)] for end in (0, -1))
    return first, last


L = TypeVar("L", bound=Learned)
T = TypeVar("T")


def fastest(learn: Callable[[], L]) -> L:
    """Learn the same several times and return the fastest."""
    return min((learn() for _ in range(REPEATS)), key=lambda learned: learned.seconds)


def timed(act: Callable[[], T]) -> tuple[T, float]:
    """Do the same several times; return what came of it, and the least seconds that it took."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        result = act()
        times.append(time.perf_counter() - begin)
    return result, min(times)

"""Which uploads hurt a model: how large each one is, and how the others fare without it.

Read from the uploads that a run kept, so by who may see them. A large upload, or one without which the others are
better off, is a reason to look and no proof: an honest participant of rare taste has both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from liberate.arrays import FixedPointStatistics
from liberate.errors import LiberateError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.store.models import ModelStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.round_messages import RoundAnswer
from liberate.ledger.format.records import Update
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry
from liberate.ledger.queries.usable_copies import CopyWeights
from liberate.model.leave_one_out import Effect, HeldOut, LeaveOneOut
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import solver_from
from liberate.runs.folder import Run
from liberate.timing import Progress, silent
from liberate.tracing.parties import Party, PartyNames
from liberate.tracing.rounds import CompletedRound, completed_rounds


@dataclass(frozen=True, kw_only=True)
class UploadInfluence(Party):
    """A participant's upload, how large it is and what it did to the others.

    Attributes:
        size: Its norm, in the statistic's unit.
        row: Root mean square of the L2 norms of its rows.
        fit: By how much the others' root mean squared error is larger because of the upload, in rating points, on their
            own ratings as their uploads state them; None where that cannot be said.
        held_out: The same on held-out ratings, as a simulation knows them.
    """

    size: float
    row: float
    fit: float | None
    held_out: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluenceAnswer:
    """Which uploads hurt a model; the fields are the keys of `liberate trace --model --influence --json`.

    Attributes:
        version, round, position: Of the model, its round and its entry.
        statistic: What the uploads state.
        norm: Which norm is measured: that of the round's clip, else `l2`.
        bound: The most it may be; None where no clip says so: uploads were checked against what ratings can give.
        median: Of the norms.
        missing: How many updates have no upload here.
        participants: Whose uploads are here, the greatest harm first.
    """

    version: int
    round: int
    position: int
    statistic: str
    norm: str
    bound: float | None
    median: float
    missing: int
    participants: tuple[UploadInfluence, ...]


def trace_influence(run: Run, version: int, progress: Progress = silent) -> InfluenceAnswer:
    """Say of each upload behind a model how large it is and what it did to the others.

    Args:
        run: A run that kept its uploads.
        version: The model's version.
        progress: Told each step.

    Raises:
        LiberateError: No such model of this run, its uploads were not kept or do not open, or they were masked.
    """
    if not UploadStore.exists(run.uploads_folder):
        raise LiberateError(f"{run.folder} kept no uploads", hint="a run keeps them with ledger.keep_uploads=true")
    with run.open() as reader, UploadStore(run.uploads_folder) as uploads:
        closed = _round_of(reader.ledger, run, version)
        base = ModelStore(run.folder / "model").load(closed.record.base_version, closed.record.base_digest)
        kept = _KeptUploads.of(reader.ledger, uploads, closed, base)

        progress("reading the uploads")
        sizes = _Sizes.of(kept)
        if not sizes.norms:
            raise LiberateError(f"no upload of model {version} is here", hint="they were not kept, or were erased")

        progress("judging by held-out ratings")
        leave_out = _leave_one_out(run, closed, base, sizes)
        progress("solving without each of them")
        names = PartyNames(reader.ledger.state.principals, reader.devices)
        influences = _influences(names, sizes, _effects(kept, leave_out))

    return InfluenceAnswer(
        version=version,
        round=closed.record.number,
        position=closed.model_position,
        statistic=closed.record.statistic,
        norm=kept.norm,
        bound=kept.bound,
        median=float(np.median(list(sizes.norms.values()))),
        missing=len(kept.used) - len(sizes.norms),
        participants=tuple(sorted(influences, key=_worst_first)),
    )


def _influences(names: PartyNames, sizes: _Sizes, effects: Mapping[int, Effect]) -> list[UploadInfluence]:
    return [
        UploadInfluence(
            **vars(names.of(number)),
            size=norm,
            row=sizes.rows[number],
            fit=effects[number].fit if number in effects else None,
            held_out=effects[number].held_out if number in effects else None,
        )
        for number, norm in sizes.norms.items()
    ]


def _worst_first(influence: UploadInfluence) -> tuple[float, float]:
    harm = influence.held_out or 0.0 if influence.fit is None else influence.fit
    return -harm, -influence.size


def _round_of(ledger: Ledger, run: Run, version: int) -> CompletedRound:
    """Find the round that ended in a model of a run."""
    for closed in completed_rounds(ledger, run.record.run):
        if closed.model.version == version:
            if closed.record.is_masked:
                raise LiberateError(f"the uploads of model {version} were masked: none says anything by itself")
            return closed
    raise LiberateError(f"no round of {run.folder} ended in model {version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeptUploads:
    """The uploads kept of a round, each checked as it is read.

    Attributes:
        closed: The round.
        uploads: Where they are kept.
        validator: Checks each upload as the coordinator had to.
        weights: Of the copies that updates used.
        used: The updates that the model used, by position.
    """

    closed: CompletedRound
    uploads: UploadStore
    validator: UploadValidator
    weights: CopyWeights
    used: dict[int, RecordedEntry[Update]]

    @classmethod
    def of(cls, ledger: Ledger, uploads: UploadStore, closed: CompletedRound, base: Model) -> _KeptUploads:
        weights = CopyWeights(ledger)
        validator = UploadValidator.of(closed.record, closed.mechanism, base, weights)
        return cls(closed=closed, uploads=uploads, validator=validator, weights=weights, used=closed.used(ledger))

    @property
    def unit(self) -> float:
        return math.ldexp(1.0, -self.closed.record.fraction_bits)

    @property
    def norm(self) -> str:
        return "l2" if self.validator.ceiling is None else self.validator.ceiling.norm

    @property
    def bound(self) -> float | None:
        """The most that the norm of an upload may be, in the statistic's unit."""
        return None if self.validator.ceiling is None else self.validator.ceiling.total * self.unit

    def __iter__(self) -> Iterator[tuple[int, FixedPointStatistics, Fraction]]:
        """Yield each upload with its participant and the weight of the copies in it, in ledger order."""
        for kept in self.uploads.of_round(self.closed.record.number):
            update = self.used.get(kept.position)
            if update is None:
                raise LiberateError(f"the model did not use the upload that is kept for entry {kept.position}")
            answer = RoundAnswer(entry=update.entry.data, upload=kept.upload, salt=kept.salt)
            yield update.record.author, self.validator.check(kept.number, answer), self.weights.of(update.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """How large the uploads of a round are.

    Attributes:
        norms: Norm of each participant's upload, in the statistic's unit.
        rows: Root mean square of the L2 norms of its rows, likewise.
        sum: Of all uploads, not trimmed.
        n_rows: Rows in all.
    """

    norms: dict[int, float]
    rows: dict[int, float]
    sum: UploadAggregate
    n_rows: int

    @classmethod
    def of(cls, kept: _KeptUploads) -> _Sizes:
        """Measure all uploads."""
        norms: dict[int, float] = {}
        row_norms: dict[int, float] = {}
        total = UploadAggregate.empty(kept.closed.record.shape)
        n_rows = 0

        for number, upload, weight in kept:
            total.add(upload, weight)
            n_rows += len(upload.rows)
            rows = upload.rows.astype(np.float64).ravel()
            tail = upload.tails[0].astype(np.float64)
            square = float(rows @ rows)

            norm = math.sqrt(square + float(tail @ tail))
            if kept.norm == "l1":
                norm = float(abs(rows).sum() + abs(tail).sum())
            norms[number] = norm * kept.unit
            row_norms[number] = math.sqrt(square / max(1, len(upload.rows))) * kept.unit

        return cls(norms=norms, rows=row_norms, sum=total, n_rows=n_rows)


def _leave_one_out(run: Run, closed: CompletedRound, base: Model, sizes: _Sizes) -> LeaveOneOut | None:
    """Prepare to leave each upload out, where the round's model predicts ratings and is solved item by item."""
    is_open = closed.record.account == "none" and closed.record.statistic in ("normal", "gradient")
    if not is_open or not base.predicts_ratings:
        return None

    held_out = None
    if run.settings.run.simulated:
        split = run.split(run.dataset())
        if split.test.n_ratings:
            held_out = HeldOut.of(base, fit_devices(base, split.train), split.test)

    solver = solver_from(closed.model.solver, closed.model.parameters)
    return LeaveOneOut.of(solver, base, sizes.sum.total(closed.record.fraction_bits), sizes.n_rows, held_out)


def _effects(kept: _KeptUploads, leave_out: LeaveOneOut | None) -> dict[int, Effect]:
    if leave_out is None:
        return {}
    return {
        number: leave_out.effect(upload.indices, upload.rows.astype(np.float64) * kept.unit)
        for number, upload, _ in kept
    }

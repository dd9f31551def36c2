"""Which uploads hurt a model: how large each one is, and how the others fare without it.

Read from the uploads that a run kept, so by who may see them. A large upload, or one without which the others are
better off, is a reason to look and no proof: an honest person of rare taste has both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from liberate.arrays import FixedPointStatistics
from liberate.errors import LiberateError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.store.devices import DeviceStore
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
from liberate.timing import Progress, Stopwatch, silent
from liberate.tracing.answer_json import Json, party
from liberate.tracing.rounds import CompletedRound, completed_rounds


def trace_influence(run: Run, version: int, progress: Progress = silent) -> Json:
    """Say of each upload behind a model how large it is and what it did to the others.

    Args:
        run: A run that kept its uploads.
        version: The model's version.
        progress: Told each step.

    Returns:
        `version`, `round`, `statistic`; `norm`, which one is measured: that of the round's clip, else `l2`; `bound`,
        the most it may be, None where no clip says so (each upload was then held against what ratings can give);
        `median` of the norms; `missing`, how many updates have no upload here; `participants`, named in all ways, the
        greatest harm first: `size`, the norm; `row`, root mean square of its rows' norms; `fit` and `held_out`, by how
        much the others' root mean squared error is larger because of the upload, in rating points, on their own ratings
        as their uploads state it, and on held-out ratings, as a simulation knows it. None where that cannot be said.

    Raises:
        LiberateError: No such model of this run, its uploads were not kept or do not open, or they were masked.
    """
    if not UploadStore.exists(run.uploads_folder):
        raise LiberateError(
            f"{run.folder} kept no uploads", hint="a run keeps them with --set ledger.keep_uploads=true"
        )
    with (
        closing(run.open_ledger()) as ledger,
        UploadStore(run.uploads_folder) as uploads,
        DeviceStore(run.devices_folder) as d,
    ):
        closed = _round_of(ledger, run, version)
        store = ModelStore(run.folder / "model")
        base = store.load(closed.record.base_version, closed.record.base_digest)
        room = _Room.of(ledger, uploads, closed, base)
        progress("reading the uploads")
        found = _Sizes.of(room)
        if not found.sizes:
            raise LiberateError(f"no upload of model {version} is here", hint="they were not kept, or forgotten")
        progress("judging by held-out ratings")
        leave_out = _leave_one_out(run, closed, base, found)
        progress("solving without each of them")
        effects = _effects(room, leave_out)
        participants = [
            party(number, ledger.state.principals, d)
            | {"size": size, "row": found.rows[number], "fit": effect.fit if effect else None}
            | {"held_out": effect.held_out if effect else None}
            for number, size in found.sizes.items()
            for effect in (effects.get(number),)
        ]
    return {
        "version": version,
        "round": closed.record.number,
        "position": closed.model_position,
        "statistic": closed.record.statistic,
        "norm": room.norm,
        "bound": room.bound,
        "median": float(np.median(list(found.sizes.values()))),
        "missing": len(room.used) - len(found.sizes),
        "participants": sorted(participants, key=_worst_first),
    }


def _worst_first(person: Json) -> tuple[float, float]:
    return -(person["fit"] if person["fit"] is not None else person["held_out"] or 0.0), -person["size"]


def _round_of(ledger: Ledger, run: Run, version: int) -> CompletedRound:
    """Find the round that ended in a model of a run."""
    for closed in completed_rounds(ledger, int(run.record["run"])):
        if closed.model.version == version:
            if closed.record.is_masked:
                raise LiberateError(f"the uploads of model {version} were masked: none says anything by itself")
            return closed
    raise LiberateError(f"no round of {run.folder} ended in model {version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """A round with the uploads kept of it.

    Attributes:
        closed, uploads: What they are.
        gate: Checks each upload as the coordinator had to.
        weights: Of the shares that updates used.
        used: Updates that the model used, by position.
    """

    closed: CompletedRound
    uploads: UploadStore
    gate: UploadValidator
    weights: CopyWeights
    used: dict[int, RecordedEntry[Update]]

    @classmethod
    def of(cls, ledger: Ledger, uploads: UploadStore, closed: CompletedRound, base: Model) -> _Room:
        weights = CopyWeights(ledger)
        gate = UploadValidator.of(closed.record, closed.mechanism, base, weights, Stopwatch())
        return cls(closed=closed, uploads=uploads, gate=gate, weights=weights, used=closed.used(ledger))

    @property
    def unit(self) -> float:
        return math.ldexp(1.0, -self.closed.record.fraction_bits)

    @property
    def norm(self) -> str:
        return "l2" if self.gate.ceiling is None else self.gate.ceiling.norm

    @property
    def bound(self) -> float | None:
        """The most that the norm of an upload may be, in the statistic's unit."""
        return None if self.gate.ceiling is None else self.gate.ceiling.total * self.unit

    def __iter__(self) -> Iterator[tuple[int, FixedPointStatistics, Fraction]]:
        """Give each upload with its participant and the weight of the copies in it, in the order of the ledger."""
        for each in self.uploads.of_round(self.closed.record.number):
            update = self.used.get(each.position)
            if update is None:
                raise LiberateError(f"the upload kept for entry {each.position} is none of the model's")
            answer = RoundAnswer(entry=update.entry.data, upload=each.upload, salt=each.salt)
            yield update.record.author, self.gate.check(each.number, answer), self.weights.of(update.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """How large the uploads of a round are.

    Attributes:
        sizes: Norm of each participant's upload, in the statistic's unit.
        rows: Root mean square of the L2 norms of its rows, likewise.
        sum: Of all uploads, not trimmed.
        n_rows: Rows in all.
    """

    sizes: dict[int, float]
    rows: dict[int, float]
    sum: UploadAggregate
    n_rows: int

    @classmethod
    def of(cls, room: _Room) -> _Sizes:
        sizes, means, total, n_rows = {}, {}, UploadAggregate.empty(room.closed.record.shape), 0
        for number, upload, n_copies in room:
            total.add(upload, n_copies)
            n_rows += len(upload.rows)
            rows, tail = upload.rows.astype(np.float64).ravel(), upload.tails[0].astype(np.float64)
            square = float(rows @ rows)
            size = (
                math.sqrt(square + float(tail @ tail))
                if room.norm == "l2"
                else float(abs(rows).sum() + abs(tail).sum())
            )
            sizes[number] = size * room.unit
            means[number] = math.sqrt(square / max(1, len(upload.rows))) * room.unit
        return cls(sizes=sizes, rows=means, sum=total, n_rows=n_rows)


def _leave_one_out(run: Run, closed: CompletedRound, base: Model, found: _Sizes) -> LeaveOneOut | None:
    """Prepare to leave each upload out, where the round's model predicts ratings and is solved item by item."""
    is_open = closed.record.account == "none" and closed.record.statistic in ("normal", "gradient")
    if not (is_open and base.predicts_ratings):
        return None
    held_out = None
    if run.settings.run.simulated:
        split = run.split(run.dataset())
        if split.test.n_ratings:
            held_out = HeldOut.of(base, fit_devices(base, split.train), split.test)
    solver = solver_from(closed.model.solver, closed.model.parameters)
    return LeaveOneOut.of(solver, base, found.sum.total(closed.record.fraction_bits), found.n_rows, held_out)


def _effects(room: _Room, leave_out: LeaveOneOut | None) -> dict[int, Effect]:
    if leave_out is None:
        return {}
    return {
        number: leave_out.effect(upload.indices, upload.rows.astype(np.float64) * room.unit)
        for number, upload, _ in room
    }

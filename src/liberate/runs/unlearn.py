"""Forgetting people who have left: a further run of a federation whose models owe them nothing, or next to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from liberate.arrays import BoolArray
from liberate.errors import LiberateError, SettingsError, StaleModel
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.models import ModelStore
from liberate.ledger.format.records import ModelRecord, Round
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entry_at
from liberate.ledger.trace.model_ancestry import model_ancestry
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import aggregate_statistics, build_method
from liberate.model.solvers import VariationalBayes
from liberate.model.statistics import NormalEquations
from liberate.model.unlearning import distance, unlearn_rounds
from liberate.runs.federation_folder import FederationFolder
from liberate.runs.folder import Run, load_run
from liberate.runs.run_record import Result
from liberate.runs.start import StartingPoint
from liberate.runs.train import train
from liberate.settings import Settings
from liberate.timing import Progress, silent

Method = Literal["exact", "fast"]
"""Learn again from the last model without the people, or follow the rounds without them to first order."""

_KEPT: Mapping[str, str] = {
    "device": "nothing leaves a device but copies that are given, and no model has used one of theirs",
    "local": "every upload was noised on the device: the models would be nearly as likely, as epsilon and delta say, "
    "had they sent nothing; they take no further part, and there is nothing to learn again",
    "distributed": "every sum was noised: the models would be nearly as likely, as epsilon and delta say, had they "
    "never taken part; they take no further part, and there is nothing to learn again",
}
_COPIED = (
    "what they answered is covered by epsilon and delta, the copies they gave are not: these models have used them; a "
    "further run, liberate train --ledger, uses their copies no more, and costs everybody its epsilon anew"
)


_UNUSED = "no model that this run's last one goes back to has used their data"
_LEARNED_AGAIN = "the models of the new run are what they would be had these people never taken part"
_ESTIMATED = "the models of the new run hold what the estimate has left of these people"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Departed:
    """Who has withdrawn everything, and what a run's models owe them.

    Attributes:
        participants: Their numbers.
        shaped: Versions, ascending, of the last model and its ancestors that used their data.
        copies_used: Whether any of these models used copies of anybody's ratings.
        clean: Version of the last model before those.
        origin: That model; None where its file is gone, or it is one of constants.
    """

    participants: frozenset[int]
    shaped: tuple[int, ...]
    copies_used: bool
    clean: int
    origin: Model | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlearned:
    """What was done to forget people; the keys of `liberate unlearn --json`.

    Attributes:
        participants: Numbers of those who have withdrawn everything.
        models: Versions among the ancestors of the run's last model, it included, that used their data; of a private
            run, those that used copies they gave.
        method: What was done; None: there was nothing to do.
        started_from: Version of the model that the new run continues from; 0: one of constants.
        proved: Models of the new run and its ancestors whose people were proved to be others; None beside `fast`.
        seconds: From the estimate, where there is one, to the last model on the ledger; without proofs and figures.
        words: What that means.
        epsilon: Of each participant in the run, where that is the guarantee.
        delta: Of that epsilon.
        distance_before: How far the run's last model is from one learned again without the people; None: not measured.
        distance_after: The same of the new one.
        result: The figures of the new run; None where none was needed.
    """

    participants: tuple[int, ...]
    models: tuple[int, ...] = ()
    method: Method | None = None
    started_from: int | None = None
    proved: int | None = None
    seconds: float | None = None
    words: str
    epsilon: float | None = None
    delta: float | None = None
    distance_before: float | None = None
    distance_after: float | None = None
    result: Result | None = None


def unlearn(
    run: Run, out: Path, *, method: Method = "exact", measure: bool = False, progress: Progress = silent
) -> Unlearned:
    """Forget those who have withdrawn everything, by a further run of the federation without them.

    The same call continues a further run that was killed.

    Args:
        run: A finished run.
        out: The folder of the further run.
        method: `exact` starts from the last model that none of them had shaped, `fast` from an estimate of the model
            before last as it would have been without them, and adds one round.
        measure: Whether to learn again in one place, and to say how far the models are from that.
        progress: Told each step.

    Raises:
        LiberateError: Nobody has withdrawn, or the run is not finished.
        SettingsError: The fast way does not exist for what the run learned, or a run of real people is to be measured.
    """
    if measure and not run.settings.run.simulated:
        raise SettingsError("models are measured, by learning again in one place, in simulations only")
    departed = _departed(run, progress)
    if isinstance(departed, Unlearned):
        return departed

    begin = time.perf_counter()
    settings, start = _start(run, departed, method, progress)
    estimating = time.perf_counter() - begin

    result = train(settings, out, ledger=run.home, start=start, progress=progress)
    unlearned = _unlearned(departed, method, load_run(out), estimating + result.seconds)
    if not measure:
        return unlearned

    progress("measuring")
    before, after = _distances(run, load_run(out), departed, is_exact=method == "exact")
    return replace(unlearned, distance_before=before, distance_after=after)


def _departed(run: Run, progress: Progress) -> _Departed | Unlearned:
    """Return who has left and which models they shaped, or the answer where nothing is to be learned again.

    Raises:
        LiberateError: Nobody has withdrawn everything.
    """
    result, mode = run.result, run.settings.privacy.mode
    with closing(run.open_ledger()) as ledger:
        principals = enumerate(ledger.state.principals)
        participants = frozenset(number for number, principal in principals if principal.has_withdrawn)
        if not participants:
            raise LiberateError("nobody has withdrawn everything: there is nobody to forget")

        progress("looking for the last model without them")
        is_private, names = mode in _KEPT, tuple(sorted(participants))
        ancestors = list(_ancestors(ledger, run.record.first_version + result.rounds, run))
        shaped = tuple(sorted(model.version for model in ancestors if participants & model.exposed(is_private)))
        if is_private and not (shaped and mode == "device"):
            words = _COPIED if shaped else _KEPT[mode]
            return Unlearned(participants=names, models=shaped, words=words, epsilon=result.epsilon, delta=result.delta)
        if not shaped:
            return Unlearned(participants=names, words=_UNUSED)

        clean = shaped[0] - 1
        return _Departed(
            participants=participants,
            shaped=shaped,
            copies_used=any(model.copied for model in ancestors),
            clean=clean,
            origin=_load(run, ledger, clean),
        )


def _start(run: Run, departed: _Departed, method: Method, progress: Progress) -> tuple[Settings, StartingPoint]:
    """Return the settings of the further run and what it starts from."""
    settings = _settings(run)
    if method == "exact":
        return settings, StartingPoint(departed.origin, departed.clean if departed.origin else 0)

    one_round = replace(settings, federation=replace(settings.federation, rounds=1))
    return one_round, StartingPoint(_estimate(run, departed, progress), run.record.first_version + run.result.rounds)


def _unlearned(departed: _Departed, method: Method, new: Run, seconds: float) -> Unlearned:
    """Say what the further run has done; of the exact way with a proof."""
    is_exact = method == "exact"
    return Unlearned(
        participants=tuple(sorted(departed.participants)),
        models=departed.shaped,
        method=method,
        started_from=new.record.started_from,
        proved=_prove(new, departed.participants) if is_exact else None,
        seconds=seconds,
        words=_LEARNED_AGAIN if is_exact else _ESTIMATED,
        result=new.result,
    )


# --- what the ledger says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ancestor:
    """A model on the way back from another, itself included.

    Attributes:
        version: Its version.
        answered: Whose answers its round used.
        copied: Of whom it used copies, in answers of others or in the pool.
    """

    version: int
    answered: frozenset[int]
    copied: frozenset[int]

    def exposed(self, is_private: bool) -> frozenset[int]:
        """Return whose data it used without noise that is the guarantee: private answers have their own."""
        return self.copied if is_private else self.answered | self.copied


def _ancestors(ledger: Ledger, version: int, run: Run) -> Iterator[_Ancestor]:
    """Yield the models from a version of a run back to the beginning, each proved.

    What a run continued from is not on the ledger. The run's own folder says it; of another run it is taken to be the
    model that the federation had reached.
    """
    while version > 0:
        for step in model_ancestry(ledger, version):
            yield _Ancestor(step.model.record.version, step.participants, step.pooled.union(step.senders))
        version = _came_from(step.round.record, run)


def _came_from(opening: Round, run: Run) -> int:
    """Return the version that the first model of a lineage goes on with, by the round that made it; 0 for none."""
    if opening.run == run.record.run:
        return run.record.started_from
    return opening.base_version


def _load(run: Run, ledger: Ledger, version: int) -> Model | None:
    """Return a model that a run has made or started from, or that one before it made; None where its file is gone."""
    if version >= run.record.first_version:
        return run.model(version)
    if not version:
        return None

    digest = entry_at(ledger, ledger.positions(kind="model")[version - 1], ModelRecord).record.digest
    for folder in FederationFolder(run.home).all_run_folders():
        with suppress(StaleModel):
            return ModelStore(folder / "model").load(version, digest)
    return None


def _prove(new: Run, participants: frozenset[int]) -> int:
    """Check that nobody of some people shaped a run's last model, and count the models on the way."""
    with closing(new.open_ledger()) as ledger:
        proved = 0
        for model in _ancestors(ledger, new.record.first_version + new.result.rounds, new):
            if participants & model.exposed(is_private=False):
                raise LiberateError(f"model {model.version} has used data of somebody who was to be forgotten")
            proved += 1
        return proved


# --- the further run --------------------------------------------------------------------------------------------------


def _settings(run: Run) -> Settings:
    """Return a run's settings, to be used from another folder."""
    source = run.folder / run.settings.data.source
    if not source.exists():
        return run.settings
    return replace(run.settings, data=replace(run.settings.data, source=str(source.resolve())))


def _took_part(run: Run, names: Sequence[str], participants: frozenset[int]) -> tuple[BoolArray, BoolArray]:
    """Tell of each user of a run's data set whether it took part in the run, and whether it is one of some people."""
    with DeviceStore(run.devices_folder) as devices:
        numbers = {device.user_id: device.number for device in devices.devices()}
    absent = set(run.record.left_out)
    took_part = np.array([name not in absent for name in names], np.bool_)
    return took_part, np.array([numbers.get(name) in participants for name in names], np.bool_)


def _estimate(run: Run, departed: _Departed, progress: Progress) -> Model:
    """Return nearly the model before last as it would have been without some people."""
    if departed.copies_used:
        raise SettingsError("there is no fast way to forget copies that others learned from", hint="--method exact")

    dataset, clean = run.dataset(), departed.clean
    ratings = run.split(dataset).train
    statistic, solver = build_method(run.settings.model, ratings.n_items, noisy=False)
    if not (isinstance(statistic, NormalEquations) and isinstance(solver, VariationalBayes)):
        raise SettingsError(
            f"there is no fast way to forget what {solver.name} has learned of {statistic.name}", hint="--method exact"
        )

    took_part, are_leaving = _took_part(run, dataset.user_ids, departed.participants)
    everybody = ratings.select(np.flatnonzero(took_part))
    leavers = ratings.select(np.flatnonzero(took_part & are_leaving))
    stayers = ratings.select(np.flatnonzero(took_part & ~are_leaving))
    last = run.record.first_version + run.result.rounds
    if clean < run.record.first_version or last - clean < 2 or not leavers.n_ratings:
        raise SettingsError(
            "the fast way wants the run that first used their data, of two rounds or more, and their ratings on their"
            " devices",
            hint="--method exact",
        )

    progress("following the rounds without them")
    bases = [run.model(version) for version in range(clean, last - 1)]
    totals = [aggregate_statistics(statistic, base, everybody) for base in bases]
    sides = [fit_devices(base, stayers) for base in bases]
    return unlearn_rounds(solver, bases, totals, sides, stayers, leavers)


def _distances(run: Run, new: Run, departed: _Departed, *, is_exact: bool) -> tuple[float | None, float | None]:
    """Return how far a run's last model and a new one are from one learned again without some people.

    That is the new one itself where it was learned again; else it is learned in one place, from the same model in as
    many rounds. None where the catalogue has grown meanwhile.
    """
    dataset = run.dataset()
    split, old, last = run.split(dataset), run.model(), new.model()
    if old.n_items != last.n_items:
        return None, None

    took_part, are_leaving = _took_part(run, dataset.user_ids, departed.participants)
    exact = last
    if not is_exact:
        statistic, solver = build_method(run.settings.model, old.n_items, noisy=False)
        stayers, exact = split.train.select(np.flatnonzero(took_part & ~are_leaving)), run.model(departed.clean)
        for _ in range(departed.clean, old.version):
            exact = solver.solve(exact, aggregate_statistics(statistic, exact, stayers))

    before, after = (distance(model, exact, split.train, split.test, ~are_leaving) for model in (old, last))
    return before, after

"""What a finished run is worth: metrics in simulations; recommendations and their own error for one participant."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from liberate.arrays import Float32Array, Int32Array
from liberate.data.dataset import Dataset
from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.errors import LiberateError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_out_ratings, held_ratings
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.model.metrics import Metrics, baselines, evaluate_model, rmse
from liberate.model.model import Model
from liberate.model.personal_fit import fit_with_copies
from liberate.model.profiles import fit_devices, predict
from liberate.model.ranking import top_n
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import Participant, device_of, find_participant
from liberate.runs.run_data import erased_users, save_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All metrics on the held-out part, with the free baselines.

    Attributes:
        metrics: Of the run's last model.
        baselines: Metrics of what costs nothing, by name.
        test: The held-out ratings.
        predictions: Prediction of each held-out rating, in the order of `test`; None of a model that predicts none.
        top: Ten best items of each user, best first, shape (n_users, 10); -1 where there are fewer, and of users who
            were forgotten.
    """

    metrics: Metrics
    baselines: dict[str, dict[str, float]]
    test: Ratings
    predictions: Float32Array | None
    top: Int32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One item of a list.

    Attributes:
        rank: From 1.
        item_id: In the data set.
        title: Where known, else empty.
        prediction: Expected rating, in rating points; None of a model that predicts none.
    """

    rank: int
    item_id: str
    title: str
    prediction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnError:
    """How well a model predicts what a participant's device holds out.

    Attributes:
        rmse: In rating points, >= 0.
        ratings: How many are held out, > 0.
    """

    rmse: float
    ratings: int


def evaluate_run(run: Run) -> Evaluation:
    """Evaluate a simulated run's last model on the held-out ratings, baselines beside it.

    Raises:
        LiberateError: The run is of real people, or not finished.
    """
    if not run.settings.run.simulated:
        raise LiberateError(
            "the run is of real people: what is computed from ratings they hold out does not leave their devices",
            hint="each person sees their own error: liberate recommend RUN --participant NAME",
        )
    dataset = run.dataset()
    split = run.split(dataset)
    model = run.model()
    profiles = fit_devices(model, split.train)
    users, top = split.test.users(), top_n(model, profiles, split.train, 10)[0]
    with DeviceStore(run.devices_folder) as devices:
        top[erased_users(devices, dataset)] = -1
    return Evaluation(
        metrics=evaluate_model(model, profiles, split, dataset.catalogue),
        baselines=baselines(split, dataset.low, dataset.high, dataset.catalogue),
        test=split.test,
        predictions=predict(model, profiles, users, split.test.items) if model.predicts_ratings else None,
        top=top,
    )


def measure_models(run: Run, dataset: Dataset, split: Split, last: Model) -> Metrics:
    """Measure every model of a run on held-out ratings: the simulator's view, which no participant has.

    Writes the RMSE of each version to `metrics.parquet`.

    Returns:
        All metrics of the last model.
    """
    users = split.test.users()
    versions = range(run.record.first_version, last.version + 1)
    errors = []
    for version in versions:
        model = last if version == last.version else run.model(version)
        profiles = fit_devices(model, split.train)
        predicted = predict(model, profiles, users, split.test.items) if model.predicts_ratings else None
        errors.append(math.nan if predicted is None else rmse(predicted, split.test.values))

    save_table(run.folder / "metrics.parquet", pa.table({"version": versions, "rmse": errors}))
    return evaluate_model(last, profiles, split, dataset.catalogue)


def own_error(run: Run, participant: str) -> OwnError | None:
    """Tell a participant how well the public model predicts their held-out ratings: computed on their device alone.

    Returns:
        None where nothing is held out, or the model predicts no ratings.

    Raises:
        LiberateError: Nobody has that name, or the person was forgotten.
    """
    model = run.model()
    with run.open() as reader:
        device = device_of(reader.devices, find_participant(reader.ledger, reader.devices, participant).number)
        own = held_ratings(reader.devices, [device.user_id], model.n_items)
        held_out = held_out_ratings(reader.devices, [device.user_id], model.n_items)
    if not held_out.n_ratings or not model.predicts_ratings:
        return None

    predicted = predict(model, fit_devices(model, own), held_out.users(), held_out.items)
    return OwnError(rmse=rmse(predicted, held_out.values), ratings=held_out.n_ratings)


def recommend(run: Run, participant: str, n: int = 10) -> tuple[Participant, list[Recommendation]]:
    """Rank items for one participant, from what lies on that participant's device and the public model alone.

    That includes the copies that the participant was given and that a consent covers now.

    Raises:
        LiberateError: Nobody has that name, or the person was forgotten.
    """
    model = run.model()
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
        device = device_of(reader.devices, person.number)
        own = held_ratings(reader.devices, [device.user_id], model.n_items)
        copies = _covered_copies(reader, device.slot)

    received = Ratings.from_user_bytes([copy.copy for copy in copies], model.n_items)
    received = replace(received, values=received.values.clip(model.low, model.high))
    profile = fit_with_copies(model, own, received, np.array([1 / copy.max_shares for copy in copies]))
    items, _ = top_n(model, profile, own, n)
    best = items[0][items[0] >= 0]
    predictions: list[float | None] = [None] * len(best)
    if model.predicts_ratings:
        predictions = predict(model, profile, np.zeros(len(best), np.int32), best).tolist()

    catalogue = run.catalogue()
    return person, [
        Recommendation(
            rank=rank,
            item_id=catalogue["item_id"][int(item)].as_py(),
            title=catalogue["title"][int(item)].as_py(),
            prediction=prediction,
        )
        for rank, (item, prediction) in enumerate(zip(best, predictions, strict=True), start=1)
    ]


def _covered_copies(reader: RunReader, slot: int) -> list[ReceivedCopy]:
    """Return the copies on a device that a consent covers now; withdrawn and expired ones are not used any more."""
    usable = {share for share, _ in reader.ledger.state.usable_shares()}
    return [copy for _, share, copy in reader.devices.sharing_rows(ReceivedCopy, slot) if share in usable]


def write_predictions(path: Path, run: Run, evaluation: Evaluation) -> None:
    """Write user_id, item_id, rating and prediction of every held-out rating, so that anyone can recompute the RMSE.

    Raises:
        LiberateError: The run's model predicts no ratings.
    """
    if evaluation.predictions is None:
        raise LiberateError("the run's model orders items and predicts no ratings", hint="--top writes its lists")
    dataset, test = run.dataset(), evaluation.test
    table = pa.table(
        {
            "user_id": pa.array(dataset.user_ids).take(pa.array(test.users())),
            "item_id": pa.array(dataset.item_ids).take(pa.array(test.items)),
            "rating": test.values,
            "prediction": evaluation.predictions,
        }
    )
    save_table(path, table)


def write_top(path: Path, run: Run, evaluation: Evaluation) -> None:
    """Write user_id, rank (from 1) and item_id of every user's ten best items."""
    dataset, top = run.dataset(), evaluation.top
    users, ranks = np.nonzero(top >= 0)
    table = pa.table(
        {
            "user_id": pa.array(dataset.user_ids).take(pa.array(users)),
            "rank": (ranks + 1).astype(np.int32),
            "item_id": pa.array(dataset.item_ids).take(pa.array(top[users, ranks])),
        }
    )
    save_table(path, table)

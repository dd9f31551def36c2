"""The main job: train a federation into a run folder, and go on with one that was killed."""

from __future__ import annotations

import math
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, assert_never

import pyarrow as pa
import pyarrow.parquet as pq

from liberate.crypto.note import open_checkpoint
from liberate.errors import InvalidRecord, SettingsError
from liberate.federation.coordinator import Coordinator, ModelStore
from liberate.federation.founding import Charter, Federation, open_federation
from liberate.federation.participant import Host
from liberate.federation.transport import InProcessTransport
from liberate.ledger.publish.checkpoints import WitnessAddress, parse_address
from liberate.ledger.records import Model as ModelRecord
from liberate.ledger.records import decode_entry
from liberate.model.factors import Model, fit_devices, initial, predict
from liberate.model.method import method
from liberate.model.metrics import evaluate, rmse
from liberate.model.ratings import Dataset, Split
from liberate.model.solvers import has_converged
from liberate.model.statistics import Statistic
from liberate.privacy.accounting import Spent, account
from liberate.privacy.mechanism import Mechanism, design
from liberate.runs.folder import (
    Result,
    Run,
    load_dataset,
    load_run,
    relative_to_run,
    save_catalogue,
    split_dataset,
    write_run,
)
from liberate.settings import LedgerConfig, Settings
from liberate.timing import Stopwatch

Progress = Callable[[str], None]
"""Told one line at each step of long work."""

_PRIVATE_ROUNDS = 10
_PLAIN_ROUNDS = {"normal": 15, "gradient": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do, from settings and public numbers alone.

    Attributes:
        settings: With what the mode implies filled in.
        n_participants: People who take part, >= 0.
        n_items: Size of the catalogue, >= 0.
        statistic: What devices compute.
        mechanism: What protects an upload; None where nothing leaves a device.
        rounds: Rounds at most; exactly so many where noise is added.
    """

    settings: Settings
    n_participants: int
    n_items: int
    statistic: Statistic
    mechanism: Mechanism | None
    rounds: int

    @property
    def is_noisy(self) -> bool:
        return self.mechanism is not None and self.mechanism.account != "none"

    def spent(self, rounds: int | None = None) -> Spent:
        """Price a number of rounds, all of them if None."""
        times = self.rounds if rounds is None else rounds
        releases = [] if self.mechanism is None or times == 0 else [(self.mechanism.event(), times)]
        return account(releases, self.settings.privacy.delta)


def plan(settings: Settings, n_participants: int, n_items: int) -> Plan:
    """Work out statistic, mechanism and rounds.

    Args:
        settings: Resolved settings.
        n_participants: People who take part, > 0.
        n_items: Size of the catalogue, > 0.

    Raises:
        PrivacyError: Epsilon is too small for so many rounds.
    """
    mode = settings.privacy.mode
    if mode == "device":
        settings = replace(settings, model=replace(settings.model, n_factors=0))
    statistic, _ = method(settings.model, noisy=mode == "local")
    rounds = _rounds(settings, statistic)
    mechanism = None
    if rounds > 0:
        mechanism = design(
            settings.privacy,
            rounds=rounds,
            n_participants=n_participants,
            n_items=n_items,
            width=statistic.width,
            tail=statistic.tail,
        )
    return Plan(
        settings=settings,
        n_participants=n_participants,
        n_items=n_items,
        statistic=statistic,
        mechanism=mechanism,
        rounds=rounds,
    )


def _rounds(settings: Settings, statistic: Statistic) -> int:
    match settings.privacy.mode:
        case "device":
            return 0
        case "local":
            return settings.federation.rounds or _PRIVATE_ROUNDS
        case "plain":
            return settings.federation.rounds or _PLAIN_ROUNDS[statistic.name]
        case other:
            assert_never(other)


def train(settings: Settings, out: Path | str, *, progress: Progress = lambda text: None) -> Result:
    """Train a federation and record every step on its ledger; go on with a run that was killed.

    A run that is finished is left as it is.

    Args:
        settings: Resolved settings.
        out: The run folder; made if absent.
        progress: Told each step.

    Returns:
        The figures of the finished run.

    Raises:
        SettingsError: The folder holds a run with other settings or ratings, or no run at all.
        DataError: The ratings cannot be used.
        PrivacyError: The promise cannot be kept with these settings.
        FederationError: A round could not be carried out.
    """
    out = Path(out)
    progress(f"reading {settings.data.source}")
    dataset = load_dataset(settings)
    split = split_dataset(dataset, settings)
    agenda = plan(relative_to_run(settings, out), split.train.n_users, split.train.n_items)
    if _claim(out, agenda.settings, dataset):
        return load_run(out).result
    save_catalogue(out / "model" / "items.parquet", dataset)
    stopwatch = Stopwatch()
    begin = time.perf_counter()
    charter = charter_of(agenda.settings, agenda.mechanism)
    with open_federation(
        out,
        charter,
        dataset.user_ids,
        split.train,
        chunk=settings.federation.chunk,
        stopwatch=stopwatch,
        progress=progress,
    ) as federation:
        run = _begin(out, agenda.settings, dataset, federation)
        last = _learn(run, agenda, dataset, split, federation, charter, stopwatch, progress)
        seconds = time.perf_counter() - begin
        checkpoint = open_checkpoint(federation.publisher.publish(), run.verifier_key)
    progress("evaluating")
    spent = agenda.spent(last.version)
    result = Result(
        run=str(out),
        **_measure(run, dataset, split, last),
        epsilon=spent.epsilon_basic,
        delta=settings.privacy.delta if spent.rho else 0.0,
        mode=settings.privacy.mode,
        rounds=last.version,
        seconds=seconds,
        entry_count=checkpoint.size,
        root=b64encode(checkpoint.root).decode(),
        verifier_key=run.verifier_key,
    )
    figures = {key: value for key, value in asdict(result).items() if key != "run"}
    ended = {"last_position": checkpoint.size - 1, "seconds": dict(stopwatch.seconds), "result": figures}
    write_run(Run(out, agenda.settings, run.record | ended))
    return result


def charter_of(settings: Settings, mechanism: Mechanism | None = None) -> Charter:
    """Give what the founder of a run's ledger writes down, and people agree to.

    Args:
        settings: Resolved settings.
        mechanism: What protects an upload; None where nothing is going to leave a device.

    Raises:
        SettingsError: A witness is none, or more are to cosign than there are.
    """
    witnesses, threshold = _witnesses(settings.ledger)
    return Charter(
        origin=settings.ledger.origin,
        seed=settings.run.seed,
        is_simulated=settings.run.simulated,
        mechanism="" if mechanism is None else mechanism.name,
        agreed_epsilon_nano=_nano(settings.privacy.epsilon),
        epsilon_nano_limit=_nano(settings.ledger.epsilon_limit),
        witnesses=witnesses,
        witness_threshold=threshold,
    )


def _witnesses(config: LedgerConfig) -> tuple[tuple[WitnessAddress, ...], int]:
    """Read who must cosign, and how many of them: more than half if not said."""
    try:
        witnesses = tuple(parse_address(text) for text in config.witnesses)
    except InvalidRecord as error:
        raise SettingsError(f"ledger.witnesses: {error.message}") from error
    majority = len(witnesses) // 2 + 1 if witnesses else 0
    threshold = majority if config.witness_threshold is None else config.witness_threshold
    if threshold > len(witnesses):
        raise SettingsError(f"ledger.witness_threshold is {threshold}, but there are {len(witnesses)} witnesses")
    return witnesses, threshold


def _nano(epsilon: float | None) -> int | None:
    return None if epsilon is None else math.ceil(epsilon * 10**9)


def _claim(out: Path, settings: Settings, dataset: Dataset) -> bool:
    """Tell whether a folder holds this very run, finished; refuse one that holds something else than its beginning."""
    if not (out / "run.toml").exists():
        if out.exists() and any(out.iterdir()) and not (out / "model").exists():
            raise SettingsError(f"{out} exists and holds no run", hint="choose another --out")
        return False
    run = load_run(out)
    if run.settings != settings or run.record["dataset"] != dataset.digest:
        raise SettingsError(f"{out} holds a run with other settings or ratings", hint="choose another --out")
    return run.is_finished


def _begin(out: Path, settings: Settings, dataset: Dataset, federation: Federation) -> Run:
    """Write down where the run starts, before its first round; or read it, when it goes on."""
    if (out / "run.toml").exists():
        return load_run(out)
    ledger = federation.ledger
    checkpoint = open_checkpoint(ledger.checkpoint(), federation.policy.log_key)
    record: dict[str, Any] = {
        "origin": ledger.origin,
        "verifier_key": federation.policy.log_key,
        "dataset": dataset.digest,
        "dataset_name": dataset.name,
        "run": 1 if ledger.state.run is None else ledger.state.run.number + 1,
        "first_position": ledger.size,
        "first_root": b64encode(checkpoint.root).decode(),
    }
    run = Run(out, settings, record)
    write_run(run)
    return run


def _learn(
    run: Run,
    agenda: Plan,
    dataset: Dataset,
    split: Split,
    federation: Federation,
    charter: Charter,
    stopwatch: Stopwatch,
    progress: Progress,
) -> Model:
    """Carry out the rounds that are left; give the last model."""
    config, ledger, number = agenda.settings.model, federation.ledger, int(run.record["run"])
    secret = charter.randomness().secret("initial model", number)
    store = ModelStore(run.folder / "model")
    previous = None
    current = initial(config, split.train.n_items, dataset.low, dataset.high, secret, noisy=agenda.is_noisy)
    store.save(current)
    if agenda.mechanism is None:
        return current
    statistic, solver = method(config, noisy=agenda.is_noisy)
    randomness = charter.randomness(b64decode(run.record["first_root"]))
    host = Host(federation.devices, federation.policy, split.train.n_items, randomness, stopwatch)
    coordinator = Coordinator(
        ledger=ledger,
        key=federation.coordinator_key,
        number=federation.coordinator,
        transport=InProcessTransport(dict.fromkeys(host.numbers, host)),
        statistic=statistic,
        solver=solver,
        mechanism=agenda.mechanism,
        store=store,
        config=agenda.settings.federation,
        stopwatch=stopwatch,
        publish=federation.publisher.publish,
    )
    for position in ledger.positions(kind="model")[-2:]:
        record = decode_entry(ledger.entry(position)).record
        if isinstance(record, ModelRecord):
            previous, current = current, store.load(record.version, record.digest)
    while current.version < agenda.rounds:
        if previous is not None and not agenda.is_noisy and has_converged(previous, current, config.tolerance):
            break
        progress(f"round {current.version + 1} of {'' if agenda.is_noisy else 'at most '}{agenda.rounds}")
        rounds = agenda.rounds if agenda.is_noisy else None
        previous, current = current, coordinator.run_round(current, run=number, rounds=rounds)
    return current


class _Figures(TypedDict):
    rmse: float
    ndcg_at_10: float


def _measure(run: Run, dataset: Dataset, split: Split, last: Model) -> _Figures:
    """Evaluate every version on held-out ratings: the simulator's view, which no participant has."""
    store, users = ModelStore(run.folder / "model"), split.test.users()
    errors = []
    for version in range(last.version + 1):
        model = last if version == last.version else store.load(version)
        profiles = fit_devices(model, split.train)
        errors.append(rmse(predict(model, profiles, users, split.test.items), split.test.values))
    pq.write_table(pa.table({"version": range(last.version + 1), "rmse": errors}), run.folder / "metrics.parquet")
    metrics = evaluate(last, profiles, split, dataset.catalogue)
    return {"rmse": metrics.rmse, "ndcg_at_10": metrics.ndcg_at_10}

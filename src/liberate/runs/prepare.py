"""What a run starts from: the federation as it stands, the data set in its item order, and who can pay for the run.

Nothing is written here. A run that goes on after a crash starts from what its first attempt had found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.data.dataset import Dataset
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.data.splits import Split, learned_before
from liberate.errors import BudgetExceeded, FederationError, SettingsError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_ratings
from liberate.identifiers import PricedAccount
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.privacy.gaussian_tradeoff import epsilon_of, rho_nano_limit
from liberate.runs.federation_folder import ITEMS_FILE, FederationFolder, federation_folder_of
from liberate.runs.folder import (
    Run,
    align_to_catalogue,
    catalogue_of,
    erased_users,
    load_dataset,
    load_run,
    relative_to_run,
    split_dataset,
    without_participants,
)
from liberate.runs.plan import Plan, plan_run, public_features
from liberate.settings import Settings
from liberate.units import NANO, from_nano

_ACCOUNTS: tuple[PricedAccount, ...] = ("epsilon", "rho")


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSnapshot:
    """What people have done in a federation before a run.

    Attributes:
        number: Of the run.
        limits: Most that a person may spend from each account in all runs, in 1e-9.
        spent: What each person of the data set has spent from each account, shape (n_users,).
        is_active: Whether a person can take part: is not revoked and has not withdrawn, shape (n_users,).
        erased: Users of the data set who were erased.
        has_copies: Whether the coordinator has received copies for its pool that it may use.
        held: What the devices of each person of the data set hold.
    """

    number: int = 1
    limits: Mapping[PricedAccount, int]
    spent: Mapping[PricedAccount, Sequence[int]]
    is_active: Sequence[bool]
    erased: Sequence[int] = ()
    has_copies: bool = False
    held: Ratings


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """All that is settled before a run writes anything.

    Attributes:
        home: The folder of the federation.
        number: Of the run on its ledger.
        begun: The run, where a first attempt has begun it.
        last: The run before it, finished; None where there is none, or its folder is gone.
        items: The catalogue, in the federation's order.
        dataset: With the items of the catalogue.
        split: What is learned from, and lies on devices from now on; and what is held out.
        moved: Which of the ratings to be held out were learned from before, as rows.
        carried: Whether devices hold ratings that the data set lacks.
        left_out: Original ids of people of the data set who do not take part.
        plan: What the run will do.
    """

    home: FederationFolder
    number: int
    begun: Run | None
    last: Run | None
    items: pa.Table
    dataset: Dataset
    split: Split
    moved: tuple[int, ...] = ()
    carried: bool = False
    left_out: tuple[str, ...]
    plan: Plan

    @property
    def cohort(self) -> list[int]:
        """Users of the data set who take part."""
        absent = set(self.left_out)
        return [user for user, name in enumerate(self.dataset.user_ids) if name not in absent]


def prepare(settings: Settings, out: Path, ledger: Path | None) -> PreparedRun:
    """Settle what a run starts from.

    Args:
        settings: Resolved settings.
        out: The run folder.
        ledger: A federation's folder, or that of one of its runs; None: the run founds its own.

    Raises:
        SettingsError: There is no federation, the run folder holds a run with other settings or ratings, or a private
            run of real people does not say what the scale is.
        FederationError: Another run of the federation is not finished.
        BudgetExceeded: Too few people can pay for the run.
    """
    home = _find_home(out, ledger)
    dataset = load_dataset(settings)
    settings = relative_to_run(settings, out)
    if (out / "run.toml").exists():
        return _as_begun(load_run(out), home, dataset, settings)
    _check_scale(dataset, settings)
    if out.exists() and any(out.iterdir()) and not (out / "model").exists():
        raise SettingsError(f"{out} exists and holds no run", hint="choose another --out")
    last = None if ledger is None else home.last_run(out)
    if last is not None and not last.is_finished:
        raise FederationError(
            f"the run in {last.folder} is not finished, and has the ledger to itself",
            hint="go on with it by the command that began it; or remove its folder to give it up",
        )
    items = _items(home, dataset)
    dataset = align_to_catalogue(dataset, items)
    split = split_dataset(dataset, settings)
    standing = _new_standing(settings, split.train) if ledger is None else _standing(home, dataset)
    moved = np.flatnonzero(split.test.rated_in(standing.held))
    split = without_participants(learned_before(split, standing.held), standing.erased)
    if len(moved) and split.test.n_ratings == 0:
        raise SettingsError(
            "nothing is left to hold out: earlier runs have learned from all that data.split_seed chooses",
            hint="give data.split_seed as in the run before, or newer ratings",
        )
    held = standing.held.updated(split.train)
    plan, able = _affordable(settings, dataset, standing)
    return PreparedRun(
        home=home,
        number=standing.number,
        begun=None,
        last=last,
        items=items,
        dataset=dataset,
        split=Split(train=held, test=split.test),
        moved=tuple(moved.tolist()),
        carried=held.n_ratings > split.train.n_ratings,
        left_out=tuple(name for user, name in enumerate(dataset.user_ids) if user not in able),
        plan=plan,
    )


def _check_scale(dataset: Dataset, settings: Settings) -> None:
    """Refuse to publish the lowest and highest rating that real people gave, beside numbers with noise."""
    if dataset.has_found_scale and not settings.run.simulated and settings.privacy.mode in ("local", "distributed"):
        raise SettingsError(
            f"the scale of the ratings, {dataset.low:g} to {dataset.high:g}, was found in them, and a model shows it",
            hint=f"say what the scale is: --set data.rating_min={dataset.low:g} --set data.rating_max={dataset.high:g}",
        )


def _find_home(out: Path, ledger: Path | None) -> FederationFolder:
    if ledger is None:
        others = any(folder.resolve() != out.resolve() for folder in FederationFolder(out).run_folders())
        if others and not (out / "run.toml").exists():
            raise SettingsError(f"{out} is a federation with other runs", hint=f"--ledger {out}, and another --out")
        return FederationFolder(out)
    home = federation_folder_of(ledger)
    for name in ("ledger", "devices", "keys", ITEMS_FILE):
        if not (home / name).exists():
            raise SettingsError(f"{home} is no federation: it has no {name}", hint="--ledger wants the folder of a run")
    if home.resolve() == out.resolve():
        raise SettingsError("--out and --ledger name one folder", hint="a further run wants a folder of its own")
    return FederationFolder(home)


def _as_begun(run: Run, home: FederationFolder, dataset: Dataset, settings: Settings) -> PreparedRun:
    """Give what the first attempt at a run has settled, or refuse one with other settings or ratings."""
    items = run.catalogue()
    left_out = tuple(run.record.get("left_out", ()))
    digest = dataset.digest
    dataset = align_to_catalogue(dataset, items)
    plan = _plan(settings, dataset, len(dataset.user_ids) - len(left_out), has_pool=bool(run.record.get("pool")))
    if run.settings != plan.settings or run.record["dataset"] != digest:
        raise SettingsError(f"{run.folder} holds a run with other settings or ratings", hint="choose another --out")
    if run.home.resolve() != home.folder.resolve():
        raise SettingsError(f"{run.folder} holds a run of the federation in {run.home}", hint=f"--ledger {run.home}")
    if not run.is_finished:
        last = home.last_run(run.folder)
        if last is not None and last.folder.resolve() != run.folder.resolve():
            raise FederationError(
                f"the federation has gone on with the run in {last.folder}", hint="start a new run on it"
            )
    return PreparedRun(
        home=home,
        number=int(run.record["run"]),
        begun=run,
        last=None,
        items=items,
        dataset=dataset,
        split=run.split(dataset),
        left_out=left_out,
        plan=plan,
    )


def _items(home: FederationFolder, dataset: Dataset) -> pa.Table:
    """Give the catalogue with the data set's new items after all others, and what it knows better of the others."""
    own, rows = catalogue_of(dataset), {}
    if home.items_path.exists():
        rows = {row["item_id"]: row for row in pq.read_table(home.items_path).to_pylist()}
    for row in own.to_pylist():
        if dataset.catalogue is not None or row["item_id"] not in rows:
            rows[row["item_id"]] = row
    return pa.Table.from_pylist(list(rows.values()), schema=own.schema)


def limits(settings: Settings) -> dict[PricedAccount, int | None]:
    """Give what the genesis of a new ledger lets a person spend from each account, in 1e-9; None without a limit."""
    epsilon, delta = settings.ledger.epsilon_limit, settings.privacy.delta
    if epsilon is None:
        return {"epsilon": None, "rho": None}
    return {"epsilon": math.ceil(epsilon * NANO), "rho": rho_nano_limit(epsilon, delta)}


def _new_standing(settings: Settings, train: Ratings) -> FederationSnapshot:
    n = train.n_users
    return FederationSnapshot(
        limits={name: LARGEST_INTEGER if limit is None else limit for name, limit in limits(settings).items()},
        spent={name: [0] * n for name in _ACCOUNTS},
        is_active=[True] * n,
        held=train.where(np.zeros(train.n_ratings, np.bool_)),
    )


def _standing(home: FederationFolder, dataset: Dataset) -> FederationSnapshot:
    """Read what people have spent: by the ledger or, where an answer never got there, by their device."""
    with (
        DeviceStore(home.folder / "devices") as devices,
        closing(SqliteLedger.open(home.folder / "ledger")) as ledger,
    ):
        state, known = ledger.state, {device.user_id: device for device in devices.devices()}
        own = [known.get(name) for name in dataset.user_ids]
        participants = [
            None if device is None or device.number is None else state.principals[device.number] for device in own
        ]
        pairs = list(zip(own, participants, strict=True))
        return FederationSnapshot(
            number=1 if state.run is None else state.run.number + 1,
            limits={name: state.limit(name) for name in _ACCOUNTS},
            spent={
                "epsilon": [max(d.epsilon_nano if d else 0, p.epsilon_nano if p else 0) for d, p in pairs],
                "rho": [max(d.rho_nano if d else 0, p.rho_nano if p else 0) for d, p in pairs],
            },
            is_active=[person is None or person.is_active for person in participants],
            erased=erased_users(devices, dataset),
            has_copies=any(
                state.principals[share.record.recipient].role == "coordinator" for _, share in state.usable_shares()
            ),
            held=held_ratings(devices, dataset.user_ids, len(dataset.item_ids)),
        )


def _affordable(settings: Settings, dataset: Dataset, standing: FederationSnapshot) -> tuple[Plan, set[int]]:
    """Plan the run for those who can pay for all of it: the fewer they are, the more noise each adds.

    Raises:
        BudgetExceeded: They are too few.
    """
    n_users = len(dataset.user_ids)
    able = [user for user in range(n_users) if standing.is_active[user]]
    has_pool = _has_pool(settings, standing)
    while True:
        plan = _plan(settings, dataset, len(able), has_pool=has_pool)
        payers = able
        for name in _ACCOUNTS:
            most = standing.limits[name] - plan.spend_nano(name)
            payers = [user for user in payers if standing.spent[name][user] <= most]
            if len(payers) < max(1, int(n_users * settings.federation.min_participation)):
                raise _exceeded(name, plan, standing, sorted(set(able) - set(payers)), n_users)
        if len(payers) == len(able):
            return plan, set(able)
        able = payers


def _has_pool(settings: Settings, standing: FederationSnapshot) -> bool:
    """Whether a run begins with a pool: settings arrange one, or people have shared and it may start from that."""
    arranged = settings.sharing.user_fraction > 0 and settings.sharing.recipients == "pool"
    is_welcome = settings.model.objective == "explicit" and not settings.model.warm_start
    return arranged or (standing.has_copies and is_welcome)


def _plan(settings: Settings, dataset: Dataset, n_participants: int, *, has_pool: bool) -> Plan:
    n_features = public_features(settings, dataset).shape[1]
    levels = RatingScale.of(dataset.values, dataset.low, dataset.high).n_levels if has_pool else None
    return plan_run(settings, n_participants, len(dataset.item_ids), n_features, pool_levels=levels)


def _exceeded(
    name: PricedAccount, plan: Plan, standing: FederationSnapshot, unable: list[int], n_users: int
) -> BudgetExceeded:
    """Say which account is too small for a run, by the person with the most left of those who cannot pay."""
    limit, cost = standing.limits[name], plan.spend_nano(name)
    spent = min((standing.spent[name][user] for user in unable), default=0)
    left, delta = max(0, limit - spent), plan.settings.privacy.delta
    worth = from_nano(left) if name == "epsilon" else epsilon_of(math.sqrt(2 * left / NANO), delta)
    at_delta = "" if name == "epsilon" else f" at delta {delta:g}"
    return BudgetExceeded(
        f"the run takes {from_nano(cost):.6g} from the {name} account, which {len(unable):,} of {n_users:,} people do"
        f" not have: {from_nano(spent):.6g} of {from_nano(limit):.6g} is spent, the rest is worth epsilon"
        f" {worth:.4g}{at_delta}",
        hint="a smaller privacy.epsilon, or people who have not spent theirs; the limit stands in the genesis",
    )

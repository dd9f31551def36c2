"""What a run starts from: the federation, the data set in its item order, and who can pay for the run.

Nothing is written here. A run that is resumed after a crash starts from what its first attempt had settled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from liberate.arrays import Int64Array
from liberate.data.dataset import Dataset
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.data.splits import Split, learned_before
from liberate.errors import BudgetExceeded, FederationError, SettingsError
from liberate.identifiers import PricedAccount
from liberate.ledger.format.parts import Terms
from liberate.privacy.gaussian_tradeoff import epsilon_of
from liberate.runs.federation_access import check_replayed
from liberate.runs.federation_folder import ITEMS_FILE, FederationFolder, federation_folder_of
from liberate.runs.folder import MODEL_FOLDER, Run, load_run
from liberate.runs.plan import Plan, check_limit, plan_run, public_features
from liberate.runs.run_data import (
    align_to_catalogue,
    catalogue_of,
    held_out_of,
    known_dataset,
    load_source,
    relative_to_run,
    split_dataset,
    without_participants,
)
from liberate.runs.snapshot import ACCOUNTS, FederationSnapshot, new_snapshot, read_snapshot
from liberate.runs.terms import proposed_terms
from liberate.settings import Settings
from liberate.units import NANO, from_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """All that is settled before a run writes anything.

    Attributes:
        federation: The folder of the federation.
        number: Of the run on its ledger.
        resumed: The run, where a first attempt has begun it.
        last: The run before it, finished; None where there is none, or its folder is gone.
        items: The catalogue, in the federation's order.
        dataset: With the items of the catalogue.
        split: What is learned from, and lies on devices from now on; and what the run knows to be held out.
        held_out: What devices hold out from now on; None: what they hold out already.
        previously_learned: Which of the ratings to be held out were learned from before, as rows.
        carried: Whether devices hold ratings that the data set lacks.
        left_out: Original ids of users of the data set who do not take part.
        plan: What the run will do.
    """

    federation: FederationFolder
    number: int
    resumed: Run | None
    last: Run | None
    items: pa.Table
    dataset: Dataset
    split: Split
    held_out: Ratings | None
    previously_learned: tuple[int, ...] = ()
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
            run of real people does not say what the scale is, or has no witness that replays the ledger.
        FederationError: Another run of the federation is not finished.
        BudgetExceeded: Too few people can pay for the run.
    """
    check_replayed(settings)
    federation = _find_federation(out, ledger)
    source = load_source(settings)
    dataset = known_dataset(source, settings)
    settings = relative_to_run(settings, out)
    if (out / "run.toml").exists():
        return _resumed(load_run(out), federation, dataset, settings)

    _check_scale(dataset, settings)
    if out.exists() and any(out.iterdir()) and not (out / MODEL_FOLDER).exists():
        raise SettingsError(f"{out} exists and holds no run", hint="choose another --out")
    last = None if ledger is None else federation.last_run(out)
    if last is not None and not last.is_finished:
        raise FederationError(
            f"the run in {last.folder} is not finished, and has the ledger to itself",
            hint="resume it by the command that began it; or remove its folder to give it up",
        )
    return _new(settings, federation, source, dataset, last, is_founding=ledger is None)


def _new(
    settings: Settings,
    federation: FederationFolder,
    source: Dataset,
    dataset: Dataset,
    last: Run | None,
    *,
    is_founding: bool,
) -> PreparedRun:
    """Settle what a run starts from that has not begun."""
    items = _merged_catalogue(federation, dataset)
    dataset = align_to_catalogue(dataset, items)
    split = split_dataset(dataset, settings)
    snapshot = new_snapshot(settings, split.train) if is_founding else read_snapshot(federation.folder, dataset)

    # What devices have learned from cannot be held out any more.
    previously_learned = np.flatnonzero(split.test.rated_in(snapshot.stored))
    split = without_participants(learned_before(split, snapshot.stored), snapshot.erased)
    _require_rest(split, previously_learned)

    stored = snapshot.stored.updated(split.train)
    held_out = held_out_of(source, settings, dataset)
    plan, able = _affordable(settings, dataset, snapshot)
    return PreparedRun(
        federation=federation,
        number=snapshot.number,
        resumed=None,
        last=last,
        items=items,
        dataset=dataset,
        split=Split(train=stored, test=split.test),
        held_out=held_out.where(~held_out.rated_in(stored)),
        previously_learned=tuple(previously_learned.tolist()),
        carried=stored.n_ratings > split.train.n_ratings,
        left_out=tuple(name for user, name in enumerate(dataset.user_ids) if user not in able),
        plan=plan,
    )


def _require_rest(split: Split, previously_learned: Int64Array) -> None:
    """Refuse a run that would hold out nothing, since all that it chooses was learned from before."""
    if len(previously_learned) and split.test.n_ratings == 0:
        raise SettingsError(
            "nothing is left to hold out: earlier runs have learned from all that data.split_seed chooses",
            hint="give data.split_seed as in the run before, or newer ratings",
        )


def _resumed(run: Run, federation: FederationFolder, dataset: Dataset, settings: Settings) -> PreparedRun:
    """Return what the first attempt at a run has settled, or refuse one with other settings or ratings."""
    record, digest = run.record, dataset.digest
    items = run.catalogue()
    dataset = align_to_catalogue(dataset, items)
    n_participants = len(dataset.user_ids) - len(record.left_out)
    plan = _plan(settings, dataset, n_participants, run.read_terms(), has_pool=record.pool)

    if run.settings != plan.settings or record.dataset != digest:
        raise SettingsError(f"{run.folder} holds a run with other settings or ratings", hint="choose another --out")
    if run.home.resolve() != federation.folder.resolve():
        raise SettingsError(f"{run.folder} holds a run of the federation in {run.home}", hint=f"--ledger {run.home}")
    last = None if run.is_finished else federation.last_run(run.folder)
    if last is not None and last.folder.resolve() != run.folder.resolve():
        raise FederationError(
            f"the federation has continued with the run in {last.folder}", hint="start a new run on it"
        )

    return PreparedRun(
        federation=federation,
        number=record.run,
        resumed=run,
        last=None,
        items=items,
        dataset=dataset,
        split=run.split(dataset),
        held_out=None,
        left_out=record.left_out,
        plan=plan,
    )


def _check_scale(dataset: Dataset, settings: Settings) -> None:
    """Refuse to publish the lowest and highest rating that real people gave, beside numbers with noise or held out."""
    is_private = settings.privacy.mode in ("local", "distributed") or settings.holds_out
    if dataset.has_found_scale and not settings.run.simulated and is_private:
        raise SettingsError(
            f"the scale of the ratings, {dataset.low:g} to {dataset.high:g}, was found in them, and a model shows it",
            hint=f"say what the scale is: --set data.rating_min={dataset.low:g} --set data.rating_max={dataset.high:g}",
        )


def _find_federation(out: Path, ledger: Path | None) -> FederationFolder:
    if ledger is None:
        federation = FederationFolder(out)
        others = any(folder.resolve() != out.resolve() for folder in federation.newest_run_folders())
        if others and not (out / "run.toml").exists():
            raise SettingsError(f"{out} is a federation with other runs", hint=f"--ledger {out}, and another --out")
        return federation

    folder = federation_folder_of(ledger)
    for name in ("ledger", "devices", "keys", ITEMS_FILE):
        if not (folder / name).exists():
            raise SettingsError(
                f"{folder} is no federation: it has no {name}", hint="--ledger wants the folder of a run"
            )
    if folder.resolve() == out.resolve():
        raise SettingsError("--out and --ledger name one folder", hint="a further run wants a folder of its own")
    return FederationFolder(folder)


def _merged_catalogue(federation: FederationFolder, dataset: Dataset) -> pa.Table:
    """Return the catalogue with the data set's new items after all others, and what it knows better of the others."""
    additions = catalogue_of(dataset)
    rows = {}
    if federation.items_path.exists():
        rows = {row["item_id"]: row for row in pq.read_table(federation.items_path).to_pylist()}
    for row in additions.to_pylist():
        if dataset.catalogue is not None or row["item_id"] not in rows:
            rows[row["item_id"]] = row
    return pa.Table.from_pylist(list(rows.values()), schema=additions.schema)


# --- who can pay -----------------------------------------------------------------------------------------------------


def _affordable(settings: Settings, dataset: Dataset, snapshot: FederationSnapshot) -> tuple[Plan, set[int]]:
    """Plan the run for those who accept its terms and can pay for all of it: the fewer, the more noise each adds.

    Raises:
        BudgetExceeded: Too few can pay.
        FederationError: Too few accept the terms, or more people are to be enrolled than they allow.
    """
    n_users = len(dataset.user_ids)
    terms = proposed_terms(settings, snapshot.terms)
    _check_enrolment(terms, snapshot)
    fewest = max(1, int(n_users * settings.federation.min_participation))
    has_pool = _has_pool(settings, snapshot)
    active = [user for user in range(n_users) if snapshot.is_active[user]]
    able = [user for user in active if snapshot.accepts(user, terms)]
    if len(able) < min(fewest, len(active)):
        raise FederationError(
            f"only {len(able):,} of {len(active):,} people accept the terms",
            hint="liberate terms show lists who has not; their owners decide by liberate terms accept",
        )
    if settings.privacy.mode == "plain":
        check_limit(settings)
        able = _without_limit(able, snapshot, fewest)

    while True:
        plan = _plan(settings, dataset, len(able), terms, has_pool=has_pool)
        payers = able
        for name in ACCOUNTS:
            cost = plan.spend_nano(name)
            payers = [user for user in payers if cost <= snapshot.left(name, user)] if cost else payers
            if len(payers) < fewest:
                raise _exceeded(name, plan, snapshot, sorted(set(able) - set(payers)), n_users)

        if len(payers) == len(able):
            return plan, set(able)
        able = payers


def _without_limit(able: list[int], snapshot: FederationSnapshot, fewest: int) -> list[int]:
    """Return those who may answer without a price: nobody who has a limit for life.

    Raises:
        BudgetExceeded: They are too few.
    """
    free = [user for user in able if not snapshot.is_limited(user)]
    if len(free) < min(fewest, len(able)):
        raise BudgetExceeded(
            f"mode plain has no epsilon, and {len(able) - len(free):,} of {len(able):,} people have a limit for life",
            hint="privacy.mode = local or distributed; or plain on a ledger of its own",
        )
    return free


def _check_enrolment(terms: Terms, snapshot: FederationSnapshot) -> None:
    """Refuse to enrol more people than the terms allow: those who are there agreed to no more."""
    wanted = snapshot.enrolled + snapshot.newcomers
    if wanted > terms.max_participants:
        raise FederationError(
            f"with {snapshot.newcomers:,} newcomers {wanted:,} people would be enrolled, and"
            f" {terms.max_participants:,} were agreed to",
            hint=f"--set federation.max_participants={wanted} proposes new terms, which each device accepts or not;"
            f" raise privacy.max_colluders with it, {terms.max_colluders} by now",
        )


def _has_pool(settings: Settings, snapshot: FederationSnapshot) -> bool:
    """Whether a run begins with a pool: settings arrange one, or people have shared and it may start from that."""
    is_arranged = settings.sharing.user_fraction > 0 and settings.sharing.recipients == "pool"
    is_welcome = settings.model.objective == "explicit" and not settings.model.warm_start
    return is_arranged or (snapshot.has_copies and is_welcome)


def _plan(settings: Settings, dataset: Dataset, n_participants: int, terms: Terms, *, has_pool: bool) -> Plan:
    n_features = public_features(settings, dataset).shape[1]
    levels = RatingScale.of(dataset.values, dataset.low, dataset.high).n_levels if has_pool else None
    return plan_run(settings, n_participants, len(dataset.item_ids), n_features, terms=terms, pool_levels=levels)


def _exceeded(
    name: PricedAccount, plan: Plan, snapshot: FederationSnapshot, unable: list[int], n_users: int
) -> BudgetExceeded:
    """Say which account is too small for a run, by the person with the most left of those who cannot pay."""
    cost, delta = plan.spend_nano(name), plan.settings.privacy.delta
    richest = max(unable, key=lambda user: snapshot.left(name, user), default=None)
    spent = 0 if richest is None else snapshot.spent[name][richest]
    limit = snapshot.limits[name] if richest is None else snapshot.limit(name, richest)
    left = max(0, limit - spent)

    worth = from_nano(left) if name == "epsilon" else epsilon_of(math.sqrt(2 * left / NANO), delta)
    at_delta = "" if name == "epsilon" else f" at delta {delta:g}"
    return BudgetExceeded(
        f"the run takes {from_nano(cost):.6g} from the {name} account, which {len(unable):,} of {n_users:,} people do"
        f" not have: {from_nano(spent):.6g} of {from_nano(limit):.6g} is spent, the rest is worth epsilon"
        f" {worth:.4g}{at_delta}",
        hint="a smaller privacy.epsilon, or people who have not spent theirs; a limit is for life, and"
        " ledger.epsilon_limit sets it when a ledger is founded",
    )

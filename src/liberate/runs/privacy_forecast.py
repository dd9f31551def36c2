"""What a run promises, and what it would spend, from settings and public numbers alone.

Field names are the keys of `liberate privacy plan --json`, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from msgspec import UNSET, UnsetType

from liberate.data.dataset import Dataset
from liberate.ledger.format.parts import Terms
from liberate.privacy.accounting import PrivacyLoss
from liberate.privacy.mechanism_base import Mode
from liberate.privacy.promises import noise_warning, privacy_statement, sampler, signal_to_noise
from liberate.runs.accounts_left import AccountLeft, accounts_left
from liberate.runs.coalitions import agreed_sentences, epsilon_by_colluders
from liberate.runs.federation_access import check_replayed
from liberate.runs.folder import Run
from liberate.runs.plan import Plan, plan_run, public_features
from liberate.runs.run_data import load_dataset
from liberate.runs.stages import PlannedStage
from liberate.settings import Settings
from liberate.units import from_nano


@dataclass(frozen=True, kw_only=True)
class PrivacyPromise:
    """What a run promises, in words.

    Attributes:
        mode: What leaves a device, and with which noise.
        unit, relation, adversary, mechanism: As of `PrivacyStatement`.
        sampler: How noise is drawn.
        colluders, dropouts, masks, noise: What was agreed to, and what happens beyond; unset unless participants share
            the noise.
        delta_beyond: What comes on top of delta; likewise.
    """

    mode: Mode
    unit: str
    relation: str
    adversary: str
    mechanism: str
    sampler: str
    colluders: str | UnsetType = UNSET
    dropouts: str | UnsetType = UNSET
    masks: str | UnsetType = UNSET
    noise: str | UnsetType = UNSET
    delta_beyond: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class StageForecast:
    """What a stage would cost.

    Attributes:
        statistic: What is asked of the devices.
        rounds: At most.
        mechanism: Name of what protects an upload.
        account: What it is charged to.
        spend: What the whole stage costs a participant, in units of the account.
        signal_to_noise: Upper bound of the ratio in each round; None: there is no noise.
    """

    statistic: str
    rounds: int
    mechanism: str
    account: str
    spend: float
    signal_to_noise: float | None


@dataclass(frozen=True, kw_only=True)
class _PlannedRun(PrivacyPromise):
    participants: int
    items: int
    rounds: int
    stages: tuple[StageForecast, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PrivacyForecast(PrivacyLoss, _PlannedRun):
    """What a run would spend, and how far its signal can stand out from its noise.

    Attributes:
        participants, items, rounds: The numbers that it was planned for.
        stages: In their order; none where nothing leaves a device.
        reasons: Why these stages, a sentence each.
        epsilon_if_colluding: Epsilon against a coordinator with so many colluders, the agreed number and multiples of
            it; None: masks do not bear them, so there is no bound. Unset unless participants share the noise.
        signal_to_noise: Of the stage that stands out least; None: there is no noise.
        warning: What to say of that ratio, or None.
        accounts: What the people of the ledger that was named have left, unset without one.
    """

    epsilon_if_colluding: Mapping[str, float | None] | UnsetType = UNSET
    signal_to_noise: float | None
    warning: str | None
    accounts: tuple[AccountLeft, ...] | UnsetType = UNSET


def forecast(settings: Settings, base: Path | None = None, ledger: Path | None = None) -> PrivacyForecast:
    """Return what a run would spend and how far its signal can stand out from its noise.

    Args:
        settings: Resolved settings. Of the ratings only the numbers of users and items are used.
        base: Folder that a path in `data.source` is relative to, the working directory if None.
        ledger: A federation whose accounts are told too: its folder, or that of one of its runs.

    Raises:
        SettingsError: A run with these settings would be refused, because nobody replays its ledger.
    """
    check_replayed(settings)
    dataset = load_dataset(settings, base)
    foreseen = _forecast(settings, dataset, len(dataset.user_ids), None)
    return foreseen if ledger is None else replace(foreseen, accounts=accounts_left(ledger))


def forecast_of(run: Run) -> PrivacyForecast:
    """Return the same of a run as it was when it began: of its people and the items that its federation knew."""
    dataset = run.dataset()
    return _forecast(run.settings, dataset, len(dataset.user_ids) - len(run.record.left_out), run.read_terms())


def _forecast(settings: Settings, dataset: Dataset, n_participants: int, terms: Terms | None) -> PrivacyForecast:
    n_features = public_features(settings, dataset).shape[1]
    plan = plan_run(settings, n_participants, len(dataset.item_ids), n_features, terms=terms)
    ratio = min((_ratio(planned, plan.n_participants) for planned in plan.stages), default=math.inf)

    return PrivacyForecast(
        **asdict(privacy_promise(settings, plan.terms, plan.n_participants)),
        participants=plan.n_participants,
        items=plan.n_items,
        rounds=plan.rounds,
        stages=tuple(_stage(planned, plan.n_participants) for planned in plan.stages),
        reasons=plan.reasons,
        **asdict(plan.spent()),
        epsilon_if_colluding=_if_colluding(plan),
        signal_to_noise=_finite(ratio),
        warning=noise_warning(ratio),
    )


def _if_colluding(plan: Plan) -> Mapping[str, float | None] | UnsetType:
    if plan.settings.privacy.mode != "distributed":
        return UNSET
    return epsilon_by_colluders([(plan.terms, plan.n_participants)], plan.terms, lambda c: plan.spent(colluding=c))


def _stage(planned: PlannedStage, n_participants: int) -> StageForecast:
    mechanism = planned.stage.mechanism
    return StageForecast(
        statistic=planned.stage.statistic.name,
        rounds=planned.rounds,
        mechanism=mechanism.name,
        account=mechanism.account,
        spend=from_nano(planned.spend_nano),
        signal_to_noise=_finite(_ratio(planned, n_participants)),
    )


def _ratio(planned: PlannedStage, n_participants: int) -> float:
    return signal_to_noise(planned.stage.mechanism, n_participants, planned.stage.statistic.shape)


def _finite(ratio: float) -> float | None:
    return ratio if math.isfinite(ratio) else None


_MASKS = {True: "on every upload", False: "left out, as they cancel in the sum and this is a simulation; they would be"}
_NOISE = {"per_upload": "a share of it on every upload", "on_sum": "all of it at once on the sum: this is a simulation"}
_BEYOND = "2**-40 for the masks of the whole run, on top of delta"


def privacy_promise(settings: Settings, terms: Terms, n_participants: int) -> PrivacyPromise:
    """Return what a run with these settings promises.

    Args:
        settings: Resolved settings.
        terms: What it rests on.
        n_participants: People who take part, > 0.
    """
    mode = settings.privacy.mode
    statement = asdict(privacy_statement(mode, settings.privacy.mechanism))
    drawn = sampler(not settings.run.simulated) if mode in ("local", "distributed") else "none: no noise is drawn"
    if mode != "distributed":
        return PrivacyPromise(mode=mode, **statement, sampler=drawn)

    agreed = agreed_sentences(terms, n_participants, settings.federation.min_participation)
    return PrivacyPromise(
        mode=mode,
        **statement,
        sampler=drawn,
        colluders=agreed.colluders,
        dropouts=agreed.dropouts,
        masks=f"{_MASKS[settings.is_masked]}: {agreed.masks}",
        noise=f"{_NOISE[settings.noise_placement]}; counted is {agreed.noise}",
        delta_beyond=_BEYOND,
    )

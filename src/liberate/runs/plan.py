"""What a run will do, worked out from settings and public numbers before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from liberate.arrays import Float32Array
from liberate.data.dataset import Dataset
from liberate.data.item_features import item_features
from liberate.errors import SettingsError
from liberate.federation.coordinator.config import RoundMethod
from liberate.identifiers import Account, NoisePlacement
from liberate.ledger.format.parts import Terms
from liberate.model.implicit_factors import model_of_features
from liberate.model.item_model import initial_items
from liberate.model.model import Model, statistic_name
from liberate.model.pool_learner import POOL_FACTORS, FollowingStage, PoolLearner, initial_pool
from liberate.model.private.statistics import (
    initial_features,
)
from liberate.model.registry import first_model
from liberate.privacy.accounting import PrivacyLoss, privacy_loss
from liberate.privacy.events import Event
from liberate.runs.budget import allocate_budget
from liberate.runs.stages import PlannedStage, distributed_stages, epsilon_of_run, visible_stage
from liberate.runs.terms import counted_noise, founding_terms
from liberate.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do, from settings and public numbers alone.

    Attributes:
        settings: With what the mode implies filled in.
        n_participants: People who take part, >= 0.
        n_items: Size of the catalogue, >= 0.
        terms: What its promises rest on.
        stages: In their order; none where nothing leaves a device. Statistics differ from stage to stage.
        pool: What learns from copies in a round before all stages; None: there is no such round.
        reasons: Why these stages, a sentence each.
    """

    settings: Settings
    n_participants: int
    n_items: int
    terms: Terms
    stages: tuple[PlannedStage, ...]
    pool: PoolLearner | None = None
    reasons: tuple[str, ...] = ()

    @property
    def pool_rounds(self) -> int:
        """Rounds of the pool: 0 or 1."""
        return int(self.pool is not None)

    @property
    def rounds(self) -> int:
        """Rounds at most, the pool's included; exactly so many where noise is added."""
        return self.pool_rounds + sum(planned.rounds for planned in self.stages)

    @property
    def is_noisy(self) -> bool:
        return any(planned.stage.mechanism.account != "none" for planned in self.stages)

    @property
    def mechanism_name(self) -> str:
        """Name of the mechanism that protects every upload; empty where nothing leaves a device."""
        return self.stages[0].stage.mechanism.name if self.stages else ""

    @property
    def noise_placement(self) -> NoisePlacement:
        """Where noise is drawn that protects a sum: on the sum in a simulation, if not said otherwise."""
        return self.settings.noise_placement

    def spend_nano(self, account: Account) -> int:
        """Return what the whole run costs a person from an account, in billionths of its unit."""
        return sum(planned.spend_nano for planned in self.stages if planned.stage.mechanism.account == account)

    def stage_after(self, model: Model) -> RoundMethod:
        """Return the stage of the round that starts from a model.

        Raises:
            ValueError: No stage has the statistic that the model names.
        """
        for planned in self.stages:
            if planned.stage.statistic.name == model.statistic:
                return planned.stage
        raise ValueError(f"the run has no stage for the statistic {model.statistic!r}")

    def first_model(self, dataset: Dataset, secret: bytes) -> Model:
        """Return the model before the first round.

        Args:
            dataset: Of which only the scale and what is public of its items are used.
            secret: 32 bytes that fix what is random in it.
        """
        config, low, high = self.settings.model, dataset.low, dataset.high
        if self.pool is not None:
            return initial_pool(_known_features(self.settings, dataset), low, high)
        match self.settings.privacy.mode, config.objective:
            case "device", "implicit":
                return model_of_features(public_features(self.settings, dataset), low, high)
            case "device" | "distributed", "explicit":
                return initial_features(public_features(self.settings, dataset), low, high, statistic="bias")
            case "distributed", "implicit":
                features = public_features(self.settings, dataset)
                return initial_items(self.n_items, low, high, statistic="popularity", noisy=True, features=features)
            case _:
                return first_model(config, self.n_items, low, high, secret, noisy=self.is_noisy)

    def spent(self, rounds: int | None = None, colluding: int = 0) -> PrivacyLoss:
        """Price a number of rounds from the first on, all of them if None.

        Args:
            rounds: How many, >= 0.
            colluding: Participants, of those whose noise is counted, who give theirs away.
        """
        left = (self.rounds if rounds is None else rounds) - self.pool_rounds
        releases: list[tuple[Event, int]] = []
        for planned in self.stages:
            times = min(left, planned.rounds)
            left -= times
            if times > 0:
                releases.append((planned.stage.mechanism.event(), times))
        return privacy_loss(releases, self.settings.privacy.delta, colluding)


def public_features(settings: Settings, dataset: Dataset) -> Float32Array:
    """Return the public features of a data set's items, shape (n_items, n_features); no column if settings say so."""
    catalogue = dataset.catalogue if settings.data.public_features else None
    return item_features(catalogue, len(dataset.item_ids))


def _known_features(settings: Settings, dataset: Dataset) -> Float32Array:
    """Return the public features that a pool's model starts from: those that the stages after it make use of."""
    is_used = settings.privacy.mode in ("device", "distributed")
    return public_features(settings, dataset) if is_used else item_features(None, len(dataset.item_ids))


def plan_run(
    settings: Settings,
    n_participants: int,
    n_items: int,
    n_features: int = 0,
    *,
    terms: Terms | None = None,
    pool_levels: int | None = None,
) -> Plan:
    """Work out the stages of a run.

    Args:
        settings: Resolved settings.
        n_participants: People who take part, > 0.
        n_items: Size of the catalogue, > 0.
        n_features: Public features of an item, of which `distributed` makes use.
        terms: What promises rest on; None: the people found a federation.
        pool_levels: Levels of the scale of copies that are in the pool, or will be; None: there is no pool.

    Raises:
        PrivacyError: Epsilon is too small for so many rounds, or the terms leave too little noise.
        SettingsError: A statistic is asked for where the mode leaves no choice, or sharing that nothing comes of.
    """
    _check(settings, has_pool=pool_levels is not None)
    pool = None if pool_levels is None else _pool_learner(settings, n_participants, pool_levels)
    settings = _trimmed(settings)
    terms = terms or founding_terms(settings, n_participants)

    match settings.privacy.mode:
        case "device":
            stages: tuple[PlannedStage, ...] = ()
            settings = replace(settings, model=replace(settings.model, n_factors=0))
        case "plain" | "local":
            stages = (visible_stage(settings, n_items),)
        case "distributed":
            return _plan_distributed(settings, n_participants, n_items, n_features, terms, pool)
        case other:
            assert_never(other)
    return Plan(
        settings=settings, n_participants=n_participants, n_items=n_items, terms=terms, stages=stages, pool=pool
    )


def _check(settings: Settings, *, has_pool: bool) -> None:
    """Refuse settings that contradict each other, or would be without effect."""
    check_limit(settings)
    _check_statistic(settings)
    _check_sharing(settings, has_pool=has_pool)
    _check_evaluation(settings)


def _plan_distributed(
    settings: Settings, n_participants: int, n_items: int, n_features: int, terms: Terms, pool: PoolLearner | None
) -> Plan:
    """Return the plan of a run of mode `distributed`: the budget chooses its stages, and what follows a pool."""
    if pool is not None and pool.follows == "bias":
        n_features += pool.n_factors + 1
    honest = counted_noise(terms, n_participants, settings.federation.min_participation)

    chosen = allocate_budget(
        settings.model.objective,
        n_participants=n_participants,
        n_items=n_items,
        n_features=n_features,
        epsilon=epsilon_of_run(settings),
        delta=settings.privacy.delta,
        honest=honest,
        n_senders=0 if pool is None else _arranged_senders(settings, n_participants),
        evaluated=settings.privacy.evaluation,
    )
    if pool is not None and "bias" not in chosen.shares:
        pool = replace(pool, follows="moments", moments_rounds=chosen.moments_rounds, n_directions=chosen.n_directions)

    return Plan(
        settings=settings,
        n_participants=n_participants,
        n_items=n_items,
        terms=terms,
        stages=distributed_stages(settings, chosen, n_participants, n_items, n_features, honest),
        pool=pool,
        reasons=chosen.reasons,
    )


def _arranged_senders(settings: Settings, n_participants: int) -> int:
    """Return how many people are known beforehand to share with the pool: those for whom settings arrange it."""
    return round(settings.sharing.user_fraction * n_participants) if settings.sharing.recipients == "pool" else 0


def _check_sharing(settings: Settings, *, has_pool: bool) -> None:
    """Refuse sharing that would be without effect, or that people have to decide on themselves."""
    sharing = settings.sharing
    if sharing.user_fraction and not settings.run.simulated:
        raise SettingsError(
            "sharing.user_fraction arranges who shares in simulations only",
            hint="people decide themselves: liberate consent and liberate share",
        )

    if sharing.user_fraction and sharing.recipients == "peers" and settings.privacy.mode == "device":
        raise SettingsError(
            "sharing.recipients is peers, but in mode device there is no round in which they would answer for copies",
            hint="recipients = pool, or another privacy.mode",
        )

    if has_pool and settings.model.objective == "implicit":
        raise SettingsError(
            "copies in the pool teach how items are rated, but model.objective is implicit",
            hint="objective = explicit, or recipients = peers",
        )


def _pool_learner(settings: Settings, n_participants: int, n_levels: int) -> PoolLearner:
    """Return what learns from the pool's copies what the mode's stages start from."""
    config = settings.model
    follows: FollowingStage
    match settings.privacy.mode:
        case "device":
            follows, n_factors = "nothing", POOL_FACTORS
        case "distributed":
            follows, n_factors = "bias", POOL_FACTORS
        case "plain" | "local" as mode:
            follows, n_factors = statistic_name(config, noisy=mode == "local"), config.n_factors
        case other:
            assert_never(other)

    return PoolLearner(follows=follows, n_factors=n_factors, n_levels=n_levels, n_participants=n_participants)


def check_limit(settings: Settings) -> None:
    """Refuse a limit of epsilon beside a mode that has none: it would look as if it held."""
    if settings.ledger.epsilon_limit is not None and settings.privacy.mode == "plain":
        raise SettingsError(
            "ledger.epsilon_limit limits an epsilon, and an answer in mode plain has none",
            hint="leave it out, or privacy.mode = local or distributed",
        )


def _check_statistic(settings: Settings) -> None:
    """Refuse a statistic that would be without effect."""
    config, mode = settings.model, settings.privacy.mode
    has_choice = mode == "plain" or (mode == "local" and config.objective == "explicit")
    if config.statistic != "auto" and not has_choice:
        raise SettingsError(
            f"model.statistic is {config.statistic}, but mode {mode} leaves no choice of it for {config.objective}",
            hint="leave it out: it has an effect in plain, and for explicit ratings in local",
        )


def _check_evaluation(settings: Settings) -> None:
    """Refuse a release of errors where there are none."""
    if not settings.privacy.evaluation:
        return
    if settings.model.objective != "explicit":
        raise SettingsError("privacy.evaluation is for explicit ratings: for implicit ones no rating is predicted")
    if not settings.holds_out:
        raise SettingsError(
            "privacy.evaluation asks for errors on held-out ratings, and none are held out",
            hint="--set data.test_fraction=0.1",
        )


def _trimmed(settings: Settings) -> Settings:
    """Return settings whose sums can be trimmed where they are to be: number by number, so no moments and no pairs.

    Raises:
        SettingsError: In this mode, or for this statistic, they cannot.
    """
    if not settings.federation.trimmed_fraction:
        return settings
    config, mode = settings.model, settings.privacy.mode
    if mode not in ("plain", "local") or config.objective != "explicit":
        raise SettingsError(
            f"federation.trimmed_fraction is for explicit ratings in plain and local, not {config.objective} in {mode}",
            hint="leave it out: of masked uploads only the sum is seen, and in lists everybody's part has norm one",
        )
    if config.statistic == "normal":
        raise SettingsError(
            "federation.trimmed_fraction is for the gradient: trimmed sums of moments need not be moments",
            hint="leave model.statistic out",
        )
    return replace(settings, model=replace(config, statistic="gradient"))

"""What a run will do, worked out from settings and public numbers before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from liberate.federation.coordinator import Fidelity, Stage
from liberate.model.factors import Model, initial
from liberate.model.method import method
from liberate.model.ratings import Dataset
from liberate.privacy.accounting import Spent, account
from liberate.privacy.mechanism import Account, Event, Plain, design
from liberate.settings import Settings

_PRIVATE_ROUNDS = 10
_PLAIN_ROUNDS = {"normal": 15, "gradient": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage, and how many rounds it takes.

    Attributes:
        stage: What happens in each of its rounds.
        rounds: How many: exactly so many where noise is added, else at most.
    """

    stage: Stage
    rounds: int

    @property
    def spend_nano(self) -> int:
        """What all its rounds cost a person, in billionths of the account's unit."""
        return self.rounds * self.stage.mechanism.spend_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do, from settings and public numbers alone.

    Attributes:
        settings: With what the mode implies filled in.
        n_participants: People who take part, >= 0.
        n_items: Size of the catalogue, >= 0.
        stages: In their order; none where nothing leaves a device. Statistics differ from stage to stage.
    """

    settings: Settings
    n_participants: int
    n_items: int
    stages: tuple[PlannedStage, ...]

    @property
    def rounds(self) -> int:
        """Rounds at most; exactly so many where noise is added."""
        return sum(planned.rounds for planned in self.stages)

    @property
    def is_noisy(self) -> bool:
        return any(planned.stage.mechanism.account != "none" for planned in self.stages)

    @property
    def mechanism_name(self) -> str:
        """Name of the mechanism that protects every upload; empty where nothing leaves a device."""
        return self.stages[0].stage.mechanism.name if self.stages else ""

    @property
    def fidelity(self) -> Fidelity:
        """Where noise is drawn that protects a sum: on the sum in a simulation, if not said otherwise."""
        return self.settings.run.fidelity or ("sum" if self.settings.run.simulated else "uploads")

    def spend_nano(self, account: Account) -> int:
        """Give what the whole run costs a person from an account, in billionths of its unit."""
        return sum(planned.spend_nano for planned in self.stages if planned.stage.mechanism.account == account)

    def stage_after(self, model: Model) -> Stage:
        """Give the stage of the round that starts from a model.

        Raises:
            ValueError: No stage has the statistic that the model names.
        """
        for planned in self.stages:
            if planned.stage.statistic.name == model.statistic:
                return planned.stage
        raise ValueError(f"the run has no stage for the statistic {model.statistic!r}")

    def first_model(self, dataset: Dataset, secret: bytes) -> Model:
        """Give the model before the first round.

        Args:
            dataset: Of which only the scale and what is public of its items are used.
            secret: 32 bytes that fix what is random in it.
        """
        return initial(self.settings.model, self.n_items, dataset.low, dataset.high, secret, noisy=self.is_noisy)

    def spent(self, rounds: int | None = None) -> Spent:
        """Price a number of rounds from the first on, all of them if None."""
        left = self.rounds if rounds is None else rounds
        releases: list[tuple[Event, int]] = []
        for planned in self.stages:
            times = min(left, planned.rounds)
            left -= times
            if times > 0:
                releases.append((planned.stage.mechanism.event(), times))
        return account(releases, self.settings.privacy.delta)


def plan(settings: Settings, n_participants: int, n_items: int) -> Plan:
    """Work out the stages of a run.

    Args:
        settings: Resolved settings.
        n_participants: People who take part, > 0.
        n_items: Size of the catalogue, > 0.

    Raises:
        PrivacyError: Epsilon is too small for so many rounds.
    """
    mode = settings.privacy.mode
    stages: tuple[PlannedStage, ...]
    match mode:
        case "device":
            settings = replace(settings, model=replace(settings.model, n_factors=0))
            stages = ()
        case "plain":
            statistic, solver = method(settings.model, n_items, noisy=False)
            rounds = settings.federation.rounds or _PLAIN_ROUNDS[statistic.name]
            stages = (PlannedStage(stage=Stage(statistic, Plain(), solver), rounds=rounds),)
        case "local":
            statistic, solver = method(settings.model, n_items, noisy=True)
            rounds = settings.federation.rounds or _PRIVATE_ROUNDS
            mechanism = design(settings.privacy, rounds=rounds)
            stages = (PlannedStage(stage=Stage(statistic, mechanism, solver), rounds=rounds),)
        case other:
            assert_never(other)
    return Plan(settings=settings, n_participants=n_participants, n_items=n_items, stages=stages)

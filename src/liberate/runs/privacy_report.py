"""What participants have spent, and what that guarantees, according to the ledger.

Field names are the keys of `liberate privacy report --json`, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass

from msgspec import UNSET, UnsetType

from liberate.ledger.format.parts import Terms
from liberate.privacy.accounting import PrivacyLoss
from liberate.runs.coalitions import epsilon_by_colluders
from liberate.runs.folder import Run
from liberate.runs.participants import find_participant
from liberate.runs.privacy_forecast import PrivacyPromise, privacy_promise
from liberate.runs.spending import Spending, read_spending
from liberate.settings import Settings
from liberate.units import from_nano


@dataclass(frozen=True, kw_only=True)
class AchievedPrivacy(PrivacyLoss, PrivacyPromise):
    """What a finished run promised each participant, and what it has spent of it."""


@dataclass(frozen=True, kw_only=True)
class RoundsSpent(PrivacyLoss):
    """What rounds have cost the participant to whom most was done.

    Attributes:
        rounds_joined_least, rounds_joined_most: The fewest and the most rounds that anybody has answered.
        epsilon_if_colluding: As of `PrivacyForecast`.
    """

    rounds_joined_least: int
    rounds_joined_most: int
    epsilon_if_colluding: Mapping[str, float | None] | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCharge:
    """The most that a run has charged a participant.

    Attributes:
        run: Its number.
        mechanism: Name of what protected the uploads.
        rounds_joined_most: The most rounds of it that anybody has answered.
        epsilon, rho: Charged to both accounts.
    """

    run: int
    mechanism: str
    rounds_joined_most: int
    epsilon: float
    rho: float


@dataclass(frozen=True, kw_only=True)
class _NamedPromise(PrivacyPromise):
    number: int | UnsetType = UNSET
    key_id: str | UnsetType = UNSET
    user_id: str | UnsetType | None = UNSET


@dataclass(frozen=True, kw_only=True)
class PrivacyReport(RoundsSpent, _NamedPromise):
    """What participants have spent in all runs of a federation, and in one of them.

    The epsilons, `rho` and the rounds joined are of all runs.

    Attributes:
        number, key_id, user_id: All names of the participant; unset in a report on everybody.
        this_run: The same readings of this run alone.
        by_run: What each run has charged.
        participants: How many the federation has.
        ledger_epsilon_nano_most, ledger_rho_nano_most: The most charged to anybody's accounts, in 1e-9.
        ledger_epsilon_nano_limit, ledger_rho_nano_limit: What the accounts allow; None: there is no limit.
        warning: What is not counted, or None.
    """

    this_run: RoundsSpent
    by_run: tuple[RunCharge, ...]
    participants: int
    ledger_epsilon_nano_most: int
    ledger_rho_nano_most: int
    ledger_epsilon_nano_limit: int | None
    ledger_rho_nano_limit: int | None
    warning: str | None


def privacy_report(run: Run, participant: str | None = None) -> PrivacyReport:
    """Return what participants have spent in all runs of a federation, and in this one, from the ledger.

    Args:
        run: One of the runs.
        participant: Number, key id, or user:ID of one person; None: of each reading the person with the most.

    Raises:
        LiberateError: Nobody has that name.
    """
    with run.open() as reader:
        everybody, founding = read_spending(reader.ledger), reader.ledger.state.founding
        terms = reader.ledger.state.terms
        person = None if participant is None else find_participant(reader.ledger, reader.devices, participant)

    spending = everybody if person is None else everybody.of_person(person.number)
    epsilon_nano, rho_nano = spending.charged()
    n_answering = len(everybody.of_run(run.record.run).answered)

    return PrivacyReport(
        **asdict(_promise(run, n_answering)),
        **({} if person is None else asdict(person)),
        **asdict(_rounds_spent(spending, run.settings, terms)),
        this_run=_rounds_spent(spending.of_run(run.record.run), run.settings, terms),
        by_run=tuple(_charge(spending.of_run(number), number) for number in spending.runs),
        participants=len(everybody.answered),
        ledger_epsilon_nano_most=epsilon_nano,
        ledger_rho_nano_most=rho_nano,
        ledger_epsilon_nano_limit=founding.epsilon_nano_limit,
        ledger_rho_nano_limit=founding.rho_nano_limit,
        warning=_tuning(run.settings),
    )


def achieved_privacy(run: Run) -> AchievedPrivacy:
    """Return what a finished run promised each participant, and what it has spent of it, from the ledger."""
    with closing(run.open_ledger()) as ledger:
        spending = read_spending(ledger).of_run(run.record.run)
    promise = _promise(run, len(spending.answered))
    return AchievedPrivacy(**asdict(promise), **asdict(spending.spent(run.settings.privacy.delta)))


def _promise(run: Run, n_participants: int) -> PrivacyPromise:
    """Return what a run promises its participants, or all who may be enrolled before its first round."""
    terms = run.read_terms()
    return privacy_promise(run.settings, terms, n_participants or terms.max_participants)


def _rounds_spent(spending: Spending, settings: Settings, terms: Terms) -> RoundsSpent:
    """Return the price of rounds, also against more colluders than agreed where noise was shared."""
    delta, (least, most) = settings.privacy.delta, spending.joined()
    return RoundsSpent(
        **asdict(spending.spent(delta)),
        rounds_joined_least=least,
        rounds_joined_most=most,
        epsilon_if_colluding=_if_colluding(spending, settings, terms),
    )


def _if_colluding(spending: Spending, settings: Settings, terms: Terms) -> Mapping[str, float | None] | UnsetType:
    if settings.privacy.mode != "distributed":
        return UNSET
    shared = [held for held in spending.rounds.values() if held.mechanism == "distributed_gaussian"]
    held = [(each.terms, len(each.cohort)) for each in shared]
    return epsilon_by_colluders(held, terms, lambda c: spending.spent(settings.privacy.delta, colluding=c))


def _charge(spending: Spending, number: int) -> RunCharge:
    epsilon_nano, rho_nano = spending.charged()
    return RunCharge(
        run=number,
        mechanism=next(priced.mechanism for priced in spending.rounds.values()),
        rounds_joined_most=spending.joined()[1],
        epsilon=from_nano(epsilon_nano),
        rho=from_nano(rho_nano),
    )


def _tuning(settings: Settings) -> str | None:
    if settings.privacy.mode not in ("local", "distributed"):
        return None
    return "choices made by trying several settings on the same ratings are not counted"

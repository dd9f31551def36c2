"""What a run will promise, and what it has spent according to its ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from liberate.data.dataset import Dataset
from liberate.privacy.accounting import PrivacyLoss
from liberate.privacy.promises import noise_warning, privacy_statement, sampler, signal_to_noise
from liberate.runs.folder import Run
from liberate.runs.participants import find_participant
from liberate.runs.plan import Plan, PlannedStage, plan_run, public_features
from liberate.runs.run_data import load_dataset
from liberate.runs.spending import Spending, read_spending
from liberate.settings import Settings
from liberate.units import from_nano


def forecast(settings: Settings, base: Path | None = None) -> dict[str, Any]:
    """Predict what a run would spend and how far its signal can stand out from its noise.

    Args:
        settings: Resolved settings. Of the ratings only the numbers of users and items are used.
        base: Folder that a path in `data.source` is relative to, the working directory if None.

    Returns:
        The keys of `liberate privacy plan --json`.
    """
    dataset = load_dataset(settings, base)
    return _foreseen(settings, dataset, len(dataset.user_ids))


def forecast_of(run: Run) -> dict[str, Any]:
    """Predict the same of a run as it was when it began: of its people and the items that its federation knew."""
    dataset = run.dataset()
    return _foreseen(run.settings, dataset, len(dataset.user_ids) - len(run.record.left_out))


def _foreseen(settings: Settings, dataset: Dataset, n_participants: int) -> dict[str, Any]:
    features = public_features(settings, dataset)
    plan = plan_run(settings, n_participants, len(dataset.item_ids), features.shape[1])
    found = _promised(settings) | {
        "participants": plan.n_participants,
        "items": plan.n_items,
        "rounds": plan.rounds,
        "stages": [_stage(planned, plan.n_participants) for planned in plan.stages],
        "reasons": list(plan.reasons),
    }
    found |= asdict(plan.spent())
    if settings.privacy.mode == "distributed":
        found |= _if_colluding(plan.n_participants, lambda c: plan.spent(colluding=c))
    return found | _signal(plan)


def privacy_report(run: Run, participant: str | None = None) -> dict[str, Any]:
    """Say what participants have spent in all runs of a federation, and in this one, from the ledger.

    Args:
        run: One of the runs.
        participant: Number, key id, or user:ID of one person; None: of each reading the person with the most.

    Returns:
        The keys of `liberate privacy report --json`. The epsilons, `rho` and the rounds joined are of all runs;
        `this_run` has them of this run alone; `by_run` has what each run has charged to both accounts. With a
        participant, the person's three names too.

    Raises:
        LiberateError: Nobody has that name.
    """
    delta = run.settings.privacy.delta
    with run.open() as reader:
        everybody = read_spending(reader.ledger)
        founding = reader.ledger.state.founding
        found, person = everybody, {}
        if participant is not None:
            named = find_participant(reader.ledger, reader.devices, participant)
            found, person = everybody.of_person(named.number), asdict(named)
    number = run.record.run
    epsilon_nano, rho_nano = found.charged()
    n_participants = len(everybody.of_run(number).answered) if run.settings.privacy.mode == "distributed" else None
    said = _promised(run.settings) | person | _spent(found, delta, n_participants)
    return said | {
        "this_run": _spent(found.of_run(number), delta, n_participants),
        "by_run": [_by_run(found.of_run(each), each) for each in found.runs],
        "participants": len(everybody.answered),
        "ledger_epsilon_nano_most": epsilon_nano,
        "ledger_rho_nano_most": rho_nano,
        "ledger_epsilon_nano_limit": founding.epsilon_nano_limit,
        "ledger_rho_nano_limit": founding.rho_nano_limit,
        "warning": _tuning(run.settings),
    }


def achieved_privacy(run: Run) -> dict[str, Any]:
    """Say what a finished run promised each person, and what it has spent of it, from the ledger.

    Returns:
        The key `privacy` of `liberate train --json`: unit, relation, adversary, mechanism and sampler, the epsilons
        and `rho` of this run, and the delta of the tight ones.
    """
    with closing(run.open_ledger()) as ledger:
        found = read_spending(ledger).of_run(run.record.run)
    return _promised(run.settings) | asdict(found.spent(run.settings.privacy.delta))


def _spent(found: Spending, delta: float, n_participants: int | None) -> dict[str, Any]:
    """Price rounds, also against coalitions where noise was shared among a number of people."""
    least, most = found.joined()
    said = asdict(found.spent(delta)) | {"rounds_joined_least": least, "rounds_joined_most": most}
    return (
        said
        if n_participants is None
        else said | _if_colluding(n_participants, lambda c: found.spent(delta, colluding=c))
    )


def _by_run(found: Spending, number: int) -> dict[str, Any]:
    epsilon_nano, rho_nano = found.charged()
    return {
        "run": number,
        "mechanism": next(held.mechanism for held in found.rounds.values()),
        "rounds_joined_most": found.joined()[1],
        "epsilon": from_nano(epsilon_nano),
        "rho": from_nano(rho_nano),
    }


_MASKS = {
    True: "on every upload: the coordinator sees sums alone",
    False: "left out: they cancel in the sum, and this is a simulation",
}
_NOISE = {
    "per_upload": "a share of it on every upload",
    "on_sum": "all of it at once on the sum: this is a simulation",
}


def _promised(settings: Settings) -> dict[str, Any]:
    mode = settings.privacy.mode
    said = {
        "mode": mode,
        **asdict(privacy_statement(mode, settings.privacy.mechanism)),
        "sampler": sampler(not settings.run.simulated)
        if mode in ("local", "distributed")
        else "none: no noise is drawn",
    }
    if mode == "distributed":
        said |= {"masks": _MASKS[settings.is_masked], "noise": _NOISE[settings.noise_placement]}
    return said


_COALITIONS = (0.01, 0.1, 0.3)


def _if_colluding(n_participants: int, spent: Callable[[int], PrivacyLoss]) -> dict[str, dict[str, float | None]]:
    """Return the epsilon against a coordinator that controls some of those whose noise was counted, by their number."""
    sizes = sorted({math.ceil(part * n_participants) for part in _COALITIONS})
    return {"epsilon_if_colluding": {str(c): spent(c).epsilon for c in sizes}}


def _signal(plan: Plan) -> dict[str, Any]:
    """Return the ratio of the stage that stands out least from its noise, and what to say of it."""
    ratio = min((_ratio(planned, plan.n_participants) for planned in plan.stages), default=np.inf)
    return {"signal_to_noise": ratio if np.isfinite(ratio) else None, "warning": noise_warning(ratio)}


def _stage(planned: PlannedStage, n_participants: int) -> dict[str, Any]:
    mechanism, ratio = planned.stage.mechanism, _ratio(planned, n_participants)
    return {
        "statistic": planned.stage.statistic.name,
        "rounds": planned.rounds,
        "mechanism": mechanism.name,
        "account": mechanism.account,
        "spend": from_nano(planned.spend_nano),
        "signal_to_noise": ratio if np.isfinite(ratio) else None,
    }


def _ratio(planned: PlannedStage, n_participants: int) -> float:
    return signal_to_noise(planned.stage.mechanism, n_participants, planned.stage.statistic.shape)


def _tuning(settings: Settings) -> str | None:
    if settings.privacy.mode not in ("local", "distributed"):
        return None
    return "choices made by trying several settings on the same ratings are not counted"

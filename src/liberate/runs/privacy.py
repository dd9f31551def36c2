"""What a run will promise, and what it has spent according to its ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from liberate.ledger.records import Round, Update, decode_entry
from liberate.privacy.accounting import Spent, account, noise_warning, promise, sampler, signal_to_noise
from liberate.privacy.mechanism import NANO, Event, mechanism_from
from liberate.runs.folder import Run, load_dataset
from liberate.runs.planning import Plan, PlannedStage, plan, public_features
from liberate.settings import Settings


def forecast(settings: Settings, base: Path | None = None) -> dict[str, Any]:
    """Predict what a run would spend and how far its signal can stand out from its noise.

    Args:
        settings: Resolved settings. Of the ratings only the numbers of users and items are used.
        base: Folder that a path in `data.source` is relative to, the working directory if None.

    Returns:
        The keys of `liberate privacy plan --json`.
    """
    dataset = load_dataset(settings, base)
    features = public_features(settings, dataset)
    agenda = plan(settings, len(dataset.user_ids), len(dataset.item_ids), features.shape[1])
    found = _promised(settings) | {
        "participants": agenda.n_participants,
        "items": agenda.n_items,
        "rounds": agenda.rounds,
        "stages": [_stage(planned, agenda.n_participants) for planned in agenda.stages],
        "reasons": list(agenda.reasons),
    }
    found |= asdict(agenda.spent())
    if settings.privacy.mode == "distributed":
        found |= _if_colluding(agenda.n_participants, lambda c: agenda.spent(colluding=c))
    return found | _signal(agenda)


def statement(run: Run) -> dict[str, Any]:
    """Say what participants have spent, from the ledger's rounds and each participant's own updates.

    An aborted round counts: what left a device stays spent.

    Returns:
        The keys of `liberate privacy report --json`; the epsilons are those of the participant who spent most.
    """
    with closing(run.open_ledger()) as ledger:
        events: dict[int, Event] = {}
        for position in ledger.positions(kind="round"):
            record = decode_entry(ledger.entry(position)).record
            if isinstance(record, Round):
                mechanism = record.mechanism
                events[record.number] = mechanism_from(mechanism.name, record.grid_bits, mechanism.parameters).event()
        answered: dict[int, list[int]] = {}
        for position in ledger.positions(kind="update"):
            update = decode_entry(ledger.entry(position)).record
            if isinstance(update, Update):
                answered.setdefault(update.author, []).append(update.round)
        accounts = [(p.epsilon_nano, p.rho_nano) for p in ledger.state.principals if p.role == "participant"]
    joined = sorted(map(len, answered.values()))
    worst = max(answered.values(), key=len, default=[])
    releases, delta = [(events[number], 1) for number in worst], run.settings.privacy.delta
    found = _promised(run.settings) | asdict(account(releases, delta))
    if run.settings.privacy.mode == "distributed":
        found |= _if_colluding(len(accounts), lambda c: account(releases, delta, c))
    return found | {
        "participants": len(accounts),
        "rounds_joined_least": joined[0] if len(joined) == len(accounts) and joined else 0,
        "rounds_joined_most": joined[-1] if joined else 0,
        "ledger_epsilon_nano_most": max((epsilon for epsilon, _ in accounts), default=0),
        "ledger_rho_nano_most": max((rho for _, rho in accounts), default=0),
        "warning": _tuning(run.settings),
    }


_MASKS = {
    True: "on every upload: the coordinator sees sums alone",
    False: "left out: they cancel in the sum, and this is a simulation",
}
_NOISE = {
    "uploads": "a share of it on every upload",
    "sum": "all of it at once on the sum: this is a simulation",
}


def _promised(settings: Settings) -> dict[str, Any]:
    mode = settings.privacy.mode
    said = {
        "mode": mode,
        **asdict(promise(mode, settings.privacy.mechanism)),
        "sampler": sampler(not settings.run.simulated),
    }
    if mode == "distributed":
        said |= {"masks": _MASKS[settings.run.is_masked], "noise": _NOISE[settings.run.noise_on]}
    return said


_COALITIONS = (0.01, 0.1, 0.3)


def _if_colluding(n_participants: int, spent: Callable[[int], Spent]) -> dict[str, dict[str, float | None]]:
    """Give the epsilon against a coordinator that controls some of those whose noise was counted, by their number."""
    sizes = sorted({math.ceil(part * n_participants) for part in _COALITIONS})
    return {"epsilon_if_colluding": {str(c): spent(c).epsilon for c in sizes}}


def _signal(agenda: Plan) -> dict[str, Any]:
    """Give the ratio of the stage that stands out least from its noise, and what to say of it."""
    ratio = min((_ratio(planned, agenda.n_participants) for planned in agenda.stages), default=np.inf)
    return {"signal_to_noise": ratio if np.isfinite(ratio) else None, "warning": noise_warning(ratio)}


def _stage(planned: PlannedStage, n_participants: int) -> dict[str, Any]:
    mechanism, ratio = planned.stage.mechanism, _ratio(planned, n_participants)
    return {
        "statistic": planned.stage.statistic.name,
        "rounds": planned.rounds,
        "mechanism": mechanism.name,
        "account": mechanism.account,
        "spend": planned.spend_nano / NANO,
        "signal_to_noise": ratio if np.isfinite(ratio) else None,
    }


def _ratio(planned: PlannedStage, n_participants: int) -> float:
    return signal_to_noise(planned.stage.mechanism, n_participants, planned.stage.statistic.shape)


def _tuning(settings: Settings) -> str | None:
    if settings.privacy.mode not in ("local", "distributed"):
        return None
    return "choices made by trying several settings on the same ratings are not counted"

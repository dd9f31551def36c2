"""The terms of a run's federation, from its settings and its plan."""

from __future__ import annotations

from liberate.errors import InvalidRecord, SettingsError
from liberate.federation.terms import Charter
from liberate.ledger.publish.checkpoints import WitnessAddress, parse_address
from liberate.runs.plan import Plan
from liberate.runs.prepare import limits
from liberate.settings import LedgerConfig, Settings


def federation_terms(settings: Settings, plan: Plan | None = None) -> Charter:
    """Give what the founder of a run's ledger writes down, and people agree to.

    Args:
        settings: Resolved settings.
        plan: What is going to leave devices; None where nothing is.

    Raises:
        SettingsError: A witness is none, or more are to cosign than there are.
    """
    witnesses, threshold = _witnesses(settings.ledger)
    most = limits(settings)
    return Charter(
        origin=settings.ledger.origin,
        seed=settings.run.seed,
        is_simulated=settings.run.simulated,
        mechanism="" if plan is None else plan.mechanism_name,
        honest_fraction=settings.privacy.honest_fraction,
        agreed_epsilon_nano=0 if plan is None else plan.spend_nano("epsilon"),
        agreed_rho_nano=0 if plan is None else plan.spend_nano("rho"),
        epsilon_nano_limit=most["epsilon"],
        rho_nano_limit=most["rho"],
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

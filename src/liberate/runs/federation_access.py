"""How this program gets at the federation of a run: its folder, its ledger in SQLite, its witnesses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

from liberate.crypto.note import WitnessPolicy, parse_verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, SettingsError
from liberate.federation.session import FederationAccess, FederationSession
from liberate.federation.setup import open_federation
from liberate.federation.terms import GenesisParameters, ParticipationTerms, RegistrarPolicy
from liberate.ledger.format.parts import Terms
from liberate.ledger.interface import Ledger
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.checkpoints import WitnessAddress, parse_address
from liberate.randomness import Clock, RandomSource
from liberate.runs.folder import Run
from liberate.runs.plan import Plan
from liberate.runs.snapshot import limits
from liberate.settings import LedgerConfig, Settings

NOT_REPLAYED = (
    "privacy.mode distributed wants a witness that replays the ledger's rules in every quorum of ledger.witnesses"
)
HOW_TO_REPLAY = (
    "whoever is to be it: liberate keys new witness.key --kind witness --name witness.example/replay;"
    ' then --set \'ledger.witnesses=["http://127.0.0.1:8300 VKEY"]\', see "Run a witness"'
)


def open_run_federation(run: Run) -> AbstractContextManager[FederationSession]:
    """Open the federation of a run as the owner of its ledger, to act between rounds.

    Raises:
        LedgerLocked: A training is going on.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    return open_federation(federation_access(run.home, run.settings))


def federation_access(folder: Path, settings: Settings) -> FederationAccess:
    """Return how a federation is opened with some settings.

    Raises:
        SettingsError: A witness is not an address and a key, or more are to cosign than there are.
    """
    return FederationAccess(
        folder=folder,
        source=RandomSource(settings.run.seed if settings.run.simulated else None),
        open_ledger=open_ledger,
        witnesses=_addresses(settings.ledger),
        witness_threshold=_witness_policy(settings.ledger).threshold,
    )


def genesis_parameters(settings: Settings, terms: Terms) -> GenesisParameters:
    """Return what the genesis of a run's ledger says, or is to say.

    Args:
        settings: Of the run.
        terms: What promises rest on where the run founds its ledger.

    Raises:
        SettingsError: A witness is not an address and a key, a registrar is no key, or more are to sign than there are.
    """
    most = limits(settings)
    return GenesisParameters(
        origin=settings.ledger.origin,
        epsilon_nano_limit=most["epsilon"],
        rho_nano_limit=most["rho"],
        are_limits_given=settings.ledger.epsilon_limit is not None,
        terms=terms,
        registrars=_registrar_policy(settings),
        witnesses=_witness_policy(settings.ledger),
    )


def check_replayed(settings: Settings) -> None:
    """Refuse mode distributed outside a simulation unless every quorum of witnesses has one that replays the rules.

    Masks hide single uploads only while one state, and one set of survivors, is shown to everybody.

    Raises:
        SettingsError: A quorum may lack such a witness.
    """
    if settings.run.simulated or settings.privacy.mode != "distributed":
        return
    if not _witness_policy(settings.ledger).always_replays:
        raise SettingsError(NOT_REPLAYED, hint=HOW_TO_REPLAY)


def participation_terms(plan: Plan) -> ParticipationTerms:
    """Return what participants agree to in a run."""
    return ParticipationTerms(
        mechanism=plan.mechanism_name,
        epsilon_nano=plan.spend_nano("epsilon"),
        rho_nano=plan.spend_nano("rho"),
        evaluation=plan.settings.privacy.evaluation,
    )


def open_ledger(
    folder: Path,
    log_key: SigningKey,
    clock: Clock,
    *,
    genesis: Callable[[], bytes] | None = None,
) -> Ledger:
    """Open a ledger in SQLite as its owner; where none was begun, create it from the entry that `genesis` returns.

    Raises:
        LedgerError: There is no ledger and no genesis, or the key is not its log's.
        LedgerLocked: Another process owns it.
    """
    if genesis is None or _is_begun(folder):
        return SqliteLedger.open(folder, log_key, clock)
    return SqliteLedger.create(folder, genesis(), log_key, clock)


def _is_begun(folder: Path) -> bool:
    """Whether a ledger was begun; a file without tables is what a crash before the first block leaves."""
    if not (folder / tables.LEDGER_FILE).is_file():
        return False
    with closing(tables.connect(folder, mode="rw")) as connection:
        return not tables.is_empty(connection)


def _registrar_policy(settings: Settings) -> RegistrarPolicy:
    """Return who must sign for an enrolment: more than half of all registrars if not said."""
    config, is_simulated = settings.ledger, settings.run.simulated
    try:
        others = tuple(parse_verifier_key(text).public for text in config.registrars)
    except InvalidRecord as error:
        raise SettingsError(f"ledger.registrars: {error.message}") from error
    if others and is_simulated:
        raise SettingsError(
            "ledger.registrars names keys, but in a simulation those of all registrars follow from the seed",
            hint="set ledger.registrar_threshold alone: there are as many registrars",
        )

    count = 1 + len(others)
    threshold = count // 2 + 1 if config.registrar_threshold is None else config.registrar_threshold
    if threshold > count and not is_simulated:
        raise SettingsError(f"ledger.registrar_threshold is {threshold}, but there are {count} registrars")
    return RegistrarPolicy(others, threshold)


def _addresses(config: LedgerConfig) -> tuple[WitnessAddress, ...]:
    try:
        return tuple(parse_address(text) for text in config.witnesses)
    except InvalidRecord as error:
        raise SettingsError(f"ledger.witnesses: {error.message}") from error


def _witness_policy(config: LedgerConfig) -> WitnessPolicy:
    """Return who must cosign, and how many of them: more than half if not said."""
    keys = tuple(address.key for address in _addresses(config))
    majority = len(keys) // 2 + 1 if keys else 0
    threshold = majority if config.witness_threshold is None else config.witness_threshold
    if threshold > len(keys):
        raise SettingsError(f"ledger.witness_threshold is {threshold}, but there are {len(keys)} witnesses")
    return WitnessPolicy(keys, threshold)

"""The genesis of a ledger: written once by the founder, and compared with what later runs are told."""

from __future__ import annotations

import secrets
from typing import get_args

from liberate.crypto.note import WitnessPolicy, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError
from liberate.federation.enrolment import EnrolledRole
from liberate.federation.registrars import FOUNDER
from liberate.federation.terms import GenesisParameters, RegistrarPolicy
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.parts import EnrolmentPolicy, Witnesses
from liberate.ledger.format.records import Genesis
from liberate.randomness import RandomSource
from liberate.units import from_nano


def genesis_entry(
    parameters: GenesisParameters,
    registrars: RegistrarPolicy,
    source: RandomSource,
    founder: SigningKey,
    log_key: SigningKey,
) -> bytes:
    """Return the first entry of a new ledger, signed by the founder, who enrols others with the other registrars."""
    tag = source.randomness().secret("origin").hex() if source.is_simulated else secrets.token_hex(32)
    origin = parameters.origin or f"liberate.invalid/{tag[:16]}"
    keys = (founder.public, *registrars.others)
    policy = EnrolmentPolicy(registrars=tuple(range(len(keys))), threshold=registrars.threshold)

    genesis = Genesis(
        origin=origin,
        author=FOUNDER,
        seq=1,
        registrars=tuple(map(Digest, keys)),
        enrolment_policy=dict.fromkeys(get_args(EnrolledRole), policy),
        log_vkey=verifier_key(origin, log_key.public),
        simulated=source.is_simulated,
        unit="user",
        relation="zero-out",
        epsilon_nano_limit=parameters.epsilon_nano_limit,
        rho_nano_limit=parameters.rho_nano_limit,
        terms=parameters.terms,
        witnesses=Witnesses(keys=parameters.witnesses.keys, threshold=parameters.witnesses.threshold),
    )
    return sign(genesis, founder)


def check_genesis(genesis: Genesis, parameters: GenesisParameters, source: RandomSource) -> None:
    """Refuse parameters that differ from the genesis, which cannot be changed.

    An origin or a limit that is left out may be anything; witnesses may not.

    Raises:
        FederationError: They differ.
    """
    if genesis.simulated != source.is_simulated:
        is_one, wanted = ("a", "real keys") if genesis.simulated else ("no", "a simulation")
        raise FederationError(
            f"the ledger is {is_one} simulation, the run is to use {wanted}", hint="give run.simulated as at the start"
        )

    compared = {
        "ledger.origin": (genesis.origin, parameters.origin or None),
        "ledger.epsilon_limit": (_units(genesis.epsilon_nano_limit), _units(parameters.epsilon_nano_limit)),
        "ledger.epsilon_limit, as rho by privacy.delta": (
            _units(genesis.rho_nano_limit),
            _units(parameters.rho_nano_limit),
        ),
    }
    if not parameters.are_limits_given:
        del compared["ledger.epsilon_limit"], compared["ledger.epsilon_limit, as rho by privacy.delta"]
    for name, (present, given) in compared.items():
        if given is not None and given != present:
            raise FederationError(
                f"the genesis has another {name}: {present}, not {given}",
                hint="it cannot be changed: leave it out, or give it as at the start",
            )

    _check_registrars(genesis, parameters.registrars)
    _check_witnesses(genesis, parameters.witnesses)


def _check_registrars(genesis: Genesis, given: RegistrarPolicy) -> None:
    thresholds = {policy.threshold for policy in genesis.enrolment_policy.values()}
    is_other = given.others and given.others != genesis.registrars[1:]
    if is_other or (given != RegistrarPolicy() and thresholds != {given.threshold}):
        raise FederationError(
            f"the genesis names {len(genesis.registrars)} registrars, of whom {max(thresholds, default=0)} must sign;"
            " others were given",
            hint="leave ledger.registrars and ledger.registrar_threshold out, or give them as at the start",
        )


def _check_witnesses(genesis: Genesis, given: WitnessPolicy) -> None:
    if WitnessPolicy(genesis.witnesses.keys, genesis.witnesses.threshold) != given:
        raise FederationError(
            f"the genesis names {len(genesis.witnesses.keys)} witnesses, of whom {genesis.witnesses.threshold} must"
            " cosign; others were given",
            hint="give ledger.witnesses and ledger.witness_threshold as at the start",
        )


def _units(nano: int | None) -> str | None:
    return None if nano is None else f"{from_nano(nano):.10g}"

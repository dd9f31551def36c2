"""What is agreed on: the parameters in the genesis for all runs, and what participants consent to in one run."""

from __future__ import annotations

from dataclasses import dataclass, field

from liberate.crypto.note import WitnessPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisParameters:
    """What the founder writes into the genesis of a new ledger, which nobody can change later.

    Attributes:
        origin: The ledger's name; empty: derived from the seed in a simulation, else drawn at random.
        epsilon_nano_limit: Most that a participant may spend with pure mechanisms in all runs, in 1e-9; None: no limit.
        rho_nano_limit: Most that a participant may spend with Gaussian mechanisms, likewise.
        witnesses: Whose cosignatures a checkpoint must have.
    """

    origin: str = ""
    epsilon_nano_limit: int | None = None
    rho_nano_limit: int | None = None
    witnesses: WitnessPolicy = field(default_factory=WitnessPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipationTerms:
    """What participants agree to when they take part in a run.

    Attributes:
        mechanism: Name of the mechanism that protects uploads; empty: nothing leaves a device.
        honest_fraction: Largest part of a masked round's cohort whose noise the round may count on, > 0.
        epsilon_nano: Most that the run may spend with pure mechanisms, in 1e-9.
        rho_nano: Most that it may spend with Gaussian mechanisms, likewise.
        evaluation: Whether a round may ask for errors on what devices hold out.
    """

    mechanism: str = ""
    honest_fraction: float = 1.0
    epsilon_nano: int = 0
    rho_nano: int = 0
    evaluation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipationPolicy:
    """What a host holds every round against: a round that asks for more is refused.

    In which run a participant takes part, and what the run may cost, is stored on the device: see `DeviceStore.agree`.

    Attributes:
        origin: The ledger that its participants joined.
        log_key: Verifier key of that log, got from outside the ledger.
        coordinator_key: Public key of the coordinator, got from outside the ledger.
        mechanism: Name of the mechanism agreed to: a round with another is not answered.
        honest_fraction: Largest part of a masked round's cohort whose noise the round may count on, > 0.
        witnesses: Whose cosignatures a checkpoint must have.
        evaluation: Whether a round may ask for errors on what devices hold out.
    """

    origin: str
    log_key: str
    coordinator_key: bytes
    mechanism: str
    honest_fraction: float = 1.0
    witnesses: WitnessPolicy = field(default_factory=WitnessPolicy)
    evaluation: bool = False

"""What the participants of a host have agreed to."""

from __future__ import annotations

from dataclasses import dataclass, field

from liberate.crypto.note import WitnessPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipationPolicy:
    """What the participants of a host agreed to; a round that asks for more is refused.

    In which run each of them takes part, and what it may cost, is on the devices: see `DeviceStore.record_agreement`.

    Attributes:
        origin: The ledger they joined.
        log_key: Verifier key of its log, obtained from outside the ledger.
        coordinator_key: Public key of the coordinator, obtained from outside the ledger.
        mechanism: Name of the agreed mechanism: a round with another is not answered.
        honest_fraction: Largest part of a masked round's cohort whose noise the round may count on, > 0.
        witnesses: Whose cosignatures a checkpoint must have.
    """

    origin: str
    log_key: str
    coordinator_key: bytes
    mechanism: str
    honest_fraction: float = 1.0
    witnesses: WitnessPolicy = field(default_factory=WitnessPolicy)

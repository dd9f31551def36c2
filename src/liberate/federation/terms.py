"""What the founder of a federation writes into its genesis, and participants agree to."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.ledger.publish.checkpoints import WitnessAddress
from liberate.randomness import Clock, Randomness, SimulatedClock, SimulatedRandomness, SystemClock, SystemRandomness


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """What the founder writes into the genesis of a new ledger, and people agree to.

    What the genesis of an existing ledger says cannot be changed: it must be the same here, or not be said.

    Attributes:
        origin: The ledger's name, or empty to derive it from the seed or draw it at random.
        seed: Everything random in a simulation is derived from it.
        is_simulated: Whether keys, salts, noise and time are derived from the seed.
        mechanism: Name of the mechanism that people agree to; nothing weaker is answered.
        honest_fraction: Largest part of a masked round's cohort whose noise people let it count on, > 0.
        agreed_epsilon_nano: Most that people agree to spend in the run with pure mechanisms, in 1e-9.
        agreed_rho_nano: Most that they agree to spend in it with Gaussian mechanisms, likewise.
        epsilon_nano_limit: Most that the ledger lets a participant spend with pure mechanisms, in all runs; None
            = no limit.
        rho_nano_limit: Most that it lets a participant spend with Gaussian mechanisms, likewise.
        witnesses: Who is asked to cosign checkpoints.
        witness_threshold: How many must.
    """

    origin: str
    seed: int
    is_simulated: bool
    mechanism: str = ""
    honest_fraction: float = 1.0
    agreed_epsilon_nano: int = 0
    agreed_rho_nano: int = 0
    epsilon_nano_limit: int | None = None
    rho_nano_limit: int | None = None
    witnesses: tuple[WitnessAddress, ...] = ()
    witness_threshold: int = 0

    def randomness(self, context: bytes = b"") -> Randomness:
        """Give the source of secrets; `context` keeps two runs of one seed apart."""
        return SimulatedRandomness(self.seed, context) if self.is_simulated else SystemRandomness()

    @property
    def clock(self) -> Clock:
        return SimulatedClock() if self.is_simulated else SystemClock()

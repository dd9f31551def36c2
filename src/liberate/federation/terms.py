"""What is agreed on: the parameters in the genesis for all runs, and what participants consent to in one run.

A round states its cohort, its minimum and whose noise it counts on; how much noise is really unknown to a coordinator
and its accomplices follows from these and from the terms alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from liberate.crypto.note import WitnessPolicy
from liberate.identifiers import Digest
from liberate.ledger.format.parts import Terms
from liberate.privacy.mask_parameters import SECRECY_BITS, MaskAssumptions, mask_parameters, strays


def smallest_sum(terms: Terms, cohort: int, min_participation: float = 0.0) -> int:
    """Return how many of a cohort's uploads a sum must have at least that shared noise protects.

    Args:
        terms: What was agreed to.
        cohort: People of the round, > 0.
        min_participation: Share of the cohort that a model needs, where that is more.
    """
    return max(1, cohort - terms.dropouts(cohort), int(cohort * min_participation))


def mask_assumptions(terms: Terms, cohort: int) -> MaskAssumptions:
    """Return what the masks of a round of so many people, > 0, are to bear."""
    return MaskAssumptions(
        n_participants=cohort,
        max_colluders=terms.max_colluders,
        max_dropouts=terms.dropouts(cohort),
        max_late_dropouts=terms.late_dropouts(cohort),
        max_attempts=terms.max_attempts,
    )


def unknown_shares(terms: Terms, cohort: int, minimum: int, *, bits: int = SECRECY_BITS) -> int:
    """Return how many people's noise a sum has, at least, that colluders do not know; <= 0 where that may be none.

    Colluders may be anybody and may all be in the round, whomever its cohort names. Dropouts have their own part: the
    minimum is what is left without them. Whom masks may cut off from the others is missing in what is read. The same
    holds without masks, so that a simulation costs what it simulates.

    Args:
        terms: What was agreed to.
        cohort: People of the round, > 0.
        minimum: Fewest uploads in the sum, > 0.
        bits: More are cut off with a chance of at most 2**-bits in a run.

    Raises:
        PrivacyError: No masks bear what the terms allow.
    """
    assumptions = mask_assumptions(terms, cohort)
    return minimum - terms.max_colluders - strays(mask_parameters(assumptions), assumptions, bits=bits)


def is_no_weaker(new: Terms, accepted: Terms) -> bool:
    """Whether a device accepts new terms by itself: whoever took part under the former ones loses nothing.

    As many people may collude, and as large a part of all who may ever be enrolled; no round is smaller, and no fewer
    people's noise is unknown. Dropouts may be more or less: a device counts the noise, and wants the masks, without
    them either way.
    """
    return (
        new.max_colluders >= accepted.max_colluders
        and new.max_colluders * accepted.max_participants >= accepted.max_colluders * new.max_participants
        and new.min_cohort >= accepted.min_cohort
        and new.min_honest >= accepted.min_honest
    )


@dataclass(frozen=True, slots=True)
class RegistrarPolicy:
    """Which registrars there are beside the founder, and how many of all must sign.

    Attributes:
        others: Their public keys; in a simulation they follow from the seed.
        threshold: 1 <= threshold <= 1 + number of others.
    """

    others: tuple[bytes, ...] = ()
    threshold: int = 1

    def with_keys(self, simulated: Sequence[bytes]) -> RegistrarPolicy:
        """Return the same with the keys of a simulation, where no others are named."""
        return RegistrarPolicy(self.others or tuple(simulated), self.threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisParameters:
    """What the founder writes into the genesis of a new ledger; nobody can change it later, but for the terms.

    Attributes:
        origin: The ledger's name; empty: derived from the seed in a simulation, else drawn at random.
        epsilon_nano_limit: Most that a participant may spend with pure mechanisms in all runs, in 1e-9; None: no limit.
        rho_nano_limit: Most that a participant may spend with Gaussian mechanisms, likewise.
        are_limits_given: Whether these limits were asked for, and did not follow from the first run.
        terms: What promises rest on. On a ledger where others are in force the coordinator puts these in their place.
        registrars: Who must sign for an enrolment.
        witnesses: Whose cosignatures a checkpoint must have.
    """

    origin: str = ""
    epsilon_nano_limit: int | None = None
    rho_nano_limit: int | None = None
    are_limits_given: bool = True
    terms: Terms
    registrars: RegistrarPolicy = field(default_factory=lambda: RegistrarPolicy())
    witnesses: WitnessPolicy = field(default_factory=WitnessPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipationTerms:
    """What participants agree to when they take part in a run.

    Attributes:
        mechanism: Name of the mechanism that protects uploads; empty: nothing leaves a device.
        epsilon_nano: Most that the run may spend with pure mechanisms, in 1e-9.
        rho_nano: Most that it may spend with Gaussian mechanisms, likewise.
        evaluation: Whether a round may ask for errors on what devices hold out.
    """

    mechanism: str = ""
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
        terms: What promises rest on, as it was agreed to, got from outside any round.
        terms_hash: Leaf hash of the entry that put it in force: a round under other terms is not answered.
        witnesses: Whose cosignatures a checkpoint must have.
        evaluation: Whether a round may ask for errors on what devices hold out.
    """

    origin: str
    log_key: str
    coordinator_key: bytes
    mechanism: str
    terms: Terms
    terms_hash: Digest
    witnesses: WitnessPolicy = field(default_factory=WitnessPolicy)
    evaluation: bool = False

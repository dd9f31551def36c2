"""With how many others each person masks, how many of these can undo a mask, and whom the masks bear.

Two choices: the complete graph, whose conditions are exact and certain, for small cohorts; and a random graph, which
fails with a chance that is bounded over all key phases of a run (`mask_bounds`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from liberate.errors import PrivacyError
from liberate.privacy.mask_bounds import People, log_cut_off, log_secret_falls, log_stuck, most_strays

SECRECY_BITS = 40
"""In a whole run masks expose somebody with a chance of at most 2**-40, and so do more strays than allowed for."""

LIVENESS_BITS = 20
"""In a whole run dropouts at random leave a sum that cannot be unmasked with a chance of at most 2**-20."""

PLANNED_BITS = SECRECY_BITS + 1
"""What a coordinator plans for, so that a device that computes the same with other rounding agrees."""

MIN_DEGREE = 8
MAX_DEGREE = 2_000
"""Beyond that a device would spend more than a second on key agreements in a round."""

_LN_2 = math.log(2)

_CHEAPER = 2 - math.sqrt(2)
"""Below this part of the others a random graph needs fewer key agreements: 2k - k**2 / (n - 1) masks and 2k seals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAssumptions:
    """What masks are to bear, in people, not fractions.

    Attributes:
        n_participants: Distinct people whom the round names, > 0.
        max_colluders: Most of them who work with the coordinator, >= 0.
        max_dropouts: Most who vanish between the round's entry and its survivor set, >= 0.
        max_late_dropouts: Of these, most who vanish after the keys were pinned.
        max_attempts: Key phases that a device answers in a run, aborted ones included, > 0.
    """

    n_participants: int
    max_colluders: int
    max_dropouts: int
    max_late_dropouts: int
    max_attempts: int

    def __post_init__(self) -> None:
        if self.n_participants < 1 or self.max_attempts < 1:
            raise ValueError("a round has participants and attempts")
        if self.max_colluders < 0 or not 0 <= self.max_late_dropouts <= self.max_dropouts:
            raise ValueError("colluders >= 0, and dropouts >= late dropouts >= 0")

    @property
    def honest_survivors(self) -> int:
        """Least number of honest people in a survivor set, not more than 0 where there may be none."""
        return self.n_participants - self.max_colluders - self.max_dropouts

    def people(self) -> People:
        """Return the numbers that a round's bounds depend on."""
        return People(self.n_participants, self.max_colluders, self.max_dropouts, self.max_late_dropouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskParameters:
    """How a round masks.

    Attributes:
        degree: Out-neighbours that each person draws; one less than the named participants is the complete graph,
            among whoever advertises.
        threshold: Shares that restore a person's secret, of the `degree` that it deals.
    """

    degree: int
    threshold: int


@lru_cache(maxsize=256)
def mask_parameters(assumptions: MaskAssumptions) -> MaskParameters:
    """Return the least degree, and for it the least threshold, that bear the assumptions.

    The complete graph where a random one costs a device as many key agreements, or where none suffices.

    Raises:
        PrivacyError: No degree up to `MAX_DEGREE` suffices.
    """
    complete = _complete(assumptions)
    largest = _largest_random_degree(assumptions)
    if complete is not None:
        largest = min(largest, int(_CHEAPER * complete.degree))

    chosen = _least_random(assumptions, largest) or complete
    if chosen is not None:
        return chosen
    raise PrivacyError(
        f"no masks bear {_described(assumptions)}",
        hint="allow for fewer colluders or dropouts, or name more people: colluders, dropouts and two more at least",
    )


def verify_masks(parameters: MaskParameters, assumptions: MaskAssumptions) -> None:
    """Check, on a device, that what a coordinator names bears what the device has agreed to.

    Raises:
        PrivacyError: It exposes somebody with a chance of more than 2**-40 in a run, or there are no such masks.
    """
    if parameters.degree > MAX_DEGREE:
        raise PrivacyError(f"masks with {parameters.degree} others are more than {MAX_DEGREE}")
    if not masks_bear(parameters, assumptions):
        raise PrivacyError(
            f"masks of degree {parameters.degree} and threshold {parameters.threshold} do not bear "
            f"{_described(assumptions)}: they fail with a chance of 2**{log2_failure(parameters, assumptions):.1f}, "
            f"wanted at most 2**-{SECRECY_BITS}",
        )


def masks_bear(parameters: MaskParameters, assumptions: MaskAssumptions) -> bool:
    """Return whether nobody is exposed, but for a chance of 2**-40 in a run.

    Where they do not, no epsilon holds against so many colluders.
    """
    return log2_failure(parameters, assumptions) <= -SECRECY_BITS


@lru_cache(maxsize=4096)
def log2_failure(parameters: MaskParameters, assumptions: MaskAssumptions) -> float:
    """Bound the chance, as log2, that in a whole run some secret falls or at most half of the honest are summed apart.

    Returns:
        At most 0, which says nothing; -inf where it is impossible.
    """
    degree, threshold = parameters.degree, parameters.threshold
    if not 1 <= threshold <= degree < assumptions.n_participants:
        return 0.0
    if degree == assumptions.n_participants - 1:
        enough = assumptions.max_colluders < threshold and assumptions.honest_survivors >= 1
        return -math.inf if enough else 0.0
    if not MIN_DEGREE <= degree <= _largest_random_degree(assumptions):
        return 0.0

    people = assumptions.people()
    falls = log_secret_falls(people, degree)[threshold]
    failure = np.logaddexp(falls, log_cut_off(people, degree, threshold)) + math.log(assumptions.max_attempts)
    return min(0.0, float(failure) / _LN_2)


@lru_cache(maxsize=4096)
def strays(parameters: MaskParameters, assumptions: MaskAssumptions, *, bits: int = SECRECY_BITS) -> int:
    """Return how many honest survivors may be missing in what is read, and their noise with them.

    Args:
        parameters, assumptions: What bears what.
        bits: In a run there are more with a chance of at most 2**-bits. A coordinator plans with `PLANNED_BITS`, so
            that no device finds more than it does.

    Returns:
        At least 0, which it is for the complete graph, and at most half of the honest survivors.
    """
    if parameters.degree == assumptions.n_participants - 1:
        return 0
    if not 0 < parameters.degree <= _largest_random_degree(assumptions):
        return max(0, assumptions.honest_survivors // 2)
    return most_strays(assumptions.people(), parameters.degree, _log_chance(bits, assumptions))


def most_colluders(parameters: MaskParameters, assumptions: MaskAssumptions) -> int:
    """Return how many colluders masks bear, all else as assumed; -1 where they do not even bear none."""
    bears, fails = -1, assumptions.n_participants
    while fails - bears > 1:
        middle = (bears + fails) // 2
        if masks_bear(parameters, replace(assumptions, max_colluders=middle)):
            bears = middle
        else:
            fails = middle
    return bears


def complete_thresholds(assumptions: MaskAssumptions) -> range:
    """Return the thresholds of the complete graph: more than collude, no more than the neighbours who stay.

    There are some exactly if two people more than colluders and dropouts are named.
    """
    return range(assumptions.max_colluders + 1, assumptions.n_participants - assumptions.max_dropouts)


def _complete(assumptions: MaskAssumptions) -> MaskParameters | None:
    thresholds = complete_thresholds(assumptions)
    degree = assumptions.n_participants - 1
    return MaskParameters(degree=degree, threshold=thresholds[0]) if thresholds and degree <= MAX_DEGREE else None


def _largest_random_degree(assumptions: MaskAssumptions) -> int:
    """Return the largest degree of a random graph, for which enough people advertise; 0 where nobody honest is left."""
    if assumptions.honest_survivors < 2:
        return 0
    return min(MAX_DEGREE, assumptions.n_participants - assumptions.max_dropouts - 1)


def _least_random(assumptions: MaskAssumptions, largest: int) -> MaskParameters | None:
    """Search degrees in steps of a fiftieth, one by one up to a hundred, then between the last two."""
    failed, degree = MIN_DEGREE - 1, MIN_DEGREE
    while degree <= largest and _least_threshold(assumptions, degree) is None:
        failed, degree = degree, degree + max(1, degree // 50)
    if degree > largest:
        return None

    while degree - failed > 1:
        middle = (failed + degree) // 2
        if _least_threshold(assumptions, middle) is None:
            failed = middle
        else:
            degree = middle
    threshold = _least_threshold(assumptions, degree)
    return None if threshold is None else MaskParameters(degree=degree, threshold=threshold)


def _least_threshold(assumptions: MaskAssumptions, degree: int) -> int | None:
    people = assumptions.people()
    live = np.flatnonzero(log_stuck(people, degree) <= _log_chance(LIVENESS_BITS, assumptions))
    secret = np.flatnonzero(log_secret_falls(people, degree) <= _log_chance(PLANNED_BITS, assumptions))
    if not len(live) or not len(secret):
        return None

    low, high = max(2, int(secret[0])), int(live[-1])
    if low > high or not _bears_as_planned(assumptions, degree, high):
        return None

    while low < high:
        middle = (low + high) // 2
        if _bears_as_planned(assumptions, degree, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _bears_as_planned(assumptions: MaskAssumptions, degree: int, threshold: int) -> bool:
    return log2_failure(MaskParameters(degree=degree, threshold=threshold), assumptions) <= -PLANNED_BITS


def _log_chance(bits: int, assumptions: MaskAssumptions) -> float:
    return -bits * _LN_2 - math.log(assumptions.max_attempts)


def _described(assumptions: MaskAssumptions) -> str:
    return (
        f"{assumptions.max_colluders} colluders and {assumptions.max_dropouts} dropouts, "
        f"{assumptions.max_late_dropouts} of them late, among {assumptions.n_participants} people"
    )

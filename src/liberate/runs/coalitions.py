"""What a federation's terms come to in a round of some size: in words, and for more colluders than were agreed to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from liberate.errors import PrivacyError
from liberate.federation.terms import mask_assumptions, smallest_sum
from liberate.ledger.format.parts import Terms
from liberate.privacy.accounting import PrivacyLoss
from liberate.privacy.mask_parameters import (
    PLANNED_BITS,
    MaskParameters,
    mask_parameters,
    masks_bear,
    strays,
)

Round = tuple[Terms, int]
"""Terms of a round, and how many people it names."""

_MULTIPLES = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedSentences:
    """What was agreed to, a sentence each, and what happens beyond.

    Attributes:
        colluders, dropouts: How many there may be.
        masks: Who masks with whom, and what that bears.
        noise: Whose noise is counted.
    """

    colluders: str
    dropouts: str
    masks: str
    noise: str


def agreed_sentences(terms: Terms, cohort: int, min_participation: float) -> AgreedSentences:
    """Say what terms come to in a round of so many people, > 0.

    Raises:
        PrivacyError: No masks bear the terms.
    """
    masks = mask_parameters(mask_assumptions(terms, cohort))
    minimum = smallest_sum(terms, cohort, min_participation)
    cut_off = _cut_off(terms, cohort, masks)
    borne = _most_borne(terms, cohort, masks)
    graph = "everybody with everybody else" if masks.degree == cohort - 1 else f"each with {masks.degree} by lot"
    dropouts, counted = cohort - minimum, minimum - terms.max_colluders - cut_off

    return AgreedSentences(
        colluders=f"at most {terms.max_colluders:,} of the {terms.max_participants:,} people who may ever be enrolled, "
        "invented ones included; against more of them epsilon is larger, see epsilon_if_colluding",
        dropouts=f"at most {dropouts:,} of the {cohort:,} people of a round; with more of them it is aborted, and what "
        "was spent stays spent",
        masks=f"{graph}, and {masks.threshold} of these undo a mask; they fail with a chance of at most 2**-40 in a "
        f"run for up to {borne:,} colluders, and beyond that there is no bound",
        noise=f"that of {counted:,} people, which is all {cohort:,} without {dropouts:,} dropouts, "
        f"{terms.max_colluders:,} colluders and {cut_off:,} whom masks may cut off",
    )


def epsilon_by_colluders(
    rounds: Iterable[Round], terms: Terms, spent: Callable[[int], PrivacyLoss]
) -> Mapping[str, float | None]:
    """Return epsilon against the agreed number of colluders and multiples of it; None: there is no bound.

    Args:
        rounds: Those that were held, or are planned.
        terms: Whose number of colluders it is.
        spent: Prices the rounds where so many, of those whose noise was counted, give theirs away.
    """
    held = set(rounds)
    sizes = sorted({multiple * max(1, terms.max_colluders) for multiple in _MULTIPLES})
    known = {size: [known_shares(*each, size) for each in held] for size in sizes}
    return {
        str(size): None if None in counts else spent(max((n for n in counts if n is not None), default=0)).epsilon
        for size, counts in known.items()
    }


def known_shares(terms: Terms, cohort: int, colluders: int) -> int | None:
    """Return how many of the people whose noise is counted give it away, if so many collude.

    Returns:
        0 up to the agreed number; None where masks no longer bear so many, so that sums of a few can be read.
    """
    try:
        masks = mask_parameters(mask_assumptions(terms, cohort))
    except PrivacyError:
        return None
    if colluders <= terms.max_colluders:
        return 0
    more = replace(terms, max_colluders=colluders)
    if not masks_bear(masks, mask_assumptions(more, cohort)):
        return None
    cut_off = max(0, _cut_off(more, cohort, masks) - _cut_off(terms, cohort, masks))
    return colluders - terms.max_colluders + cut_off


def _cut_off(terms: Terms, cohort: int, masks: MaskParameters) -> int:
    return strays(masks, mask_assumptions(terms, cohort), bits=PLANNED_BITS)


def _most_borne(terms: Terms, cohort: int, masks: MaskParameters) -> int:
    """Return the most colluders that masks bear, the agreed number at least."""
    low, high = terms.max_colluders, cohort
    while low < high:
        middle = (low + high + 1) // 2
        if masks_bear(masks, mask_assumptions(replace(terms, max_colluders=middle), cohort)):
            low = middle
        else:
            high = middle - 1
    return low

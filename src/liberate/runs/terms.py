"""The numbers that promises rest on: from settings at the founding, and as a later run would change them."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from msgspec.structs import replace

from liberate.errors import PrivacyError, SettingsError
from liberate.federation.terms import smallest_sum, unknown_shares
from liberate.ledger.format.parts import Terms
from liberate.privacy.mask_parameters import PLANNED_BITS
from liberate.settings import Settings

_COLLUDERS, _DROPOUTS_PERMILLE, _COHORT = Fraction(1, 10), 50, Fraction(4, 5)
_MIN_HONEST, _MAX_ATTEMPTS = 2, 64
_LOWER = "lower privacy.max_colluders or privacy.max_dropouts"


def founding_terms(settings: Settings, n_people: int) -> Terms:
    """Return the terms of a new federation.

    Args:
        settings: Where they leave a number open, it follows from the people expected.
        n_people: People of the data set, > 0; expected are `federation.max_participants`, or else these.

    Raises:
        SettingsError: The numbers contradict each other.
    """
    expected = settings.federation.max_participants or n_people
    usual = Terms(
        max_participants=expected,
        max_colluders=ceil(_COLLUDERS * expected),
        max_dropouts_permille=_DROPOUTS_PERMILLE,
        max_late_dropouts_permille=_DROPOUTS_PERMILLE,
        min_cohort=ceil(_COHORT * expected),
        min_honest=_MIN_HONEST,
        max_attempts=_MAX_ATTEMPTS,
    )
    return proposed_terms(settings, usual)


def proposed_terms(settings: Settings, terms: Terms) -> Terms:
    """Return terms with the numbers that settings name, and the others as they are.

    Raises:
        SettingsError: The numbers contradict each other.
    """
    privacy, federation = settings.privacy, settings.federation
    if privacy.max_colluders is not None:
        terms = replace(terms, max_colluders=privacy.max_colluders)
    if privacy.max_dropouts is not None:
        permille = round(1000 * privacy.max_dropouts)
        terms = replace(terms, max_dropouts_permille=permille, max_late_dropouts_permille=permille)
    if federation.min_cohort is not None:
        terms = replace(terms, min_cohort=federation.min_cohort)
    if federation.max_participants is not None:
        terms = replace(terms, max_participants=federation.max_participants)

    if fault := terms.fault():
        raise SettingsError(
            f"the terms contradict each other: {fault}",
            hint="lower privacy.max_colluders or federation.min_cohort, or raise federation.max_participants",
        )
    return terms


def counted_noise(terms: Terms, cohort: int, min_participation: float) -> int:
    """Return how many people's noise a round of mode `distributed` may count on.

    Args:
        terms: In force.
        cohort: People of the round, > 0.
        min_participation: Share of them that a model needs.

    Raises:
        PrivacyError: They are too few, no noise would be left, or no masks bear the terms.
    """
    if cohort < terms.min_cohort:
        raise PrivacyError(
            f"{cohort} people take part, and no device answers a round of fewer than {terms.min_cohort}",
            hint="lower federation.min_cohort",
        )
    minimum = smallest_sum(terms, cohort, min_participation)
    unknown = minimum - terms.max_colluders
    if unknown >= terms.min_honest:
        try:
            unknown = unknown_shares(terms, cohort, minimum, bits=PLANNED_BITS)
        except PrivacyError as error:
            raise PrivacyError(error.message, hint=_LOWER) from error
    if unknown < terms.min_honest:
        raise PrivacyError(
            f"of {cohort} people {cohort - minimum} may drop out and {terms.max_colluders} collude, which leaves the"
            f" noise of {max(unknown, 0)} that nobody else knows; {terms.min_honest} at least are wanted",
            hint=_LOWER,
        )
    return unknown

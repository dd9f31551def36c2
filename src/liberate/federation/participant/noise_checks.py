"""Whether the noise that a round is priced by is really in any sum of it, whoever drops out and whoever colludes.

Checked against the terms that a device agreed to before. What the round says of itself is held against them, and counts
for nothing else: a coordinator chooses its cohort, its minimum and what it calls honest.
"""

from __future__ import annotations

from liberate.errors import PrivacyError
from liberate.federation.participant.refusals import refused_as, require
from liberate.federation.terms import smallest_sum, unknown_shares
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.parts import Terms
from liberate.ledger.format.records import Round
from liberate.privacy.mechanism_base import SumMechanism


def check_shared_noise(terms: Terms, record: Round, mechanism: SumMechanism) -> None:
    """Check that any sum of a round has as much noise that colluders do not know as an answer is priced by.

    Whom the cohort names makes no difference: all colluders are taken to be among them.

    Args:
        terms: What the device agreed to.
        record: The round.
        mechanism: Its mechanism, whose price was checked.

    Raises:
        Refused: cohort, minimum, honest or grid.
    """
    cohort = len(set(numbers_in(record.cohort)))
    _check_crowd(terms, record, cohort)

    with refused_as("honest", PrivacyError):
        unknown = unknown_shares(terms, cohort, record.minimum)
    require(
        unknown >= max(terms.min_honest, mechanism.honest),
        "honest",
        f"the round counts on the noise of {mechanism.honest} participants: of {record.minimum} in a sum"
        f" {terms.max_colluders} may collude, and {terms.min_honest} at least must not",
    )

    rows, width, tail = record.shape
    require(
        mechanism.sums_fit(cohort, max(1, rows * width + tail)),
        "grid",
        f"sums of {cohort} uploads with their noise do not fit 32 bits",
    )


def _check_crowd(terms: Terms, record: Round, cohort: int) -> None:
    """Check that a round asks enough people, and that its sum is of as many as may not drop out."""
    require(
        cohort >= terms.min_cohort,
        "cohort",
        f"the round names {cohort} participants, at least {terms.min_cohort} were agreed to",
    )

    least = smallest_sum(terms, cohort)
    require(
        record.minimum >= least,
        "minimum",
        f"a sum of {record.minimum} of {cohort} uploads would do, at least {least} were agreed to",
    )

"""An auditor says on the ledger whose commitments it is going to have opened, before anything is opened."""

from __future__ import annotations

from collections.abc import Iterable

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError
from liberate.federation.enrolment import Candidate, enrol
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.registrars import Registrar
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.sharing_records import Disclosure


def record_disclosure(
    registrar: Registrar, auditor: SigningKey, participants: Iterable[int], reason: bytes, salt: bytes
) -> int:
    """Write a disclosure; the auditor is enrolled when it needs to be.

    Args:
        registrar: Enrols the auditor.
        auditor: Its key.
        people: Numbers of the participants whose commitments are to be opened, at least one.
        reason: What was found, and why it is looked up; the ledger has a salted commitment to it.
        salt: Opens that commitment, 32 bytes.

    Returns:
        Position of the entry.

    Raises:
        FederationError: The genesis admits no auditors, or the ledger refuses the entry.
    """
    ledger = registrar.ledger
    if "auditor" not in ledger.state.founding.enrolment_policy:
        raise FederationError(
            "the genesis of this ledger admits no auditor, and nothing is opened without one",
            hint="it cannot be changed; a federation that is founded now admits them",
        )
    (number,) = enrol(registrar, [Candidate(key=auditor.public, role="auditor")], "auditor")
    writer = EntryWriter(ledger, auditor, number)
    return writer.append(
        Disclosure(**writer.header(), participants=to_ranges(participants), reason=salted_commitment(salt, reason))
    )

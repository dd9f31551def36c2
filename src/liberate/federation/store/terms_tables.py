"""Which terms the people of a host have accepted: numbers and all, so that later ones can be held against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from liberate.database import SqliteStore
from liberate.identifiers import Digest
from liberate.ledger.format.parts import Terms

TERMS_SCHEMA = """
CREATE TABLE IF NOT EXISTS accepted_terms (
    slot INTEGER PRIMARY KEY REFERENCES device,
    hash BLOB NOT NULL,
    terms BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class AcceptedTerms:
    """Terms that a person has accepted.

    Attributes:
        hash: Leaf hash of the entry that put them in force.
        terms: Its numbers.
    """

    hash: Digest
    terms: Terms


class TermsTables(SqliteStore):
    """The part of a device store that is about terms."""

    def accepted_terms(self) -> Mapping[int, AcceptedTerms]:
        """Return what each person has accepted last, by slot; nobody who has not accepted any."""
        return {
            slot: AcceptedTerms(Digest(hash), msgspec.msgpack.decode(terms, type=Terms))
            for slot, hash, terms in self._rows("SELECT slot, hash, terms FROM accepted_terms")
        }

    def record_terms(self, slots: Sequence[int], accepted: AcceptedTerms) -> None:
        """Record that people accept terms, in place of all that they accepted before."""
        terms = msgspec.msgpack.encode(accepted.terms)
        with self._transaction():
            self._execute_many(
                "INSERT OR REPLACE INTO accepted_terms (slot, hash, terms) VALUES (?, ?, ?)",
                [(slot, accepted.hash, terms) for slot in slots],
            )

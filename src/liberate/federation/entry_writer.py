"""Entries of one principal, signed and appended one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from liberate.crypto.merkle import root
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, LiberateError, RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import Aborted, ModelRecord, Record, Round
from liberate.ledger.interface import Ledger
from liberate.model.solvers import ModelSource
from liberate.timing import measure


class RecordHeader(TypedDict):
    """The fields that all records of an author have."""

    origin: str
    author: int
    seq: int


def accepted_position(outcome: int | LiberateError, what: str, *, hint: str = "") -> int:
    """Return the position of an entry that was offered to a ledger, if it was accepted.

    Args:
        outcome: The position, or why there is none.
        what: Names the entry in the message.
        hint: What to try next when the ledger refuses it.

    Raises:
        FederationError: The ledger refuses the entry.
        LiberateError: The entry was not offered, for the reason given as outcome.
    """
    if isinstance(outcome, RefusedEntry):
        raise FederationError(f"the ledger refuses {what}: {outcome}", hint=hint) from outcome
    if isinstance(outcome, LiberateError):
        raise outcome
    return outcome


@dataclass(frozen=True, slots=True)
class EntryWriter:
    """Signs records as one principal and appends them to the ledger.

    Attributes:
        ledger: The ledger, owned by this process.
        key: The principal's signing key.
        number: Its number on the ledger.
    """

    ledger: Ledger
    key: SigningKey
    number: int

    def header(self, ahead: int = 0) -> RecordHeader:
        """Return the fields that the principal's next record begins with, or one so many records later."""
        seq = self.ledger.state.principals[self.number].sequence + 1 + ahead
        return {"origin": self.ledger.origin, "author": self.number, "seq": seq}

    def append(self, record: Record) -> int:
        """Sign a record, append it, and return its position.

        Raises:
            FederationError: The ledger refuses it.
        """
        (position,) = self.append_block([record])
        return position

    def append_block(self, records: Sequence[Record]) -> list[int]:
        """Sign records, append them as one block, and return their positions.

        Raises:
            FederationError: The ledger refuses one of them.
        """
        with measure("sign"):
            block = [sign(record, self.key) for record in records]
        outcomes = self.ledger.append(block)
        return [
            accepted_position(outcome, f"the {record.kind}") for record, outcome in zip(records, outcomes, strict=True)
        ]

    def abort(self, record: Round, reason: str) -> None:
        """Close a round without a model, for a reason given as a code."""
        self.append(Aborted(**self.header(), round=record.number, reason=reason))

    def close(
        self,
        record: Round,
        *,
        version: int,
        digest: Digest,
        maker: ModelSource,
        leaves: Mapping[int, Digest],
        unused: Sequence[int] = (),
        sum_digest: Digest,
    ) -> None:
        """Close a round with a model.

        Args:
            record: The round.
            version: The model's version.
            digest: Its digest.
            maker: What made it.
            leaves: Leaf hashes of the updates that it used, by position.
            unused: Positions of the others, increasing.
            sum_digest: Digest of what it was made of.
        """
        self.append(
            ModelRecord(
                **self.header(),
                round=record.number,
                version=version,
                parent=record.base_digest,
                digest=digest,
                updates_root=root([leaves[position] for position in sorted(leaves)]),
                unused=tuple(unused),
                sum_digest=sum_digest,
                solver=maker.name,
                parameters=maker.parameters(),
            )
        )

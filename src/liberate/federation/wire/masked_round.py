"""A masked round as both sides read it from its entry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from liberate.errors import FederationError, LiberateError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Round
from liberate.privacy import secure_aggregation

MIN_COHORT_SIZE = 3
"""With fewer people, one of them and the coordinator would read another's upload."""


@dataclass(frozen=True, slots=True)
class MaskedRound:
    """A masked round, as everybody reads it from its entry.

    Attributes:
        record: The round.
        hash: Leaf hash of its entry.
        people: The cohort.
        graph: Who masks with whom.
    """

    record: Round
    hash: Digest
    participants: frozenset[int]
    graph: secure_aggregation.NeighbourGraph

    def neighbours(self, number: int) -> tuple[int, ...]:
        """Give a person's neighbours, whether they take part or not."""
        return self.graph.neighbours(number)

    def needed(self, number: int) -> int:
        """Give how many neighbours together can undo a person's mask."""
        return secure_aggregation.threshold(len(self.neighbours(number)))


@lru_cache(maxsize=4)
def masked_round(entry: bytes) -> MaskedRound:
    """Read a masked round from its entry, whose signature and inclusion are checked elsewhere.

    Raises:
        FederationError: It is none, or its cohort is not written out or too small.
    """
    try:
        opened = decode_entry(entry)
    except LiberateError as error:
        raise FederationError(f"no round: {error}") from error
    record = opened.record
    if not isinstance(record, Round) or not record.is_masked:
        raise FederationError("a masked round was wanted")
    participants = sorted(set(numbers_in(record.cohort)))
    if len(participants) < MIN_COHORT_SIZE:
        raise FederationError(f"a masked round is for {MIN_COHORT_SIZE} people or more, and names them")
    return MaskedRound(
        record, opened.leaf_hash, frozenset(participants), secure_aggregation.graph(participants, opened.leaf_hash)
    )

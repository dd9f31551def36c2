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
"""In a smaller cohort, a participant and the coordinator together could read another participant's upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedRound:
    """A masked round, the same for everybody who reads its entry.

    Attributes:
        record: The round.
        hash: Leaf hash of its entry.
        participants: Numbers of the cohort.
        graph: Who masks with whom.
    """

    record: Round
    hash: Digest
    participants: frozenset[int]
    graph: secure_aggregation.NeighbourGraph

    def neighbours(self, number: int) -> tuple[int, ...]:
        """Return a participant's neighbours, increasing, whether they take part or not."""
        return self.graph.neighbours(number)

    def needed(self, number: int) -> int:
        """Return how many neighbours together can undo a participant's mask."""
        return secure_aggregation.threshold(len(self.neighbours(number)))


@lru_cache(maxsize=4)
def masked_round(entry: bytes) -> MaskedRound:
    """Read a masked round from its entry, whose signature and inclusion are checked elsewhere.

    Raises:
        FederationError: It is not a masked round, or its cohort is too small or not listed.
    """
    try:
        decoded = decode_entry(entry)
    except LiberateError as error:
        raise FederationError(f"the entry is not a masked round: {error}") from error
    record = decoded.record
    if not isinstance(record, Round) or not record.is_masked:
        raise FederationError(f"the entry is a {record.kind}, not a masked round")

    participants = sorted(set(numbers_in(record.cohort)))
    if len(participants) < MIN_COHORT_SIZE:
        raise FederationError(f"a masked round must list {MIN_COHORT_SIZE} participants or more")
    return MaskedRound(
        record=record,
        hash=decoded.leaf_hash,
        participants=frozenset(participants),
        graph=secure_aggregation.graph(participants, decoded.leaf_hash),
    )

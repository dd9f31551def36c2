"""A masked round as both sides read it from its entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from liberate.errors import FederationError, LiberateError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Round, RoundSet, SetPhase

MIN_COHORT_SIZE = 3
"""In a smaller cohort, a participant and the coordinator together could read another participant's upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedRound:
    """A masked round, the same for everybody who reads its entry.

    Attributes:
        record: The round.
        hash: Leaf hash of its entry.
        participants: Numbers of the cohort.
    """

    record: Round
    hash: Digest
    participants: frozenset[int]

    @property
    def degree(self) -> int:
        """How many neighbours each participant chooses, if there are so many."""
        return self.record.mechanism.parameters.get("degree", 0)

    @property
    def threshold(self) -> int:
        """How many of them together can undo its masks."""
        return self.record.mechanism.parameters.get("threshold", 0)


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

    participants = frozenset(numbers_in(record.cohort))
    if len(participants) < MIN_COHORT_SIZE:
        raise FederationError(f"a masked round must list {MIN_COHORT_SIZE} participants or more")
    return MaskedRound(record=record, hash=decoded.leaf_hash, participants=participants)


def set_digests(entries: Iterable[Entry], current: MaskedRound) -> dict[SetPhase, bytes]:
    """Return what stands for each recorded set of a round: a digest over the leaf hashes of its entries."""
    leaves: dict[SetPhase, list[Digest]] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, RoundSet) and record.round_hash == current.hash:
            leaves.setdefault(record.phase, []).append(entry.leaf_hash)
    return {phase: sha256(b"".join(each)).digest() for phase, each in leaves.items()}


def mask_context(current: MaskedRound, digests: Mapping[SetPhase, bytes]) -> bytes:
    """Return what keys of shared masks are for: all that defines the graph, so masks of unequal views never cancel."""
    return current.hash + digests["advertised"] + digests["graph"] + digests["shared"]

"""The sets of a masked round as the coordinator records them, and proves to participants what it has recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from liberate.crypto.merkle import leaf_hash
from liberate.federation.coordinator.exchange import CheckpointView
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.wire.secagg_messages import RoundHistory
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import MAX_PARTICIPANTS, Range, to_ranges
from liberate.ledger.format.records import RoundSet, SetPhase
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.round_state import OpenRound
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry

_LARGEST_PART = 40_000
"""Bytes of bitmaps and overhead that fit an entry with room to spare."""


def record_set(
    writer: EntryWriter, current: OpenRound, phase: SetPhase, participants: Sequence[int], root: Digest
) -> None:
    """Record a set of a round in as many entries as it needs, all in one block.

    Raises:
        FederationError: The ledger refuses an entry.
    """
    parts = list(set_parts(participants))
    writer.append_block(
        [
            RoundSet(
                **writer.header(ahead=index),
                round=current.record.number,
                round_hash=current.hash,
                phase=phase,
                part=index + 1,
                parts=len(parts),
                participants=part,
                root=root,
            )
            for index, part in enumerate(parts)
        ]
    )


def set_parts(participants: Sequence[int]) -> Iterator[tuple[Range, ...]]:
    """Yield a set of people as ranges, in as many parts as entries need; numbers strictly increasing."""
    ranges = to_ranges(participants)
    if len(participants) <= MAX_PARTICIPANTS and sum(len(part.bitmap) + 64 for part in ranges) <= _LARGEST_PART:
        yield ranges
        return

    middle = len(participants) // 2
    yield from set_parts(participants[:middle])
    yield from set_parts(participants[middle:])


@dataclass(frozen=True, slots=True)
class HistoryProver:
    """Proves what a coordinator has recorded since it opened a round.

    Attributes:
        ledger: The ledger.
        number: The coordinator's number on it.
        position: Position of the round's entry.
        head: The chain of what names the coordinator before that entry.
    """

    ledger: Ledger
    number: int
    position: int
    head: Digest

    @classmethod
    def of(cls, ledger: Ledger, number: int, position: int) -> HistoryProver:
        """Return the prover of a round, by the coordinator's number and the position of the round's entry."""
        head = bytes(32)
        for earlier in ledger.positions(about=number):
            if earlier < position:
                head = sha256(head + leaf_hash(ledger.entry(earlier))).digest()
        return cls(ledger, number, position, Digest(head))

    def prove(self, view: CheckpointView) -> RoundHistory:
        """Return the history under the newest checkpoint, which proves no consistency yet."""
        ledger, size = self.ledger, view.size
        positions = [at for at in ledger.positions(about=self.number) if self.position <= at < size]
        return RoundHistory(
            entries=[ledger.entry(position) for position in positions],
            positions=positions,
            inclusion=[list(ledger.inclusion_proof(position, size)) for position in positions],
            head=self.head,
            leaf=ledger.state.principals[self.number].encode(),
            n_principals=len(ledger.state.principals),
            leaf_proof=list(ledger.state.inclusion_proof(self.number)),
            block=ledger.entry(size - 1),
            block_proof=list(ledger.inclusion_proof(size - 1, size)),
            checkpoint=view.note,
            known_size=0,
            consistency=[],
        )


def state_leaves(ledger: Ledger, size: int) -> list[bytes]:
    """Return the leaves of the state tree as they were after so many entries, which end with a block.

    Only where the ledger has grown since are its entries replayed: after a crash at an unusual moment.
    """
    state = ledger.state
    if ledger.size != size:
        state = State()
        for position, data in ledger.entries(0, size):
            entry = decode_entry(data)
            is_known = entry.record.author < len(state.principals)
            apply_entry(
                state, entry, position, verified_by=state.author_key(entry.record, position) if is_known else None
            )
    return [principal.encode() for principal in state.principals]


def known_to(history: RoundHistory, view: CheckpointView, known_size: int) -> RoundHistory:
    """Return a history for participants who know a tree of a size."""
    return msgspec.structs.replace(history, known_size=known_size, consistency=view.consistency(known_size))

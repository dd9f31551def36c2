"""The survivor set of a masked round: whose uploads are in the sum, as devices read it before they reveal a share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liberate.federation.entry_writer import EntryWriter
from liberate.ledger.format.number_sets import Range, to_ranges
from liberate.ledger.format.records import Survivors
from liberate.ledger.rules.participants import MAX_PARTICIPANTS
from liberate.ledger.rules.round_state import OpenRound

_LARGEST_PART = 40_000
"""Bytes of bitmaps and overhead that fit a survivors entry with room to spare."""


def record_survivors(writer: EntryWriter, current: OpenRound, participants: Sequence[int]) -> None:
    """Record a round's survivors in as many entries as they need, all in one block.

    Raises:
        FederationError: The ledger refuses an entry.
    """
    parts = list(survivor_parts(participants))
    writer.append_block(
        [
            Survivors(
                **writer.header(ahead=index),
                round=current.record.number,
                round_hash=current.hash,
                part=index + 1,
                parts=len(parts),
                participants=part,
            )
            for index, part in enumerate(parts)
        ]
    )


def survivor_parts(participants: Sequence[int]) -> Iterator[tuple[Range, ...]]:
    """Yield a survivor set as ranges, in as many parts as entries need; numbers strictly increasing."""
    ranges = to_ranges(participants)
    if len(participants) <= MAX_PARTICIPANTS and sum(len(part.bitmap) + 64 for part in ranges) <= _LARGEST_PART:
        yield ranges
        return

    middle = len(participants) // 2
    yield from survivor_parts(participants[:middle])
    yield from survivor_parts(participants[middle:])

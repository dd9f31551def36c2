"""Sets of principal numbers in records, as ranges with bitmaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta, Struct

from liberate.crypto.canonical_json import Natural
from liberate.ledger.format.refusals import Reason, refused

MAX_PARTICIPANTS = 262_144
"""Participants whom one record may name."""

_RANGE_GAP = 256
"""Numbers further apart than this begin a new range: a range costs about as much as a bitmap of this gap."""


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some principal numbers: bit i of byte j of the bitmap means first + 8 * j + i.

    The first bit is set and the last byte is not zero.
    """

    first: Natural
    bitmap: Annotated[bytes, Meta(min_length=1, max_length=32_768)]


def to_ranges(participants: Iterable[int]) -> tuple[Range, ...]:
    """Write a set of principal numbers as ranges."""
    parts: list[list[int]] = []
    for number in sorted(set(participants)):
        if not parts or number - parts[-1][-1] > _RANGE_GAP:
            parts.append([])
        parts[-1].append(number)
    return tuple(Range(first=part[0], bitmap=_bitmap(part)) for part in parts)


def numbers_in(participants: Iterable[Range]) -> Iterator[int]:
    """Yield the principal numbers in ranges, in their order."""
    for part in participants:
        for offset, byte in enumerate(part.bitmap):
            for bit in range(8):
                if byte >> bit & 1:
                    yield part.first + 8 * offset + bit


def checked_participants(parts: tuple[Range, ...], reason: Reason) -> tuple[int, ...]:
    """Return the numbers in ranges; refuse ranges that are out of order or could be written otherwise."""
    end = 0
    for part in parts:
        if part.first < end or not part.bitmap[0] & 1 or not part.bitmap[-1]:
            raise refused(reason, f"the range from {part.first} overlaps another, or has empty ends")
        end = part.first + 8 * len(part.bitmap) - 8 + part.bitmap[-1].bit_length()
    participants = tuple(numbers_in(parts))
    count = len(participants)
    if count > MAX_PARTICIPANTS:
        raise refused("too_many_participants", f"{count} participants, at most {MAX_PARTICIPANTS} are wanted")
    return participants


def includes(participants: Iterable[Range], number: int) -> bool:
    """Whether a principal number is in one of some ranges."""
    for part in participants:
        byte, bit = divmod(number - part.first, 8)
        if 0 <= byte < len(part.bitmap) and part.bitmap[byte] >> bit & 1:
            return True
    return False


def _bitmap(part: list[int]) -> bytes:
    first, last = part[0], part[-1]
    bitmap = bytearray((last - first) // 8 + 1)
    for number in part:
        bitmap[(number - first) >> 3] |= 1 << ((number - first) & 7)
    return bytes(bitmap)

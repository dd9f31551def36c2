"""Which participants a record may name, and the one way to write them."""

from __future__ import annotations

from collections.abc import Iterable

from liberate.ledger.format.number_sets import Range, numbers_in
from liberate.ledger.format.refusals import Reason, refused
from liberate.ledger.rules.state import State

MAX_PARTICIPANTS = 262_144
"""Participants whom one record may name."""


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


def check_participants(state: State, participants: Iterable[int], reason: Reason) -> None:
    """Refuse principals who may not take part: other roles, revoked keys, those who have withdrawn."""
    participants = tuple(participants)
    for number in participants:
        if number >= len(state.principals) or state.principals[number].role != "participant":
            raise refused(reason, f"principal {number} is no participant")
        if state.principals[number].is_revoked or state.principals[number].is_device_revoked:
            raise refused(reason, f"a key of principal {number} was revoked")
    for number in participants:
        if state.principals[number].has_withdrawn:
            raise refused("withdrawn", f"principal {number} has withdrawn from everything")

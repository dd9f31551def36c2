"""Which participants a record may name."""

from __future__ import annotations

from collections.abc import Iterable

from liberate.ledger.format.refusals import Reason, refused
from liberate.ledger.rules.state import State


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

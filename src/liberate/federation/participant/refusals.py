"""How a device declines what it is asked: by a reason code and one line for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from liberate.errors import FederationError, LiberateError
from liberate.federation.wire.round_messages import MessageT, decode_message


class Refused(Exception):
    """A device does not answer; reason and detail as in `RoundRefusal`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def require(condition: bool, reason: str, detail: str) -> None:
    """Refuse unless a condition holds.

    Raises:
        Refused: It does not.
    """
    if not condition:
        raise Refused(reason, detail)


@contextmanager
def refused_as(reason: str, errors: type[Exception] | tuple[type[Exception], ...] = LiberateError) -> Iterator[None]:
    """Turn errors of some types into a refusal with their message."""
    try:
        yield
    except errors as error:
        raise Refused(reason, str(error)) from error


def read_message(kind: type[MessageT], body: bytes) -> MessageT:
    """Return a message of one kind.

    Raises:
        Refused: unreadable.
    """
    with refused_as("unreadable", FederationError):
        return decode_message(body, kind)

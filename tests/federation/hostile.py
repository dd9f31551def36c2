"""Coordinators and participants that lie, stay silent or die, all played by one transport that edits what passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from liberate.federation.wire.round_messages import RoundAnswer, decode_answer, encode_message
from liberate.federation.wire.transport import Reply, Request, Transport
from tests.federation.crashes import Crash

Wrap = Callable[[Transport], Transport]
"""Puts a transport around another."""

EditRequests = Callable[[list[Request]], list[Request]]
EditReplies = Callable[[list[Request], list[Reply]], list[Reply]]
MessageT = TypeVar("MessageT", bound=msgspec.Struct)


def _as_they_are(requests: list[Request], replies: list[Reply]) -> list[Reply]:
    return replies


@dataclass(frozen=True, slots=True)
class EditingTransport:
    """Wraps a transport, and edits the requests and replies of each exchange.

    Attributes:
        inner: Delivers the requests.
        edit_requests: From the requests of an exchange to those that are delivered; raises `Crash` to die before.
        edit_replies: From those and their replies to the replies that arrive; raises `Crash` to die after.
        deliveries: How often the requests are delivered; the replies to the last delivery arrive.
    """

    inner: Transport
    edit_requests: EditRequests = list
    edit_replies: EditReplies = _as_they_are
    deliveries: int = 1

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        delivered = self.edit_requests(list(requests))
        arrived: list[Reply] = []
        for _ in range(self.deliveries):
            arrived = self.edit_replies(delivered, self.inner.exchange(delivered))
        return arrived


def editing(*, requests: EditRequests = list, replies: EditReplies = _as_they_are, deliveries: int = 1) -> Wrap:
    """Let every exchange be edited; arguments as in `EditingTransport`."""
    return lambda inner: EditingTransport(inner, requests, replies, deliveries)


def silent(absent: Collection[int]) -> Wrap:
    """Let some participants never hear anything, and so never reply."""
    return editing(requests=lambda requests: [request for request in requests if request.recipient not in absent])


def vanishing(absent: dict[str, set[int]], phases: Sequence[str]) -> Wrap:
    """Let some participants reply no more from a phase on."""

    def still_here(requests: list[Request]) -> list[Request]:
        if requests[0].phase not in phases:
            return requests
        gone: set[int] = set()
        if requests[0].phase not in phases:
            return requests
        for phase in phases[: phases.index(requests[0].phase) + 1]:
            gone |= absent.get(phase, set())
        return [request for request in requests if request.recipient not in gone]

    return editing(requests=still_here)


def lying(liar: int, kind: type[MessageT], lie: Callable[[MessageT], MessageT], *, phase: str = "update") -> Wrap:
    """Let one participant lie in its answers of one phase."""

    def edit(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        return [told(reply) if reply.sender == liar and requests[0].phase == phase else reply for reply in replies]

    def told(reply: Reply) -> Reply:
        answer = decode_answer(reply.body, kind)
        return Reply(liar, encode_message(lie(answer))) if isinstance(answer, kind) else reply

    return editing(replies=edit)


def overhearing(answers: list[RoundAnswer]) -> Wrap:
    """Note all uploads that pass."""

    def note(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if requests[0].phase in ("update", "mask"):
            read = [decode_answer(reply.body, RoundAnswer) for reply in replies]
            answers.extend(answer for answer in read if isinstance(answer, RoundAnswer))
        return replies

    return editing(replies=note)


def dying(phase: str, *, batch: int = 0, delivered: int | None = None) -> Wrap:
    """Let the process die in a phase.

    Args:
        phase: The phase.
        batch: In which of its batches, 0 <= batch.
        delivered: How many requests of the batch are delivered before; None: all.
    """
    left = batch

    def deliver(requests: list[Request]) -> list[Request]:
        nonlocal left
        if requests[0].phase != phase:
            return requests
        left -= 1
        return requests if left >= 0 else requests[:delivered]

    def die(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if left < 0:
            raise Crash
        return replies

    return editing(requests=deliver, replies=die)

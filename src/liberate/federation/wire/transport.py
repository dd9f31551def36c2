"""How requests reach participants: the protocol that every transport implements, and the transport in one process.

A round is a sequence of phases; each phase is one `exchange`. A participant that does not reply in time is
simply missing from the replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """What one participant is asked in one phase.

    Attributes:
        recipient: The participant's number on the ledger.
        phase: Name of the phase, such as `update`.
        body: The message.
    """

    recipient: int
    phase: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What one participant replies.

    Attributes:
        sender: The participant's number on the ledger.
        body: The message.
    """

    sender: int
    body: bytes


class Transport(Protocol):
    """Carries the requests of one phase and returns the replies."""

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Deliver requests and collect replies until all are here or the deadline has passed.

        Args:
            requests: At most one per recipient.

        Returns:
            At most one reply per request, in any order.
        """
        ...


class Endpoint(Protocol):
    """Answers requests on behalf of participants: a device, or a host that runs many."""

    def answer(self, requests: Sequence[Request]) -> list[Reply]: ...


@dataclass(frozen=True, slots=True)
class InProcessTransport:
    """Hands requests to endpoints in this process.

    Attributes:
        endpoints: The endpoint that answers for each participant number.
    """

    endpoints: Mapping[int, Endpoint]

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        by_endpoint: dict[Endpoint, list[Request]] = {}
        for request in requests:
            by_endpoint.setdefault(self.endpoints[request.recipient], []).append(request)
        return [reply for endpoint, batch in by_endpoint.items() for reply in endpoint.answer(batch)]

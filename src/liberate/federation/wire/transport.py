"""How requests reach participants: the seam that every runtime implements, and the one within this process.

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

    Args:
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

    Args:
        sender: The participant's number on the ledger.
        body: The message.
    """

    sender: int
    body: bytes


class Transport(Protocol):
    """Carries the requests of one phase and brings the replies."""

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Deliver requests and collect replies until all are here or the deadline has passed.

        Args:
            requests: At most one per recipient.

        Returns:
            At most one reply per request, in any order.
        """
        ...


class Endpoint(Protocol):
    """Answers requests on behalf of participants: a device, or a host that holds many."""

    def answer(self, requests: Sequence[Request]) -> list[Reply]: ...


class InProcessTransport:
    """Hands requests to endpoints in this process.

    Args:
        endpoints: Which endpoint answers for which participant number.
    """

    def __init__(self, endpoints: Mapping[int, Endpoint]) -> None:
        self._endpoints = endpoints

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        by_endpoint: dict[int, tuple[Endpoint, list[Request]]] = {}
        for request in requests:
            endpoint = self._endpoints[request.recipient]
            by_endpoint.setdefault(id(endpoint), (endpoint, []))[1].append(request)
        return [reply for endpoint, own in by_endpoint.values() for reply in endpoint.answer(own)]

"""The requests of one phase, repeated for participants who have seen another checkpoint."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from liberate.errors import FederationError
from liberate.federation.wire.round_messages import RoundRefusal, RoundRequest, decode_answer, encode_message
from liberate.federation.wire.transport import Request, Transport
from liberate.identifiers import Digest
from liberate.ledger.interface import Ledger

AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)

_CODE = re.compile("[a-z_]{1,32}")


class RoundAborted(Exception):
    """The participants' answers do not suffice to go on with a round.

    Args:
        reason: Why it is aborted, as a code.
        detail: What was found and what was wanted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class RoundExchange:
    """Asks the participants of one round, and counts why some did not answer.

    Attributes:
        transport: Reaches them.
        batch_size: Participants asked at a time, > 0.
        refused: How many did not answer, or with nothing that counts, by reason.
    """

    transport: Transport
    batch_size: int
    refused: Counter[str] = field(default_factory=Counter)

    def count(self, reason: str) -> None:
        """Count a participant without a valid answer; what is no reason code is counted as `unreadable`."""
        self.refused[reason if _CODE.fullmatch(reason) else "unreadable"] += 1

    def reasons(self) -> str:
        """Return what was counted, in brackets, or an empty string."""
        counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.refused.items()))
        return f" ({counts})" if counts else ""

    def ask(
        self,
        phase: str,
        numbers: Sequence[int],
        request: Callable[[int, int], bytes],
        kind: type[AnswerT],
        known_size: int,
        size: int,
    ) -> list[tuple[int, AnswerT]]:
        """Ask participants, and return their answers by increasing number.

        Those who want a consistency proof from another tree size are asked once more.

        Args:
            phase: Of the round.
            numbers: The participants, increasing.
            request: From a recipient and the tree size that it knows to the request.
            kind: What they answer with, unless they refuse.
            known_size: The tree size that most of them know.
            size: Tree size of the checkpoint that is shown.
        """
        answers: list[tuple[int, AnswerT]] = []
        for begin in range(0, len(numbers), self.batch_size):
            batch = dict.fromkeys(numbers[begin : begin + self.batch_size], known_size)
            replies = self._ask_once(phase, batch, request, kind)

            # One host answers for many participants, and those of another host may have seen another checkpoint.
            behind = {
                number: reply.known_size
                for number, reply in replies.items()
                if isinstance(reply, RoundRefusal) and reply.reason == "consistency" and 0 < reply.known_size <= size
            }
            on_time = {number: reply for number, reply in replies.items() if number not in behind}

            for number, reply in sorted((on_time | self._ask_once(phase, behind, request, kind)).items()):
                if isinstance(reply, RoundRefusal):
                    self.count(reply.reason)
                else:
                    answers.append((number, reply))
        return answers

    def _ask_once(
        self,
        phase: str,
        known_sizes: Mapping[int, int],
        request: Callable[[int, int], bytes],
        kind: type[AnswerT],
    ) -> dict[int, AnswerT | RoundRefusal]:
        """Ask participants, given with the tree sizes that they know; return the first readable reply of each."""
        replies: dict[int, AnswerT | RoundRefusal] = {}
        requests = [Request(number, phase, request(number, size)) for number, size in known_sizes.items()]
        for reply in self.transport.exchange(requests) if requests else ():
            if reply.sender not in known_sizes or reply.sender in replies:
                continue

            try:
                replies[reply.sender] = decode_answer(reply.body, kind)
            except FederationError:
                self.count("unreadable")
        return replies


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """What participants are shown of the ledger: a checkpoint, and what its tree holds.

    Attributes:
        ledger: The ledger.
        note: The checkpoint, cosigned as participants demand.
        size: Its tree size.
    """

    ledger: Ledger
    note: str
    size: int

    def consistency(self, known_size: int) -> list[Digest]:
        """Return the proof that the checkpoint continues one of another size; empty for size 0."""
        return list(self.ledger.consistency_proof(known_size, self.size)) if 0 < known_size <= self.size else []

    def round_request(self, position: int, model: bytes, known_size: int) -> bytes:
        """Return the request to answer the round at a position, for a participant who knows a tree of `known_size`."""
        return encode_message(
            RoundRequest(
                entry=self.ledger.entry(position),
                position=position,
                checkpoint=self.note,
                inclusion=list(self.ledger.inclusion_proof(position, self.size)),
                known_size=known_size,
                consistency=self.consistency(known_size),
                model=model,
            )
        )

"""Asking participants in one phase, and asking those again who have seen another checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from liberate.errors import FederationError
from liberate.federation.wire.round_messages import RoundRefusal, RoundRequest, encode_message
from liberate.federation.wire.transport import Request, Transport
from liberate.identifiers import Digest
from liberate.ledger.interface import Ledger

AnswerT = TypeVar("AnswerT")

_CODE = re.compile("[a-z_]{1,32}")


@dataclass(slots=True)
class RoundExchange:
    """Asks for one round, and counts why participants did not answer.

    Attributes:
        transport: Reaches them.
        refused: Reason -> how many.
    """

    transport: Transport
    refused: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str) -> None:
        """Count somebody without an answer that counts; what is no reason code is `unreadable`."""
        reason = reason if _CODE.fullmatch(reason) else "unreadable"
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def reasons(self) -> str:
        """Give what was counted, in brackets, or nothing."""
        counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.refused.items()))
        return f" ({counts})" if counts else ""

    def ask(
        self,
        phase: str,
        numbers: Sequence[int],
        body: Callable[[int, int], bytes],
        decode: Callable[[bytes], AnswerT | RoundRefusal],
        known_size: int,
        size: int,
    ) -> list[tuple[int, AnswerT]]:
        """Ask participants, and once more those who want a consistency proof from another tree size.

        Args:
            phase: Of the round.
            numbers: Whom.
            body: From a recipient and the tree size it knows to the request.
            decode: Reads a reply; raises FederationError.
            known_size: The tree size that most of them know.
            size: Tree size of the checkpoint that is shown.

        Returns:
            Answers by increasing number, one for each who gave one.
        """
        answers: dict[int, AnswerT] = {}
        behind: list[tuple[int, int]] = []
        for is_last, wanted in ((False, [(number, known_size) for number in numbers]), (True, behind)):
            known = dict(wanted)
            requests = [Request(number, phase, body(number, known[number])) for number in known]
            for reply in self.transport.exchange(requests) if requests else ():
                if reply.sender not in known or reply.sender in answers:
                    continue
                try:
                    answer = decode(reply.body)
                except FederationError:
                    self.count("unreadable")
                    continue
                if not isinstance(answer, RoundRefusal):
                    answers[reply.sender] = answer
                elif not is_last and answer.reason == "consistency" and 0 < answer.known_size <= size:
                    behind.append((reply.sender, answer.known_size))
                else:
                    self.count(answer.reason)
        return sorted(answers.items())


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """What participants are shown of the ledger: a checkpoint, and what lies under it.

    Attributes:
        ledger: The ledger.
        note: The checkpoint, cosigned as participants demand.
        size: Its tree size.
    """

    ledger: Ledger
    note: str
    size: int

    def consistency(self, known_size: int) -> list[Digest]:
        """Prove that the checkpoint continues another one; nothing from 0."""
        return list(self.ledger.consistency_proof(known_size, self.size)) if 0 < known_size <= self.size else []

    def round_request(self, position: int, model: bytes, known_size: int) -> bytes:
        """Ask for an answer to the round at a position, of somebody who knows a tree of `known_size`."""
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

"""The messages between a log and a witness (C2SP tlog-witness, `add-checkpoint`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from liberate.crypto.canonical_base64 import decode_steps, encode_steps
from liberate.errors import InvalidRecord
from liberate.identifiers import Digest

MAX_BODY_BYTES = 65_536
"""More than any request needs: 63 hashes, a checkpoint, and hundreds of signatures."""

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class AddCheckpointRequest:
    """The body of a request.

    Attributes:
        old: Size of the checkpoint that the proof starts from, 0 if none.
        proof: Consistency proof from there.
        note: The signed checkpoint.
    """

    old: int
    proof: Sequence[Digest]
    note: str

    def encode(self) -> bytes:
        """Return the body."""
        return f"old {self.old}\n{encode_steps(self.proof)}\n{self.note}".encode()

    @classmethod
    def decode(cls, body: bytes) -> AddCheckpointRequest:
        """Return the request of a body.

        Raises:
            InvalidRecord: It is none.
        """
        try:
            head, blank, note = body.decode().partition("\n\n")
        except UnicodeDecodeError as error:
            raise InvalidRecord("not UTF-8") from error
        first, *steps = head.split("\n")
        match = _OLD.fullmatch(first)
        if match is None or not blank:
            raise InvalidRecord("an old size, at most 63 hashes, an empty line and a checkpoint are wanted")
        return cls(int(match[1]), decode_steps(steps), note)


@dataclass(frozen=True, slots=True)
class AddCheckpointResponse:
    """What a witness answers.

    Attributes:
        status: The HTTP status.
        body: A cosignature line, the size of the latest checkpoint, or a reason.
        content_type: Of the body.
    """

    status: int
    body: str
    content_type: str = TEXT_TYPE

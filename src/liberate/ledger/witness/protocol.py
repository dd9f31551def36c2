"""What a log and a witness say to each other (C2SP tlog-witness, `add-checkpoint`)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from dataclasses import dataclass

from liberate.crypto.merkle import DIGEST_BYTES
from liberate.errors import InvalidRecord
from liberate.identifiers import Digest

MAX_BODY_BYTES = 65_536
"""More than any request needs: 63 hashes, a checkpoint, and hundreds of signatures."""

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
_MAX_PROOF = 63
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
        """Write the body."""
        proof = "".join(f"{b64encode(step).decode()}\n" for step in self.proof)
        return f"old {self.old}\n{proof}\n{self.note}".encode()

    @classmethod
    def decode(cls, body: bytes) -> AddCheckpointRequest:
        """Read a body.

        Raises:
            InvalidRecord: it is not one.
        """
        try:
            head, blank, note = body.decode().partition("\n\n")
        except UnicodeDecodeError as error:
            raise InvalidRecord("not UTF-8") from error
        first, *steps = head.split("\n")
        match = _OLD.fullmatch(first)
        if match is None or not blank or len(steps) > _MAX_PROOF:
            raise InvalidRecord("an old size, at most 63 hashes, an empty line and a checkpoint are wanted")
        return cls(int(match[1]), [_parse_step(step) for step in steps], note)


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


def _parse_step(text: str) -> Digest:
    try:
        step = b64decode(text, validate=True)
    except (NotBase64, ValueError) as error:
        raise InvalidRecord(f"not base64: {text!r}") from error
    if len(step) != DIGEST_BYTES or b64encode(step).decode() != text:
        raise InvalidRecord(f"a hash is {DIGEST_BYTES} bytes in canonical base64, not {text!r}")
    return Digest(step)

"""Standard base64 in its one canonical spelling, as signed notes and proof files write it."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence

from liberate.crypto.merkle import DIGEST_BYTES
from liberate.errors import InvalidRecord
from liberate.identifiers import Digest

_LONGEST_QUOTE = 40
_MAX_STEPS = 63


def encode_base64(data: bytes) -> str:
    """Return bytes as standard base64, padded."""
    return b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Return the bytes that `encode_base64` wrote.

    Raises:
        InvalidRecord: It is another spelling, or no base64.
    """
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRecord(f"not base64: {text[:_LONGEST_QUOTE]!r}") from error
    if encode_base64(data) != text:
        raise InvalidRecord(f"not canonical base64: {text[:_LONGEST_QUOTE]!r}")
    return data


def encode_steps(proof: Sequence[bytes]) -> str:
    """Return the hashes of a proof as lines, one hash a line."""
    return "".join(f"{encode_base64(step)}\n" for step in proof)


def decode_steps(lines: Sequence[str]) -> tuple[Digest, ...]:
    """Return the hashes of a proof, given as lines.

    Raises:
        InvalidRecord: A line holds no hash, or there are more than any tree needs.
    """
    steps = [decode_base64(line) for line in lines]
    if len(steps) > _MAX_STEPS or any(len(step) != DIGEST_BYTES for step in steps):
        raise InvalidRecord(f"at most {_MAX_STEPS} hashes of {DIGEST_BYTES} bytes are wanted")
    return tuple(Digest(step) for step in steps)

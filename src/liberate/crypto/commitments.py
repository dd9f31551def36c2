"""Salted commitments to bytes: SHA-256 over a random salt and the bytes."""

from __future__ import annotations

from hashlib import sha256

from liberate.identifiers import Digest

SALT_BYTES = 32


def salted_commitment(salt: bytes, *parts: bytes | bytearray | memoryview) -> Digest:
    """Commit to the concatenation of some parts: SHA-256(salt || parts).

    Args:
        salt: 32 secret bytes, used once; whoever is given salt and parts can open the commitment.
        parts: Contiguous buffers. Only their concatenation is bound, not where one ends.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    state = sha256(salt)
    for part in parts:
        state.update(part)
    return Digest(state.digest())

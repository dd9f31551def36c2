"""Identifiers that every room may use: digests, keys, and the closed sets that the ledger and privacy share."""

from __future__ import annotations

from typing import NewType

Digest = NewType("Digest", bytes)
"""SHA-256 output, 32 bytes."""

KeyId = NewType("KeyId", str)
"""Short name of a public key: the first 16 hexadecimal digits of its SHA-256."""

"""Identifiers that every room may use: digests, keys, and the closed sets that the ledger and privacy share."""

from __future__ import annotations

from typing import Literal, NewType

Digest = NewType("Digest", bytes)
"""SHA-256 output, 32 bytes."""

KeyId = NewType("KeyId", str)
"""Short name of a public key: the first 16 hexadecimal digits of its SHA-256."""

PricedAccount = Literal["epsilon", "rho"]
"""An account that is charged: pure epsilon, or rho of zero-concentrated differential privacy."""

Account = Literal["none"] | PricedAccount
"""What a release is charged to; `none` where it is not private."""

NoisePlacement = Literal["per_upload", "on_sum"]
"""Where noise is drawn: on each upload, as devices do, or once on their sum, as simulations may."""

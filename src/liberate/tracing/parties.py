"""Whom answers about a ledger concern, by all names: number, role, key and user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liberate.crypto.signing import key_id
from liberate.federation.store.devices import DeviceStore
from liberate.identifiers import KeyId
from liberate.ledger.format.parts import PrincipalRole
from liberate.ledger.rules.principal import Principal


@dataclass(frozen=True, kw_only=True)
class Party:
    """Somebody in the ledger.

    Attributes:
        number: The principal's number.
        role: What the principal was enrolled as.
        key_id: Short name of the present key.
        user_id: In the data set; None of those who are not in it, and of the erased.
    """

    number: int
    role: PrincipalRole
    key_id: KeyId
    user_id: str | None


@dataclass(frozen=True, kw_only=True)
class CopyRecipient(Party):
    """Somebody who was handed copies: their positions, how many were accepted, and the models that used them."""

    shares: tuple[int, ...]
    accepted: int
    models: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CopySender(Party):
    """Somebody who handed copies over, and the positions of their shares."""

    shares: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartyNames:
    """Names the principals of a ledger by what a host's devices know of them."""

    principals: Sequence[Principal]
    devices: DeviceStore

    def of(self, number: int) -> Party:
        """Return all names of a principal; the erased have no user id."""
        device = self.devices.find(number=number)
        principal = self.principals[number]
        return Party(
            number=number,
            role=principal.role,
            key_id=key_id(principal.key),
            user_id=None if device is None or device.is_erased else device.user_id,
        )

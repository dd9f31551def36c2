"""A principal as the rules remember it: one leaf of the state tree."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct, error
from typing import assert_never, get_args

from liberate.errors import InvalidRecord
from liberate.identifiers import Account, Digest
from liberate.ledger.format.parts import EnrollableRole, PrincipalRole
from liberate.ledger.format.records import ZERO

ROLES: tuple[PrincipalRole, ...] = ("registrar", "log", *get_args(EnrollableRole))
"""Roles in the order of their codes in a state leaf."""

_LEAF = Struct(">32sBBQQQ32sQ32s")
_REVOKED, _WITHDRAWN, _FORGOTTEN = 1, 2, 4
"""The status of a state leaf is the sum of those that apply."""


@dataclass(slots=True, kw_only=True)
class Principal:
    """One leaf of the state tree.

    Attributes:
        key: Its present public key.
        role: Decides what it may sign.
        is_revoked: Whether its key was revoked and not replaced since: it can author nothing and takes part in nothing.
        has_withdrawn: Whether it has withdrawn from everything, and so takes part in nothing any more.
        is_to_be_forgotten: Whether it has asked for erasure.
        sequence: Its last accepted sequence number; 0 before the first. The log's stays 0: blocks count heights.
        epsilon_nano: Spent from the ε account, in 1e-9.
        rho_nano: Spent from the ρ account, in 1e-9.
        consents: RFC 6962 root over the leaf hashes of its consents that were not withdrawn, in ledger order; zero
            bytes when there are none.
        about_count: How many entries name it as author or subject.
        about_head: Chain over their leaf hashes: SHA-256(head before || leaf hash), from zero bytes.
    """

    key: bytes
    role: PrincipalRole
    is_revoked: bool = False
    has_withdrawn: bool = False
    is_to_be_forgotten: bool = False
    sequence: int = 0
    epsilon_nano: int = 0
    rho_nano: int = 0
    consents: Digest = ZERO
    about_count: int = 0
    about_head: Digest = ZERO

    def encode(self) -> bytes:
        """Return the bytes of the leaf: fixed width, big-endian.

        Key (32), role code (1), status (1; the sum of 1 revoked, 2 withdrawn, 4 to be forgotten), sequence (8),
        ε spent (8), ρ spent (8), consents (32), about count (8), about head (32).
        """
        return _LEAF.pack(
            self.key,
            ROLES.index(self.role),
            _REVOKED * self.is_revoked + _WITHDRAWN * self.has_withdrawn + _FORGOTTEN * self.is_to_be_forgotten,
            self.sequence,
            self.epsilon_nano,
            self.rho_nano,
            self.consents,
            self.about_count,
            self.about_head,
        )

    @property
    def is_active(self) -> bool:
        """Whether it takes part in what begins from now on."""
        return not (self.is_revoked or self.has_withdrawn)

    def spent(self, account: Account) -> int:
        """Return what was spent from an account, in 1e-9."""
        match account:
            case "epsilon":
                return self.epsilon_nano
            case "rho":
                return self.rho_nano
            case "none":
                return 0

    def spends_otherwise(self, account: Account) -> bool:
        """Whether anything was spent from another account."""
        return self.epsilon_nano + self.rho_nano > self.spent(account)

    def spend(self, account: Account, nano: int) -> None:
        """Spend from an account, in 1e-9."""
        match account:
            case "epsilon":
                self.epsilon_nano += nano
            case "rho":
                self.rho_nano += nano
            case "none":
                pass
            case _:
                assert_never(account)

    def replace_key(self, key: bytes) -> None:
        """Replace the key, whether it was revoked or not."""
        self.key = key
        self.is_revoked = False

    def count(self, entry: Digest) -> None:
        """Add an entry that names it, by the leaf hash, to its history."""
        self.about_count += 1
        self.about_head = Digest(sha256(self.about_head + entry).digest())

    @classmethod
    def decode(cls, leaf: bytes) -> Principal:
        """Return the principal that `encode` wrote.

        Raises:
            InvalidRecord: The bytes are no such leaf.
        """
        try:
            key, role, status, sequence, epsilon_nano, rho_nano, consents, about_count, about_head = _LEAF.unpack(leaf)
        except error as wrong:
            raise InvalidRecord(f"a state leaf has {_LEAF.size} bytes") from wrong

        if role >= len(ROLES) or status > _REVOKED + _WITHDRAWN + _FORGOTTEN:
            raise InvalidRecord(f"no role has the code {role}, or no status the code {status}")

        return cls(
            key=key,
            role=ROLES[role],
            is_revoked=bool(status & _REVOKED),
            has_withdrawn=bool(status & _WITHDRAWN),
            is_to_be_forgotten=bool(status & _FORGOTTEN),
            sequence=sequence,
            epsilon_nano=epsilon_nano,
            rho_nano=rho_nano,
            consents=Digest(consents),
            about_count=about_count,
            about_head=Digest(about_head),
        )

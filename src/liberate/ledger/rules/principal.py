"""A principal as the rules remember it: one leaf of the state tree."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct, error
from typing import assert_never, get_args

from liberate.errors import InvalidRecord
from liberate.identifiers import Account, Digest
from liberate.ledger.format.parts import Custody, EnrollableRole, KeyName, PrincipalRole, RecordBase
from liberate.ledger.format.records import ZERO, DatasetRecord, Enrol, Update

ROLES: tuple[PrincipalRole, ...] = ("registrar", "log", *get_args(EnrollableRole))
"""Roles in the order of their codes in a state leaf."""

_LEAF = Struct(">32s32sBBQQQ32sQ32s")
_REVOKED, _WITHDRAWN, _FORGOTTEN, _DEVICE_REVOKED, _HOST_CUSTODY = 1, 2, 4, 8, 16
"""The status of a state leaf is the sum of those that apply."""
_ALL_STATUS = _REVOKED | _WITHDRAWN | _FORGOTTEN | _DEVICE_REVOKED | _HOST_CUSTODY

DEVICE_RECORDS: tuple[type[RecordBase], ...] = (DatasetRecord, Update)
"""What a participant's device signs by itself, in every run; everything else is signed with the person's key."""


def key_name_of(record: RecordBase, role: PrincipalRole) -> KeyName:
    """Say with which of its keys an author of a role signs a record."""
    return "device" if role == "participant" and isinstance(record, DEVICE_RECORDS) else "person"


@dataclass(slots=True, kw_only=True)
class Principal:
    """One leaf of the state tree.

    Attributes:
        key: Its present public key: with it a participant decides, and other roles sign everything.
        device_key: The present public key of a participant's device, for updates, commitments to ratings and the keys
            of masks; zero bytes for other roles.
        role: Decides what it may sign.
        custody: Who holds the keys.
        is_revoked: Whether its key was revoked and not replaced since: it can author nothing and takes part in nothing.
        is_device_revoked: Whether the key of its device was: it can answer no round.
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
    device_key: bytes = ZERO
    role: PrincipalRole
    custody: Custody = "own"
    is_revoked: bool = False
    is_device_revoked: bool = False
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

        Key (32), device key (32), role code (1), status (1; the sum of 1 revoked, 2 withdrawn, 4 to be forgotten,
        8 device revoked, 16 in a host's custody), sequence (8), ε spent (8), ρ spent (8), consents (32),
        about count (8), about head (32).
        """
        return _LEAF.pack(
            self.key,
            self.device_key,
            ROLES.index(self.role),
            self._status(),
            self.sequence,
            self.epsilon_nano,
            self.rho_nano,
            self.consents,
            self.about_count,
            self.about_head,
        )

    def _status(self) -> int:
        return (
            _REVOKED * self.is_revoked
            + _WITHDRAWN * self.has_withdrawn
            + _FORGOTTEN * self.is_to_be_forgotten
            + _DEVICE_REVOKED * self.is_device_revoked
            + _HOST_CUSTODY * (self.custody == "host")
        )

    @property
    def is_active(self) -> bool:
        """Whether it takes part in what begins from now on, though perhaps without a device that answers rounds."""
        return not (self.is_revoked or self.has_withdrawn)

    @property
    def can_answer(self) -> bool:
        """Whether it can answer rounds that begin from now on."""
        return self.is_active and not self.is_device_revoked

    def key_named(self, which: KeyName) -> bytes:
        """Return one of its two present keys."""
        return self.device_key if which == "device" else self.key

    def is_key_revoked(self, which: KeyName) -> bool:
        """Whether one of its two keys was revoked, and not replaced since."""
        return self.is_device_revoked if which == "device" else self.is_revoked

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

    def replace_key(self, which: KeyName, key: bytes) -> None:
        """Replace a key, whether it was revoked or not."""
        if which == "device":
            self.device_key, self.is_device_revoked = key, False
        else:
            self.key, self.is_revoked = key, False

    def revoke_key(self, which: KeyName) -> None:
        """Take the force of a key away."""
        if which == "device":
            self.is_device_revoked = True
        else:
            self.is_revoked = True

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
            key, device_key, role, status, sequence, epsilon_nano, rho_nano, *history = _LEAF.unpack(leaf)
        except error as wrong:
            raise InvalidRecord(f"a state leaf has {_LEAF.size} bytes") from wrong

        consents, about_count, about_head = history
        if role >= len(ROLES) or status > _ALL_STATUS:
            raise InvalidRecord(f"no role has the code {role}, or no status the code {status}")

        return cls(
            key=key,
            device_key=device_key,
            role=ROLES[role],
            custody="host" if status & _HOST_CUSTODY else "own",
            is_revoked=bool(status & _REVOKED),
            is_device_revoked=bool(status & _DEVICE_REVOKED),
            has_withdrawn=bool(status & _WITHDRAWN),
            is_to_be_forgotten=bool(status & _FORGOTTEN),
            sequence=sequence,
            epsilon_nano=epsilon_nano,
            rho_nano=rho_nano,
            consents=Digest(consents),
            about_count=about_count,
            about_head=Digest(about_head),
        )


def enrolled_principal(record: Enrol) -> Principal:
    """Return the principal that an enrolment adds, before any entry is counted in its history."""
    return Principal(key=record.key, device_key=record.device_key or ZERO, role=record.role, custody=record.custody)

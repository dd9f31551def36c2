"""What the rules must remember of all entries before: principals, their accounts, the open round, the run.

The state tree is RFC 6962 over the principals in order of their numbers; its root stands in every block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from struct import Struct, error
from typing import assert_never, get_args

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.merkle import MutableTree, leaf_hash
from liberate.errors import InvalidRecord
from liberate.identifiers import Account, Digest
from liberate.ledger.format.entries import Entry, principals_of
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.parts import EnrollableRole, PrincipalRole
from liberate.ledger.format.records import ZERO, Genesis, Round
from liberate.ledger.format.sharing_records import Consent, Withdrawal
from liberate.ledger.rules.sharing_state import LiveShare, SharingState

ROLES: tuple[PrincipalRole, ...] = ("registrar", "log", *get_args(EnrollableRole))
"""Roles in the order of their codes in a state leaf."""

_LEAF = Struct(">32sBBQQQ32sQ32s")
_REVOKED, _WITHDRAWN, _FORGOTTEN = 1, 2, 4
"""What a state leaf's status is the sum of."""


@dataclass(slots=True, kw_only=True)
class Principal:
    """One leaf of the state tree.

    Attributes:
        key: Present public key.
        role: What it may sign.
        is_revoked: Whether its key was revoked and not replaced since: it can author nothing and takes part in nothing.
        has_withdrawn: Whether it has withdrawn from everything: it takes part in nothing any more.
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
        """Give the leaf's bytes: fixed width, big-endian.

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
        """Give what was spent from an account, in 1e-9."""
        match account:
            case "epsilon":
                return self.epsilon_nano
            case "rho":
                return self.rho_nano
            case "none":
                return 0
            case _:
                assert_never(account)

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
        """Go on with another key, revoked before or not."""
        self.key = key
        self.is_revoked = False

    def revoke(self) -> None:
        """Take the key's force away."""
        self.is_revoked = True

    def count(self, entry: Digest) -> None:
        """Add an entry, by its leaf hash, to the history."""
        self.about_count += 1
        self.about_head = Digest(sha256(self.about_head + entry).digest())

    @classmethod
    def decode(cls, leaf: bytes) -> Principal:
        """Read what `encode` wrote.

        Raises:
            InvalidRecord: it is no such leaf.
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


@dataclass(frozen=True, slots=True)
class AcceptedUpdate:
    """An update of the open round."""

    leaf_hash: Digest
    participants: int


@dataclass(slots=True)
class OpenRound:
    """A round that waits for its model, what it has been answered, and by whom its sum is made if it is masked.

    Attributes:
        record: The round.
        hash: Leaf hash of its entry.
        position: Position of its entry.
        n_principals: Number of principals when it was opened.
        updates: Accepted updates by position, in ledger order.
        answered: People whose answer was accepted, each with its position.
        pool: People whose shares the coordinator uses.
        survivors: People whose uploads are in a masked round's sum, as far as they were named.
        named_parts: How many records have named them.
        all_parts: How many records there will be; 0 before the first.
    """

    record: Round
    hash: Digest
    position: int
    n_principals: int
    updates: dict[int, AcceptedUpdate] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)
    pool: set[int] = field(default_factory=set)
    survivors: set[int] = field(default_factory=set)
    named_parts: int = 0
    all_parts: int = 0
    _cohort: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._cohort = frozenset(numbers_in(self.record.cohort))

    def admits(self, number: int) -> bool:
        """Whether a participant belongs to the cohort."""
        return number in self._cohort if self._cohort else number < self.n_principals

    def accept(self, participants: Sequence[int], hash: Digest, position: int) -> None:
        """Add an accepted update: for whom it answers, its leaf hash and position."""
        self.updates[position] = AcceptedUpdate(hash, len(participants))
        self.answered.update(dict.fromkeys(participants, position))

    def name_survivors(self, participants: Sequence[int], parts: int) -> None:
        """Add a part of the survivor set: its people, and how many parts there are."""
        self.survivors.update(participants)
        self.named_parts += 1
        self.all_parts = parts

    @property
    def has_survivors(self) -> bool:
        """Whether the whole survivor set was named."""
        return self.named_parts == self.all_parts > 0

    def surviving_updates(self) -> set[int]:
        """Give the positions of the survivors' updates."""
        return {self.answered[number] for number in self.survivors}

    def pooled(self) -> int:
        """Count the people who are in a model by their shares alone; where answers carry noise, shares count nothing.

        A minimum of such a round is about whose noise the sum has.
        """
        is_open = self.record.account == "none" and not self.record.is_masked
        return len(self.pool.difference(self.answered)) if is_open else 0


@dataclass(frozen=True, slots=True)
class RunState:
    """The rounds that have been opened for one training run.

    Attributes:
        number: The run's number.
        rounds: How many rounds it announced, or None.
        opened: How many were opened.
    """

    number: int
    rounds: int | None
    opened: int


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model by version and digest."""

    version: int
    digest: Digest


@dataclass(slots=True, kw_only=True)
class State:
    """All that the rules look at. `rules.apply` changes it in place; nobody else may.

    Attributes:
        genesis: Entry 0, or None before it.
        size: Number of entries applied, blocks included.
        height: Height of the last block; 0 before the first.
        block_hash: Leaf hash of the last block entry.
        block_size: Number of entries up to and including the last block entry.
        time_us: Time of the last block.
        principals: Everybody enrolled, by number.
        sharing: Consents and shares that were not withdrawn.
        run: The latest run, or None before the first round.
        round_number: Number of the latest round; 0 before the first.
        open_round: The round that has not been closed, or None.
        model: The model that the latest run has reached, or None before the first round.
    """

    genesis: Genesis | None = None
    size: int = 0
    height: int = 0
    block_hash: Digest = ZERO
    block_size: int = 0
    time_us: int = 0
    principals: list[Principal] = field(default_factory=list)
    sharing: SharingState = field(default_factory=SharingState)
    run: RunState | None = None
    round_number: int = 0
    open_round: OpenRound | None = None
    model: ModelReference | None = None
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _former_keys: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    _tree: MutableTree = field(default_factory=MutableTree)
    _changed: set[int] = field(default_factory=set)

    @property
    def founding(self) -> Genesis:
        """The genesis, once there is one."""
        if self.genesis is None:
            raise ValueError("an empty ledger has no genesis")
        return self.genesis

    @property
    def origin(self) -> str:
        """Name of the ledger."""
        return self.founding.origin

    def limit(self, account: Account) -> int:
        """Give what a person may spend from an account in all, in 1e-9; without a limit, the largest integer."""
        match account:
            case "epsilon":
                limit = self.founding.epsilon_nano_limit
            case "rho":
                limit = self.founding.rho_nano_limit
            case "none":
                limit = None
            case _:
                assert_never(account)
        return LARGEST_INTEGER if limit is None else limit

    def enrol(self, principal: Principal) -> None:
        """Add the next principal."""
        number = len(self.principals)
        self.principals.append(principal)
        self._numbers[principal.key] = number
        self._changed.add(number)

    def replace_key(self, number: int, key: bytes) -> None:
        """Give a principal another key, by the entry at the present position."""
        self.note_former_key(number, self.principals[number].key, self.size)
        self.principals[number].replace_key(key)
        self._numbers[key] = number

    def note_former_key(self, number: int, key: bytes, until: int) -> None:
        """Remember a key that a principal had up to and including a position; earlier ones first."""
        self._former_keys.setdefault(number, []).append((until, key))
        self._numbers[key] = number

    def number_of(self, key: bytes) -> int | None:
        """Give the number of the principal whose public key this is, or was."""
        return self._numbers.get(key)

    def keys(self) -> Mapping[bytes, int]:
        """Give all public keys that are or were somebody's, and whose."""
        return self._numbers

    def usable_shares(self, blocks: int = 1) -> Iterator[tuple[Digest, LiveShare]]:
        """Give all shares, by leaf hash, that whoever has received them may use in each of the next blocks."""
        for hash, share in self.sharing.shares.items():
            if share.is_received and self.may_use(hash, share, blocks):
                yield hash, share

    def may_use(self, hash: Digest, share: LiveShare, blocks: int = 1) -> bool:
        """Whether a consent covers a share, by leaf hash, in each of the next blocks."""
        is_covered = self.sharing.usable(hash, share.sender, self.height + blocks - 1) is not None
        return is_covered and not self.principals[share.sender].is_revoked

    def grant(self, record: Consent, hash: Digest) -> None:
        """Let a consent live, by the leaf hash of its entry."""
        self.sharing.grant(record, hash)
        self._note_consents(record.author)

    def withdraw(self, record: Withdrawal) -> None:
        """Let one consent of somebody end, or everything."""
        self.sharing.withdraw(record.author, record.consent)
        if record.consent is None:
            self.principals[record.author].has_withdrawn = True
        self._note_consents(record.author)

    def _note_consents(self, number: int) -> None:
        self.principals[number].consents = self.sharing.digest(number)

    def last_sequence(self, number: int) -> int:
        """Give a principal's last accepted sequence number, the height for the log; 0 before the first."""
        principal = self.principals[number]
        return self.height if principal.role == "log" else principal.sequence

    def key_at(self, number: int, position: int) -> bytes:
        """Give the public key with which a principal signs the entry at a position."""
        for until, key in self._former_keys.get(number, ()):
            if position <= until:
                return key
        return self.principals[number].key

    def advance(self, entry: Entry) -> None:
        """Count an accepted entry, in its author's sequence and in the history of everybody it concerns."""
        for number in principals_of(entry.record):
            self.principals[number].count(entry.leaf_hash)
            self._changed.add(number)
            if number == entry.record.author:
                self.principals[number].sequence = entry.record.seq
        self.size += 1

    def root(self) -> Digest:
        """Give the root of the state tree; between blocks of a log it is the last block's `state_root`."""
        self._hash_changes()
        return self._tree.root()

    def inclusion_proof(self, number: int) -> list[Digest]:
        """Prove that a principal's leaf stands in the state tree."""
        self._hash_changes()
        return self._tree.inclusion_proof(number)

    def _hash_changes(self) -> None:
        self._tree.update({number: leaf_hash(self.principals[number].encode()) for number in self._changed})
        self._changed.clear()

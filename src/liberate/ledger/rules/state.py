"""What the rules must remember of all entries before: principals, their accounts, the open round, the run.

The state tree is RFC 6962 over the principals in order of their numbers; every block names its root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.merkle import MutableTree, leaf_hash
from liberate.identifiers import Account, Digest
from liberate.ledger.format.entries import Entry, principals_of
from liberate.ledger.format.parts import EnrolmentPolicy, KeyName, PrincipalRole, RecordBase, Terms
from liberate.ledger.format.records import ZERO, Genesis
from liberate.ledger.format.sharing_records import Consent, Withdrawal
from liberate.ledger.rules.principal import Principal, key_name_of
from liberate.ledger.rules.round_state import ModelReference, OpenRound, RunState
from liberate.ledger.rules.sharing_state import LiveShare, SharingState


@dataclass(slots=True, kw_only=True)
class State:
    """All that the rules look at; only `apply_entry` changes it, in place.

    Attributes:
        genesis: Entry 0, or None before it.
        size: Number of entries applied, blocks included.
        height: Height of the last block; 0 before the first.
        block_hash: Leaf hash of the last block entry.
        block_size: Number of entries up to and including the last block entry.
        time_us: Time of the last block.
        terms_hash: Leaf hash of the entry whose terms are in force; zero bytes before the genesis.
        principals: All principals, by number.
        participant_count: How many of them were enrolled as participants.
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
    terms_hash: Digest = ZERO
    principals: list[Principal] = field(default_factory=list)
    participant_count: int = 0
    sharing: SharingState = field(default_factory=SharingState)
    run: RunState | None = None
    round_number: int = 0
    open_round: OpenRound | None = None
    model: ModelReference | None = None
    _terms: Terms | None = None
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _former_keys: dict[tuple[int, KeyName], list[tuple[int, bytes]]] = field(default_factory=dict)
    _tree: MutableTree = field(default_factory=MutableTree)
    _changed: set[int] = field(default_factory=set)

    @property
    def founding(self) -> Genesis:
        """The genesis, once there is one."""
        if self.genesis is None:
            raise ValueError("an empty ledger has no genesis")
        return self.genesis

    @property
    def terms(self) -> Terms:
        """The terms in force, once there is a genesis."""
        if self._terms is None:
            raise ValueError("an empty ledger has no terms")
        return self._terms

    def change_terms(self, terms: Terms, hash: Digest) -> None:
        """Put terms in force, by the leaf hash of their entry."""
        self._terms, self.terms_hash = terms, hash

    @property
    def origin(self) -> str:
        """Name of the ledger."""
        return self.founding.origin

    def enrolment_policy(self, role: PrincipalRole) -> EnrolmentPolicy | None:
        """Return whose signatures enrol a role and change its keys, if anybody's do.

        Registrars and the log are named by the genesis only.
        """
        match role:
            case "registrar" | "log":
                return None
            case _:
                return self.founding.enrolment_policy.get(role)

    def limit(self, account: Account) -> int:
        """Return what anyone may spend from an account in total, in 1e-9; without a limit, the largest integer."""
        genesis = self.founding
        limit = {"epsilon": genesis.epsilon_nano_limit, "rho": genesis.rho_nano_limit, "none": None}[account]
        return LARGEST_INTEGER if limit is None else limit

    def enrol(self, principal: Principal) -> None:
        """Add the next principal."""
        number = len(self.principals)
        self.principals.append(principal)
        self.participant_count += principal.role == "participant"
        self._numbers[principal.key] = number
        if principal.device_key != ZERO:
            self._numbers[principal.device_key] = number
        self._changed.add(number)

    def replace_key(self, number: int, which: KeyName, key: bytes) -> None:
        """Replace one of a principal's keys, by the entry at the present position."""
        self.note_former_key(number, which, self.principals[number].key_named(which), self.size)
        self.principals[number].replace_key(which, key)
        self._numbers[key] = number

    def note_former_key(self, number: int, which: KeyName, key: bytes, until: int) -> None:
        """Remember a key that a principal had up to and including a position; called in the order of positions."""
        self._former_keys.setdefault((number, which), []).append((until, key))
        self._numbers[key] = number

    def number_of(self, key: bytes) -> int | None:
        """Return the number of the principal whose public key this is or was, if any."""
        return self._numbers.get(key)

    def keys(self) -> Mapping[bytes, int]:
        """Return the number of the principal by each public key that is or was in use."""
        return self._numbers

    def usable_shares(self, blocks: int = 1) -> Iterator[tuple[Digest, LiveShare]]:
        """Yield the shares, by leaf hash, that recipients have received and may use in each of the next blocks."""
        for hash, share in self.sharing.shares.items():
            if share.is_received and self.may_use(hash, share, blocks):
                yield hash, share

    def may_use(self, hash: Digest, share: LiveShare, blocks: int = 1) -> bool:
        """Whether a consent covers a share, by leaf hash, in each of the next blocks."""
        is_covered = self.sharing.usable(hash, share.sender, self.height + blocks - 1) is not None
        return is_covered and not self.principals[share.sender].is_revoked

    def grant(self, record: Consent, hash: Digest) -> None:
        """Add a valid consent, by the leaf hash of its entry."""
        self.sharing.grant(record, hash)
        self._note_consents(record.author)

    def withdraw(self, record: Withdrawal) -> None:
        """End one consent of the author's, or all of them for good."""
        self.sharing.withdraw(record.author, record.consent)
        if record.consent is None:
            self.principals[record.author].has_withdrawn = True
        self._note_consents(record.author)

    def _note_consents(self, number: int) -> None:
        self.principals[number].consents = self.sharing.digest(number)

    def last_sequence(self, number: int) -> int:
        """Return a principal's last accepted sequence number, for the log the height; 0 before the first."""
        principal = self.principals[number]
        return self.height if principal.role == "log" else principal.sequence

    def has_used(self, number: int, sequence: int) -> bool:
        """Whether a sequence number is no longer above the last one accepted of a principal."""
        return number < len(self.principals) and sequence <= self.last_sequence(number)

    def key_at(self, number: int, position: int, which: KeyName = "person") -> bytes:
        """Return the public key that a principal has at a position, to sign the entry there."""
        for until, key in self._former_keys.get((number, which), ()):
            if position <= until:
                return key
        return self.principals[number].key_named(which)

    def author_key(self, record: RecordBase, position: int) -> bytes:
        """Return the public key with which the author of a record signs it at a position."""
        return self.key_at(record.author, position, self.key_name_of(record))

    def key_name_of(self, record: RecordBase) -> KeyName:
        """Say with which of its keys the author of a record, who is enrolled, signs it."""
        return key_name_of(record, self.principals[record.author].role)

    def advance(self, entry: Entry) -> None:
        """Count an accepted entry in its author's sequence and in the history of every principal it names."""
        for number in principals_of(entry.record):
            self.principals[number].count(entry.leaf_hash)
            self._changed.add(number)
            if number == entry.record.author:
                self.principals[number].sequence = entry.record.seq
        self.size += 1

    def root(self) -> Digest:
        """Return the root of the state tree; between blocks it is the last block's `state_root`."""
        self._hash_changes()
        return self._tree.root()

    def inclusion_proof(self, number: int) -> list[Digest]:
        """Return the proof that a principal's leaf is in the state tree."""
        self._hash_changes()
        return self._tree.inclusion_proof(number)

    def _hash_changes(self) -> None:
        self._tree.update({number: leaf_hash(self.principals[number].encode()) for number in self._changed})
        self._changed.clear()

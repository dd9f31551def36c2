"""What may be signed: the closed set of records, and the entries that carry them.

An entry is an Ed25519 signature (64 bytes) followed by the canonical bytes of a record, 65,535 bytes at most.
Each schema declares its subjects: the principals, beside its author, whose history it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeAlias, cast, get_args

import msgspec
from msgspec import Struct

from liberate.arrays import Digest
from liberate.crypto.encoding import (
    Bytes32,
    Hash,
    Natural,
    Positive,
    Token,
    decode,
    encode,
    pre_authentication_encoding,
)
from liberate.crypto.merkle import leaf_hash
from liberate.crypto.signing import SIGNATURE_BYTES, SigningKey
from liberate.errors import InvalidRecord, RefusedEntry
from liberate.ledger.record_parts import (
    Account,
    Admission,
    AdmittedRole,
    Common,
    Fidelity,
    Mechanism,
    NewKey,
    Origin,
    Range,
    Role,
    Signature,
    Witnesses,
    includes,
    numbers,
    ranges,
)
from liberate.ledger.refusal import refusal
from liberate.ledger.sharing_records import (
    Consent,
    Disclosure,
    Erasure,
    Input,
    Pool,
    Receipt,
    Removal,
    Share,
    Withdrawal,
)

__all__ = [
    "FORMAT_VERSION",
    "KINDS",
    "MAX_ENTRY_BYTES",
    "PAYLOAD_TYPE",
    "POSSESSION_TYPE",
    "ZERO",
    "Aborted",
    "Account",
    "Admission",
    "AdmittedRole",
    "Block",
    "Common",
    "Consent",
    "Dataset",
    "Disclosure",
    "Enrol",
    "Entry",
    "Erasure",
    "Fidelity",
    "Genesis",
    "Input",
    "Key",
    "Mechanism",
    "Model",
    "NewKey",
    "Origin",
    "Pool",
    "Range",
    "Receipt",
    "Record",
    "Removal",
    "Role",
    "Round",
    "Share",
    "Signature",
    "Survivors",
    "Update",
    "Withdrawal",
    "Witnesses",
    "concerned",
    "concerns",
    "decode_entry",
    "includes",
    "new_key",
    "numbers",
    "possession_bytes",
    "ranges",
    "sign",
    "signed_bytes",
]

FORMAT_VERSION = 1
PAYLOAD_TYPE = "application/vnd.liberate.record+json"
POSSESSION_TYPE = "application/vnd.liberate.possession+json"
MAX_ENTRY_BYTES = 65_535
ZERO = Digest(bytes(32))
"""Stands where there is no digest yet."""


class _Possession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the new key signs."""

    number: Natural
    origin: Origin


class Genesis(Common, frozen=True, tag="genesis"):
    """Entry 0: who may admit whom, the log's key, and the limits of privacy. Signed by the founder, principal 0.

    The admitters are principals 0, 1, ..., n - 1; the log is principal n.

    Attributes:
        admitters: Public keys, the founder's first.
        admission: Who admits a role; a role that is missing can be admitted by nobody.
        log_vkey: C2SP verifier key that signs blocks and checkpoints, named as the origin.
        simulated: Whether keys, noise and time come from a seed.
        unit: Whose data a privacy statement protects.
        relation: Neighbouring relation: the person's data are replaced by nothing, participation is public.
        epsilon_nano_limit: What a person may spend from the ε account, in 1e-9, or None without a limit.
        rho_nano_limit: The same for the ρ (zCDP) account.
        witnesses: Witness policy.
    """

    admitters: tuple[Bytes32, ...]
    admission: dict[AdmittedRole, Admission]
    log_vkey: str
    simulated: bool
    unit: Literal["user"]
    relation: Literal["zero-out"]
    epsilon_nano_limit: Natural | None
    rho_nano_limit: Natural | None
    witnesses: Witnesses

    def subjects(self) -> Iterable[int]:
        """The admitters and the log."""
        return range(len(self.admitters) + 1)


class Enrol(Common, frozen=True, tag="enrol"):
    """A new principal. Signed by an admitter of its role.

    Attributes:
        number: The next principal number.
        key: The new principal's public key.
        role: What it may sign.
    """

    number: Natural
    key: Bytes32
    role: AdmittedRole

    def subjects(self) -> Iterable[int]:
        """`number`."""
        return (self.number,)


class Key(Common, frozen=True, tag="key"):
    """A principal's key is replaced or revoked. Signed by its owner, or by an admitter of its role.

    A new key signed for by the old one is a rotation, by an admitter a recovery.
    Number, role, accounts, sequence and history stay with the principal. Whose key is revoked can author nothing and
    takes part in nothing, until an admitter names another key for it.

    Attributes:
        number: Whose key.
        key: What replaces it, a key that nobody has had before; None: it is revoked.
    """

    number: Natural
    key: NewKey | None

    def subjects(self) -> Iterable[int]:
        """`number`."""
        return (self.number,)


class Dataset(Common, frozen=True, tag="dataset"):
    """A participant commits to the own ratings; again whenever ratings are added.

    Attributes:
        commitment: Salted commitment to the ratings.
    """

    commitment: Hash


class Round(Common, frozen=True, tag="round"):
    """A coordinator opens a round.

    Attributes:
        number: The last round's plus 1; the first is 1.
        run: The last round's run, or the next one.
        rounds: How many rounds the run has, fixed before the first; None: until convergence.
        base_version: Version of the model that devices start from; versions go on counting over runs.
        base_digest: Digest of that model; the first round of a run may start from any.
        cohort: Who may answer; empty: every participant enrolled by now.
        statistic: What a device computes.
        shape: Items, numbers per item, and numbers that belong to no item.
        mechanism: How an upload is protected.
        fidelity: Whether each upload is noised, or (in simulations) noise is drawn once on their sum.
        grid_bits: Uploads are integers in units of 2**-grid_bits.
        modulus_bits: Sums are taken modulo 2**modulus_bits.
        account: Which account an answer spends from.
        spend: What an answer spends, in 1e-9.
        minimum: How many people a model needs.
        deadline: Height of the last block that may hold an answer.
    """

    number: Positive
    run: Natural
    rounds: Positive | None
    base_version: Natural
    base_digest: Hash
    cohort: tuple[Range, ...]
    statistic: Token
    shape: tuple[Natural, Natural, Natural]
    mechanism: Mechanism
    fidelity: Fidelity
    grid_bits: Natural
    modulus_bits: Natural
    account: Account
    spend: Natural
    minimum: Positive
    deadline: Positive

    @property
    def is_masked(self) -> bool:
        """Whether uploads are masked, so that the coordinator can read their sum only."""
        return self.mechanism.parameters.get("masked") == 1


class Update(Common, frozen=True, tag="update"):
    """A participant's answer to a round, or a host's for its people.

    Attributes:
        round: Number of the round.
        round_hash: Leaf hash of the round's entry.
        commitment: Salted commitment to the upload.
        profile: Salted commitment to the user profile.
        shares: The shares used as input, increasing by giver and hash.
        account: The round's account.
        spend: The round's spend.
        people: For whom a host answers; empty in a participant's own answer.
    """

    round: Positive
    round_hash: Hash
    commitment: Hash
    profile: Hash
    shares: tuple[Input, ...]
    account: Account
    spend: Natural
    people: tuple[Range, ...]

    def subjects(self) -> Iterable[int]:
        """`people`, and the givers of `shares`."""
        return chain(numbers(self.people), (each.giver for each in self.shares))

    def answers_for(self) -> tuple[int, ...]:
        """Give the participants whose answer this is: a host's people, or else the author."""
        return tuple(numbers(self.people)) or (self.author,)


class Survivors(Common, frozen=True, tag="survivors"):
    """The coordinator of a masked round says whose uploads are in its sum: the one set for which masks are undone.

    A set too large for one record spans several, one after the other. No update is accepted after the first.

    Attributes:
        round: Number of the round.
        round_hash: Leaf hash of the round's entry.
        part: Which record of the set this is, from 1.
        parts: How many records the set spans, the same in each.
        people: Who; their numbers increase over all parts.
    """

    round: Positive
    round_hash: Hash
    part: Positive
    parts: Positive
    people: tuple[Range, ...]


class Model(Common, frozen=True, tag="model"):
    """The round's coordinator closes it with a model.

    Attributes:
        round: Number of the round.
        version: The base model's plus 1.
        parent: Digest of the base model.
        digest: Digest of the new model.
        updates_root: RFC 6962 root over the leaf hashes of the updates used, in ledger order.
        unused: Positions of the round's accepted updates that were not used, increasing; in a masked round, of those
            of people outside the survivor set.
        sum_digest: Digest of the sum of the uploads.
        solver: What made a model of the sum, with its version.
        parameters: Its public integers.
    """

    round: Positive
    version: Positive
    parent: Hash
    digest: Hash
    updates_root: Hash
    unused: tuple[Natural, ...]
    sum_digest: Hash
    solver: Token
    parameters: dict[Token, Natural]


class Aborted(Common, frozen=True, tag="aborted"):
    """The round's coordinator closes it without a model; what was spent stays spent.

    Attributes:
        round: Number of the round.
        reason: Why, as a code.
    """

    round: Positive
    reason: Token


class Block(Common, frozen=True, tag="block"):
    """The log ends an atomic batch. Its sequence is its height; the first block's is 1.

    A block belongs to nobody's history and leaves the state tree as it is: heights and parents chain the blocks.

    Attributes:
        parent: Leaf hash of the block entry before; 32 zero bytes in the first.
        count: Entries of the batch, this one excluded.
        state_root: Root of the state tree after the batch, and so after this entry.
        time_us: Microseconds since 1970-01-01 UTC.
    """

    parent: Hash
    count: Positive
    state_root: Hash
    time_us: Natural


Record: TypeAlias = (
    Genesis
    | Enrol
    | Key
    | Dataset
    | Consent
    | Withdrawal
    | Share
    | Receipt
    | Round
    | Update
    | Pool
    | Survivors
    | Model
    | Aborted
    | Erasure
    | Disclosure
    | Block
)

KINDS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Record))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A decoded entry.

    Attributes:
        data: The whole entry.
        signature: Its first 64 bytes.
        body: The record's bytes.
        record: The record.
        leaf_hash: RFC 6962 hash of the entry.
    """

    data: bytes
    signature: bytes
    body: bytes
    record: Record
    leaf_hash: Digest


class _Header(Struct):
    """The part of a record by which readers of every version can tell what it is."""

    kind: str
    v: int


def signed_bytes(body: bytes) -> bytes:
    """Give what an entry's signature covers: DSSE's pre-authentication encoding of the record's bytes."""
    return pre_authentication_encoding(PAYLOAD_TYPE, body)


def possession_bytes(origin: str, number: int) -> bytes:
    """Give what a new key signs to show that it is held: for which principal of which ledger it is meant."""
    return pre_authentication_encoding(POSSESSION_TYPE, encode(_Possession(number=number, origin=origin)))


def new_key(key: SigningKey, origin: str, number: int) -> NewKey:
    """Make a key ready to become a principal's."""
    return NewKey(public=key.public, possession=key.sign(possession_bytes(origin, number)))


def sign(record: Record, key: SigningKey) -> bytes:
    """Make the entry of a record.

    Raises:
        InvalidRecord: a value is out of its field's range, or the entry would be too large.
    """
    body = encode(record)
    if SIGNATURE_BYTES + len(body) > MAX_ENTRY_BYTES:
        raise InvalidRecord(f"an entry has at most {MAX_ENTRY_BYTES} bytes, not {SIGNATURE_BYTES + len(body)}")
    return key.sign(signed_bytes(body)) + body


def decode_entry(data: bytes) -> Entry:
    """Read an entry; its signature is not checked here.

    Raises:
        RefusedEntry: `too_large`, `malformed`, `unknown_kind` or `unknown_version`.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise refusal("too_large", f"an entry has at most {MAX_ENTRY_BYTES} bytes, not {len(data)}")
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    try:
        # mypy has no way to say "a union of structs" where a type is passed as a value
        record = cast("Record", decode(body, cast("type[Common]", Record)))
    except InvalidRecord as error:
        raise _undecodable(body, error) from error
    return Entry(data=data, signature=signature, body=body, record=record, leaf_hash=leaf_hash(data))


def concerned(record: Record) -> list[int]:
    """Give the numbers of all principals whose history a record belongs to, increasing.

    Those are author and subjects; a block belongs to nobody's.
    """
    return [] if isinstance(record, Block) else sorted({record.author, *record.subjects()})


def concerns(record: Record, number: int) -> bool:
    """Whether a record belongs to a principal's history; without listing everybody else whose it is."""
    match record:
        case Block():
            return False
        case Pool(people=people) if record.author != number:
            return includes(people, number)
        case _:
            return record.author == number or number in record.subjects()


def _undecodable(body: bytes, error: InvalidRecord) -> RefusedEntry:
    try:
        header = msgspec.json.decode(body, type=_Header)
    except (ValueError, RecursionError):
        return refusal("malformed", error.message)
    if header.kind not in KINDS:
        return refusal("unknown_kind", f"no rule for records of kind {header.kind!r}")
    if header.v != FORMAT_VERSION:
        return refusal("unknown_version", f"format {header.v}, wanted {FORMAT_VERSION}")
    return refusal("malformed", error.message)

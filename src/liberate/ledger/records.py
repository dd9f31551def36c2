"""What may be signed: the closed set of records, and the entries that carry them.

An entry is an Ed25519 signature (64 bytes) followed by the canonical bytes of a record, 65,535 bytes at most.
Each schema declares its subjects: the principals, beside its author, whose history it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Literal, TypeAlias, cast, get_args

import msgspec
from msgspec import Meta, Struct

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
from liberate.ledger.refusal import refusal

FORMAT_VERSION = 1
PAYLOAD_TYPE = "application/vnd.liberate.record+json"
POSSESSION_TYPE = "application/vnd.liberate.possession+json"
MAX_ENTRY_BYTES = 65_535
ZERO = Digest(bytes(32))
"""Stands where there is no digest yet."""

_RANGE_GAP = 256
"""Numbers further apart than this begin a new range: a range costs about as much as a bitmap of this gap."""

Origin = Annotated[str, Meta(min_length=1, max_length=255)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
AdmittedRole = Literal["participant", "host", "coordinator", "witness", "auditor"]
Role = Literal["admitter", "log"] | AdmittedRole
Account = Literal["none", "epsilon", "rho"]
Fidelity = Literal["uploads", "sum"]


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some principal numbers: bit i of byte j of the bitmap stands for first + 8 * j + i.

    The first bit is set and the last byte is not zero.
    """

    first: Natural
    bitmap: Annotated[bytes, Meta(min_length=1, max_length=32_768)]


class Admission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which admitters may enrol a role, and how many of them must sign."""

    admitters: tuple[Natural, ...]
    threshold: Positive


class Witnesses(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verifier keys of the witnesses, and how many must have cosigned before a checkpoint is published."""

    keys: tuple[str, ...]
    threshold: Natural


class Mechanism(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The privacy mechanism of a round, by name and public integers."""

    name: Token
    parameters: dict[Token, Natural]


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A principal's next key, and its own signature over whose it will be: who names it holds it."""

    public: Bytes32
    possession: Signature


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share that was used.

    Attributes:
        giver: Whose share.
        share: Leaf hash of its entry.
    """

    giver: Natural
    share: Hash


class Removal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was done for somebody who asked to be forgotten.

    Attributes:
        destroyed: What was destroyed, as codes.
        told: Who was asked to destroy copies.
        answered: Those of them who say that they did.
        models: Versions of the models that used an answer or a share of the person.
    """

    destroyed: tuple[Token, ...]
    told: tuple[Range, ...]
    answered: tuple[Range, ...]
    models: tuple[Range, ...]


class _Possession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the new key signs."""

    number: Natural
    origin: Origin


class Common(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every record says.

    Attributes:
        v: Version of the format.
        origin: Name of the ledger that the record was made for.
        author: Number of the principal who signs.
        seq: Greater than the author's last accepted one.
    """

    v: Literal[1] = 1
    origin: Origin
    author: Natural
    seq: Positive

    @property
    def kind(self) -> str:
        """The record's kind, as it stands in its bytes."""
        return str(self.__struct_config__.tag)

    def subjects(self) -> Iterable[int]:
        """Give the principals, beside the author, whose history the record belongs to."""
        return ()


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


class Consent(Common, frozen=True, tag="consent"):
    """A participant lets others have copies of ratings, within limits, until the consent expires or is withdrawn.

    Attributes:
        recipients: Who may receive a copy: participants, or coordinators for the pool of their rounds.
        expiry: Height of the last block that may hold a share under it, or a use of one.
        max_shares: How many shares may be made under it.
        epsilon_nano: What copies may reveal of each rating in all, in 1e-9: the sum over the base copies that shares
            under it are made of; None: without a limit, open ratings too.
        terms: Salted commitment to purpose, items and fraction.
    """

    recipients: tuple[Range, ...]
    expiry: Positive
    max_shares: Positive
    epsilon_nano: Natural | None
    terms: Hash

    def subjects(self) -> Iterable[int]:
        """`recipients`."""
        return numbers(self.recipients)


class Withdrawal(Common, frozen=True, tag="withdrawal"):
    """A participant takes a consent back, or everything: then no later round, answer or share is the participant's.

    Order decides: a model may use what was accepted before.

    Attributes:
        consent: Leaf hash of the consent's entry; None: everything, for good.
    """

    consent: Hash | None


class Share(Common, frozen=True, tag="share"):
    """A participant hands a copy of own ratings to somebody.

    Attributes:
        consent: Leaf hash of the entry of the consent that covers it.
        recipient: Who gets the copy.
        base: Salted commitment to the base copy, of which every recipient's copy is made.
        epsilon_nano: At which ε the base copy's ratings were perturbed, each once and for good, in 1e-9; None: they
            are open.
        copy: Salted commitment to exactly the copy handed over.
    """

    consent: Hash
    recipient: Natural
    base: Hash
    epsilon_nano: Natural | None
    copy: Hash

    def subjects(self) -> Iterable[int]:
        """`recipient`."""
        return (self.recipient,)


class Receipt(Common, frozen=True, tag="receipt"):
    """Whom a share is for has received it and accepts it; nobody uses a share without.

    Attributes:
        giver: Whose share.
        share: Leaf hash of its entry.
        copy: Commitment to exactly what arrived: the share's.
    """

    giver: Natural
    share: Hash
    copy: Hash

    def subjects(self) -> Iterable[int]:
        """`giver`."""
        return (self.giver,)


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


class Pool(Common, frozen=True, tag="pool"):
    """The coordinator of the open round says whose shares it uses beside the answers.

    They enter the base model of a run's first round, or the model that closes the round.
    All shares of a person that the coordinator has received, and that live, are meant.
    People too many for one record are named by several.

    Attributes:
        round: Number of the round.
        round_hash: Leaf hash of the round's entry.
        people: Whose shares.
    """

    round: Positive
    round_hash: Hash
    people: tuple[Range, ...]

    def subjects(self) -> Iterable[int]:
        """`people`."""
        return numbers(self.people)


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


class Erasure(Common, frozen=True, tag="erasure"):
    """Somebody who has withdrawn everything asks to be forgotten; later, a coordinator says what was done.

    Attributes:
        number: Who is to be forgotten.
        removal: What was done, in a coordinator's record, of which there may be several; None in the request.
    """

    number: Natural
    removal: Removal | None

    def subjects(self) -> Iterable[int]:
        """`number`, and those who were told."""
        return chain((self.number,), numbers(self.removal.told) if self.removal else ())


class Disclosure(Common, frozen=True, tag="disclosure"):
    """An auditor is going to look up who is behind something, and says so before it is answered.

    Attributes:
        people: Whose commitments are to be opened.
        reason: Salted commitment to what was found, and why it is looked up.
    """

    people: tuple[Range, ...]
    reason: Hash

    def subjects(self) -> Iterable[int]:
        """`people`."""
        return numbers(self.people)


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


def ranges(people: Iterable[int]) -> tuple[Range, ...]:
    """Write a set of principal numbers as ranges."""
    parts: list[list[int]] = []
    for number in sorted(set(people)):
        if not parts or number - parts[-1][-1] > _RANGE_GAP:
            parts.append([])
        parts[-1].append(number)
    return tuple(Range(first=part[0], bitmap=_bitmap(part)) for part in parts)


def numbers(people: Iterable[Range]) -> Iterator[int]:
    """Give the principal numbers that ranges stand for, in their order."""
    for part in people:
        for offset, byte in enumerate(part.bitmap):
            for bit in range(8):
                if byte >> bit & 1:
                    yield part.first + 8 * offset + bit


def includes(people: Iterable[Range], number: int) -> bool:
    """Whether a principal number is among those that ranges stand for."""
    for part in people:
        byte, bit = divmod(number - part.first, 8)
        if 0 <= byte < len(part.bitmap) and part.bitmap[byte] >> bit & 1:
            return True
    return False


def _bitmap(part: list[int]) -> bytes:
    first, last = part[0], part[-1]
    bitmap = bytearray((last - first) // 8 + 1)
    for number in part:
        bitmap[(number - first) >> 3] |= 1 << ((number - first) & 7)
    return bytes(bitmap)


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

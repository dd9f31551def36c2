"""What may be signed: the closed set of records, and the entries that carry them.

An entry is an Ed25519 signature (64 bytes) followed by the canonical bytes of a record, 65,535 bytes at most.
Each schema declares its subjects: the principals, beside its author, whose history it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Literal, TypeAlias, get_args

from liberate.crypto.canonical_json import Bytes32, Hash, Natural, Positive, Token
from liberate.identifiers import Account, Digest, NoisePlacement
from liberate.ledger.format.number_sets import Range, numbers_in
from liberate.ledger.format.parts import (
    Approval,
    Custody,
    EnrollableRole,
    EnrolmentPolicy,
    KeyName,
    MechanismSpec,
    NewKey,
    RecordBase,
    Terms,
    Witnesses,
)
from liberate.ledger.format.sharing_records import (
    Consent,
    Disclosure,
    Erasure,
    PoolRecord,
    Receipt,
    Share,
    UsedCopy,
    Withdrawal,
)

SetPhase: TypeAlias = Literal["advertised", "graph", "shared", "survivors"]

ZERO = Digest(bytes(32))
"""Written where there is no digest yet."""


class Genesis(RecordBase, frozen=True, tag="genesis"):
    """Entry 0: who may admit whom, the log's key, and the limits of privacy. Signed by the founder, principal 0.

    The registrars are principals 0, 1, ..., n - 1; the log is principal n.

    Attributes:
        registrars: Public keys, the founder's first.
        enrolment_policy: Who admits a role; a role that is missing can be admitted by nobody.
        log_vkey: C2SP verifier key that signs blocks and checkpoints, named as the origin.
        simulated: Whether keys, noise and time come from a seed.
        unit: Whose data a privacy statement protects.
        relation: Neighbouring relation: the person's data are replaced by nothing, participation is public.
        epsilon_nano_limit: What a person may spend from the ε account, in 1e-9, or None without a limit.
        rho_nano_limit: The same for the ρ (zCDP) account.
        terms: What promises rest on, until a `terms` entry changes it.
        witnesses: Witness policy.
    """

    registrars: tuple[Bytes32, ...]
    enrolment_policy: dict[EnrollableRole, EnrolmentPolicy]
    log_vkey: str
    simulated: bool
    unit: Literal["user"]
    relation: Literal["zero-out"]
    epsilon_nano_limit: Natural | None
    rho_nano_limit: Natural | None
    terms: Terms
    witnesses: Witnesses

    @property
    def has_limit(self) -> bool:
        """Whether it limits what a person may spend: then every answer has a price, and a person one account."""
        return (self.epsilon_nano_limit, self.rho_nano_limit) != (None, None)

    def subjects(self) -> Iterable[int]:
        """The registrars and the log."""
        return range(len(self.registrars) + 1)


class TermsRecord(RecordBase, frozen=True, tag="terms"):
    """A coordinator changes what promises rest on; each device accepts it, or takes part in no round after it.

    Attributes:
        terms: The new terms, in force from here on.
    """

    terms: Terms


class Enrol(RecordBase, frozen=True, tag="enrol"):
    """A new principal. Signed by a registrar of its role, and by as many others as the role's policy wants.

    Attributes:
        number: The next principal number.
        key: The new principal's public key; a participant decides with it.
        device_key: What a participant's device signs with; None for other roles, which have one key.
        custody: Whether a participant holds these keys, or a host in the participant's name; `own` for other roles.
        role: What it may sign.
        approvals: Of the other registrars, increasing.
    """

    number: Natural
    key: Bytes32
    device_key: Bytes32 | None
    custody: Custody
    role: EnrollableRole
    approvals: tuple[Approval, ...]

    def subjects(self) -> Iterable[int]:
        """`number`."""
        return (self.number,)


class KeyRecord(RecordBase, frozen=True, tag="key"):
    """A principal's key is replaced or revoked. Signed by its owner, or by registrars of its role.

    An owner signs with the person's key, whichever key changes: a device's key changes none.
    A new key named by its owner is a rotation, by registrars a recovery.
    Number, role, accounts, sequence and history stay with the principal. A principal whose key is revoked can author
    nothing and takes part in nothing, until registrars name another key for it. While a device's key alone is revoked,
    its person cannot answer rounds, and decides everything else as before.

    Attributes:
        number: Whose key.
        which: Which key.
        key: What replaces it, a key that nobody has had before; None: it is revoked.
        approvals: Of the other registrars, increasing; empty in the owner's own record.
    """

    number: Natural
    which: KeyName
    key: NewKey | None
    approvals: tuple[Approval, ...]

    def subjects(self) -> Iterable[int]:
        """`number`."""
        return (self.number,)


class DatasetRecord(RecordBase, frozen=True, tag="dataset"):
    """A participant's device commits to the ratings that it holds; again whenever ratings are added.

    Attributes:
        commitment: Salted commitment to the ratings.
    """

    commitment: Hash


class Round(RecordBase, frozen=True, tag="round"):
    """A coordinator opens a round.

    Attributes:
        number: The last round's plus 1; the first is 1.
        run: The last round's run, or the next one.
        rounds: How many rounds the run has, fixed before the first; None: until convergence.
        base_version: Version of the model that devices start from; versions go on counting over runs.
        base_digest: Digest of that model; the first round of a run may start from any.
        terms: Leaf hash of the entry whose terms are in force: the latest `terms`, or else the genesis.
        cohort: Who may answer; empty: every participant enrolled by now.
        statistic: What a device computes.
        shape: Items, numbers per item, and numbers that belong to no item.
        mechanism: How an upload is protected.
        noise_placement: Whether each upload is noised, or (in simulations) noise is drawn once on their sum.
        fraction_bits: Uploads are integers in units of 2**-fraction_bits.
        account: Which account an answer spends from.
        spend_nano: What an answer spends, in 1e-9.
        minimum: How many people a model needs.
        deadline: Height of the last block that may hold an answer.
    """

    number: Positive
    run: Natural
    rounds: Positive | None
    base_version: Natural
    base_digest: Hash
    terms: Hash
    cohort: tuple[Range, ...]
    statistic: Token
    shape: tuple[Natural, Natural, Natural]
    mechanism: MechanismSpec
    noise_placement: NoisePlacement
    fraction_bits: Natural
    account: Account
    spend_nano: Natural
    minimum: Positive
    deadline: Positive

    @property
    def is_masked(self) -> bool:
        """Whether uploads are masked, so that the coordinator can read their sum only."""
        return self.mechanism.parameters.get("masked") == 1


class Update(RecordBase, frozen=True, tag="update"):
    """The answer of a participant's device to a round, or a host's for its people.

    Attributes:
        round: Number of the round.
        round_hash: Leaf hash of the round's entry.
        commitment: Salted commitment to the upload.
        profile: Salted commitment to the user profile.
        shares: The shares used as input, increasing by sender and hash.
        account: The round's account.
        spend_nano: The round's spend.
        participants: For whom a host answers; empty in the answer of a participant.
    """

    round: Positive
    round_hash: Hash
    commitment: Hash
    profile: Hash
    shares: tuple[UsedCopy, ...]
    account: Account
    spend_nano: Natural
    participants: tuple[Range, ...]

    def subjects(self) -> Iterable[int]:
        """`participants`, and the senders of `shares`."""
        return chain(numbers_in(self.participants), (copy.sender for copy in self.shares))

    def answers_for(self) -> tuple[int, ...]:
        """Return the participants whose answer this is: a host's people, or else the author."""
        return tuple(numbers_in(self.participants)) or (self.author,)


class RoundSet(RecordBase, frozen=True, tag="round_set"):
    """The coordinator of a masked round says who has taken one of its steps: the one set that everybody goes on with.

    A round has one set of each phase, in this order, each of them within the one before, the first within the cohort:
    `advertised` (who advertised keys and committed to a draw of neighbours), `graph` (who revealed that draw), `shared`
    (who shared the secrets behind its masks) and `survivors` (whose uploads are in the sum, for which alone masks are
    undone). A set too large for one record spans several, one after the other. Updates are accepted from those in
    `shared`, until the first record of `survivors`.

    Attributes:
        round: Number of the round.
        round_hash: Leaf hash of the round's entry.
        phase: Which set.
        part: Which record of the set this is, from 1.
        parts: How many records the set spans, the same in each.
        participants: Who; their numbers increase over all parts.
        root: The same in each part. `advertised`: RFC 6962 root over each person's number (8 bytes, big-endian) and
            signed keys, in the order of numbers; `graph`: over each number and revealed seed; zero bytes in the others.
    """

    round: Positive
    round_hash: Hash
    phase: SetPhase
    part: Positive
    parts: Positive
    participants: tuple[Range, ...]
    root: Hash


class ModelRecord(RecordBase, frozen=True, tag="model"):
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


class Aborted(RecordBase, frozen=True, tag="aborted"):
    """The round's coordinator closes it without a model; what was spent stays spent.

    Attributes:
        round: Number of the round.
        reason: Why, as a code.
    """

    round: Positive
    reason: Token


class Block(RecordBase, frozen=True, tag="block"):
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
    | TermsRecord
    | Enrol
    | KeyRecord
    | DatasetRecord
    | Consent
    | Withdrawal
    | Share
    | Receipt
    | Round
    | Update
    | PoolRecord
    | RoundSet
    | ModelRecord
    | Aborted
    | Erasure
    | Disclosure
    | Block
)

KINDS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Record))

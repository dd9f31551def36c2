"""A small ledger for tests: its people, their keys, and well-formed records that the rules accept.

Principal 0 is the founder, 1 the log, 2 the coordinator, 3 to 5 are participants, 6 is a host; where people share, 7 is
an auditor.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from liberate.crypto.merkle import root
from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import RefusedEntry
from liberate.identifiers import Account, Digest
from liberate.ledger.format.entries import decode_entry, new_key, sign
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import EnrollableRole, EnrolmentPolicy, KeyName, MechanismSpec, Terms, Witnesses
from liberate.ledger.format.records import (
    ZERO,
    Aborted,
    Block,
    DatasetRecord,
    Enrol,
    Genesis,
    KeyRecord,
    ModelRecord,
    Record,
    Round,
    RoundSet,
    SetPhase,
    TermsRecord,
    Update,
)
from liberate.ledger.format.sharing_records import (
    Consent,
    Disclosure,
    Erasure,
    ErasureReport,
    PoolRecord,
    Receipt,
    Share,
    UsedCopy,
    Withdrawal,
)
from liberate.ledger.interface import Ledger
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.round_state import OpenRound
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry
from liberate.randomness import SimulatedClock

ORIGIN = "example.org/test"
FOUNDER, LOG, COORDINATOR, HOST, AUDITOR = 0, 1, 2, 6, 7
PARTICIPANTS = (3, 4, 5)
ROLES: dict[int, EnrollableRole] = {
    COORDINATOR: "coordinator",
    3: "participant",
    4: "participant",
    5: "participant",
    HOST: "host",
}


def digest(name: object) -> Digest:
    """Some digest, always the same for a name."""
    return Digest(sha256(repr(name).encode()).digest())


def key(number: int) -> SigningKey:
    """The key of a principal."""
    return SigningKey.from_seed(digest(("key", number)))


def next_key(before: SigningKey) -> SigningKey:
    """The key that follows another one."""
    return SigningKey.from_seed(digest(("after", before.public)))


def device_key(number: int) -> SigningKey:
    """The first key of a participant's device."""
    return SigningKey.from_seed(digest(("device key", number)))


LOG_KEY = key(LOG)
LOG_VKEY = verifier_key(ORIGIN, LOG_KEY.public)


TERMS = Terms(
    max_participants=50_000,
    max_colluders=0,
    max_dropouts_permille=1000,
    max_late_dropouts_permille=1000,
    min_cohort=1,
    min_honest=2,
    max_attempts=64,
)
"""Terms that refuse next to nothing."""


def genesis(*, epsilon_nano_limit: int | None = 10, simulated: bool = True, auditors: bool = False) -> Genesis:
    """A genesis that lets the founder admit everybody; with auditors if wanted, who come where people share openly."""
    by_founder = EnrolmentPolicy(registrars=(FOUNDER,), threshold=1)
    roles: tuple[EnrollableRole, ...] = ("participant", "host", "coordinator", "witness")
    if auditors:
        roles = (*roles, "auditor")
    return Genesis(
        origin=ORIGIN,
        author=FOUNDER,
        seq=1,
        registrars=(key(FOUNDER).public,),
        enrolment_policy=dict.fromkeys(roles, by_founder),
        log_vkey=LOG_VKEY,
        simulated=simulated,
        unit="user",
        relation="zero-out",
        epsilon_nano_limit=None if auditors else epsilon_nano_limit,
        rho_nano_limit=None,
        terms=TERMS,
        witnesses=Witnesses(keys=(), threshold=0),
    )


def enrolment(author: int, seq: int, number: int, role: EnrollableRole) -> Enrol:
    """The enrolment of somebody with the keys of that number, which nobody has approved yet."""
    return Enrol(
        origin=ORIGIN,
        author=author,
        seq=seq,
        number=number,
        key=key(number).public,
        device_key=device_key(number).public if role == "participant" else None,
        custody="own",
        role=role,
        approvals=(),
    )


class Target(Protocol):
    """Where entries go: bare rules, or a log."""

    @property
    def state(self) -> State: ...

    def append(self, entries: Sequence[bytes]) -> Sequence[int | RefusedEntry]: ...


class BareRules:
    """The rules alone, without a log: no blocks, nothing stored."""

    def __init__(self) -> None:
        self._state = State()

    @property
    def state(self) -> State:
        return self._state

    def append(self, entries: Sequence[bytes]) -> list[int | RefusedEntry]:
        results: list[int | RefusedEntry] = []
        for data in entries:
            position = self._state.size
            try:
                apply_entry(self._state, decode_entry(data), position)
                results.append(position)
            except RefusedEntry as refused:
                results.append(refused)
        return results


class World:
    """Writes records that follow, and signs them with the keys of their authors."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def key(self, number: int, which: KeyName = "person") -> SigningKey:
        """A present key of a principal, which comes after its first one."""
        found = key(number) if which == "person" else device_key(number)
        for principal in self.state.principals[number : number + 1]:
            while found.public != principal.key_named(which):
                found = next_key(found)
        return found

    def signer(self, record: Record) -> SigningKey:
        """The key with which the author of a record signs it."""
        is_enrolled = record.author < len(self.state.principals)
        return self.key(record.author, self.state.key_name_of(record) if is_enrolled else "person")

    def sign(self, record: Record) -> bytes:
        """The entry of a record, signed as its author does."""
        return sign(record, self.signer(record))

    @property
    def state(self) -> State:
        return self.target.state

    @property
    def open_round(self) -> OpenRound:
        assert self.state.open_round is not None
        return self.state.open_round

    def seq(self, author: int) -> int:
        """The author's next sequence number."""
        return self.state.principals[author].sequence + 1 if author < len(self.state.principals) else 1

    def add(self, *records: Record) -> list[int]:
        """Append records in one batch; all must be accepted."""
        results = self.target.append([self.sign(record) for record in records])
        for result in results:
            if isinstance(result, RefusedEntry):
                raise result
        return [result for result in results if isinstance(result, int)]

    def populate(self) -> World:
        """Enrol everybody, and let the participants commit to their ratings."""
        first = self.seq(FOUNDER)
        self.add(*(self.enrol(n, role, seq=first + i) for i, (n, role) in enumerate(ROLES.items())))
        self.add(*(self.dataset(number) for number in PARTICIPANTS))
        return self

    def enrol(self, number: int, role: EnrollableRole, *, seq: int | None = None) -> Enrol:
        return enrolment(FOUNDER, seq or self.seq(FOUNDER), number, role)

    def terms(self, **changes: int) -> TermsRecord:
        """New terms: those in force with other numbers."""
        new = msgspec.structs.replace(self.state.terms, **changes)
        return TermsRecord(origin=ORIGIN, author=COORDINATOR, seq=self.seq(COORDINATOR), terms=new)

    def new_key(
        self, number: int, *, by: int | None = None, seq: int | None = None, which: KeyName = "person"
    ) -> KeyRecord:
        """A rotation, or a recovery by somebody else."""
        author = number if by is None else by
        seq = seq or self.seq(author)
        following = new_key(next_key(self.key(number, which)), ORIGIN, number, which)
        return KeyRecord(origin=ORIGIN, author=author, seq=seq, number=number, which=which, key=following, approvals=())

    def revocation(self, number: int, *, by: int | None = None, which: KeyName = "person") -> KeyRecord:
        author = number if by is None else by
        seq = self.seq(author)
        return KeyRecord(origin=ORIGIN, author=author, seq=seq, number=number, which=which, key=None, approvals=())

    def dataset(self, author: int) -> DatasetRecord:
        return DatasetRecord(origin=ORIGIN, author=author, seq=self.seq(author), commitment=digest(("ratings", author)))

    def twin(self, author: int) -> DatasetRecord:
        """Another record with the author's last sequence: a dishonest one."""
        last = self.state.principals[author].sequence
        return DatasetRecord(origin=ORIGIN, author=author, seq=last, commitment=digest("other ratings"))

    def round(
        self, *, run: int | None = None, spend: int = 2, masked: bool = False, account: Account | None = None
    ) -> Round:
        """The next round; open if it spends nothing."""
        state = self.state
        plain = MechanismSpec(name="laplace", parameters={"clip_units": 9, "scale_units": 4})
        if spend == 0:
            plain = MechanismSpec(name="plain", parameters={})
        hidden = MechanismSpec(name="distributed_gaussian", parameters={"clip_units": 9, "masked": 1, "share_units": 4})
        return Round(
            origin=ORIGIN,
            author=COORDINATOR,
            seq=self.seq(COORDINATOR),
            number=state.round_number + 1,
            run=run or (state.run.number if state.run else 1),
            rounds=3,
            base_version=state.model.version if state.model else 0,
            base_digest=state.model.digest if state.model else digest("initial model"),
            terms=state.terms_hash,
            cohort=to_ranges(PARTICIPANTS) if masked else (),
            statistic="gradient",
            shape=(7, 3, 1),
            mechanism=hidden if masked else plain,
            noise_placement="per_upload",
            fraction_bits=16,
            account="none" if spend == 0 else account or ("rho" if masked else "epsilon"),
            spend_nano=spend,
            minimum=1,
            deadline=state.height + 20,
        )

    def consent(
        self, author: int, *recipients: int, max_shares: int = 9, epsilon_nano: int | None = None, expiry: int = 0
    ) -> Consent:
        """A consent that lasts, open without an ε."""
        return Consent(
            origin=ORIGIN,
            author=author,
            seq=self.seq(author),
            recipients=to_ranges(recipients),
            expiry=expiry or self.state.height + 20,
            max_shares=max_shares,
            epsilon_nano=epsilon_nano,
            terms=digest(("terms", author)),
        )

    def consents(self, author: int) -> list[Digest]:
        """The consents of somebody that live."""
        return list(self.state.sharing.consents.get(author, ()))

    def withdrawal(self, author: int, consent: Digest | None = None) -> Withdrawal:
        return Withdrawal(origin=ORIGIN, author=author, seq=self.seq(author), consent=consent)

    def share(self, author: int, recipient: int, *, base: object = "base", epsilon_nano: int | None = None) -> Share:
        """A share under the author's latest consent."""
        return Share(
            origin=ORIGIN,
            author=author,
            seq=self.seq(author),
            consent=self.consents(author)[-1] if self.consents(author) else digest("no consent"),
            recipient=recipient,
            base=digest((base, author)),
            epsilon_nano=epsilon_nano,
            copy=digest(("copy", base, author, recipient)),
        )

    def shares(self, sender: int, recipient: int) -> list[Digest]:
        """The shares of somebody for somebody that live."""
        found = self.state.sharing.shares.items()
        return [hash for hash, share in found if (share.sender, share.record.recipient) == (sender, recipient)]

    def receipt(self, author: int, sender: int, share: Digest | None = None) -> Receipt:
        """A receipt of the latest share."""
        hash = share or self.shares(sender, author)[-1]
        copy = self.state.sharing.shares[hash].record.copy
        return Receipt(origin=ORIGIN, author=author, seq=self.seq(author), sender=sender, share=hash, copy=copy)

    def hand_over(self, sender: int, recipient: int) -> Digest:
        """Let somebody share with somebody, receipt included; give the share."""
        self.add(self.consent(sender, recipient))
        self.add(self.share(sender, recipient))
        self.add(self.receipt(recipient, sender))
        return self.shares(sender, recipient)[-1]

    def pool(self, *participants: int) -> PoolRecord:
        current = self.open_round
        return PoolRecord(
            origin=ORIGIN,
            author=COORDINATOR,
            seq=self.seq(COORDINATOR),
            round=current.record.number,
            round_hash=current.hash,
            participants=to_ranges(participants),
        )

    def erasure(self, number: int) -> Erasure:
        """A request to be forgotten."""
        return Erasure(origin=ORIGIN, author=number, seq=self.seq(number), number=number, report=None)

    def erasure_report(
        self,
        number: int,
        *,
        notified: tuple[int, ...] = (),
        confirmed: tuple[int, ...] = (),
        models: tuple[int, ...] = (),
    ) -> Erasure:
        """The coordinator's word on what was done."""
        done = ErasureReport(
            destroyed=("salts", "sealed_ratings"),
            notified=to_ranges(notified),
            confirmed=to_ranges(confirmed),
            models=to_ranges(models),
        )
        seq = self.seq(COORDINATOR)
        return Erasure(origin=ORIGIN, author=COORDINATOR, seq=seq, number=number, report=done)

    def disclosure(self, *participants: int) -> Disclosure:
        seq = self.seq(AUDITOR)
        return Disclosure(
            origin=ORIGIN, author=AUDITOR, seq=seq, participants=to_ranges(participants), reason=digest("a leak")
        )

    def update(self, author: int, *inputs: tuple[int, Digest]) -> Update:
        """An answer, with the shares of senders as input."""
        current = self.open_round
        return Update(
            origin=ORIGIN,
            author=author,
            seq=self.seq(author),
            round=current.record.number,
            round_hash=current.hash,
            commitment=digest(("upload", author, current.hash)),
            profile=digest(("profile", author, current.hash)),
            shares=tuple(UsedCopy(sender=sender, share=share) for sender, share in sorted(inputs)),
            account=current.record.account,
            spend_nano=current.record.spend_nano,
            participants=to_ranges(PARTICIPANTS) if author == HOST else (),
        )

    def round_set(
        self, phase: SetPhase, *participants: int, part: int = 1, parts: int = 1, seq: int | None = None
    ) -> RoundSet:
        """A set of a masked round, or a part of one."""
        current = self.open_round
        return RoundSet(
            origin=ORIGIN,
            author=COORDINATOR,
            seq=seq or self.seq(COORDINATOR),
            round=current.record.number,
            round_hash=current.hash,
            phase=phase,
            part=part,
            parts=parts,
            participants=to_ranges(participants),
            root=digest((phase, current.hash)) if phase in ("advertised", "graph") else ZERO,
        )

    def survivors(self, *participants: int, part: int = 1, parts: int = 1, seq: int | None = None) -> RoundSet:
        return self.round_set("survivors", *participants, part=part, parts=parts, seq=seq)

    def exchange_keys(self, *participants: int) -> None:
        """Record who exchanges keys in a masked round, by default everybody."""
        phases: tuple[SetPhase, ...] = ("advertised", "graph", "shared")
        for phase in phases:
            self.add(self.round_set(phase, *(participants or PARTICIPANTS)))

    def model(self, *, unused: tuple[int, ...] = ()) -> ModelRecord:
        current = self.open_round
        used = [update.leaf_hash for position, update in current.updates.items() if position not in unused]
        return ModelRecord(
            origin=ORIGIN,
            author=COORDINATOR,
            seq=self.seq(COORDINATOR),
            round=current.record.number,
            version=current.record.base_version + 1,
            parent=current.record.base_digest,
            digest=digest(("model", current.hash)),
            updates_root=root(used),
            unused=unused,
            sum_digest=digest(("sum", current.hash)),
            solver="adam/1",
            parameters={"learning_rate_nano": 10_000_000},
        )

    def aborted(self) -> Aborted:
        return Aborted(
            origin=ORIGIN,
            author=COORDINATOR,
            seq=self.seq(COORDINATOR),
            round=self.open_round.record.number,
            reason="insufficient_cohort",
        )

    def block(self) -> Block:
        state = self.state
        return Block(
            origin=ORIGIN,
            author=LOG,
            seq=state.height + 1,
            parent=state.block_hash,
            count=max(1, state.size - state.block_size),
            state_root=state.root(),
            time_us=state.time_us + 1,
        )


def bare_world(target: BareRules | None = None, *, auditors: bool = False) -> World:
    """A populated world on the bare rules, with an auditor if wanted, its first block ended."""
    world = World(target or BareRules())
    world.add(genesis(auditors=auditors))
    world.populate()
    if auditors:
        world.add(world.enrol(AUDITOR, "auditor"))
    world.add(world.block())
    return world


def create(folder: Path, *, auditors: bool = False, simulated: bool = True) -> SqliteLedger:
    """A new ledger."""
    first = sign(genesis(auditors=auditors, simulated=simulated), key(FOUNDER))
    return SqliteLedger.create(folder, first, LOG_KEY, SimulatedClock())


def reopen(folder: Path) -> SqliteLedger:
    """An existing ledger, to append to."""
    return SqliteLedger.open(folder, LOG_KEY, SimulatedClock())


def write_masked_rounds(ledger: Ledger) -> None:
    """Add two masked rounds: one whose survivor set spans two records and leaves an answer out, and a host's."""
    world = World(ledger)
    world.add(world.round(run=3, masked=True, spend=1, account="epsilon"))
    world.exchange_keys()
    positions = world.add(*(world.update(number) for number in PARTICIPANTS))
    world.add(world.survivors(3, parts=2), world.survivors(5, part=2, parts=2, seq=world.seq(COORDINATOR) + 1))
    world.add(world.model(unused=(positions[1],)))
    world.add(world.round(masked=True, spend=1, account="epsilon"))
    world.exchange_keys()
    world.add(world.update(HOST))
    world.add(world.survivors(*PARTICIPANTS))
    world.add(world.model())


def write_sharing(ledger: Target) -> None:
    """Fill a ledger that admits auditors: people share with each other and the pool, withdraw and are forgotten.

    3 shares with 4, 5 and the pool, perturbed, and takes the consent back; 4 shares with the pool, openly, leaves, and
    is forgotten; 5 shares with 3, and takes back a second consent that it never used.
    """
    world = World(ledger).populate()
    world.add(world.enrol(AUDITOR, "auditor"))
    world.add(world.consent(3, COORDINATOR, 4, 5, max_shares=3, epsilon_nano=2_000_000_000))
    for recipient in (4, 5, COORDINATOR):
        world.add(world.share(3, recipient, epsilon_nano=2_000_000_000))
        world.add(world.receipt(recipient, 3))
    world.hand_over(4, COORDINATOR)
    from_five = world.hand_over(5, 3)
    world.add(world.consent(5, 4))
    from_three = world.shares(3, 4)[0], world.shares(3, 5)[0]
    world.add(world.round(spend=0))
    world.add(world.pool(3, 4))
    world.add(world.update(3, (5, from_five)), world.update(4, (3, from_three[0])), world.update(5, (3, from_three[1])))
    world.add(world.model())
    world.add(world.withdrawal(3, world.consents(3)[0]), world.withdrawal(5, world.consents(5)[1]))
    world.add(world.round(spend=0))
    world.add(world.pool(4))
    world.add(world.update(4))
    world.add(world.withdrawal(4))
    world.add(msgspec.structs.replace(world.update(HOST, (5, from_five)), participants=to_ranges((3, 5))))
    world.add(world.model())
    world.add(world.erasure(4))
    world.add(world.erasure_report(4, notified=(3, COORDINATOR), confirmed=(COORDINATOR,), models=(1, 2)))
    world.add(world.disclosure(3, 4))


def write_history(ledger: Ledger) -> None:
    """Fill a ledger with one of everything.

    Two runs, a model that leaves an update out, a host, an aborted round, new terms, keys rotated, revoked and
    recovered.
    """
    world = World(ledger).populate()
    world.add(world.round())
    positions = world.add(*(world.update(number) for number in PARTICIPANTS))
    world.add(world.model(unused=(positions[1],)))
    world.add(world.round())
    world.add(world.update(HOST))
    world.add(world.model())
    world.add(world.round(run=2))
    world.add(world.update(4))
    world.add(world.aborted())
    world.add(world.terms(max_participants=60_000, max_colluders=1))
    world.add(world.round())
    world.add(world.new_key(5))
    world.add(world.new_key(5), world.revocation(HOST), world.new_key(4, which="device"))
    world.add(world.new_key(HOST, by=FOUNDER))
    world.add(*(world.update(number) for number in PARTICIPANTS[:2]))
    world.add(world.model())
    ledger.append([world.sign(world.twin(4))])

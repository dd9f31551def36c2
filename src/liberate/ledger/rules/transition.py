"""The rules: what an entry must satisfy to follow from all entries before it, and what it changes.

`apply_entry` is deterministic and looks at state and entry only, so the log, an auditor and every replica agree.
It checks everything first and changes the state last: a refused entry leaves no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import assert_never, get_args

from liberate.crypto.merkle import root
from liberate.crypto.note import SignatureType, VerifierKey, parse_verifier_key
from liberate.crypto.signing import SignatureClaim, check_public_key, verify_batch, verify_signature
from liberate.errors import InvalidRecord
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, possession_bytes, signed_bytes
from liberate.ledger.format.parts import EnrollableRole, PrincipalRole
from liberate.ledger.format.records import (
    Aborted,
    Block,
    DatasetRecord,
    Enrol,
    Genesis,
    KeyRecord,
    ModelRecord,
    Record,
    Round,
    Survivors,
    Update,
)
from liberate.ledger.format.refusals import refused
from liberate.ledger.format.sharing_records import Consent, Disclosure, Erasure, PoolRecord, Receipt, Share, Withdrawal
from liberate.ledger.rules import sharing
from liberate.ledger.rules.participants import check_participants, checked_participants
from liberate.ledger.rules.state import ModelReference, OpenRound, Principal, RunState, State

LARGEST_SEQUENCE_STEP = 1_048_576
"""By how much a sequence number may exceed the last one: no thief of a key can use all numbers up."""

AUTHORS: dict[type[Record], frozenset[PrincipalRole]] = {
    Enrol: frozenset({"registrar"}),
    KeyRecord: frozenset({"registrar", *get_args(EnrollableRole)}),
    DatasetRecord: frozenset({"participant"}),
    Consent: frozenset({"participant"}),
    Withdrawal: frozenset({"participant"}),
    Share: frozenset({"participant"}),
    Receipt: frozenset({"participant", "coordinator"}),
    Round: frozenset({"coordinator"}),
    Update: frozenset({"participant", "host"}),
    PoolRecord: frozenset({"coordinator"}),
    Survivors: frozenset({"coordinator"}),
    ModelRecord: frozenset({"coordinator"}),
    Aborted: frozenset({"coordinator"}),
    Erasure: frozenset({"participant", "coordinator"}),
    Disclosure: frozenset({"auditor"}),
    Block: frozenset({"log"}),
}
"""Which roles may sign a kind; the genesis is signed by its first registrar."""


def apply_entry(state: State, entry: Entry, position: int, *, verified_by: bytes | None = None) -> None:
    """Let a state move on by one entry, in place.

    Args:
        state: The state after all entries before; unchanged when the entry is refused.
        entry: The entry.
        position: Its position, which must be `state.size`.
        verified_by: The public key of which the signature is known to be, or None when that is not known. It is
            verified here unless this is the author's key at this position.

    Raises:
        RefusedEntry: the entry does not follow; its reason says why.
    """
    if position != state.size:
        raise ValueError(f"the next position is {state.size}, not {position}")
    record = entry.record
    if state.genesis is None:
        _begin(state, entry)
    else:
        _check_author(state, entry, verified_by)
        match record:
            case Genesis():
                raise refused("second_genesis", "this ledger has its genesis already")
            case Enrol():
                _enrol(state, record)
            case KeyRecord():
                _change_key(state, record)
            case DatasetRecord():
                pass
            case Consent():
                sharing.grant(state, record, entry.leaf_hash)
            case Withdrawal():
                sharing.withdraw(state, record)
            case Share():
                sharing.hand_over(state, record, entry.leaf_hash)
            case Receipt():
                sharing.acknowledge(state, record)
            case Round():
                _open_round(state, record, entry.leaf_hash)
            case Update():
                _update(state, record, entry.leaf_hash)
            case PoolRecord():
                _use_pool(state, record)
            case Survivors():
                _name_survivors(state, record)
            case ModelRecord():
                _close_with_model(state, record)
            case Aborted():
                _closable_round(state, record)
                state.open_round = None
            case Erasure():
                sharing.erase(state, record)
            case Disclosure():
                sharing.check_disclosure(state, record)
            case Block():
                _end_block(state, record, entry.leaf_hash)
            case _:
                assert_never(record)
    state.advance(entry)


def verify_signatures(state: State, entries: Sequence[Entry]) -> dict[Digest, bytes]:
    """Verify what can be verified before any of the entries is applied, on two cores.

    Args:
        state: The state before them.
        entries: Entries to come, by authors known by now or not.

    Returns:
        For the leaf hash of each entry whose sequence may be new and whose signature is its author's present key's,
        this key. One of the entries may replace it: `apply_entry` wants to know which key it was.
    """
    principals = state.principals
    fresh = [
        entry
        for entry in entries
        if entry.record.author < len(principals) and entry.record.seq > principals[entry.record.author].sequence
    ]
    claims = [SignatureClaim(principals[e.record.author].key, signed_bytes(e.body), e.signature) for e in fresh]
    return {
        entry.leaf_hash: claim.public
        for entry, claim, is_valid in zip(fresh, claims, verify_batch(claims), strict=True)
        if is_valid
    }


def _check_author(state: State, entry: Entry, verified_by: bytes | None) -> None:
    record = entry.record
    if record.origin != state.origin:
        raise refused("wrong_origin", f"made for {record.origin!r}, this ledger is {state.origin!r}")
    if record.author >= len(state.principals):
        raise refused("unknown_author", f"principal {record.author} of {len(state.principals)}")
    author = state.principals[record.author]
    allowed = AUTHORS.get(type(record), frozenset({author.role}))
    if author.role not in allowed:
        raise refused("wrong_role", f"{record.kind} by a {author.role}, wanted {' or '.join(sorted(allowed))}")
    if author.is_revoked:
        raise refused("revoked_author", f"the key of principal {record.author} was revoked")
    if author.has_withdrawn and not isinstance(record, sharing.AFTER_WITHDRAWAL):
        raise refused("withdrawn", f"principal {record.author} has withdrawn from everything")
    last = state.last_sequence(record.author)
    if record.seq <= last:
        raise refused("stale_sequence", f"sequence {record.seq}, the author's last one is {last}")
    if record.seq > last + LARGEST_SEQUENCE_STEP:
        raise refused("sequence_too_far", f"sequence {record.seq}, at most {last + LARGEST_SEQUENCE_STEP} is wanted")
    if verified_by != author.key:
        _check_signature(entry, author.key)


def _check_signature(entry: Entry, key: bytes) -> None:
    try:
        verify_signature(key, signed_bytes(entry.body), entry.signature)
    except InvalidRecord as error:
        raise refused("bad_signature", error.message) from error


# --- genesis, enrolment and keys -------------------------------------------------------------------------------------


def _begin(state: State, entry: Entry) -> None:
    record = entry.record
    if not isinstance(record, Genesis):
        raise refused("no_genesis", f"a ledger begins with a genesis, not with {record.kind}")
    if record.author != 0 or record.seq != 1:
        raise refused("bad_genesis", "a genesis is signed by principal 0 with sequence 1")
    log = _parse_key(record.log_vkey)
    if log.name != record.origin:
        raise refused("bad_genesis", f"the log's key is named {log.name!r}, the origin is {record.origin!r}")
    keys = [*record.registrars, log.public]
    if len(keys) < 2 or len(set(keys)) < len(keys):
        raise refused("bad_genesis", "at least one registrar is wanted, and no key twice")
    for key in keys:
        _check_key(key)
    _check_policies(record)
    _check_signature(entry, keys[0])
    state.genesis = record
    for key in record.registrars:
        state.enrol(Principal(key=key, role="registrar"))
    state.enrol(Principal(key=log.public, role="log"))


def _check_policies(genesis: Genesis) -> None:
    for role, enrolment_policy in genesis.enrolment_policy.items():
        chosen = enrolment_policy.registrars
        if not chosen or any(number >= len(genesis.registrars) for number in chosen):
            raise refused("bad_genesis", f"{role} must be admitted by numbers below {len(genesis.registrars)}")
        if enrolment_policy.threshold != 1:
            raise refused("bad_genesis", f"{role} is admitted by one signature, not {enrolment_policy.threshold}")
    witnesses = genesis.witnesses
    publics = {_parse_key(key, SignatureType.COSIGNATURE_V1).public for key in witnesses.keys}
    if len(publics) < max(len(witnesses.keys), witnesses.threshold):
        raise refused("bad_genesis", "as many different witnesses as the threshold are wanted")


def _enrol(state: State, record: Enrol) -> None:
    _check_registrar(state, record.author, record.role)
    if record.number != len(state.principals):
        raise refused("wrong_number", f"number {record.number}, the next one is {len(state.principals)}")
    _check_new_key(state, record.key)
    state.enrol(Principal(key=record.key, role=record.role))


def _change_key(state: State, record: KeyRecord) -> None:
    """Rotate, revoke or recover: the owner may do what needs the present key, an registrar the rest."""
    if record.number >= len(state.principals):
        raise refused("unknown_principal", f"principal {record.number} of {len(state.principals)}")
    owner = state.principals[record.number]
    if record.author != record.number:
        _check_registrar(state, record.author, owner.role)
    if record.key is None:
        if owner.is_revoked:
            raise refused("already_revoked", f"the key of principal {record.number} was revoked before")
        owner.revoke()
        return
    _check_new_key(state, record.key.public)
    try:
        verify_signature(record.key.public, possession_bytes(record.origin, record.number), record.key.possession)
    except InvalidRecord as error:
        raise refused("not_possessed", error.message) from error
    state.replace_key(record.number, record.key.public)


def _check_registrar(state: State, author: int, role: PrincipalRole) -> None:
    match role:
        case "registrar" | "log":
            enrolment_policy = None
        case _:
            enrolment_policy = state.founding.enrolment_policy.get(role)
    if enrolment_policy is None or author not in enrolment_policy.registrars:
        raise refused("not_registrar", f"principal {author} may not admit a {role}")


def _check_new_key(state: State, key: bytes) -> None:
    _check_key(key)
    holder = state.number_of(key)
    if holder is not None:
        raise refused("key_used", f"the key is or was principal {holder}'s")


def _check_key(key: bytes) -> None:
    try:
        check_public_key(key)
    except InvalidRecord as error:
        raise refused("bad_key", error.message) from error


def _parse_key(vkey: str, type: SignatureType = SignatureType.ED25519) -> VerifierKey:
    try:
        return parse_verifier_key(vkey, type)
    except InvalidRecord as error:
        raise refused("bad_key", error.message) from error


# --- a round and its answers -----------------------------------------------------------------------------------------


def _open_round(state: State, record: Round, hash: Digest) -> None:
    if state.open_round is not None:
        raise refused("round_open", f"round {state.round_number} has not been closed")
    if record.number != state.round_number + 1:
        raise refused("wrong_number", f"round {record.number}, the next one is {state.round_number + 1}")
    run = _next_run(state, record)
    base = _base(state, record)
    if (record.account == "none") != (record.spend_nano == 0):
        raise refused("wrong_spend", f"{record.spend_nano} from account {record.account!r}")
    if record.noise_placement == "on_sum" and not state.founding.simulated:
        raise refused("not_simulated", "noise is drawn once on a sum in simulations only")
    if record.mechanism.parameters.get("masked") == 0 and not state.founding.simulated:
        raise refused("not_simulated", "masks are left out in simulations only")
    if record.deadline <= state.height:
        raise refused("too_late", f"deadline {record.deadline}, the next block is {state.height + 1}")
    check_participants(state, checked_participants(record.cohort, "wrong_cohort"), "wrong_cohort")
    state.round_number = record.number
    state.run = run
    state.model = base
    state.open_round = OpenRound(record, hash, state.size, len(state.principals))


def _next_run(state: State, record: Round) -> RunState:
    last = state.run
    if last is None or record.run == last.number + 1:
        if last is None and record.run > 1:
            raise refused("wrong_run", f"run {record.run}, the first one is 0 or 1")
        return RunState(record.run, record.rounds, opened=1)
    if record.run != last.number or record.rounds != last.rounds:
        found, wanted = f"run {record.run} of {record.rounds} rounds", f"run {last.number} of {last.rounds}"
        raise refused("wrong_run", f"{found}, wanted {wanted}, or the next run")
    if last.rounds is not None and last.opened == last.rounds:
        raise refused("run_complete", f"run {last.number} announced {last.rounds} rounds and had them")
    return RunState(last.number, last.rounds, last.opened + 1)


def _base(state: State, record: Round) -> ModelReference:
    base = ModelReference(record.base_version, record.base_digest)
    reached = state.model or ModelReference(0, record.base_digest)
    is_new_run = state.run is None or record.run != state.run.number
    if base.version != reached.version or not (is_new_run or base.digest == reached.digest):
        raise refused("wrong_base_model", f"the round starts from {base}, wanted {reached}")
    return base


def _update(state: State, record: Update, hash: Digest) -> None:
    current = state.open_round
    if current is None or record.round != current.record.number:
        raise refused("closed_round", f"round {record.round} is not open")
    if record.round_hash != current.hash:
        raise refused("wrong_round", f"round {record.round} has another entry")
    if current.named_parts:
        raise refused("survivors_named", f"whose updates round {record.round} uses is settled")
    if state.height >= current.record.deadline:
        raise refused("too_late", f"block {state.height + 1} is after the deadline, {current.record.deadline}")
    if record.account != current.record.account or record.spend_nano != current.record.spend_nano:
        wanted = f"{current.record.spend_nano} from {current.record.account!r}"
        raise refused("wrong_spend", f"{record.spend_nano} from {record.account!r}, wanted {wanted}")
    is_host = state.principals[record.author].role == "host"
    if is_host != bool(record.participants):
        raise refused("wrong_participants", "a host names its people, a participant answers for nobody else")
    participants = checked_participants(record.participants, "wrong_participants") if is_host else (record.author,)
    check_participants(state, participants, "not_in_cohort")
    _check_answers(state, current, participants)
    sharing.check_inputs(state, record.shares, participants)
    for number in participants:
        state.principals[number].spend(record.account, record.spend_nano)
    current.accept(participants, hash, state.size)


def _check_answers(state: State, current: OpenRound, participants: Iterable[int]) -> None:
    account, spend = current.record.account, current.record.spend_nano
    limit = state.limit(account)
    for number in participants:
        if not current.admits(number):
            raise refused("not_in_cohort", f"principal {number} does not belong to round {current.record.number}")
        if number in current.answered:
            raise refused("second_update", f"principal {number} has answered round {current.record.number}")
        spent = state.principals[number].spent(account)
        if spent + spend > limit:
            raise refused("over_budget", f"principal {number} spent {spent} of {limit}, {spend} more are too many")


def _use_pool(state: State, record: PoolRecord) -> None:
    current = _closable_round(state, record)
    if record.round_hash != current.hash:
        raise refused("wrong_round", f"round {record.round} has another entry")
    participants = checked_participants(record.participants, "wrong_participants")
    if not participants:
        raise refused("wrong_participants", "a pool is of people")
    for number in participants:
        if number in current.pool:
            raise refused("second_pool", f"the shares of principal {number} are named already")
    sharing.check_pool(state, participants, record.author)
    current.pool.update(participants)


def _name_survivors(state: State, record: Survivors) -> None:
    current = _closable_round(state, record)
    if record.round_hash != current.hash:
        raise refused("wrong_round", f"round {record.round} has another entry")
    if not current.record.is_masked:
        raise refused("not_masked", f"round {record.round} has no masks to undo")
    if current.has_survivors:
        raise refused("second_survivors", f"round {record.round} has its survivor set")
    expected = (current.named_parts + 1, current.all_parts or record.parts)
    if (record.part, record.parts) != expected or record.part > record.parts:
        raise refused("wrong_part", f"part {record.part} of {record.parts}, wanted part {expected[0]} of {expected[1]}")
    participants = checked_participants(record.participants, "wrong_participants")
    if not participants or participants[0] <= max(current.survivors, default=-1):
        raise refused("wrong_participants", "a part names people, with larger numbers than the part before")
    for number in participants:
        if number not in current.answered:
            raise refused("no_answer", f"principal {number} has no update in round {record.round}")
    if record.part == record.parts:
        _check_survivors(current, current.survivors.union(participants))
    current.name_survivors(participants, record.parts)


def _check_survivors(current: OpenRound, survivors: set[int]) -> None:
    """Check a whole survivor set: enough people, and all or none of those for whom a host's update answers."""
    if len(survivors) < current.record.minimum:
        raise refused("too_few_updates", f"{len(survivors)} people, at least {current.record.minimum} are wanted")
    by_update = Counter(current.answered[number] for number in survivors)
    for position, count in by_update.items():
        if count != current.updates[position].participants:
            raise refused("wrong_updates", f"the update at {position} answers for others too")


# --- the end of a round, the end of a block --------------------------------------------------------------------------


def _closable_round(state: State, record: PoolRecord | Survivors | ModelRecord | Aborted) -> OpenRound:
    current = state.open_round
    if current is None or record.round != current.record.number:
        raise refused("closed_round", f"round {record.round} is not open")
    if record.author != current.record.author:
        raise refused("other_coordinator", f"round {record.round} was opened by principal {current.record.author}")
    return current


def _close_with_model(state: State, record: ModelRecord) -> None:
    current = _closable_round(state, record)
    base = ModelReference(current.record.base_version, current.record.base_digest)
    if record.parent != base.digest:
        raise refused("wrong_parent", f"parent {record.parent.hex()}, the round's base is {base.digest.hex()}")
    if record.version != base.version + 1:
        raise refused("wrong_version", f"version {record.version}, wanted {base.version + 1}")
    unused = set(record.unused)
    if list(record.unused) != sorted(unused) or not unused <= current.updates.keys():
        raise refused("wrong_updates", "unused positions must be increasing, and updates of the round")
    if current.record.is_masked:
        if not current.has_survivors:
            raise refused("no_survivors", f"round {record.round} is masked, and its survivors are not named")
        if unused != current.updates.keys() - current.surviving_updates():
            raise refused("wrong_updates", "the unused updates of a masked round are those of no survivor")
    used = [update for position, update in current.updates.items() if position not in unused]
    participants = sum(update.participants for update in used) + current.pooled()
    if participants < current.record.minimum:
        raise refused("too_few_updates", f"{participants} people, at least {current.record.minimum} are wanted")
    if record.updates_root != root([update.leaf_hash for update in used]):
        raise refused("wrong_updates", "the root is not that of the round's updates without the unused ones")
    state.model = ModelReference(record.version, record.digest)
    state.open_round = None


def _end_block(state: State, record: Block, hash: Digest) -> None:
    if record.seq != state.height + 1:
        raise refused("wrong_height", f"height {record.seq}, the next one is {state.height + 1}")
    if record.parent != state.block_hash:
        raise refused("wrong_parent", "the parent is not the block entry before")
    if record.count != state.size - state.block_size:
        raise refused("wrong_count", f"count {record.count}, the batch has {state.size - state.block_size} entries")
    if record.time_us < state.time_us:
        raise refused("wrong_time", f"time {record.time_us} is before the last block's, {state.time_us}")
    if record.state_root != state.root():
        raise refused("wrong_state", "the state root does not follow from the entries")
    state.height = record.seq
    state.block_hash = hash
    state.block_size = state.size + 1
    state.time_us = record.time_us

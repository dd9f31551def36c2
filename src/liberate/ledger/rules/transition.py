"""The rules: what an entry must satisfy to follow from all entries before it, and what it changes.

`apply_entry` is deterministic and looks at state and entry only, so the log, an auditor and every replica agree.
It checks everything first and changes the state last: a refused entry leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never, get_args

from liberate.crypto.signing import SignatureClaim, verify_batch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, signed_bytes
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
    RoundSet,
    TermsRecord,
    Update,
)
from liberate.ledger.format.refusals import refuse_if, refused
from liberate.ledger.format.sharing_records import Consent, Disclosure, Erasure, PoolRecord, Receipt, Share, Withdrawal
from liberate.ledger.rules import enrolment, rounds, sharing
from liberate.ledger.rules.state import State

LARGEST_SEQUENCE_STEP = 1_048_576
"""By how much a sequence number may exceed the last one: no thief of a key can use all numbers up."""

AUTHORS: dict[type[Record], frozenset[PrincipalRole]] = {
    TermsRecord: frozenset({"coordinator"}),
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
    RoundSet: frozenset({"coordinator"}),
    ModelRecord: frozenset({"coordinator"}),
    Aborted: frozenset({"coordinator"}),
    Erasure: frozenset({"participant", "coordinator"}),
    Disclosure: frozenset({"auditor"}),
    Block: frozenset({"log"}),
}
"""Which roles may sign a kind; the genesis is signed by its first registrar."""


def apply_entry(state: State, entry: Entry, position: int, *, verified_by: bytes | None = None) -> None:
    """Advance a state by one entry, in place.

    Args:
        state: The state after all entries before; unchanged when the entry is refused.
        entry: The entry.
        position: Its position, which must be `state.size`.
        verified_by: The public key that is known to have made the signature, or None if none is. The signature is
            verified here unless this is the author's key at this position.

    Raises:
        RefusedEntry: The entry does not follow; its reason says why.
    """
    if position != state.size:
        raise ValueError(f"the next position is {state.size}, not {position}")

    if state.genesis is None:
        enrolment.begin(state, entry)
    else:
        _check_author(state, entry, verified_by)
        _apply_record(state, entry.record, entry.leaf_hash)
    state.advance(entry)


def verify_signatures(state: State, entries: Sequence[Entry]) -> dict[Digest, bytes]:
    """Verify what can be verified before any of the entries is applied, on two cores.

    Args:
        state: The state before them.
        entries: Entries to come, by authors known by now or not.

    Returns:
        By leaf hash of each entry whose sequence may be new and whose signature was made with its author's present
        key: this key. One of the entries may replace it, so `apply_entry` must be told which key it was.
    """
    principals = state.principals
    fresh = [
        entry
        for entry in entries
        if entry.record.author < len(principals) and entry.record.seq > principals[entry.record.author].sequence
    ]
    claims = [
        SignatureClaim(
            principals[e.record.author].key_named(state.key_name_of(e.record)), signed_bytes(e.body), e.signature
        )
        for e in fresh
    ]
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
    which = state.key_name_of(record)
    if author.is_revoked:
        raise refused("revoked_author", f"the key of principal {record.author} was revoked")
    if author.is_key_revoked(which):
        raise refused("revoked_device", f"the key of the device of principal {record.author} was revoked")
    if author.has_withdrawn and not isinstance(record, sharing.AFTER_WITHDRAWAL):
        raise refused("withdrawn", f"principal {record.author} has withdrawn from everything")

    last = state.last_sequence(record.author)
    if record.seq <= last:
        raise refused("stale_sequence", f"sequence {record.seq}, the author's last one is {last}")
    if record.seq > last + LARGEST_SEQUENCE_STEP:
        raise refused("sequence_too_far", f"sequence {record.seq}, at most {last + LARGEST_SEQUENCE_STEP} is wanted")

    # Last, because it is the costly check.
    key = author.key_named(which)
    if verified_by != key:
        enrolment.check_signature(entry, key)


def _apply_record(state: State, record: Record, hash: Digest) -> None:
    match record:
        case Genesis():
            raise refused("second_genesis", "this ledger has its genesis already")
        case TermsRecord():
            rounds.change_terms(state, record, hash)
        case Enrol():
            enrolment.enrol(state, record)
        case KeyRecord():
            enrolment.change_key(state, record)
        case DatasetRecord():
            pass
        case Consent():
            sharing.grant(state, record, hash)
        case Withdrawal():
            sharing.withdraw(state, record)
        case Share():
            sharing.hand_over(state, record, hash)
        case Receipt():
            sharing.acknowledge(state, record)
        case Round():
            rounds.open_round(state, record, hash)
        case Update():
            rounds.accept_update(state, record, hash)
        case PoolRecord():
            rounds.use_pool(state, record)
        case RoundSet():
            rounds.record_set(state, record)
        case ModelRecord():
            rounds.close_with_model(state, record)
        case Aborted():
            rounds.abort(state, record)
        case Erasure():
            sharing.erase(state, record)
        case Disclosure():
            sharing.check_disclosure(state, record)
        case Block():
            _end_block(state, record, hash)
        case _:
            assert_never(record)


def _end_block(state: State, record: Block, hash: Digest) -> None:
    next_height, count = state.height + 1, state.size - state.block_size
    refuse_if(record.seq != next_height, "wrong_height", f"height {record.seq}, the next one is {next_height}")
    refuse_if(record.parent != state.block_hash, "wrong_parent", "the parent is not the block entry before")
    refuse_if(record.count != count, "wrong_count", f"count {record.count}, the batch has {count} entries")
    is_early = record.time_us < state.time_us
    refuse_if(is_early, "wrong_time", f"time {record.time_us} is before the last block's, {state.time_us}")
    refuse_if(record.state_root != state.root(), "wrong_state", "the state root does not follow from the entries")

    state.height = record.seq
    state.block_hash = hash
    state.block_size = state.size + 1
    state.time_us = record.time_us

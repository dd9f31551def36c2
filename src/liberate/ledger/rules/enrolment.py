"""The rules of genesis, enrolment and keys: who may be a principal, and with which key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import pairwise

from liberate.crypto.note import SignatureType, VerifierKey, parse_verifier_key
from liberate.crypto.signing import check_public_key, verify_signature
from liberate.errors import InvalidRecord
from liberate.ledger.format.entries import (
    Entry,
    enrolment_statement,
    key_statement,
    possession_bytes,
    signed_bytes,
)
from liberate.ledger.format.parts import EnrolmentPolicy, PrincipalRole
from liberate.ledger.format.records import Enrol, Genesis, KeyRecord
from liberate.ledger.format.refusals import refuse_if, refused
from liberate.ledger.rules.principal import Principal, enrolled_principal
from liberate.ledger.rules.state import State


def begin(state: State, entry: Entry) -> None:
    """Begin a ledger: its first entry names the registrars and the log."""
    record = entry.record
    if not isinstance(record, Genesis):
        raise refused("no_genesis", f"a ledger begins with a genesis, not with {record.kind}")
    is_founder = record.author == 0 and record.seq == 1
    refuse_if(not is_founder, "bad_genesis", "a genesis is signed by principal 0 with sequence 1")

    log = _parse_key(record.log_vkey)
    wrong_name = f"the log's key is named {log.name!r}, the origin is {record.origin!r}"
    refuse_if(log.name != record.origin, "bad_genesis", wrong_name)

    keys = [*record.registrars, log.public]
    is_usable = len(set(keys)) == len(keys) >= 2
    refuse_if(not is_usable, "bad_genesis", "at least one registrar is wanted, and no key twice")
    for key in keys:
        _check_key(key)
    _check_policies(record)
    fault = record.terms.fault()
    refuse_if(bool(fault), "bad_genesis", fault)

    is_shared = not _witness_keys(record.witnesses.keys).isdisjoint(keys)
    refuse_if(is_shared, "bad_genesis", "a witness has the key of a registrar or of the log")
    check_signature(entry, keys[0])

    state.genesis = record
    state.change_terms(record.terms, entry.leaf_hash)
    for key in record.registrars:
        state.enrol(Principal(key=key, role="registrar"))
    state.enrol(Principal(key=log.public, role="log"))


def enrol(state: State, record: Enrol) -> None:
    """Add the next principal, by registrars of its role."""
    policy = _policy_of(state, record.author, record.role)
    count = len(state.principals)
    refuse_if(record.number != count, "wrong_number", f"number {record.number}, the next one is {count}")
    most = state.terms.max_participants
    is_full = record.role == "participant" and state.participant_count >= most
    refuse_if(is_full, "enrolment_full", f"{most} participants are enrolled, as many as the terms allow")
    is_participant, has_device = record.role == "participant", record.device_key is not None
    is_wrong = has_device != is_participant or record.device_key == record.key
    refuse_if(is_wrong, "wrong_device_key", "a participant has two different keys, every other role has one")
    is_held = record.custody == "host" and not is_participant
    refuse_if(is_held, "wrong_custody", f"a {record.role} holds its key itself")

    for key in (record.key, record.device_key):
        if key is not None:
            _check_new_key(state, key)
    _check_approvals(state, record, policy, partial(enrolment_statement, record))
    state.enrol(enrolled_principal(record))


def change_key(state: State, record: KeyRecord) -> None:
    """Rotate, revoke or recover: the owner may do what needs the person's present key, registrars the rest."""
    count = len(state.principals)
    refuse_if(record.number >= count, "unknown_principal", f"principal {record.number} of {count}")
    owner = state.principals[record.number]
    has_none = record.which == "device" and owner.role != "participant"
    refuse_if(has_none, "wrong_device_key", f"principal {record.number}, a {owner.role}, has one key")
    _check_authority(state, record, owner)

    if record.key is None:
        is_revoked = owner.is_key_revoked(record.which)
        refuse_if(is_revoked, "already_revoked", f"the key of principal {record.number} was revoked before")
        owner.revoke_key(record.which)
        return

    _check_new_key(state, record.key.public)
    possession = possession_bytes(record.origin, record.number, record.which)
    try:
        verify_signature(record.key.public, possession, record.key.possession)
    except InvalidRecord as error:
        raise refused("not_possessed", error.message) from error
    state.replace_key(record.number, record.which, record.key.public)


def check_signature(entry: Entry, key: bytes) -> None:
    """Refuse an entry that was not signed with a key."""
    try:
        verify_signature(key, signed_bytes(entry.body), entry.signature)
    except InvalidRecord as error:
        raise refused("bad_signature", error.message) from error


def _check_policies(genesis: Genesis) -> None:
    count = len(genesis.registrars)
    for role, policy in genesis.enrolment_policy.items():
        is_known = all(number < count for number in policy.registrars)
        refuse_if(not is_known, "bad_genesis", f"{role} must be enrolled by registrars with numbers below {count}")
        n_registrars = len(policy.registrars) if _increases(policy.registrars) else 0
        too_many = f"{policy.threshold} of {n_registrars} different registrars are to enrol a {role}"
        refuse_if(policy.threshold > n_registrars, "bad_genesis", too_many)

    witnesses = genesis.witnesses
    is_enough = len(_witness_keys(witnesses.keys)) >= max(len(witnesses.keys), witnesses.threshold)
    refuse_if(not is_enough, "bad_genesis", "as many different witnesses as the threshold are wanted")


@lru_cache(maxsize=8)
def _witness_keys(vkeys: tuple[str, ...]) -> frozenset[bytes]:
    """Return the public keys of the witnesses; asked for at each enrolment."""
    return frozenset(_parse_key(vkey, SignatureType.COSIGNATURE_V1).public for vkey in vkeys)


def _policy_of(state: State, author: int, role: PrincipalRole) -> EnrolmentPolicy:
    """Return the policy of a role, after checking that the author is one of its registrars."""
    policy = state.enrolment_policy(role)
    if policy is None or author not in policy.registrars:
        raise refused("not_registrar", f"principal {author} may not enrol a {role}")
    return policy


def _check_authority(state: State, record: KeyRecord, owner: Principal) -> None:
    """Check that the owner alone, or enough registrars, change a key."""
    if record.author == record.number:
        refuse_if(bool(record.approvals), "wrong_approvals", "an owner's own act needs nobody's approval")
    else:
        policy = _policy_of(state, record.author, owner.role)
        _check_approvals(state, record, policy, partial(key_statement, record, owner.key_named(record.which)))


def _check_approvals(
    state: State, record: Enrol | KeyRecord, policy: EnrolmentPolicy, statement: Callable[[], bytes]
) -> None:
    """Check that with the author as many different registrars of a role as its policy wants stand for a record."""
    registrars = [approval.registrar for approval in record.approvals]
    is_clean = _increases(registrars) and record.author not in registrars
    refuse_if(not is_clean, "wrong_approvals", "approvals are of other registrars than the author, increasing")
    for number in registrars:
        refuse_if(number not in policy.registrars, "not_registrar", f"principal {number} is no registrar of this role")
        is_revoked = state.principals[number].is_revoked
        refuse_if(is_revoked, "revoked_registrar", f"the key of registrar {number} was revoked")
    n_registrars = 1 + len(registrars)
    too_few = f"{n_registrars} registrars, {policy.threshold} are wanted"
    refuse_if(n_registrars < policy.threshold, "too_few_approvals", too_few)

    for approval in record.approvals:
        try:
            verify_signature(state.principals[approval.registrar].key, statement(), approval.signature)
        except InvalidRecord as error:
            raise refused("bad_approval", error.message) from error


def _increases(numbers: Sequence[int]) -> bool:
    return all(number < following for number, following in pairwise(numbers))


def _check_new_key(state: State, key: bytes) -> None:
    _check_key(key)
    holder = state.number_of(key)
    refuse_if(holder is not None, "key_used", f"the key is or was principal {holder}'s")
    is_witness = key in _witness_keys(state.founding.witnesses.keys)
    refuse_if(is_witness, "key_used", "the key is a witness's, which signs nothing else")


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

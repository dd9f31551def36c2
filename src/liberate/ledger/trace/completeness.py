"""Proof that some entries are all there is about a principal.

A principal's state leaf chains the leaf hashes of all entries that name it. Whoever holds these entries can compute the
leaf, and needs one proof that it is in the state tree whose root the checkpoint's last block names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from liberate.crypto.canonical_json import Hash, Natural
from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import parse_verifier_key, verify_checkpoint
from liberate.crypto.signing import verify_signature
from liberate.errors import ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry, involves, signed_bytes
from liberate.ledger.format.records import Block, Enrol, Genesis, KeyRecord, Record, Update
from liberate.ledger.format.sharing_records import Consent, Erasure, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.principal import Principal, enrolled_principal, key_name_of
from liberate.ledger.rules.sharing_state import consents_digest


class Completeness(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All entries that name a principal, and the proof that there are no others.

    Attributes:
        format: Name and version of the format in which the proof is written to a file.
        number: The principal's number.
        checkpoint: The signed note under which it holds.
        entries: The entries, in ledger order.
        block: The last block entry under the checkpoint.
        block_proof: Inclusion of the block in the checkpoint.
        principal_count: Number of leaves of the state tree: the shape of `state_proof`, no more is proved of it.
        state_proof: Inclusion of the principal's leaf in the block's state root.
    """

    format: Literal["liberate-completeness/1"] = "liberate-completeness/1"
    number: Natural
    checkpoint: str
    entries: tuple[bytes, ...]
    block: bytes
    block_proof: tuple[Hash, ...]
    principal_count: Natural
    state_proof: tuple[Hash, ...]


def prove_completeness(ledger: Ledger, number: int) -> Completeness:
    """Collect all entries that name a principal, 0 <= number, and prove that there are no others.

    A block names nobody, so the proof holds up to the newest checkpoint.
    """
    last = ledger.size - 1
    return Completeness(
        number=number,
        checkpoint=ledger.checkpoint(),
        entries=tuple(ledger.entry(position) for position in ledger.positions(about=number)),
        block=ledger.entry(last),
        block_proof=tuple(ledger.inclusion_proof(last)),
        principal_count=len(ledger.state.principals),
        state_proof=tuple(ledger.state.inclusion_proof(number)),
    )


def verify_completeness(proof: Completeness, key: str) -> None:
    """Verify that some entries are all that name a principal, according to the log.

    The state root is the log's claim until somebody replays the ledger, as auditors and replaying witnesses do.

    Args:
        proof: The entries and the proof.
        key: The log's verifier key, known from elsewhere.

    Raises:
        ProofMismatch: an entry was left out, added, changed or put elsewhere, or the proof shows something else.
        InvalidRecord: the checkpoint is not signed with the key, or an entry not by the principal that it names.
        RefusedEntry: something is no entry.
    """
    proven_principal(proof, key)


def proven_principal(proof: Completeness, key: str) -> Principal:
    """Verify a proof as `verify_completeness` does, and return the principal that the entries lead to."""
    checkpoint = verify_checkpoint(proof.checkpoint, key)

    block = decode_entry(proof.block)
    if not isinstance(block.record, Block):
        raise ProofMismatch("the state root of a block is wanted")
    verify_inclusion(block.leaf_hash, checkpoint.size - 1, checkpoint.size, proof.block_proof, checkpoint.root)

    principal = replay_principal(proof.number, proof.entries, checkpoint.origin)
    leaf = leaf_hash(principal.encode())
    verify_inclusion(leaf, proof.number, proof.principal_count, proof.state_proof, block.record.state_root)
    return principal


def replay_principal(number: int, entries: Sequence[bytes], origin: str) -> Principal:
    """Return the principal that all entries that name it lead to, as the rules do, and check what it signed.

    Raises:
        ProofMismatch: an entry does not name the principal, or the first one does not enrol it.
        InvalidRecord: the principal did not sign an entry that names it as its author.
        RefusedEntry: something is no entry.
    """
    if not entries:
        raise ProofMismatch(f"no entry enrols principal {number}")

    principal = _enrolled(decode_entry(entries[0]).record, number)
    consents: list[Digest] = []
    for entry in map(decode_entry, entries):
        record = entry.record
        if record.origin != origin or not involves(record, number):
            raise ProofMismatch(f"an entry of {record.origin!r} does not name principal {number} of {origin!r}")
        if record.author == number:
            signer = principal.key_named(key_name_of(record, principal.role))
            verify_signature(signer, signed_bytes(entry.body), entry.signature)
            principal.sequence = record.seq
        _apply(entry, number, principal, consents)
        principal.count(entry.leaf_hash)

    principal.consents = consents_digest(consents)
    return principal


def _apply(entry: Entry, number: int, principal: Principal, consents: list[Digest]) -> None:
    """Change a principal, and the leaf hashes of its active consents, as an entry that names it does."""
    match entry.record:
        case KeyRecord(number=owner, which=which, key=None) if owner == number:
            principal.revoke_key(which)
        case KeyRecord(number=owner, which=which, key=following) if owner == number and following is not None:
            principal.replace_key(which, following.public)
        case Update() as update if number in update.answers_for():
            principal.spend(update.account, update.spend_nano)
        case Consent(author=sender) if sender == number:
            consents.append(entry.leaf_hash)
        case Withdrawal(consent=None):
            consents.clear()
            principal.has_withdrawn = True
        case Withdrawal(consent=consent) if consent in consents:
            consents.remove(consent)
        case Erasure(number=owner, report=None) if owner == number:
            principal.is_to_be_forgotten = True
        case _:
            pass


def _enrolled(record: Record, number: int) -> Principal:
    match record:
        case Enrol(number=enrolled) as enrol if enrolled == number:
            return enrolled_principal(enrol)
        case Genesis(registrars=keys) if number < len(keys):
            return Principal(key=keys[number], role="registrar")
        case Genesis(registrars=keys, log_vkey=vkey) if number == len(keys):
            return Principal(key=parse_verifier_key(vkey).public, role="log")
        case _:
            raise ProofMismatch(f"the first entry does not enrol principal {number}")

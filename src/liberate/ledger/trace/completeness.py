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
from liberate.crypto.note import verify_checkpoint
from liberate.errors import ProofMismatch
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import Block
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.history import PrincipalHistory
from liberate.ledger.rules.principal import Principal


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

    history = PrincipalHistory.before(decode_entry(entries[0]), origin, number)
    for entry in map(decode_entry, entries):
        history.add(entry)
    return history.principal

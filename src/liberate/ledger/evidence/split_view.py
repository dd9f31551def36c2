"""Proof of a dishonest log: two checkpoints under its signature that cannot both be true.

Two roots for one size contradict each other by themselves. Of two sizes, an entry at which the trees differ is shown,
with a proof that each tree holds it; or, without any entry, another root that the later tree proves for the size of
the earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from msgspec import Struct

from liberate.crypto.canonical_json import Hash, Natural, decode, encode
from liberate.crypto.merkle import CompactRange, leaf_hash, verify_consistency, verify_inclusion
from liberate.crypto.note import Checkpoint, read_unverified, verify_checkpoint
from liberate.errors import LedgerError, ProofMismatch
from liberate.files import write_atomic
from liberate.identifiers import Digest
from liberate.ledger.interface import Ledger

_FORK_FORMAT = b'"format":"liberate-fork/1"'


class DivergentLeaf(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry's leaf hash, and the proof that it is in a tree."""

    leaf: Hash
    proof: tuple[Hash, ...]


class Divergence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A position at which two trees hold different entries."""

    position: Natural
    first: DivergentLeaf
    second: DivergentLeaf


class SplitViewEvidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two signed notes, and where their trees differ if their sizes do.

    Attributes:
        format: Name and version of this format.
        first: A signed checkpoint.
        second: Another one of the same log.
        divergence: Wanted where the sizes differ.
    """

    format: Literal["liberate-evidence/1"] = "liberate-evidence/1"
    first: str
    second: str
    divergence: Divergence | None


class ForkEvidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two signed notes, the later of which does not continue the earlier one, without any entry.

    The first entries under the later one have one root only; the proof shows it to be another than the earlier note's.

    Attributes:
        format: Name and version of this format.
        earlier: A signed checkpoint.
        later: One of the same log over more entries.
        prefix: Root of as many first entries under the later one as the earlier one covers.
        proof: Consistency proof from there to the later one.
    """

    format: Literal["liberate-fork/1"] = "liberate-fork/1"
    earlier: str
    later: str
    prefix: Hash
    proof: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class VerifiedSplitView:
    """Two checkpoints that one log has signed and that cannot both be true."""

    first: Checkpoint
    second: Checkpoint


def verify_evidence(data: bytes, vkey: str) -> VerifiedSplitView:
    """Check that a file proves a log's misbehaviour to whoever knows the log's key.

    Args:
        data: The file's bytes.
        vkey: The log's verifier key, known from elsewhere.

    Raises:
        InvalidRecord: it is no evidence file, or not both checkpoints are signed by this key.
        ProofMismatch: both are signed, but nothing here shows that they contradict each other.
    """
    if _FORK_FORMAT in data:
        return _verify_fork(decode(data, ForkEvidence), vkey)
    evidence = decode(data, SplitViewEvidence)
    views = VerifiedSplitView(verify_checkpoint(evidence.first, vkey), verify_checkpoint(evidence.second, vkey))
    if evidence.divergence is not None:
        _verify_divergence(views, evidence.divergence)
    elif views.first.size != views.second.size:
        sizes = f"{views.first.size} and {views.second.size} entries"
        raise ProofMismatch(f"the trees have {sizes}: a position at which they differ is wanted")
    elif views.first.root == views.second.root:
        raise ProofMismatch("both checkpoints say the same")
    return views


def evidence_same_size(first: str, second: str) -> bytes:
    """Return the evidence file of two notes with one size and two roots."""
    return encode(SplitViewEvidence(first=first, second=second, divergence=None))


def evidence_of_fork(ledger: Ledger, earlier: str) -> bytes | None:
    """Return the evidence file that a ledger does not continue a checkpoint which its log has signed.

    None if it does, or if it has fewer entries: then there is nothing to compare.
    """
    before, later = read_unverified(earlier), ledger.checkpoint()
    size = read_unverified(later).size
    if not 0 < before.size <= size:
        return None
    prefix = CompactRange.restore(before.size, ledger.node).root()
    if prefix == before.root:
        return None
    if before.size == size:
        return evidence_same_size(earlier, later)
    proof = tuple(ledger.consistency_proof(before.size, size))
    return encode(ForkEvidence(earlier=earlier, later=later, prefix=prefix, proof=proof))


def evidence_between(first: Ledger, second: Ledger) -> bytes | None:
    """Compare two copies that claim to be one ledger.

    Returns:
        The evidence file if their newest checkpoints contradict each other; None if one copy continues the other.
    """
    for (position, one), (_, other) in zip(first.entries(), second.entries(), strict=False):
        if one != other:
            divergence = Divergence(
                position=position, first=_branch(first, position, one), second=_branch(second, position, other)
            )
            return encode(
                SplitViewEvidence(first=first.checkpoint(), second=second.checkpoint(), divergence=divergence)
            )
    return None


def evidence_at(ledger: Ledger, position: int, note: str, leaf: Digest, proof: Sequence[Digest]) -> bytes:
    """Return the evidence file against a ledger that holds another entry than its log once proved at a position.

    Args:
        ledger: The ledger as it is now.
        position: The position, 0 <= position < size.
        note: The checkpoint under which the log proved the other entry.
        leaf: Leaf hash of that entry.
        proof: Its inclusion proof.
    """
    divergence = Divergence(
        position=position,
        first=DivergentLeaf(leaf=leaf, proof=tuple(proof)),
        second=_branch(ledger, position, ledger.entry(position)),
    )
    return encode(SplitViewEvidence(first=note, second=ledger.checkpoint(), divergence=divergence))


def keep_evidence(folder: Path, data: bytes, *, suffix: str = "json") -> Path:
    """Write an evidence file, named by its content; returns when it is on the disk."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"evidence-{sha256(data).hexdigest()[:16]}.{suffix}"
    write_atomic(path, data)
    return path


def read_evidence(path: Path) -> bytes:
    """Read an evidence file.

    Raises:
        LedgerError: there is no such file.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error


def _verify_fork(evidence: ForkEvidence, vkey: str) -> VerifiedSplitView:
    views = VerifiedSplitView(verify_checkpoint(evidence.earlier, vkey), verify_checkpoint(evidence.later, vkey))
    size = views.first.size
    if not 0 < size < views.second.size:
        raise ProofMismatch(f"the trees have {size} and {views.second.size} entries: a smaller and a larger are wanted")
    verify_consistency(size, views.second.size, evidence.proof, evidence.prefix, views.second.root)
    if evidence.prefix == views.first.root:
        raise ProofMismatch("the later checkpoint continues the earlier one")
    return views


def _branch(ledger: Ledger, position: int, entry: bytes) -> DivergentLeaf:
    return DivergentLeaf(leaf=leaf_hash(entry), proof=tuple(ledger.inclusion_proof(position)))


def _verify_divergence(views: VerifiedSplitView, divergence: Divergence) -> None:
    for checkpoint, branch in ((views.first, divergence.first), (views.second, divergence.second)):
        verify_inclusion(branch.leaf, divergence.position, checkpoint.size, branch.proof, checkpoint.root)
    if divergence.first.leaf == divergence.second.leaf:
        raise ProofMismatch(f"both trees hold the same entry {divergence.position}")

"""Proofs of many entries of one log under its newest checkpoint, each entry proved once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeGuard

from liberate.crypto.merkle import node_hash
from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import SignatureClaim, verify_batch, verify_signature
from liberate.errors import LedgerError, ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, RecordT, record_of, signed_bytes
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import Block, Record
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, RecordT_co, entry_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedEntry(RecordedEntry[RecordT_co], Generic[RecordT_co]):
    """An entry whose signature, and inclusion under the trace's checkpoint, were checked.

    Attributes:
        height: Height of its block.
        time_us: Time of its block, in microseconds since 1970-01-01 UTC.
        proof: Inclusion proof against the checkpoint.
    """

    height: int
    time_us: int
    proof: tuple[Digest, ...]


class Prover:
    """Proves the entries of one log under its newest checkpoint.

    Args:
        ledger: The log.
        verified_author: A principal whose history is proved complete, with its signatures: they are not checked again.
        history: The positions of that history.
    """

    def __init__(self, ledger: Ledger, *, verified_author: int | None = None, history: Iterable[int] = ()) -> None:
        self.note = ledger.checkpoint()
        self._ledger = ledger
        self._verified_author = verified_author
        self._history = frozenset(history)
        self._blocks = ledger.positions(kind="block")
        checkpoint = verify_checkpoint(self.note, ledger.state.founding.log_vkey)
        self._tree = VerifiedTreeReader(ledger, checkpoint.size, checkpoint.root)
        self._checked: dict[int, tuple[Entry, tuple[Digest, ...]]] = {}
        self._proved: dict[int, ProvedEntry[Record]] = {}

    @property
    def proof_count(self) -> int:
        """How many inclusion proofs were checked."""
        return len(self._checked)

    def prove(self, position: int, kind: type[RecordT]) -> ProvedEntry[RecordT]:
        """Return an entry after checking its signature, its inclusion, and that of its block.

        Raises:
            LedgerError: It is of another kind.
            ProofMismatch: The log cannot prove it.
            InvalidRecord: Its signature is wrong.
        """
        (proved,) = self.prove_all([position])
        if not is_kind(proved, kind):
            raise LedgerError(f"entry {position} is a record of kind {proved.record.kind}")
        return proved

    def prove_all(self, positions: Iterable[int]) -> list[ProvedEntry[Record]]:
        """Return entries as `prove` does, in the order asked for."""
        positions = list(positions)
        blocks = {position: self._block_of(position) for position in positions if position not in self._proved}
        if unchecked := [position for position in {*blocks, *blocks.values()} if position not in self._checked]:
            self._check_all(unchecked)

        for position, block_position in blocks.items():
            entry, proof = self._checked[position]
            block = record_of(self._checked[block_position][0], Block)
            self._proved[position] = ProvedEntry(
                position=position,
                entry=entry,
                record=entry.record,
                height=block.seq,
                time_us=block.time_us,
                proof=proof,
            )
        return [self._proved[position] for position in positions]

    def _block_of(self, position: int) -> int:
        """Return the position of the block entry that ends an entry's batch."""
        return self._blocks[bisect_left(self._blocks, position)]

    def _check_all(self, positions: Sequence[int]) -> None:
        entries = {position: entry_at(self._ledger, position, RecordBase).entry for position in positions}
        verify_signed(self._ledger, {at: entry for at, entry in entries.items() if not self._is_verified(at, entry)})

        self._tree.read(positions)
        for position, entry in entries.items():
            self._checked[position] = entry, self._tree.prove(position, entry.leaf_hash)

    def _is_verified(self, position: int, entry: Entry) -> bool:
        """Whether a signature needs no check: the signed checkpoint covers what the log itself wrote."""
        if isinstance(entry.record, Block):
            return True
        return entry.record.author == self._verified_author and position in self._history


class NodeReader(Protocol):
    """The nodes of a Merkle tree."""

    def nodes(self, places: Sequence[tuple[int, int]]) -> list[Digest]:
        """Return the roots of perfect subtrees, by level and index."""
        ...


class VerifiedTreeReader:
    """Proves leaves of a tree with a known root; nodes that one proof has verified are not verified again.

    Args:
        reader: The tree, which is not trusted.
        size: Its number of leaves, > 0.
        root: Its root, known from elsewhere.
    """

    def __init__(self, reader: NodeReader, size: int, root: Digest) -> None:
        self._reader = reader
        self._widths = [size]
        while self._widths[-1] > 1:
            self._widths.append((self._widths[-1] + 1) // 2)
        self._siblings: dict[int, list[tuple[int, int]]] = {}
        self._nodes: dict[tuple[int, int], Digest] = {}
        self._verified = {(len(self._widths) - 1, 0): root}

    def read(self, indexes: Iterable[int]) -> None:
        """Read in one go the nodes that the proofs of some leaves need."""
        wanted = {place for index in indexes for place in self.siblings(index)}
        missing = [place for place in wanted if place not in self._nodes and self._is_perfect(*place)]
        self._nodes.update(zip(missing, self._reader.nodes(missing), strict=True))

    def prove(self, index: int, leaf: Digest) -> tuple[Digest, ...]:
        """Return the inclusion proof of a leaf after checking it.

        Raises:
            ProofMismatch: the tree does not have the leaf there.
        """
        siblings = {place: self._node(*place) for place in self.siblings(index)}
        path: dict[tuple[int, int], Digest] = {}
        calculated = leaf
        for level in range(len(self._widths)):
            place = level, index >> level
            if place in self._verified:
                break
            path[place] = calculated
            if sibling := siblings.get((level, place[1] ^ 1)):
                path[level, place[1] ^ 1] = sibling
                pair = (sibling, calculated) if place[1] & 1 else (calculated, sibling)
                calculated = node_hash(*pair)

        if self._verified[place] != calculated:
            raise ProofMismatch(f"the inclusion proof of entry {index} leads to {calculated.hex()}, another is wanted")
        self._verified.update(path)
        return tuple(siblings.values())

    def siblings(self, index: int) -> list[tuple[int, int]]:
        """Return the places of the nodes in a leaf's inclusion proof, from the leaf up (RFC 6962, 2.1.1)."""
        if index not in self._siblings:
            widths = self._widths[:-1]
            self._siblings[index] = [
                (level, index >> level ^ 1) for level, width in enumerate(widths) if index >> level ^ 1 < width
            ]
        return self._siblings[index]

    def _is_perfect(self, level: int, index: int) -> bool:
        return (index + 1) << level <= self._widths[0]

    def _node(self, level: int, index: int) -> Digest:
        """Return the root of a subtree; where it is not perfect, at the right edge, it follows from those below."""
        place = level, index
        if place not in self._nodes:
            if self._is_perfect(level, index):
                (self._nodes[place],) = self._reader.nodes([place])
            elif 2 * index + 1 < self._widths[level - 1]:
                self._nodes[place] = node_hash(self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1))
            else:
                self._nodes[place] = self._node(level - 1, 2 * index)
        return self._nodes[place]


def verify_signed(ledger: Ledger, entries: Mapping[int, Entry]) -> None:
    """Check that entries, given by position, are signed with the keys that their authors had at that position.

    Raises:
        InvalidRecord: a signature is wrong.
    """
    claims = [
        SignatureClaim(ledger.state.author_key(entry.record, position), signed_bytes(entry.body), entry.signature)
        for position, entry in entries.items()
    ]
    for claim, is_valid in zip(claims, verify_batch(claims), strict=True):
        if not is_valid:
            verify_signature(claim.public, claim.message, claim.signature)


def is_kind(entry: ProvedEntry[RecordBase], kind: type[RecordT]) -> TypeGuard[ProvedEntry[RecordT]]:
    """Whether an entry's record is of a kind."""
    return isinstance(entry.record, kind)


def of_kind(history: Iterable[ProvedEntry[RecordBase]], kind: type[RecordT]) -> Iterator[ProvedEntry[RecordT]]:
    """Yield the entries of a kind."""
    for entry in history:
        if is_kind(entry, kind):
            yield entry

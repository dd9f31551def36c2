"""Proofs of many entries of one ledger under its newest checkpoint, each entry once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from liberate.crypto.merkle import node_hash
from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import SignatureClaim, verify_batch, verify_signature
from liberate.errors import LedgerError, ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry, signed_bytes
from liberate.ledger.format.records import Block, Record
from liberate.ledger.interface import Ledger

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedEntry:
    """An entry, its author's signature and its inclusion under the trace's checkpoint checked.

    Attributes:
        position: Its position.
        entry: The entry.
        height: Height of its block.
        time_us: Time of its block, in microseconds since 1970-01-01 UTC.
        proof: Inclusion proof against the checkpoint.
    """

    position: int
    entry: Entry
    height: int
    time_us: int
    proof: tuple[Digest, ...]


class Prover:
    """Proves what lies in one ledger under its newest checkpoint.

    Args:
        ledger: The ledger.
        follower: A principal whose own entries need no signature check here, because its history was followed.
        history: The positions of that history.
    """

    def __init__(self, ledger: Ledger, *, follower: int | None = None, history: Iterable[int] = ()) -> None:
        self.note = ledger.checkpoint()
        self._ledger = ledger
        self._follower = follower
        self._history = frozenset(history)
        self._blocks = ledger.positions(kind="block")
        checkpoint = verify_checkpoint(self.note, ledger.state.founding.log_vkey)
        self._tree = VerifiedTreeReader(ledger, checkpoint.size, checkpoint.root)
        self._checked: dict[int, tuple[Entry, tuple[Digest, ...]]] = {}
        self._proved: dict[int, ProvedEntry] = {}

    @property
    def proof_count(self) -> int:
        """How many inclusion proofs were checked."""
        return len(self._checked)

    def prove(self, position: int) -> ProvedEntry:
        """Give an entry after checking its signature, its inclusion, and that of its block."""
        return self._proved.get(position) or self.prove_all([position])[0]

    def prove_all(self, positions: Iterable[int]) -> list[ProvedEntry]:
        """Do as `prove` with many."""
        positions = list(positions)
        blocks = {position: self._block_of(position) for position in positions if position not in self._proved}
        if fresh := [at for at in {*blocks, *blocks.values()} if at not in self._checked]:
            self._check_all(fresh)
        for position, block_position in blocks.items():
            entry, proof = self._checked[position]
            block = self._checked[block_position][0].record
            if not isinstance(block, Block):
                raise LedgerError(f"entry {block_position} is no block")
            self._proved[position] = ProvedEntry(
                position=position, entry=entry, height=block.seq, time_us=block.time_us, proof=proof
            )
        return [self._proved[position] for position in positions]

    def _block_of(self, position: int) -> int:
        """Give the position of the block entry that ends an entry's batch."""
        return self._blocks[bisect_left(self._blocks, position)]

    def _check_all(self, positions: Sequence[int]) -> None:
        entries = {position: decode_entry(self._ledger.entry(position)) for position in positions}
        verify_signed(self._ledger, {at: entry for at, entry in entries.items() if not self._is_verified(at, entry)})
        self._tree.read(positions)
        for position, entry in entries.items():
            self._checked[position] = entry, self._tree.prove(position, entry.leaf_hash)

    def _is_verified(self, position: int, entry: Entry) -> bool:
        """Whether a signature need not be checked: for what the log signs, its checkpoint stands."""
        return isinstance(entry.record, Block) or (entry.record.author == self._follower and position in self._history)


class NodeReader(Protocol):
    """Where the nodes of a tree are read from."""

    def nodes(self, places: Sequence[tuple[int, int]]) -> list[Digest]:
        """Give the roots of perfect subtrees, by level and index."""
        ...


class VerifiedTreeReader:
    """Proves leaves of a tree with a given root; what one proof has shown of the tree need not be shown again.

    Args:
        readable: The tree.
        size: Its number of leaves, > 0.
        root: Its root, known from elsewhere.
    """

    def __init__(self, readable: NodeReader, size: int, root: Digest) -> None:
        self._readable = readable
        self._widths = [size]
        while self._widths[-1] > 1:
            self._widths.append((self._widths[-1] + 1) // 2)
        self._siblings: dict[int, list[tuple[int, int]]] = {}
        self._nodes: dict[tuple[int, int], Digest] = {}
        self._shown = {(len(self._widths) - 1, 0): root}

    def read(self, indexes: Iterable[int]) -> None:
        """Read at once what proofs of some leaves need."""
        wanted = {place for index in indexes for place in self.siblings(index)}
        missing = [place for place in wanted if place not in self._nodes and self._is_perfect(*place)]
        self._nodes.update(zip(missing, self._readable.nodes(missing), strict=True))

    def prove(self, index: int, leaf: Digest) -> tuple[Digest, ...]:
        """Give the inclusion proof of a leaf after checking it.

        Raises:
            ProofMismatch: the tree does not have the leaf there.
        """
        siblings = {place: self._node(*place) for place in self.siblings(index)}
        path: dict[tuple[int, int], Digest] = {}
        calculated = leaf
        for level in range(len(self._widths)):
            place = level, index >> level
            if place in self._shown:
                break
            path[place] = calculated
            if sibling := siblings.get((level, place[1] ^ 1)):
                path[level, place[1] ^ 1] = sibling
                pair = (sibling, calculated) if place[1] & 1 else (calculated, sibling)
                calculated = node_hash(*pair)
        if self._shown[place] != calculated:
            raise ProofMismatch(f"the inclusion proof of entry {index} leads to {calculated.hex()}, another is wanted")
        self._shown.update(path)
        return tuple(siblings.values())

    def siblings(self, index: int) -> list[tuple[int, int]]:
        """Give the places of a leaf's inclusion proof, from the leaf up (RFC 6962, 2.1.1)."""
        if index not in self._siblings:
            widths = self._widths[:-1]
            self._siblings[index] = [
                (level, index >> level ^ 1) for level, width in enumerate(widths) if index >> level ^ 1 < width
            ]
        return self._siblings[index]

    def _is_perfect(self, level: int, index: int) -> bool:
        return (index + 1) << level <= self._widths[0]

    def _node(self, level: int, index: int) -> Digest:
        """Give the root of a subtree; at the right edge, where it is not perfect, it follows from those below."""
        place = level, index
        if place not in self._nodes:
            if self._is_perfect(level, index):
                (self._nodes[place],) = self._readable.nodes([place])
            elif 2 * index + 1 < self._widths[level - 1]:
                self._nodes[place] = node_hash(self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1))
            else:
                self._nodes[place] = self._node(level - 1, 2 * index)
        return self._nodes[place]


def verify_signed(ledger: Ledger, entries: Mapping[int, Entry]) -> None:
    """Check that entries, given by position, are signed with the keys that their authors had there.

    Raises:
        InvalidRecord: a signature is wrong.
    """
    claims = [
        SignatureClaim(ledger.state.key_at(entry.record.author, position), signed_bytes(entry.body), entry.signature)
        for position, entry in entries.items()
    ]
    for claim, is_valid in zip(claims, verify_batch(claims), strict=True):
        if not is_valid:
            verify_signature(claim.public, claim.message, claim.signature)


def of_kind(history: Iterable[ProvedEntry], kind: type[RecordT]) -> Iterator[tuple[ProvedEntry, RecordT]]:
    """Give the entries of a kind, each with its record."""
    for each in history:
        if isinstance(each.entry.record, kind):
            yield each, each.entry.record

"""Merkle trees and their proofs (RFC 6962, RFC 9162) as pure functions over digests.

A perfect subtree is addressed by (level, index): it covers the leaves [index * 2**level, (index + 1) * 2**level).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256

from liberate.errors import ProofMismatch
from liberate.identifiers import Digest

DIGEST_BYTES = 32
EMPTY_ROOT = Digest(sha256(b"").digest())
"""Root of the tree without leaves (RFC 6962, 2.1)."""

Node = Callable[[int, int], Digest]
"""Returns the hash of the perfect subtree (level, index)."""


def leaf_hash(data: bytes) -> Digest:
    """Hash a leaf (RFC 6962, 2.1)."""
    return Digest(sha256(b"\x00" + data).digest())


def node_hash(left: bytes, right: bytes) -> Digest:
    """Hash an inner node (RFC 6962, 2.1)."""
    return Digest(sha256(b"\x01" + left + right).digest())


class CompactRange:
    """The right edge of a growing tree: the roots of its perfect subtrees, largest first."""

    def __init__(self, size: int = 0, roots: Sequence[Digest] = ()) -> None:
        self.size = size
        self._roots = list(roots)

    @property
    def roots(self) -> tuple[Digest, ...]:
        """The roots, from which the edge can be taken up again."""
        return tuple(self._roots)

    @classmethod
    def restore(cls, size: int, node: Node) -> CompactRange:
        """Take up a tree of a given size again, from its stored nodes."""
        return cls(size, [node(level, index) for level, index in _perfect_subtrees(range(size))])

    def append(self, leaf: Digest) -> list[Digest]:
        """Add a leaf.

        Returns:
            The hashes of the perfect subtrees that this leaf completes, of levels 1, 2, ...
        """
        self.size += 1
        completed: list[Digest] = []
        node = leaf
        for _ in range(_trailing_zeros(self.size)):
            node = node_hash(self._roots.pop(), node)
            completed.append(node)
        self._roots.append(node)
        return completed

    def root(self) -> Digest:
        """Return the root of the whole tree."""
        return _fold(self._roots)


class MutableTree:
    """A tree whose leaves change in place; each change costs one path.

    Kept as one byte string per level; an unpaired last node is its own parent, which is RFC 6962's shape.
    """

    def __init__(self, levels: Sequence[bytes] = (b"",)) -> None:
        self._levels = [bytearray(level) for level in levels]

    @property
    def levels(self) -> list[bytes]:
        """The hashes of each level, the leaves' first, from which the tree can be taken up again."""
        return [bytes(level) for level in self._levels]

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // DIGEST_BYTES

    def update(self, leaves: Mapping[int, Digest]) -> None:
        """Replace leaves, and append those whose numbers follow the last one without a gap."""
        if not leaves:
            return
        for index in sorted(leaves):
            if index > self.size:
                raise ValueError(f"leaf {index} would leave a gap after {self.size} leaves")
            self._levels[0][index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = leaves[index]
        changed = set(leaves)
        depth = 0
        while len(self._levels[depth]) > DIGEST_BYTES:
            depth += 1
            if depth == len(self._levels):
                self._levels.append(bytearray())
            changed = {index >> 1 for index in changed}
            self._rehash(depth, changed)

    def inclusion_proof(self, index: int) -> list[Digest]:
        """Prove that a leaf is in the tree, 0 <= index < size."""
        if not 0 <= index < self.size:
            raise ValueError(f"0 <= index < {self.size} is wanted, not {index}")
        proof: list[Digest] = []
        for level in self._levels[:-1]:
            sibling = (index ^ 1) * DIGEST_BYTES
            if sibling < len(level):
                proof.append(Digest(bytes(level[sibling : sibling + DIGEST_BYTES])))
            index >>= 1
        return proof

    def _rehash(self, depth: int, changed: set[int]) -> None:
        below, level = self._levels[depth - 1], self._levels[depth]
        for index in sorted(changed):
            pair = below[index * 2 * DIGEST_BYTES : (index + 1) * 2 * DIGEST_BYTES]
            parent = sha256(b"\x01" + pair).digest() if len(pair) > DIGEST_BYTES else pair
            level[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = parent

    def root(self) -> Digest:
        """Return the root of the whole tree."""
        return Digest(bytes(self._levels[-1])) if self.size else EMPTY_ROOT


def root(leaf_hashes: Sequence[Digest]) -> Digest:
    """Return the root over some leaf hashes."""
    edge = CompactRange()
    for leaf in leaf_hashes:
        edge.append(leaf)
    return edge.root()


def inclusion_proof(index: int, size: int, node: Node) -> list[Digest]:
    """Prove that a leaf is in a tree.

    Args:
        index: Index of the leaf, 0 <= index < size.
        size: Number of leaves of the tree.
        node: Perfect subtrees of the tree, leaves included (level 0).

    Source: RFC 6962, 2.1.1.
    """
    if not 0 <= index < size:
        raise ValueError(f"0 <= index < size is wanted, not index {index} and size {size}")
    return [_subtree_root(other, node) for _, other in _halves(index, size)][::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[Digest]:
    """Prove that a tree of `new` leaves begins with the tree of its first `old` leaves, 0 < old <= new.

    Source: RFC 6962, 2.1.2.
    """
    if not 0 < old <= new:
        raise ValueError(f"0 < old <= new is wanted, not old {old} and new {new}")

    proof: list[Digest] = []
    part = range(new)
    halves = _halves(old - 1, new)
    while part.stop != old:
        part, other = next(halves)
        proof.append(_subtree_root(other, node))

    # The old tree itself is known to whoever checks the proof.
    if part.start:
        proof.append(_subtree_root(part, node))
    return proof[::-1]


def root_from_inclusion(leaf: Digest, index: int, size: int, proof: Sequence[bytes]) -> Digest:
    """Calculate the root to which an inclusion proof leads.

    Raises:
        ProofMismatch: 0 <= index < size does not hold, or the proof has the wrong shape.

    Source: RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size:
        raise ProofMismatch(f"no leaf {index} in a tree of {size}")
    _check_digests(leaf, *proof)
    node = leaf
    for sibling, is_left in _siblings(index, size - 1, proof):
        node = node_hash(sibling, node) if is_left else node_hash(node, sibling)
    return node


def verify_inclusion(leaf: Digest, index: int, size: int, proof: Sequence[bytes], root: Digest) -> None:
    """Check that a leaf is at an index of the tree with a given size and root.

    Raises:
        ProofMismatch: the proof does not show it.
    """
    calculated = root_from_inclusion(leaf, index, size, proof)
    if calculated != root:
        raise ProofMismatch(f"the inclusion proof leads to {calculated.hex()}, wanted {root.hex()}")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: Digest, new_root: Digest) -> None:
    """Check that the tree of size `new` begins with the tree of size `old`, 0 < old <= new.

    Nothing is consistent with an empty tree in any useful sense, so `old` = 0 is refused.

    Raises:
        ProofMismatch: the proof does not show it.

    Source: RFC 9162, 2.1.4.2.
    """
    if not 0 < old <= new:
        raise ProofMismatch(f"0 < old <= new is wanted, not old {old} and new {new}")
    if old == new:
        if proof or old_root != new_root:
            raise ProofMismatch("trees of one size have one root and an empty proof")
        return

    # The root of a perfect old tree is a node of the new one, and so not part of the proof.
    _check_digests(old_root, new_root, *proof)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise ProofMismatch("the consistency proof is empty")

    shift = _trailing_zeros(old)
    old_node = new_node = Digest(path[0])
    for sibling, is_left in _siblings((old - 1) >> shift, (new - 1) >> shift, path[1:]):
        new_node = node_hash(sibling, new_node) if is_left else node_hash(new_node, sibling)
        if is_left:
            old_node = node_hash(sibling, old_node)
    if (old_node, new_node) != (old_root, new_root):
        raise ProofMismatch("the consistency proof does not lead to both roots")


def _siblings(place: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the hashes of a proof from the leaf up, and whether each is the left one of its pair.

    Args:
        place: Index of the first node on its level.
        last: Index of the last node of that level.
        proof: The hashes.

    Raises:
        ProofMismatch: There are more or fewer than lead to the root.

    Source: RFC 9162, 2.1.3.2 and 2.1.4.2.
    """
    for sibling in proof:
        if last == 0:
            raise ProofMismatch("the proof is too long")
        is_left = bool(place & 1) or place == last
        while is_left and place and not place & 1:
            place, last = place >> 1, last >> 1
        yield sibling, is_left
        place, last = place >> 1, last >> 1
    if last:
        raise ProofMismatch("the proof is too short")


def _check_digests(*digests: bytes) -> None:
    if any(len(digest) != DIGEST_BYTES for digest in digests):
        raise ProofMismatch(f"a hash has {DIGEST_BYTES} bytes")


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _halves(index: int, size: int) -> Iterator[tuple[range, range]]:
    """Yield the two parts of each subtree on the way from the root down to a leaf: the one with the leaf, the other."""
    part = range(size)
    while len(part) > 1:
        # RFC 6962, 2.1: the left part is as large as the largest power of two below the size.
        middle = part.start + (1 << ((len(part) - 1).bit_length() - 1))
        left, right = range(part.start, middle), range(middle, part.stop)
        part, other = (left, right) if index < middle else (right, left)
        yield part, other


def _perfect_subtrees(leaves: range) -> Iterator[tuple[int, int]]:
    """Yield the perfect subtrees of some leaves, the first of them aligned, as (level, index), largest first."""
    begin = leaves.start
    while begin < leaves.stop:
        level = (leaves.stop - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def _subtree_root(leaves: range, node: Node) -> Digest:
    return _fold([node(level, index) for level, index in _perfect_subtrees(leaves)])


def _fold(roots: Sequence[Digest]) -> Digest:
    """Join the roots of perfect subtrees, largest first, into one root."""
    if not roots:
        return EMPTY_ROOT
    joined = roots[-1]
    for left in roots[-2::-1]:
        joined = node_hash(left, joined)
    return joined

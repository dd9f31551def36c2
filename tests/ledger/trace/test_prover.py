"""Many proofs of one tree are those of RFC 6962, and what was shown once is believed only where it was shown."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from liberate.crypto.merkle import inclusion_proof, root, verify_inclusion
from liberate.errors import ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.trace.prover import VerifiedTreeReader
from tests.ledger.world import digest


class Leaves:
    """A tree that can be read, and one node of which may be wrong."""

    def __init__(self, size: int, wrong: tuple[int, int] | None = None) -> None:
        self.hashes = [digest(index) for index in range(size)]
        self.wrong = wrong

    def node(self, level: int, index: int) -> Digest:
        if (level, index) == self.wrong:
            return digest("wrong")
        return root(self.hashes[index << level : (index + 1) << level])

    def nodes(self, places: Sequence[tuple[int, int]]) -> list[Digest]:
        return [self.node(*place) for place in places]


@pytest.mark.parametrize("size", range(1, 35))
def test_proofs_are_those_of_the_rfc_in_any_order(size: int) -> None:
    leaves = Leaves(size)
    whole = root(leaves.hashes)
    tree = VerifiedTreeReader(leaves, size, whole)
    order = random.Random(size).sample(range(size), size)
    tree.read(order[: size // 2])

    for index in order:
        proof = tree.prove(index, leaves.hashes[index])
        assert list(proof) == inclusion_proof(index, size, leaves.node)
        verify_inclusion(leaves.hashes[index], index, size, proof, whole)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
def test_another_leaf_is_never_proved(size: int) -> None:
    leaves = Leaves(size)
    tree = VerifiedTreeReader(leaves, size, root(leaves.hashes))

    for index in range(size):
        for _ in range(2):
            with pytest.raises(ProofMismatch, match=f"entry {index}"):
                tree.prove(index, digest("another"))
            tree.prove(index, leaves.hashes[index])


@pytest.mark.parametrize("wrong", [(0, 3), (1, 0), (2, 1)])
def test_a_wrong_node_spoils_the_proofs_that_need_it(wrong: tuple[int, int]) -> None:
    leaves = Leaves(13, wrong)
    whole = root(leaves.hashes)
    for index in range(13):
        tree = VerifiedTreeReader(leaves, 13, whole)

        if wrong in tree.siblings(index):
            with pytest.raises(ProofMismatch):
                tree.prove(index, leaves.hashes[index])
        else:
            tree.prove(index, leaves.hashes[index])


def test_a_tree_of_another_root_proves_nothing() -> None:
    leaves = Leaves(5)
    tree = VerifiedTreeReader(leaves, 5, digest("root"))

    for index in range(5):
        with pytest.raises(ProofMismatch):
            tree.prove(index, leaves.hashes[index])

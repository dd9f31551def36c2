"""Trees and proofs agree with the RFC's own words, with third-party vectors, and refuse everything else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liberate.crypto import merkle
from liberate.errors import ProofMismatch
from liberate.identifiers import Digest
from tests.reference import merkle as reference

LARGEST = 64

# The eight leaves and roots of Certificate Transparency's own tests.
RFC_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
RFC_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def entries(size: int) -> list[bytes]:
    return [bytes([index]) for index in range(size)]


def node_of(data: list[bytes]) -> Callable[[int, int], Digest]:
    """The perfect subtrees of a tree, straight from its definition."""

    def node(level: int, index: int) -> Digest:
        begin, end = index << level, (index + 1) << level
        assert end <= len(data), "only perfect subtrees are kept"
        return Digest(reference.tree_hash(data[begin:end]))

    return node


def test_roots_of_certificate_transparency() -> None:
    leaves = [merkle.leaf_hash(data) for data in RFC_LEAVES]

    assert [merkle.root(leaves[:size]).hex() for size in range(1, 9)] == RFC_ROOTS
    assert merkle.root([]) == merkle.EMPTY_ROOT == reference.tree_hash([])


def test_the_example_of_the_rfc() -> None:
    """RFC 6962, 2.1.3: the tree of seven leaves, its nodes named as there."""
    data = entries(7)
    a, b, c, d, e, f, j = map(merkle.leaf_hash, data)
    g, h, i = merkle.node_hash(a, b), merkle.node_hash(c, d), merkle.node_hash(e, f)
    k, l = merkle.node_hash(g, h), merkle.node_hash(i, j)  # noqa: E741 - the RFC's letter
    node = node_of(data)

    assert merkle.root([a, b, c, d, e, f, j]) == merkle.node_hash(k, l)
    assert merkle.inclusion_proof(0, 7, node) == [b, h, l]
    assert merkle.inclusion_proof(3, 7, node) == [c, g, l]
    assert merkle.inclusion_proof(4, 7, node) == [f, j, k]
    assert merkle.inclusion_proof(6, 7, node) == [i, k]
    assert merkle.consistency_proof(3, 7, node) == [c, d, g, l]
    assert merkle.consistency_proof(4, 7, node) == [l]
    assert merkle.consistency_proof(6, 7, node) == [i, j, k]


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_every_inclusion_proof_is_the_rfcs_and_fits_its_own_leaf_only(size: int) -> None:
    data = entries(size)
    node, root = node_of(data), Digest(reference.tree_hash(data))

    for index in range(size):
        proof = merkle.inclusion_proof(index, size, node)
        assert proof == reference.path(index, data)
        for other in range(size):
            leaf = merkle.leaf_hash(data[other])
            if other == index:
                merkle.verify_inclusion(leaf, index, size, proof, root)
            else:
                with pytest.raises(ProofMismatch):
                    merkle.verify_inclusion(leaf, index, size, proof, root)


@pytest.mark.parametrize("new", range(1, LARGEST + 1))
def test_every_consistency_proof_is_the_rfcs(new: int) -> None:
    data = entries(new)
    node, new_root = node_of(data), Digest(reference.tree_hash(data))

    for old in range(1, new + 1):
        old_root = Digest(reference.tree_hash(data[:old]))
        proof = merkle.consistency_proof(old, new, node)
        assert proof == reference.proof(old, data)
        merkle.verify_consistency(old, new, proof, old_root, new_root)
        if old < new:
            with pytest.raises(ProofMismatch):
                merkle.verify_consistency(old, new, proof, new_root, new_root)


@settings(max_examples=40)
@given(st.integers(LARGEST + 1, 1_500), st.data())
def test_proofs_of_larger_trees_are_the_rfcs(size: int, data: st.DataObject) -> None:
    leaves = [index.to_bytes(2, "big") for index in range(size)]
    node, root = node_of(leaves), Digest(reference.tree_hash(leaves))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))

    inclusion = merkle.inclusion_proof(index, size, node)
    consistency = merkle.consistency_proof(old, size, node)

    assert inclusion == reference.path(index, leaves)
    assert consistency == reference.proof(old, leaves)
    merkle.verify_inclusion(merkle.leaf_hash(leaves[index]), index, size, inclusion, root)
    merkle.verify_consistency(old, size, consistency, Digest(reference.tree_hash(leaves[:old])), root)
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index))
    with pytest.raises(ProofMismatch):
        merkle.verify_inclusion(merkle.leaf_hash(leaves[index]), other, size, inclusion, root)


@settings(max_examples=40)
@given(st.integers(2, 600), st.data())
def test_a_changed_proof_of_consistency_is_refused(size: int, data: st.DataObject) -> None:
    leaves = [index.to_bytes(2, "big") for index in range(size)]
    old = data.draw(st.integers(1, size - 1))
    old_root, root = (Digest(reference.tree_hash(part)) for part in (leaves[:old], leaves))
    proof = merkle.consistency_proof(old, size, node_of(leaves))
    place = data.draw(st.integers(0, len(proof) - 1))
    flipped = bytearray(proof[place])
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))

    for changed in ([*proof, root], proof[:-1], [*proof[:place], Digest(bytes(flipped)), *proof[place + 1 :]]):
        with pytest.raises(ProofMismatch):
            merkle.verify_consistency(old, size, changed, old_root, root)


@given(st.integers(1, 300), st.data())
def test_a_changed_proof_is_refused(size: int, data: st.DataObject) -> None:
    leaves = entries(min(size, 256)) + [b"x"] * max(0, size - 256)
    index = data.draw(st.integers(0, size - 1))
    root = Digest(reference.tree_hash(leaves))
    proof = merkle.inclusion_proof(index, size, node_of(leaves))
    changed = data.draw(st.sampled_from(["shorter", "longer", "flipped"]))
    if changed == "longer":
        proof = [*proof, root]
    elif not proof:
        return
    elif changed == "shorter":
        proof = proof[:-1]
    else:
        place = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytearray(proof[place])
        flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
        proof[place] = Digest(bytes(flipped))

    with pytest.raises(ProofMismatch):
        merkle.verify_inclusion(merkle.leaf_hash(leaves[index]), index, size, proof, root)


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_compact_range_keeps_exactly_the_perfect_subtrees(size: int, more: int) -> None:
    data = [bytes([index]) for index in range(size)] + [b"more"] * more
    leaves = [merkle.leaf_hash(item) for item in data]
    edge = merkle.CompactRange()
    nodes = {(0, index): leaf for index, leaf in enumerate(leaves)}
    for position, leaf in enumerate(leaves[:size]):
        for level, digest in enumerate(edge.append(leaf), start=1):
            nodes[level, position >> level] = digest

    restored = merkle.CompactRange.restore(size, lambda level, index: nodes[level, index])
    for leaf in leaves[size:]:
        assert edge.append(leaf) == restored.append(leaf)

    assert edge.root() == restored.root() == reference.tree_hash(data)
    assert edge.size == restored.size == size + more
    for (level, index), digest in nodes.items():
        assert digest == reference.tree_hash(data[index << level : (index + 1) << level])


@given(st.lists(st.dictionaries(st.integers(0, 40), st.binary(min_size=1, max_size=4), max_size=6), max_size=12))
def test_a_mutable_tree_has_the_root_of_its_present_leaves(changes: list[dict[int, bytes]]) -> None:
    tree = merkle.MutableTree()
    leaves: list[bytes] = []
    for change in changes:
        batch: dict[int, bytes] = {}
        for wanted, data in change.items():
            index = min(wanted, len(leaves))
            leaves[index : index + 1] = [data]
            batch[index] = data

        tree.update({index: merkle.leaf_hash(data) for index, data in batch.items()})

        assert tree.root() == reference.tree_hash(leaves)
        assert tree.size == len(leaves)


def test_a_mutable_tree_has_no_gaps() -> None:
    with pytest.raises(ValueError, match="gap"):
        merkle.MutableTree().update({1: merkle.leaf_hash(b"")})


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 1), (1, 1)])
def test_no_inclusion_proof_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="0 <= index < size"):
        merkle.inclusion_proof(index, size, node_of([]))
    with pytest.raises(ProofMismatch):
        merkle.verify_inclusion(merkle.EMPTY_ROOT, index, size, [], merkle.EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (2, 1)])
def test_no_consistency_proof_from_nothing_or_backwards(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="0 < old <= new"):
        merkle.consistency_proof(old, new, node_of([]))
    with pytest.raises(ProofMismatch):
        merkle.verify_consistency(old, new, [], merkle.EMPTY_ROOT, merkle.EMPTY_ROOT)


def decoded(text: str | None) -> Digest:
    return Digest(base64.b64decode(text or ""))


def probes(shared_folder: Path, kind: str) -> list[dict[str, Any]]:
    paths = sorted((shared_folder / "vectors" / "merkle" / "testdata" / kind).rglob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


def test_inclusion_probes_of_transparency_dev(shared_folder: Path) -> None:
    vectors = probes(shared_folder, "inclusion")
    assert len(vectors) == 98
    for vector in vectors:
        arguments = (
            decoded(vector["leafHash"]),
            vector["leafIdx"],
            vector["treeSize"],
            [decoded(item) for item in vector["proof"] or []],
            decoded(vector["root"]),
        )
        if vector["wantErr"]:
            with pytest.raises(ProofMismatch):
                merkle.verify_inclusion(*arguments)
        else:
            merkle.verify_inclusion(*arguments)


def test_consistency_probes_of_transparency_dev(shared_folder: Path) -> None:
    vectors = probes(shared_folder, "consistency")
    assert len(vectors) == 98
    for vector in vectors:
        arguments = (
            vector["size1"],
            vector["size2"],
            [decoded(item) for item in vector["proof"] or []],
            decoded(vector["root1"]),
            decoded(vector["root2"]),
        )
        if vector["wantErr"]:
            with pytest.raises(ProofMismatch):
                merkle.verify_consistency(*arguments)
        else:
            merkle.verify_consistency(*arguments)

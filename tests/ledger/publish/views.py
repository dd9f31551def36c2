"""A log that shows what it likes: trees over made-up leaves, every root signed by its one key."""

from __future__ import annotations

from collections.abc import Sequence

from liberate.crypto.merkle import consistency_proof, leaf_hash, root
from liberate.crypto.note import Checkpoint, sign_checkpoint, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.identifiers import Digest
from liberate.ledger.witness.protocol import AddCheckpointRequest

ORIGIN = "example.org/views"
KEY = SigningKey.from_seed(bytes([7] * 32))
VKEY = verifier_key(ORIGIN, KEY.public)


class View:
    """One view of a log: the leaves `0, 1, ...` up to a fork, and others from there on.

    Args:
        name: Names the leaves after the fork.
        fork: First position at which views of other names differ.
        size: How many leaves there are.
    """

    def __init__(self, name: str = "", fork: int = 0, size: int = 64) -> None:
        self.leaves = [leaf_hash(f"{name if i >= fork else ''}{i}".encode()) for i in range(size)]

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, root(self.leaves[:size]))

    def note(self, size: int) -> str:
        return sign_checkpoint(self.checkpoint(size), KEY)

    def proof(self, old: int, new: int) -> Sequence[Digest]:
        return consistency_proof(old, new, self._node) if 0 < old < new else []

    def submission(self, old: int, new: int) -> bytes:
        return AddCheckpointRequest(old, self.proof(old, new), self.note(new)).encode()

    def _node(self, level: int, index: int) -> Digest:
        return root(self.leaves[index << level : (index + 1) << level])

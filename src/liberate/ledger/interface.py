"""The ledger as everything above it sees it: append, read, prove."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from liberate.errors import RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry
from liberate.ledger.rules.state import State

Offer = Entry | RefusedEntry
"""An entry to be appended, or why the bytes that were offered are none."""
AppendResult = int | RefusedEntry
"""The position of an appended entry, or why it was refused."""


class Ledger(Protocol):
    """A log of signed records under one Merkle tree."""

    @property
    def origin(self) -> str:
        """Name of the log."""
        ...

    @property
    def size(self) -> int:
        """Number of entries, blocks included."""
        ...

    @property
    def height(self) -> int:
        """Height of the last block."""
        ...

    @property
    def state(self) -> State:
        """What the rules know after the last block; callers must not change it."""
        ...

    def append(self, entries: Sequence[bytes]) -> list[AppendResult]:
        """Append entries as one block, durable on return.

        Returns:
            For each entry its position, or why it was refused. An entry that is in the log already has its first
            position, so an append that a crash interrupted can be repeated. Without a new entry, no block is made.
        """
        ...

    def entry(self, position: int) -> bytes:
        """Return the entry at a position, 0 <= position < size."""
        ...

    def entries(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield position and bytes of the entries in [begin, end), by default to the last one."""
        ...

    def positions(self, *, kind: str | None = None, author: int | None = None, about: int | None = None) -> list[int]:
        """Return the positions, increasing, of the entries of a kind, by an author, and about a principal."""
        ...

    def checkpoint(self) -> str:
        """Return the newest checkpoint as a signed note."""
        ...

    def node(self, level: int, index: int) -> Digest:
        """Return the hash of the perfect subtree over entries [index * 2**level, (index + 1) * 2**level)."""
        ...

    def nodes(self, places: Sequence[tuple[int, int]]) -> list[Digest]:
        """Return the hashes of perfect subtrees by (level, index), as `node` does."""
        ...

    def inclusion_proof(self, position: int, size: int | None = None) -> list[Digest]:
        """Prove that an entry is in the tree of the first `size` entries, by default of all."""
        ...

    def consistency_proof(self, old: int, new: int) -> list[Digest]:
        """Prove that the tree of the first `new` entries begins with that of the first `old`, 0 < old <= new."""
        ...

    def close(self) -> None:
        """Release the log, so that another process may own it."""
        ...

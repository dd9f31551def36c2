"""The ledger as everything above it sees it: append, read, prove."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from liberate.errors import RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry
from liberate.ledger.rules.state import State

Offer = Entry | RefusedEntry
"""What is to be appended, or why it is no entry."""
AppendResult = int | RefusedEntry
"""The position of an entry, or why it was refused."""


class Ledger(Protocol):
    """A log of signed facts under one Merkle tree."""

    @property
    def origin(self) -> str:
        """Name of the ledger."""
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
        """What the rules know; to be read only."""
        ...

    def append(self, entries: Sequence[bytes]) -> list[int | RefusedEntry]:
        """Add entries as one block, durable on return.

        Returns:
            For each entry its position, or why it was refused; the same bytes again give their first position.
            When nothing new is accepted, no block is made.
        """
        ...

    def entry(self, position: int) -> bytes:
        """Give an entry, 0 <= position < size."""
        ...

    def entries(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Give positions and entries of [begin, end), to the last one by default."""
        ...

    def positions(self, *, kind: str | None = None, author: int | None = None, about: int | None = None) -> list[int]:
        """Give the positions, increasing, of the entries of a kind, by an author, and that concern a principal."""
        ...

    def checkpoint(self) -> str:
        """Give the newest checkpoint as a signed note."""
        ...

    def node(self, level: int, index: int) -> Digest:
        """Give the hash of the perfect subtree over entries [index * 2**level, (index + 1) * 2**level)."""
        ...

    def nodes(self, places: Sequence[tuple[int, int]]) -> list[Digest]:
        """Do as `node` for many levels and indexes."""
        ...

    def inclusion_proof(self, position: int, size: int | None = None) -> list[Digest]:
        """Prove that an entry stands in the tree of the first `size` entries, all by default."""
        ...

    def consistency_proof(self, old: int, new: int) -> list[Digest]:
        """Prove that the tree of the first `new` entries begins with that of the first `old`, 0 < old <= new."""
        ...

    def close(self) -> None:
        """Let the ledger go."""
        ...

"""A follower of a log: it replays entries as they come, to learn what state they lead to."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from pathlib import Path

from liberate.crypto.merkle import CompactRange
from liberate.crypto.note import Checkpoint
from liberate.errors import LedgerError, ProofMismatch, RefusedEntry
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry, verify_signatures

_BATCH = 1_000

ReadEntries = Callable[[int, int], Generator[bytes, None, None]]
"""Yields the entries of [begin, end), or fewer where the copy ends; raises LedgerError where it cannot be read."""


def entries_in_folder(folder: Path) -> ReadEntries:
    """Read from a copy of the ledger's own folder, as it is at the time of each call."""

    def read(begin: int, end: int) -> Generator[bytes, None, None]:
        with closing(SqliteLedger.open(folder)) as ledger:
            for _, entry in ledger.entries(begin, min(end, ledger.size)):
                yield entry

    return read


class Follower:
    """Replays a log's entries by the rules.

    Args:
        vkey: The log's verifier key, which the genesis must name.
        read: Yields the entries.
    """

    def __init__(self, vkey: str, read: ReadEntries) -> None:
        self._vkey = vkey
        self._read = read
        self._restart()

    def follow(self, checkpoint: Checkpoint) -> None:
        """Replay all entries under a checkpoint, from where the last call ended.

        Raises:
            RefusedEntry: an entry does not follow from those before; a block's state root is checked so.
            ProofMismatch: the entries lead to another root, or do not end with a block.
            LedgerError: the entries cannot be read, or are not all here yet.
        """
        if checkpoint.size < self._edge.size:
            self._restart()
        try:
            with closing(self._read(self._edge.size, checkpoint.size)) as entries:
                while page := [decode_entry(data) for data in islice(entries, _BATCH)]:
                    self._apply(page)
            if self._edge.size == checkpoint.size:
                self._check(checkpoint)
        except LedgerError:
            self._restart()
            raise
        if self._edge.size < checkpoint.size:
            raise LedgerError(f"the copy holds {self._edge.size} entries, {checkpoint.size} are wanted")

    def _apply(self, page: list[Entry]) -> None:
        signed = verify_signatures(self._state, page)
        for entry in page:
            try:
                apply_entry(self._state, entry, self._edge.size, verified_by=signed.get(entry.leaf_hash))
            except RefusedEntry as refused:
                raise RefusedEntry(refused.reason, f"entry {self._edge.size}: {refused.detail}") from refused
            self._edge.append(entry.leaf_hash)

    def _check(self, checkpoint: Checkpoint) -> None:
        state = self._state
        if state.genesis is None:
            raise ProofMismatch("a ledger has at least a genesis and a block")
        if state.genesis.log_vkey != self._vkey:
            raise ProofMismatch(f"the genesis names the log's key {state.genesis.log_vkey}, wanted {self._vkey}")
        if state.block_size != state.size:
            raise ProofMismatch(f"no block ends the first {state.size} entries")
        if self._edge.root() != checkpoint.root:
            raise ProofMismatch(f"the first {state.size} entries do not have the signed root")

    def _restart(self) -> None:
        self._state = State()
        self._edge = CompactRange()

"""Follow a log by its entries: what its checkpoints and state roots must be, from the rules alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from liberate.crypto.merkle import CompactRange
from liberate.crypto.note import Checkpoint
from liberate.errors import LedgerError, ProofMismatch
from liberate.ledger.log import SqliteLedger
from liberate.ledger.records import decode_entry
from liberate.ledger.rules import apply, verify_signatures
from liberate.ledger.state import State

_BATCH = 1_000

ReadEntries = Callable[[int, int], Iterable[bytes]]
"""Gives the entries of [begin, end), or fewer where the copy ends; raises LedgerError where it cannot be read."""


def entries_in_folder(folder: Path) -> ReadEntries:
    """Read from a copy of the ledger's own folder, as it is at the time of each call."""

    def read(begin: int, end: int) -> Iterable[bytes]:
        ledger = SqliteLedger.open(folder)
        try:
            return [entry for _, entry in ledger.entries(begin, min(end, ledger.size))]
        finally:
            ledger.close()

    return read


class Follower:
    """Replays a log's entries by the rules.

    Args:
        vkey: The log's verifier key, which the genesis must name.
        read: Gives the entries.
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
            while self._edge.size < checkpoint.size:
                self._apply_some(checkpoint.size)
            self._check(checkpoint)
        except LedgerError:
            self._restart()
            raise

    def _apply_some(self, size: int) -> None:
        begin = self._edge.size
        page = [decode_entry(data) for data in self._read(begin, min(begin + _BATCH, size))]
        if not page:
            raise LedgerError(f"the copy holds {begin} entries, {size} are wanted")
        signed = verify_signatures(self._state, page)
        for entry in page:
            apply(self._state, entry, self._edge.size, verified_by=signed.get(entry.leaf_hash))
            self._edge.append(entry.leaf_hash)

    def _check(self, checkpoint: Checkpoint) -> None:
        state = self._state
        if state.founding.log_vkey != self._vkey:
            raise ProofMismatch(f"the genesis names the log's key {state.founding.log_vkey}, wanted {self._vkey}")
        if state.block_size != state.size:
            raise ProofMismatch(f"no block ends the first {state.size} entries")
        if self._edge.root() != checkpoint.root:
            raise ProofMismatch(f"the first {state.size} entries do not have the signed root")

    def _restart(self) -> None:
        self._state = State()
        self._edge = CompactRange()

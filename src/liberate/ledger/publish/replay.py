"""Follow a log by its entries: what its checkpoints and state roots must be, from the rules alone."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from liberate.crypto.merkle import CompactRange
from liberate.crypto.note import Checkpoint, read_unverified
from liberate.errors import LedgerError, ProofMismatch, RefusedEntry
from liberate.ledger.findings import Finding
from liberate.ledger.log import SqliteLedger
from liberate.ledger.publish.reader import TilesAudit, source
from liberate.ledger.publish.tiles import CHECKPOINT, TILE_WIDTH, split_bundle, tile_path
from liberate.ledger.records import Entry, decode_entry
from liberate.ledger.rules import apply, verify_signatures
from liberate.ledger.state import State

_BATCH = 1_000

ReadEntries = Callable[[int, int], Generator[bytes, None, None]]
"""Gives the entries of [begin, end), or fewer where the copy ends; raises LedgerError where it cannot be read."""


def entries_in_folder(folder: Path) -> ReadEntries:
    """Read from a copy of the ledger's own folder, as it is at the time of each call."""

    def read(begin: int, end: int) -> Generator[bytes, None, None]:
        with closing(SqliteLedger.open(folder)) as ledger:
            for _, entry in ledger.entries(begin, min(end, ledger.size)):
                yield entry

    return read


def entries_in_tiles(place: Path | str) -> ReadEntries:
    """Read from a ledger that is published as tiles, in a folder or under an address."""
    files = source(place)

    def bundle(index: int, width: int) -> list[bytes]:
        data = files(tile_path(None, index, width))
        if data is not None:
            return split_bundle(data, width)
        full = files(tile_path(None, index))  # a partial bundle goes when the full one comes
        if full is None:
            raise LedgerError(f"{tile_path(None, index, width)} is missing")
        return split_bundle(full, TILE_WIDTH)[:width]

    def read(begin: int, end: int) -> Generator[bytes, None, None]:
        note = files(CHECKPOINT)
        if note is None:
            raise LedgerError(f"there is no checkpoint in {place}")
        size = read_unverified(note.decode(errors="replace")).size
        for index in range(begin // TILE_WIDTH, -(-min(end, size) // TILE_WIDTH)):
            first = index * TILE_WIDTH
            yield from bundle(index, min(TILE_WIDTH, size - first))[max(0, begin - first) : end - first]

    return read


def replay_tiles(place: Path | str, vkey: str, audit: TilesAudit) -> TilesAudit:
    """Add to what a check of published tiles found what a replay of their entries by the rules finds.

    Args:
        place: As in `verify_tiles`.
        vkey: Verifier key of the log, from outside.
        audit: What `verify_tiles` found there.
    """
    if audit.origin is None or audit.root is None:
        return audit
    try:
        Follower(vkey, entries_in_tiles(place)).follow(Checkpoint(audit.origin, audit.entry_count, audit.root))
    except LedgerError as error:
        return replace(audit, ok=False, findings=(*audit.findings, Finding("entries", error.message)))
    return audit


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
                apply(self._state, entry, self._edge.size, verified_by=signed.get(entry.leaf_hash))
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

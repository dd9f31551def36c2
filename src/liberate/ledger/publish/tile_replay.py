"""Follow a log by its entries: what its checkpoints and state roots must be, from the rules alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from liberate.crypto.note import Checkpoint, read_unverified
from liberate.errors import LedgerError
from liberate.ledger.publish.tile_reader import TileVerificationReport, read_tile_or_full, source
from liberate.ledger.publish.tiles import CHECKPOINT, TILE_WIDTH, split_bundle, tile_path
from liberate.ledger.verification.findings import Finding
from liberate.ledger.witness.follower import Follower, ReadEntries


def entries_in_tiles(place: Path | str) -> ReadEntries:
    """Read from a ledger that is published as tiles, in a folder or under an address."""
    files = source(place)

    def bundle(index: int, width: int) -> list[bytes]:
        data = read_tile_or_full(files, None, index, width)
        if data is None:
            raise LedgerError(f"{tile_path(None, index, width)} is missing")
        return split_bundle(data, width)

    def read(begin: int, end: int) -> Generator[bytes, None, None]:
        note = files(CHECKPOINT)
        if note is None:
            raise LedgerError(f"there is no checkpoint in {place}")
        size = read_unverified(note.decode(errors="replace")).size
        for index in range(begin // TILE_WIDTH, -(-min(end, size) // TILE_WIDTH)):
            first = index * TILE_WIDTH
            yield from bundle(index, min(TILE_WIDTH, size - first))[max(0, begin - first) : end - first]

    return read


def replay_tiles(place: Path | str, vkey: str, report: TileVerificationReport) -> TileVerificationReport:
    """Return the report of a check of published tiles, with what a replay of their entries adds to it.

    Args:
        place: As in `verify_tiles`.
        vkey: Verifier key of the log, from outside.
        report: What `verify_tiles` found there.
    """
    if report.origin is None or report.root is None:
        return report
    try:
        Follower(vkey, entries_in_tiles(place)).follow(Checkpoint(report.origin, report.entry_count, report.root))
    except LedgerError as error:
        return replace(report, ok=False, findings=(*report.findings, Finding("entries", error.message)))
    return report

"""A ledger as static files (C2SP tlog-tiles): whoever can read files can check it, with tools that are not ours.

A tile holds the hashes of 256 subtrees of one size, side by side; the last tile of a level may be partial. Bundles of
the entries are kept beside the tiles of level 0. The checkpoint is written last, so it never covers what is not there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from liberate.crypto import merkle
from liberate.crypto.merkle import DIGEST_BYTES, CompactRange, Node
from liberate.crypto.note import Checkpoint, verify_checkpoint
from liberate.errors import LedgerError
from liberate.files import write_atomic
from liberate.identifiers import Digest
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import checkpoint_for_publication

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
CHECKPOINT = "checkpoint"
LENGTH_BYTES = 2
"""Bytes of the big-endian length before each entry of a bundle."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export holds now.

    Attributes:
        path: Its folder or file.
        entry_count: Entries under its checkpoint.
        root: Root of the tree over them.
    """

    path: Path
    entry_count: int
    root: Digest


def export_tiles(ledger: Ledger, folder: Path, note: str | None = None) -> ExportReport:
    """Write a ledger as tiles, or add to an earlier export what has come since.

    Args:
        ledger: The ledger.
        folder: A new folder, or one with an earlier export of the same ledger.
        note: The checkpoint to export; the newest by default.

    Raises:
        NoQuorum: fewer witnesses have cosigned the checkpoint than the genesis wants.
        LedgerError: the folder holds another ledger or another history of this one, or the ledger is damaged.
    """
    text, checkpoint = checkpoint_for_publication(ledger, note)
    folder.mkdir(parents=True, exist_ok=True)

    with _sole_writer(folder):
        old = _exported_size(ledger, folder, checkpoint)
        for index, width in tiles_of(checkpoint.size, 0, old):
            _write_bundle(ledger, folder, index, width)

        for level in range(1, level_count(checkpoint.size)):
            for index, width in tiles_of(checkpoint.size, level, old):
                first = index * TILE_WIDTH
                hashes = [ledger.node(level * TILE_HEIGHT, first + i) for i in range(width)]
                _write_tile(ledger, folder, level, index, hashes)

        _check_root(folder, checkpoint)
        os.sync()  # in a power failure the checkpoint must not outlive the tiles
        write_atomic(folder / CHECKPOINT, text.encode())
    return ExportReport(folder, checkpoint.size, checkpoint.root)


def tile_path(level: int | None, index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile, or of a bundle of entries if the level is None.

    Args:
        level: 0 for the leaves' hashes; each further level covers 256 times as many entries.
        index: Index within the level, >= 0.
        width: Hashes or entries in it, 1 to 256; fewer than 256 make it partial.
    """
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    part = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{'entries' if level is None else level}/{'/'.join(groups)}{part}"


def tiles_of(size: int, level: int, old: int = 0) -> Iterator[tuple[int, int]]:
    """Yield index and width of each tile of a level that a tree of `size` entries has and one of `old` had not."""
    count, before = size >> level * TILE_HEIGHT, old >> level * TILE_HEIGHT
    if count > before:
        for index in range(before // TILE_WIDTH, -(-count // TILE_WIDTH)):
            yield index, tile_width(size, level, index)


def tile_width(size: int, level: int, index: int) -> int:
    """Return how many hashes a tile has in a tree of `size` entries, at most 256."""
    return min(TILE_WIDTH, (size >> level * TILE_HEIGHT) - index * TILE_WIDTH)


def level_count(size: int) -> int:
    """Return how many levels of tiles a tree of `size` entries has."""
    return -(-size.bit_length() // TILE_HEIGHT)


def split_tile(data: bytes, width: int) -> list[Digest]:
    """Return the hashes of a tile.

    Raises:
        LedgerError: there are more or fewer.
    """
    if len(data) != width * DIGEST_BYTES:
        raise LedgerError(f"{len(data)} bytes found, wanted {width} hashes of {DIGEST_BYTES}")
    return [Digest(data[at : at + DIGEST_BYTES]) for at in range(0, len(data), DIGEST_BYTES)]


def split_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        LedgerError: there are more or fewer, or the last one is cut short.
    """
    entries: list[bytes] = []
    end = 0
    while end < len(data):
        begin = end + LENGTH_BYTES
        end = begin + int.from_bytes(data[end:begin], "big")
        if begin > len(data) or end > len(data):
            raise LedgerError(f"entry {len(entries)} of the bundle is cut short")
        entries.append(data[begin:end])
    if len(entries) != width:
        raise LedgerError(f"{len(entries)} entries found, wanted {width}")
    return entries


def node_in_tiles(tile: Callable[[int, int, int], Sequence[Digest]], size: int) -> Node:
    """Return what finds the nodes of a tree in its tiles.

    Args:
        tile: Returns the hashes of the tile with this level, index and width.
        size: Number of entries of the tree.
    """

    def node(level: int, index: int) -> Digest:
        tile_level, height = divmod(level, TILE_HEIGHT)
        first = index << height
        at, place = divmod(first, TILE_WIDTH)
        hashes = tile(tile_level, at, tile_width(size, tile_level, at))
        return merkle.root(hashes[place : place + (1 << height)])

    return node


def _exported_size(ledger: Ledger, folder: Path, checkpoint: Checkpoint) -> int:
    """Return how many entries the folder holds already, after checking that they are the ledger's first ones."""
    try:
        text = (folder / CHECKPOINT).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        if not {"tile", f"{CHECKPOINT}.draft"}.issuperset(os.listdir(folder)):
            raise LedgerError(f"{folder} holds something else than an export", hint="give an empty folder") from None
        return 0

    hint = "export into a new folder and keep both: checkpoints that contradict each other are evidence"
    try:
        old = verify_checkpoint(text, ledger.state.founding.log_vkey)
    except LedgerError as error:
        raise LedgerError(f"{folder} holds no export of {ledger.origin}: {error}", hint=hint) from error
    if old.size > checkpoint.size:
        raise LedgerError(f"{folder} holds {old.size} entries, the ledger only {checkpoint.size}", hint=hint)
    if CompactRange.restore(old.size, ledger.node).root() != old.root:
        raise LedgerError(f"the {old.size} entries in {folder} are not the ledger's first ones", hint=hint)
    return old.size


def _write_bundle(ledger: Ledger, folder: Path, index: int, width: int) -> None:
    """Write a bundle and its tile of level 0."""
    first = index * TILE_WIDTH
    entries = list(ledger.entries(first, first + width))
    if [position for position, _ in entries] != list(range(first, first + width)):
        raise LedgerError(f"entries are missing among {first} to {first + width - 1}", hint="liberate ledger verify")
    bundle = b"".join(len(entry).to_bytes(LENGTH_BYTES, "big") + entry for _, entry in entries)
    _write(folder, None, index, width, bundle)
    _write_tile(ledger, folder, 0, index, [merkle.leaf_hash(entry) for _, entry in entries])


def _write_tile(ledger: Ledger, folder: Path, level: int, index: int, hashes: Sequence[Digest]) -> None:
    if len(hashes) == TILE_WIDTH and merkle.root(hashes) != ledger.node((level + 1) * TILE_HEIGHT, index):
        path = tile_path(level, index)
        raise LedgerError(f"the ledger's hashes contradict each other at {path}", hint="liberate ledger verify")
    _write(folder, level, index, len(hashes), b"".join(hashes))


def _check_root(folder: Path, checkpoint: Checkpoint) -> None:
    """Check that the right edge of the tree, as it was written, leads to the signed root."""

    def tile(level: int, index: int, width: int) -> list[Digest]:
        return split_tile((folder / tile_path(level, index, width)).read_bytes(), width)

    calculated = CompactRange.restore(checkpoint.size, node_in_tiles(tile, checkpoint.size)).root()
    if calculated != checkpoint.root:
        raise LedgerError(
            f"the tiles lead to {calculated.hex()}, signed is {checkpoint.root.hex()}", hint="liberate ledger verify"
        )


def _write(folder: Path, level: int | None, index: int, width: int, data: bytes) -> None:
    """Write a tile or bundle whole or not at all; one with the same content stays as it is.

    All tiles are made durable together, before the checkpoint.
    """
    path = folder / tile_path(level, index, width)
    if not (path.is_file() and path.read_bytes() == data):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(data)
        draft.replace(path)

    # Only now: as long as a tile is not full, older checkpoints need its partial forms.
    if width == TILE_WIDTH:
        shutil.rmtree(f"{path}.p", ignore_errors=True)


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Keep other exports out of a folder: the older checkpoint of two must not be written last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

"""Check a ledger that is published as tiles, from a folder or a static file server, trusting nothing but a key."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

from liberate.crypto import merkle
from liberate.crypto.merkle import CompactRange
from liberate.crypto.note import (
    Checkpoint,
    WitnessPolicy,
    parse_verifier_key,
    verify_checkpoint,
    verify_cosigned_checkpoint,
)
from liberate.errors import LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import MAX_ENTRY_BYTES, decode_record
from liberate.ledger.format.records import Genesis
from liberate.ledger.publish.proof_files import NO_WITNESSES
from liberate.ledger.publish.tiles import (
    CHECKPOINT,
    LENGTH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    level_count,
    node_in_tiles,
    split_bundle,
    split_tile,
    tile_path,
    tile_width,
    tiles_of,
)
from liberate.ledger.verification.findings import Finding, FindingCollector

Read = Callable[[str], bytes | None]
"""Returns the content of a file by its path within the export, or None where there is no such file."""

_LARGEST_FILE = TILE_WIDTH * (LENGTH_BYTES + MAX_ENTRY_BYTES)
_TIME_LIMIT_S = 30
_MAX_MISSING = 100
_KEPT_TILES = 64
_GZIP = 16 + zlib.MAX_WBITS
_PART = re.compile(r"tile/(?P<level>entries|[0-9]{1,2})/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})\.p/(?P<width>[0-9]{1,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileVerificationReport:
    """What a check of published tiles found.

    Attributes:
        ok: Nothing is wrong.
        origin: Name of the ledger; None without a signed checkpoint.
        entry_count: Entries under the signed checkpoint.
        root: The signed root; None without a signed checkpoint.
        simulated: Whether the genesis names a simulation, whose keys anybody can make; None if it cannot be read.
        findings: What is wrong, each with the file's path.
    """

    ok: bool
    origin: str | None
    entry_count: int
    root: Digest | None
    simulated: bool | None
    findings: tuple[Finding, ...]


def verify_tiles(
    place: Path | str, vkey: str, *, kept: str | None = None, policy: WitnessPolicy = NO_WITNESSES
) -> TileVerificationReport:
    """Compute the root again from all entries and from all tiles, and compare them with the signed one.

    In a folder, the partial tiles of older checkpoints are checked too; a server cannot be asked for them.

    Args:
        place: The folder, or its address, `http://...` or `https://...`; it holds `checkpoint` and `tile/`.
        vkey: Verifier key of the log, from outside.
        kept: A checkpoint kept from before, which the ledger must continue.
        policy: Whose cosignatures the checkpoint must have.

    Raises:
        LedgerError: the server does not answer.
        InvalidRecord: the key, or the kept checkpoint under it, is none.
    """
    parse_verifier_key(vkey)
    remembered = None if kept is None else verify_checkpoint(kept, vkey)
    findings = FindingCollector()
    reader = _Reader(source(place), findings)

    checkpoint = reader.checkpoint(vkey, policy)
    if checkpoint is not None:
        reader.check(checkpoint)
        if remembered is not None:
            reader.check_continues(remembered, checkpoint)
        if not _is_address(place):
            reader.check_parts(Path(place), checkpoint.size)

    listed = findings.listed()
    return TileVerificationReport(
        ok=not listed,
        origin=checkpoint.origin if checkpoint else None,
        entry_count=checkpoint.size if checkpoint else 0,
        root=checkpoint.root if checkpoint else None,
        simulated=reader.is_simulated(checkpoint.size) if checkpoint else None,
        findings=listed,
    )


class _Reader:
    """Reads tiles and notes what is wrong with them; keeps a few tiles in memory."""

    def __init__(self, read: Read, findings: FindingCollector) -> None:
        self._read = read
        self._findings = findings
        self._n_missing = 0
        self._tile = lru_cache(_KEPT_TILES)(self._read_tile)

    def checkpoint(self, vkey: str, policy: WitnessPolicy) -> Checkpoint | None:
        data = self._read(CHECKPOINT)
        with self._findings.checking(CHECKPOINT):
            if data is None:
                raise LedgerError("is missing")
            return verify_cosigned_checkpoint(data.decode(errors="replace"), vkey, policy)
        return None

    def is_simulated(self, size: int) -> bool | None:
        """Return whether the first of so many entries is the genesis of a simulation; None if there is none."""
        width = tile_width(size, 0, 0)
        data = read_tile_or_full(self._read, None, 0, width)
        try:
            return None if data is None else decode_record(split_bundle(data, width)[0], Genesis).simulated
        except (LedgerError, IndexError):
            return None

    def check(self, checkpoint: Checkpoint) -> None:
        """Check each tile against the entries or tiles below it, and the topmost ones against the signed root."""
        size = checkpoint.size
        for level in range(level_count(size)):
            for index, width in tiles_of(size, level):
                if level == 0:
                    self._check_entries(index, width)
                self._check_tile(level, index, width, size)
                if self._n_missing >= _MAX_MISSING:
                    self._findings.add("tile", f"{self._n_missing} files are missing; the rest was not read")
                    return
        self._check_root(checkpoint, size, CHECKPOINT)

    def check_continues(self, kept: Checkpoint, checkpoint: Checkpoint) -> None:
        """Check that the tree begins with a remembered one."""
        if kept.size > checkpoint.size:
            self._findings.add(CHECKPOINT, f"{checkpoint.size} entries, but the kept checkpoint has {kept.size}")
        else:
            self._check_root(kept, checkpoint.size, "kept checkpoint")

    def check_parts(self, folder: Path, size: int) -> None:
        """Check that the partial tiles of older checkpoints are the beginnings of today's."""
        for path in sorted(folder.glob("tile/**/*.p/*")):
            place = path.relative_to(folder).as_posix()
            match = _PART.fullmatch(place)
            if match is None or path.name.startswith("."):
                continue
            level = None if match["level"] == "entries" else int(match["level"])
            index, width = int(re.sub(r"[x/]", "", match["index"])), int(match["width"])
            count = (size >> (level or 0) * TILE_HEIGHT) - index * TILE_WIDTH
            data = _read_file(path)
            if data is not None and 0 < width < count:
                self._check_part(place, data, level, index, width, min(count, TILE_WIDTH))

    def _check_entries(self, index: int, width: int) -> None:
        place, tile = tile_path(None, index, width), tile_path(0, index, width)
        with self._findings.checking(place):
            entries = split_bundle(self._read_tile_or_full(None, index, width), width)
            with suppress(LedgerError):  # reported when the tile itself is checked
                leaves = self._tile(0, index, width)
                for position, (entry, leaf) in enumerate(zip(entries, leaves, strict=True), start=index * TILE_WIDTH):
                    if merkle.leaf_hash(entry) != leaf:
                        self._findings.add(place, f"entry {position} does not hash to its leaf in {tile}, {leaf.hex()}")

    def _check_tile(self, level: int, index: int, width: int, size: int) -> None:
        place = tile_path(level, index, width)
        with self._findings.checking(place):
            calculated = merkle.root(self._tile(level, index, width))
            if width < TILE_WIDTH:
                return

            above, at = divmod(index, TILE_WIDTH)
            above_width = tile_width(size, level + 1, above)
            with suppress(LedgerError):  # reported when that tile is checked
                stored = self._tile(level + 1, above, above_width)[at]
                if calculated != stored:
                    parent = tile_path(level + 1, above, above_width)
                    self._findings.add(place, f"leads to {calculated.hex()}, hash {at} of {parent} is {stored.hex()}")

    def _check_root(self, checkpoint: Checkpoint, size: int, place: str) -> None:
        with suppress(LedgerError):  # reported when the tile was checked
            calculated = CompactRange.restore(checkpoint.size, node_in_tiles(self._tile, size)).root()
            if calculated != checkpoint.root:
                self._findings.add(place, f"leads to {calculated.hex()}, signed is {checkpoint.root.hex()}")

    def _check_part(self, place: str, data: bytes, level: int | None, index: int, width: int, current: int) -> None:
        with self._findings.checking(place):
            if level is None:
                split_bundle(data, width)
            else:
                split_tile(data, width)
            if not self._read_tile_or_full(level, index, current).startswith(data):
                raise LedgerError(f"differs from the beginning of {tile_path(level, index, current)}")

    def _read_tile(self, level: int, index: int, width: int) -> list[Digest]:
        return split_tile(self._read_tile_or_full(level, index, width), width)

    def _read_tile_or_full(self, level: int | None, index: int, width: int) -> bytes:
        data = read_tile_or_full(self._read, level, index, width)
        if data is None:
            self._n_missing += 1
            raise LedgerError("is missing")
        return data


def read_tile_or_full(read: Read, level: int | None, index: int, width: int) -> bytes | None:
    """Return a tile or bundle, or None where there is none.

    A partial one may have been replaced by the full one, of which it is the beginning.
    """
    data = read(tile_path(level, index, width))
    if data is not None or width == TILE_WIDTH:
        return data

    full = read(tile_path(level, index))
    if full is None:
        return None
    if level is not None:
        return b"".join(split_tile(full, TILE_WIDTH)[:width])
    entries = split_bundle(full, TILE_WIDTH)[:width]
    return full[: sum(LENGTH_BYTES + len(entry) for entry in entries)]


def _is_address(place: Path | str) -> bool:
    return isinstance(place, str) and place.startswith(("http://", "https://"))


def source(place: Path | str) -> Read:
    """Return what reads the files of an export.

    Raises:
        LedgerError: there is no such folder.
    """
    if _is_address(place):
        base = str(place).rstrip("/")
        return lambda path: _fetch(f"{base}/{path}")
    folder = Path(place)
    if not folder.is_dir():
        raise LedgerError(f"there is no folder {folder}", hint="a folder, http://... or https://... is wanted")
    return lambda path: _read_file(folder / path)


def _read_file(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return _limited(file.read(_LARGEST_FILE + 1))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise LedgerError(f"cannot be read: {error.strerror}") from error


def _fetch(url: str) -> bytes | None:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip, identity"})
    try:
        with urllib.request.urlopen(request, timeout=_TIME_LIMIT_S) as response:
            data = response.read(_LARGEST_FILE + 1)
            if response.headers.get("Content-Encoding") == "gzip":
                data = zlib.decompressobj(_GZIP).decompress(data, _LARGEST_FILE + 1)
            return _limited(data)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            return None
        raise LedgerError(f"{url}: the server answered {error.code}") from error
    except (OSError, HTTPException, zlib.error) as error:
        raise LedgerError(f"{url} cannot be read: {error}") from error


def _limited(data: bytes) -> bytes:
    if len(data) > _LARGEST_FILE:
        raise LedgerError(f"more than {_LARGEST_FILE} bytes")
    return data

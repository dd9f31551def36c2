"""Tiles are what C2SP says, grow without changing what was there, and refuse any other history."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from liberate.crypto import merkle
from liberate.crypto.note import Checkpoint, verify_checkpoint
from liberate.errors import LedgerError
from liberate.identifiers import Digest
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.tile_reader import verify_tiles
from liberate.ledger.publish.tiles import (
    TILE_WIDTH,
    export_tiles,
    level_count,
    node_in_tiles,
    split_bundle,
    split_tile,
    tile_path,
    tiles_of,
)
from tests.ledger.publish.growing import files, grow, signed
from tests.ledger.world import LOG_VKEY, ORIGIN, World, create, digest
from tests.reference import merkle as reference


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """A ledger of 12 entries."""
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    yield ledger
    ledger.close()


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (3, 1234067, 256, "tile/3/x001/x234/067"),
        (0, 1000, 5, "tile/0/x001/000.p/5"),
        (None, 999, 255, "tile/entries/999.p/255"),
        (None, 10**9, 256, "tile/entries/x001/x000/x000/000"),
    ],
)
def test_path_of_a_tile(level: int | None, index: int, width: int, path: str) -> None:
    assert tile_path(level, index, width) == path


def test_tiles_of_the_specifications_examples() -> None:
    levels = [list(tiles_of(70_000, level)) for level in range(level_count(70_000))]

    assert [len(level) for level in levels] == [274, 2, 1]
    assert [level[-1] for level in levels] == [(273, 112), (1, 17), (0, 1)]
    assert [list(tiles_of(256, level)) for level in range(level_count(256))] == [[(0, 256)], [(0, 1)]]
    assert level_count(0) == 0


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537])
def test_new_tiles_are_those_that_the_smaller_tree_did_not_have(size: int) -> None:
    for level in range(level_count(size)):
        whole = list(tiles_of(size, level))
        for old in {0, 1, size // 2, size - 1, size}:
            assert set(tiles_of(size, level, old)) == set(whole) - set(tiles_of(old, level))


@pytest.mark.parametrize("size", [12, 255, 256, 257, 600])
def test_tiles_hold_the_hashes_of_the_specification(ledger: SqliteLedger, tmp_path: Path, size: int) -> None:
    if size > ledger.size:
        grow(ledger, size)
    entries = [entry for _, entry in ledger.entries()]

    exported = export_tiles(ledger, tmp_path / "tiles")

    found = files(tmp_path / "tiles")
    assert (exported.path, exported.entry_count) == (tmp_path / "tiles", size)
    assert exported.root == reference.tree_hash(entries) == verify_checkpoint(ledger.checkpoint(), LOG_VKEY).root
    assert found.pop("checkpoint").decode() == ledger.checkpoint()
    for index, width in tiles_of(size, 0):
        first = index * TILE_WIDTH
        assert split_bundle(found.pop(tile_path(None, index, width)), width) == entries[first : first + width]
    for level in range(level_count(size)):
        span = TILE_WIDTH**level
        for index, width in tiles_of(size, level):
            begins = [(index * TILE_WIDTH + i) * span for i in range(width)]
            wanted = [reference.tree_hash(entries[begin : begin + span]) for begin in begins]
            assert split_tile(found.pop(tile_path(level, index, width)), width) == wanted
    assert found == {}


@pytest.mark.parametrize("size", [1, 40, 255, 256, 257, 1000, 65_536, 70_000])
def test_every_node_and_proof_follows_from_tiles(size: int) -> None:
    leaves = [digest(number) for number in range(size)]
    levels = [leaves]
    while len(levels[-1]) > 1:
        pairs = zip(levels[-1][::2], levels[-1][1::2], strict=False)
        levels.append([merkle.node_hash(left, right) for left, right in pairs])

    def tile(level: int, index: int, width: int) -> list[Digest]:
        hashes = levels[level * 8][index * TILE_WIDTH :][:width]
        assert len(hashes) == width
        assert (index, width) in list(tiles_of(size, level)), "only tiles that are published are read"
        return hashes

    node = node_in_tiles(tile, size)

    for level, hashes in enumerate(levels):
        for index in {0, len(hashes) // 3, len(hashes) - 1}:
            if index << level < size >> level << level:
                assert node(level, index) == hashes[index]
    place = size // 2
    proof = merkle.inclusion_proof(place, size, node)
    merkle.verify_inclusion(leaves[place], place, size, proof, merkle.root(leaves))


def test_an_export_grows_without_touching_what_is_full(ledger: SqliteLedger, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    grow(ledger, 300)
    export_tiles(ledger, folder)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    grow(ledger, 400)

    export_tiles(ledger, folder)

    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(folder).as_posix() for path in set(after) - set(before)} == {
        "tile/0/001.p/144",
        "tile/entries/001.p/144",
    }
    assert [path.name for path in before if after.get(path) != before[path]] == ["checkpoint"]


def test_growing_in_steps_gives_what_one_export_gives(ledger: SqliteLedger, tmp_path: Path) -> None:
    for size in (20, 100, 254, 256, 300, 530):
        grow(ledger, size)
        export_tiles(ledger, tmp_path / "steps")
        assert verify_tiles(tmp_path / "steps", LOG_VKEY).findings == ()

    export_tiles(ledger, tmp_path / "once")

    steps, once = files(tmp_path / "steps"), files(tmp_path / "once")
    assert {path: steps[path] for path in once} == once
    assert set(steps) - set(once) == {"tile/1/000.p/1"}, "partial tiles go when the full one is there, not before"


def test_an_older_checkpoint_can_be_exported(ledger: SqliteLedger, tmp_path: Path) -> None:
    note = ledger.checkpoint()
    grow(ledger, 300)

    assert export_tiles(ledger, tmp_path / "tiles", note).entry_count == 12
    assert verify_tiles(tmp_path / "tiles", LOG_VKEY).ok


def test_an_export_that_was_cut_off_is_completed(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiles"
    for size in (280, 600):
        grow(ledger, size)
        with monkeypatch.context() as patch:
            patch.setattr(os, "sync", lambda: exec("raise OSError('no space')"))
            with pytest.raises(OSError, match="no space"):
                export_tiles(ledger, folder)
        if size == 280:
            assert "checkpoint" not in files(folder)
        else:
            audit = verify_tiles(folder, LOG_VKEY)
            assert (audit.ok, audit.entry_count) == (True, 280)

        export_tiles(ledger, folder)

        assert verify_tiles(folder, LOG_VKEY).entry_count == size


def test_a_rolled_back_ledger_is_refused(ledger: SqliteLedger, tmp_path: Path) -> None:
    note = ledger.checkpoint()
    grow(ledger, 20)
    export_tiles(ledger, tmp_path / "tiles")
    before = files(tmp_path / "tiles")

    with pytest.raises(LedgerError, match="holds 20 entries, the ledger only 12"):
        export_tiles(ledger, tmp_path / "tiles", note)

    assert files(tmp_path / "tiles") == before


def test_another_history_of_the_same_ledger_is_refused(ledger: SqliteLedger, tmp_path: Path) -> None:
    other = create(tmp_path / "other")
    World(other).populate()
    World(other).add(World(other).round())
    export_tiles(other, tmp_path / "tiles")
    other.close()
    grow(ledger, 20)

    with pytest.raises(LedgerError, match="are not the ledger's first ones"):
        export_tiles(ledger, tmp_path / "tiles")


def test_a_folder_of_another_log_or_of_something_else_is_refused(ledger: SqliteLedger, tmp_path: Path) -> None:
    foreign, thesis = tmp_path / "foreign", tmp_path / "thesis"
    export_tiles(ledger, foreign)
    note = (foreign / "checkpoint").read_text("utf-8").replace(ORIGIN, "example.org/other")
    (foreign / "checkpoint").write_text(note, "utf-8")
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("precious")

    with pytest.raises(LedgerError, match="holds no export of"):
        export_tiles(ledger, foreign)
    with pytest.raises(LedgerError, match="something else than an export"):
        export_tiles(ledger, thesis)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM entry WHERE position = 100", "entries are missing"),
        ("UPDATE entry SET entry = zeroblob(100) WHERE position = 100", "contradict each other"),
        ("UPDATE entry SET entry = zeroblob(100) WHERE position = 520", "the tiles lead to"),
        ("UPDATE node SET hash = zeroblob(32) WHERE position = 255 AND level = 8", "contradict each other"),
        ("DELETE FROM node WHERE position = 255 AND level = 8", "there is no node"),
    ],
)
def test_a_damaged_ledger_is_not_published(ledger: SqliteLedger, tmp_path: Path, statement: str, reason: str) -> None:
    grow(ledger, 530)
    ledger.close()
    connection = tables.connect(tmp_path / "ledger", mode="rw")
    connection.execute(statement)
    connection.close()
    damaged = SqliteLedger.open(tmp_path / "ledger")

    with pytest.raises(LedgerError, match=reason):
        export_tiles(damaged, tmp_path / "tiles")

    damaged.close()
    assert "checkpoint" not in files(tmp_path / "tiles")


def test_a_checkpoint_of_another_key_is_not_published(ledger: SqliteLedger, tmp_path: Path) -> None:
    checkpoint = verify_checkpoint(ledger.checkpoint(), LOG_VKEY)
    lie = signed(Checkpoint(ORIGIN, checkpoint.size, digest("lie")))

    with pytest.raises(LedgerError, match="the tiles lead to"):
        export_tiles(ledger, tmp_path / "tiles", lie)


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x05abc", b"\x00\x01a", b"\x00\x01a\x00\x01b\x00\x01c"])
def test_a_bundle_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerError):
        split_bundle(data, 2)
    with pytest.raises(LedgerError):
        split_tile(data, 2)

"""A reader with nothing but the files and the key finds every change."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from liberate.crypto import merkle
from liberate.crypto.note import Checkpoint, verifier_key, verify_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, LedgerError
from liberate.identifiers import Digest
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.tile_reader import TileVerificationReport, verify_tiles
from liberate.ledger.publish.tile_replay import replay_tiles
from liberate.ledger.publish.tiles import export_tiles
from tests.ledger.publish.growing import Quiet, cosigned, files, grow, policy, served, signed
from tests.ledger.world import LOG_VKEY, ORIGIN, World, create, digest, write_history


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of 12 entries, grown from one of 2."""
    folder = tmp_path_factory.mktemp("small")
    ledger = create(folder / "ledger")
    export_tiles(ledger, folder / "tiles")
    World(ledger).populate()
    export_tiles(ledger, folder / "tiles")
    ledger.close()
    return folder / "tiles"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of 530 entries, grown from one of 300: two full tiles on level 0 and two partial ones on each level."""
    folder = tmp_path_factory.mktemp("large")
    ledger = create(folder / "ledger")
    World(ledger).populate()
    for size in (300, 530):
        grow(ledger, size)
        export_tiles(ledger, folder / "tiles")
    ledger.close()
    return folder / "tiles"


@pytest.fixture
def copy(large: Path, tmp_path: Path) -> Path:
    """The large export, to be damaged."""
    return Path(shutil.copytree(large, tmp_path / "copy"))


def names(audit: TileVerificationReport) -> str:
    """All that an audit says."""
    return "\n".join(f"{finding.place}: {finding.reason}" for finding in audit.findings)


def undetected(folder: Path, step: int) -> Iterator[str]:
    """Flip a bit in every byte, or in every `step`-th, and name those changes that are not found in their file."""
    n_changes = 0
    for path, data in files(folder).items():
        with (folder / path).open("r+b", buffering=0) as file:
            for at in range(n_changes % step, len(data), step):
                file.seek(at)
                file.write(bytes([data[at] ^ 1 << at % 8]))
                n_changes += 1
                audit = verify_tiles(folder, LOG_VKEY)
                if audit.ok or path not in names(audit):
                    yield f"{path}, byte {at}: {names(audit)}"
                file.seek(at)
                file.write(data[at : at + 1])
    assert n_changes > 100
    assert verify_tiles(folder, LOG_VKEY).ok


def test_every_byte_of_a_small_export_counts(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "copy"))

    assert set(files(folder)) == {
        *("checkpoint", "tile/0/000.p/2", "tile/0/000.p/12", "tile/entries/000.p/2", "tile/entries/000.p/12")
    }
    assert list(undetected(folder, 1)) == []


def test_bytes_of_a_large_export_count(copy: Path) -> None:
    assert {"tile/0/001", "tile/0/002.p/18", "tile/1/000.p/1", "tile/1/000.p/2"} < set(files(copy))
    assert list(undetected(copy, 499)) == []


@pytest.mark.soak
def test_every_byte_of_a_large_export_counts(copy: Path) -> None:
    assert list(undetected(copy, 1)) == []


def test_every_missing_longer_or_shorter_file_is_named(copy: Path) -> None:
    for path, data in files(copy).items():
        is_old = path == "tile/1/000.p/1"
        for changed in (None, b"", data[:-1], data + b"x", data + data[-32:]):
            if changed is None:
                (copy / path).unlink()
            else:
                (copy / path).write_bytes(changed)
            audit = verify_tiles(copy, LOG_VKEY)
            assert audit.ok == (is_old and changed is None), path
            assert audit.ok or path in names(audit)
            (copy / path).write_bytes(data)


def test_a_tile_where_others_stand_is_found(copy: Path) -> None:
    one, other = copy / "tile/entries/000", copy / "tile/entries/001"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)

    assert not verify_tiles(copy, LOG_VKEY).ok


def test_entries_and_tiles_that_agree_must_agree_with_the_signed_root(small: Path, tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    World(ledger).add(World(ledger).round())
    export_tiles(ledger, tmp_path / "tiles")
    checkpoint = verify_checkpoint(ledger.checkpoint(), LOG_VKEY)
    ledger.close()
    lie = Checkpoint(ORIGIN, checkpoint.size, digest("lie"))
    (tmp_path / "tiles" / "checkpoint").write_text(signed(lie), "utf-8")

    audit = verify_tiles(tmp_path / "tiles", LOG_VKEY)

    assert [finding.place for finding in audit.findings] == ["checkpoint"]
    assert (audit.entry_count, audit.root) == (lie.size, lie.root)


def test_a_checkpoint_by_another_key_says_nothing(small: Path) -> None:
    key = verifier_key(ORIGIN, SigningKey.from_seed(bytes(32)).public)

    audit = verify_tiles(small, key)

    assert [finding.place for finding in audit.findings] == ["checkpoint"]
    assert (audit.origin, audit.entry_count, audit.root) == (None, 0, None)


def test_readers_may_demand_cosignatures(small: Path, tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    export_tiles(ledger, tmp_path / "tiles", cosigned(ledger.checkpoint(), 2))
    ledger.close()

    assert verify_tiles(tmp_path / "tiles", LOG_VKEY, policy=policy(2)).ok
    assert "cosigned by 2 of 3" in names(verify_tiles(tmp_path / "tiles", LOG_VKEY, policy=policy(3)))
    assert not verify_tiles(small, LOG_VKEY, policy=policy(1)).ok


def test_what_is_no_key_and_no_folder_is_an_error(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord):
        verify_tiles(small, "no key")
    with pytest.raises(InvalidRecord):
        verify_tiles(small, LOG_VKEY, kept="no checkpoint")
    with pytest.raises(LedgerError, match="there is no folder"):
        verify_tiles(tmp_path / "nowhere", LOG_VKEY)


def test_a_full_tile_stands_for_its_partial_ones(large: Path, tmp_path: Path) -> None:
    """Whoever read the checkpoint just before an export grew finds full tiles where partial ones were."""
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    grow(ledger, 300)
    note = ledger.checkpoint()
    for size in (300, 530):
        grow(ledger, size)
        export_tiles(ledger, tmp_path / "tiles")
    ledger.close()
    (tmp_path / "tiles" / "checkpoint").write_text(note, "utf-8")

    audit = verify_tiles(tmp_path / "tiles", LOG_VKEY)

    assert (audit.findings, audit.entry_count) == ((), 300)
    assert not (tmp_path / "tiles" / "tile/0/001.p").exists()


def test_an_export_must_continue_a_kept_checkpoint(large: Path, tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    kept = [ledger.checkpoint()]
    for size in (300, 530):
        grow(ledger, size)
        kept.append(ledger.checkpoint())
    grow(ledger, 532)
    longer = ledger.checkpoint()
    ledger.close()

    assert all(verify_tiles(large, LOG_VKEY, kept=note).ok for note in kept)
    audit = verify_tiles(large, LOG_VKEY, kept=longer)
    assert names(audit) == "checkpoint: 530 entries, but the kept checkpoint has 532"
    audit = verify_tiles(large, LOG_VKEY, kept=signed(Checkpoint(ORIGIN, 290, digest("other history"))))
    assert [finding.place for finding in audit.findings] == ["kept checkpoint"]


def test_a_file_server_is_all_a_reader_needs(copy: Path) -> None:
    with served(copy) as address:
        assert verify_tiles(address, LOG_VKEY) == verify_tiles(copy, LOG_VKEY)
        assert verify_tiles(address + "/", LOG_VKEY).ok
        (copy / "tile/entries/001").unlink()

        assert names(verify_tiles(address, LOG_VKEY)) == "tile/entries/001: is missing"

    with pytest.raises(LedgerError, match="cannot be read"):
        verify_tiles(address, LOG_VKEY)


class Compressing(Quiet):
    """Answers with gzip, asked or not; bundle 1 is 100 MB of zeros."""

    def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        body = gzip.compress(bytes(100 << 20) if file.name == "001" else file.read_bytes(), 1)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_compressed_answers_are_read_up_to_a_limit(large: Path, small: Path) -> None:
    with served(small, Compressing) as address:
        assert verify_tiles(address, LOG_VKEY).ok
    with served(large, Compressing) as address:
        assert "tile/entries/001: more than" in names(verify_tiles(address, LOG_VKEY))


def test_a_log_that_signs_an_absurd_size_does_not_keep_readers_busy(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(signed(Checkpoint(ORIGIN, 10**17, digest("lie"))), "utf-8")

    audit = verify_tiles(tmp_path, LOG_VKEY)

    assert audit.findings[-1].reason.endswith("the rest was not read")
    assert len(audit.findings) < 300


class Dishonest:
    """A log that signs whatever it likes: as much of a ledger as an export needs."""

    origin = ORIGIN

    def __init__(self, honest: Ledger, entries: list[bytes]) -> None:
        self.state = honest.state
        self._entries = entries
        self._leaves = [merkle.leaf_hash(entry) for entry in entries]

    def checkpoint(self) -> str:
        return signed(Checkpoint(ORIGIN, len(self._entries), merkle.root(self._leaves)))

    def entries(self, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
        yield from list(enumerate(self._entries))[begin:end]

    def node(self, level: int, index: int) -> Digest:
        return merkle.root(self._leaves[index << level : (index + 1) << level])


def test_a_replay_finds_what_a_dishonest_log_has_signed(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    write_history(ledger)
    entries = [entry for _, entry in ledger.entries()]
    place = next(iter(ledger.positions(kind="update")))
    forgeries = {
        "honest": entries,
        "unsigned": [*entries[:place], bytes(64) + entries[place][64:], *entries[place + 1 :]],
        "swapped": [*entries[:place], entries[place + 1], entries[place], *entries[place + 2 :]],
        "left out": [*entries[:place], *entries[place + 1 :]],
        "no block": entries[:-1],
    }

    for name, forged in forgeries.items():
        log = cast("Ledger", Dishonest(ledger, forged))
        export_tiles(log, tmp_path / name)
        tiles = verify_tiles(tmp_path / name, LOG_VKEY)
        assert tiles.ok, "the tree itself is sound"
        assert replay_tiles(tmp_path / name, LOG_VKEY, tiles).ok == (name == "honest"), name

    audit = replay_tiles(tmp_path / "unsigned", LOG_VKEY, verify_tiles(tmp_path / "unsigned", LOG_VKEY))
    assert f"entry {place}" in names(audit)
    ledger.close()

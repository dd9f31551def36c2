"""A reader that is not ours, Tessera's fsck, accepts what we export and refuses what was changed."""

from __future__ import annotations

import os
import re
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from liberate.ledger.publish.tiles import export_tiles
from tests.conftest import REQUIRE_ENGINES
from tests.ledger.publish.growing import files, grow, served
from tests.ledger.world import LOG_VKEY, World, create

pytestmark = pytest.mark.engines

_ACCEPTED = re.compile(r"Successfully fsck'd log with size (\d+) and root (\S+) ")


@pytest.fixture(scope="session")
def fsck() -> Path:
    """Tessera's fsck where `go install` puts it; the operating system's own program of that name is another one."""
    folders = (os.environ.get("GOBIN"), f"{os.environ.get('GOPATH') or Path.home() / 'go'}/bin")
    for folder in folders:
        if folder and (program := Path(folder) / "fsck").is_file():
            return program
    reason = "no fsck of Tessera: go install github.com/transparency-dev/tessera/cmd/fsck@v1.0.4 (Go >= 1.24)"
    if os.environ.get(REQUIRE_ENGINES):
        pytest.fail(reason)
    pytest.skip(reason)


def verdict(fsck: Path, folder: Path, key: Path) -> tuple[int, str] | None:
    """Serve an export to fsck; gives size and root when it accepts them."""
    key.write_text(LOG_VKEY)
    with served(folder) as address:
        command: list[str | Path] = [fsck, "-ui=false", "-N=2", f"-storage_url={address}/", f"-public_key={key}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = _ACCEPTED.search(done.stderr)
    assert (found is None) == ("fsck failed" in done.stderr), done.stderr
    return (int(found[1]), found[2]) if found else None


def test_fsck_accepts_an_export_at_every_stage_and_agrees_on_its_root(fsck: Path, tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    for size in (12, 254, 256, 300, 512, 530):
        grow(ledger, size)
        exported = export_tiles(ledger, tmp_path / "tiles")

        assert verdict(fsck, tmp_path / "tiles", tmp_path / "key") == (size, b64encode(exported.root).decode())
    ledger.close()


def test_fsck_accepts_an_export_with_three_levels_of_tiles(fsck: Path, tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    for size in (65_536, 66_000):
        grow(ledger, size)
        exported = export_tiles(ledger, tmp_path / "tiles")
    ledger.close()

    assert verdict(fsck, tmp_path / "tiles", tmp_path / "key") == (66_000, b64encode(exported.root).decode())


def test_fsck_refuses_every_file_in_which_a_bit_was_flipped(fsck: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    grow(ledger, 530)
    export_tiles(ledger, folder)
    ledger.close()

    for path, data in files(folder).items():
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        (folder / path).write_bytes(changed)
        assert verdict(fsck, folder, tmp_path / "key") is None, path
        (folder / path).write_bytes(data)
    assert verdict(fsck, folder, tmp_path / "key") is not None

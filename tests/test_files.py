"""Files that appear whole and stay: wherever the process is killed, and when the power fails."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from liberate.files import overwrite, write_atomic, write_private

KILLED = """
import os, sys
from pathlib import Path
from liberate.files import write_atomic

left = int(sys.argv[2])

def killing(call):
    def killed(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return call(*arguments, **options)
    return killed

Path.write_bytes, os.fsync = killing(Path.write_bytes), killing(os.fsync)
Path.replace = killing(Path.replace)
write_atomic(Path(sys.argv[1]), b"new")
"""


@pytest.mark.parametrize("n", range(1, 6))
def test_a_file_is_the_old_or_the_new_one_wherever_the_writer_is_killed(tmp_path: Path, n: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")

    done = subprocess.run([sys.executable, "-c", KILLED, str(file), str(n)], check=False)

    assert done.returncode == (9 if n <= 4 else 0)
    assert file.read_bytes() == (b"old" if n <= 3 else b"new")
    write_atomic(file, b"newer")
    assert file.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_synchronised_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def noted_fsync(handle: int) -> None:
        steps.append("names" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes")
        fsync(handle)

    def noted_replace(draft: Path, path: Path) -> Path:
        steps.append("replace")
        return replace(draft, path)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)

    write_atomic(tmp_path / "file", b"new")

    assert steps == ["3 bytes", "replace", "names"]


def test_a_private_file_is_new_and_its_owners_only(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"secret")

    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "key", b"other")
    assert (tmp_path / "key").read_bytes() == b"secret"


def test_overwriting_leaves_the_rest_of_a_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")

    overwrite(file, 3, b"...")
    overwrite(file, 9, b"abc")

    assert file.read_bytes() == b"012...678abc"

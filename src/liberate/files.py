"""Files that appear whole or not at all, and stay when the power fails."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file, or replace it as a whole; returns when both its content and its name are on the disk."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(data)
    fsync_path(draft)
    draft.replace(path)
    fsync_path(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read; returns when both its content and its name are on the disk.

    Raises:
        FileExistsError: There is such a file already.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)
    fsync_path(path.parent)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Write over part of a file in place, or past its end; returns when the bytes are on the disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

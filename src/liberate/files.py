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


def fsync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

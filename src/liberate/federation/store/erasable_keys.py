"""One sealing key for each participant, so that overwriting a key erases everything that was sealed with it."""

from __future__ import annotations

import os
from pathlib import Path

from liberate.files import overwrite, write_private
from liberate.randomness import SECRET_BYTES

_ERASED = bytes(SECRET_BYTES)


class ErasableKeys:
    """A file of 32-byte keys in fixed places; zeros are what is left of an erased participant.

    Whoever has the sealed rows without this file has nothing readable.

    Args:
        path: The file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = bytearray(path.read_bytes())

    @classmethod
    def create(cls, path: Path) -> ErasableKeys:
        """Write an empty file that only its owner may read, in place of what a crash may have left there."""
        path.unlink(missing_ok=True)
        write_private(path, b"")
        return cls(path)

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._keys[index * SECRET_BYTES : (index + 1) * SECRET_BYTES])

    def is_erased(self, index: int) -> bool:
        """Whether nothing that was sealed for the participant at an index opens any more."""
        return self[index] == _ERASED

    def add(self, begin: int, count: int) -> None:
        """Draw keys for the indices [begin, begin + count); they are durable before anything is sealed with them.

        What lies beyond `begin` is left from a crash: nothing was sealed with it.
        """
        self._put(begin, os.urandom(count * SECRET_BYTES))

    def erase(self, index: int) -> None:
        """Destroy a key in place; durable on return."""
        self._put(index, _ERASED)

    def _put(self, index: int, keys: bytes) -> None:
        begin = index * SECRET_BYTES
        overwrite(self._path, begin, keys)
        self._keys[begin : begin + len(keys)] = keys

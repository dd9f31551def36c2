"""How long each part of a run takes, and who is told how far it is."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""Told each step of long work, in a line."""


def silent(text: str) -> None:
    """Tell nobody."""


class Stopwatch:
    """Adds up wall-clock seconds by the name of a part: fit, noise, hash, sign, verify, store."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time spent in the block to a part. Parts must not nest."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - begin

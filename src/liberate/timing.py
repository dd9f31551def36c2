"""How long each part of a run takes, and who is told how far it is."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str], None]
"""Told each step of long work, in a line."""

Clock = Callable[[], float]
"""Returns seconds since a fixed moment."""


def silent(text: str) -> None:
    """Tell nobody."""


class Stopwatch:
    """Adds up seconds by the name of a part: fit, noise, hash, sign, verify, store.

    Attributes:
        seconds: By part, all that `measure` met while this stopwatch was running.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.clock = clock

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take up what this thread measures in the block."""
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)


# Not a parameter of everything: whoever does the work need not know whether somebody measures it.
_running: ContextVar[Stopwatch | None] = ContextVar("running stopwatch", default=None)


@contextmanager
def measure(part: str) -> Iterator[None]:
    """Add the time spent in the block to a part of the running stopwatch, if there is one. Parts must not nest."""
    stopwatch = _running.get() or Stopwatch()
    begin = stopwatch.clock()
    try:
        yield
    finally:
        stopwatch.seconds[part] += stopwatch.clock() - begin

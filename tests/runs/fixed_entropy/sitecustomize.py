"""Take the system's entropy and clocks away from a process: on the path of a subprocess, Python imports it first."""

from __future__ import annotations

import itertools
import os
import time
from hashlib import shake_256

_calls = itertools.count()


def _urandom(size: int) -> bytes:
    return shake_256(b"fixed entropy" + next(_calls).to_bytes(8, "big")).digest(size)


os.urandom = _urandom
time.time = lambda: 1_800_000_000.0
time.time_ns = lambda: 1_800_000_000_000_000_000
time.perf_counter = lambda: 0.0
time.monotonic = lambda: 0.0

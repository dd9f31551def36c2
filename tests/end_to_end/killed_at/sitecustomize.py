"""Kill a process at a chosen step, with entropy that is fixed for each purpose: Python imports this first.

On the path of a subprocess alone. A step is a statement of SQLite, or a file that gets its name.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

_AT = int(os.environ["KILL_AT"])
"""The step before which the process dies, >= 1; 0: it lives, and writes how many steps it took."""

_steps = itertools.count(1)
_connect, _rename = sqlite3.connect, os.replace


def _step(_: object = None) -> None:
    if next(_steps) == _AT:
        os.kill(os.getpid(), signal.SIGKILL)


def _traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = _connect(*arguments, **options)
    connection.set_trace_callback(_step)
    return connection


def _renamed(*arguments: Any, **options: Any) -> None:
    _step()
    _rename(*arguments, **options)


sqlite3.connect = _traced  # type: ignore[assignment]
os.replace = os.rename = _renamed
if _AT == 0:
    atexit.register(lambda: Path(os.environ["STEPS_FILE"]).write_text(str(next(_steps) - 1), "utf-8"))

if os.environ["FIXED_ENTROPY"] == "1":
    from liberate.randomness import SimulatedRandomness, SystemRandomness

    # What a real run draws again after a kill comes out the same, whatever was drawn before: by purpose, not by order.
    _fixed = SimulatedRandomness(7)
    SystemRandomness.secret = lambda self, name, *index: _fixed.secret(name, *index)  # type: ignore[method-assign]
    secrets.token_hex = lambda nbytes=None: _fixed.secret("token").hex()[: 2 * (nbytes or 32)]
    time.time = lambda: 1_800_000_000.0
    time.time_ns = lambda: 1_800_000_000_000_000_000

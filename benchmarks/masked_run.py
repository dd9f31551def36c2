"""A real masked run of MovieLens-100K in one process: all its CPU time, beside that of what masks are made of.

943 devices draw keys, noise and seeds from the system, mask every upload and answer all rounds. What masks are made of
is key agreements, signatures made and verified, and mask streams: timed in the run, on the thread that works. The
witness that replays the ledger is in the process too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import liberate
from benchmarks.figures import Figure, data_sets, show
from liberate.crypto import signing
from liberate.privacy import secure_aggregation
from liberate.timing import Stopwatch
from tests.service.replaying import replaying

PRIMITIVES = (
    ("key agreements", secure_aggregation, "agree"),
    ("key agreements", secure_aggregation, "public_key"),
    ("signatures", signing.SigningKey, "sign"),
    ("signatures", signing, "_is_valid"),
    ("mask streams", secure_aggregation, "add_mask"),
)

P = ParamSpec("P")
R = TypeVar("R")


def measure() -> Iterator[Figure]:
    """Train once, and return its figures."""
    ((_, source),) = data_sets("ml-100k")
    spent: defaultdict[str, list[float]] = defaultdict(list)
    stopwatch = Stopwatch(time.process_time)

    with tempfile.TemporaryDirectory() as folder, replaying(Path(folder) / "run") as witness:
        real = ("privacy.mode=distributed", "privacy.epsilon=8", "run.simulated=false", *witness)
        settings = liberate.configure(f"data.source={source}", *real)
        begin, clock = _cpu_seconds(), time.perf_counter()
        with stopwatch.running(), timed_primitives(spent):
            liberate.train(settings, Path(folder) / "run")
        total, wall = _cpu_seconds() - begin, time.perf_counter() - clock

    primitives = sum(map(sum, spent.values()))
    yield Figure(name="a masked run of 943 devices, wall clock", value=wall, unit="s")
    yield Figure(name="a masked run of 943 devices, CPU time", value=total, unit="s")
    for name, times in spent.items():
        yield Figure(name=f"{name}, how many", value=len(times))
        yield Figure(name=f"{name}, CPU time", value=sum(times), unit="s")
    yield Figure(name="CPU time beside agreements, signatures and streams", value=total / primitives, at_most=3)
    for part, seconds in sorted(stopwatch.seconds.items()):
        yield Figure(name=f"part `{part}`, CPU time", value=seconds, unit="s")


@contextmanager
def timed_primitives(spent: defaultdict[str, list[float]]) -> Iterator[None]:
    """Time each primitive while the block runs, by name, in seconds of the thread that calls it."""
    with ExitStack() as stack:
        for name, owner, attribute in PRIMITIVES:
            stack.enter_context(patch.object(owner, attribute, _timed(getattr(owner, attribute), spent[name])))
        yield


def _timed(function: Callable[P, R], spent: list[float]) -> Callable[P, R]:
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        begin = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(time.thread_time() - begin)

    return timed


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    show(measure())

"""Tests of the stopwatch: what is measured reaches the stopwatch that runs, and no other."""

from __future__ import annotations

from itertools import count

import pytest

from liberate.timing import Stopwatch, measure


def test_only_the_running_stopwatch_adds_up() -> None:
    outer, inner = Stopwatch(count().__next__), Stopwatch(count().__next__)

    with outer.running():
        with measure("fit"):
            pass
        with inner.running(), measure("noise"):
            pass
        with measure("fit"):
            pass
    with measure("sum"):
        pass

    assert dict(outer.seconds) == {"fit": 2}
    assert dict(inner.seconds) == {"noise": 1}


def test_time_counts_when_the_measured_work_fails() -> None:
    stopwatch = Stopwatch(count().__next__)

    with pytest.raises(KeyError), stopwatch.running(), measure("solve"):
        raise KeyError

    assert dict(stopwatch.seconds) == {"solve": 1}

"""Processes that die at a chosen durable step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from liberate.federation.coordinator.config import RoundMethod
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.model.model import Model


class Crash(BaseException):
    """The process is killed here, as by kill -9: no handler may catch it."""


@contextmanager
def interrupted_after_the_first_round() -> Iterator[None]:
    """Break a training off, as by Ctrl-C, when its first model is made; wants to see that happen."""
    original = Coordinator.run_round

    def stop_in_round_2(self: Coordinator, base: Model, method: RoundMethod, *, run: int, rounds: int | None) -> Model:
        if base.version == 1:
            raise KeyboardInterrupt
        return original(self, base, method, run=run, rounds=rounds)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Coordinator, "run_round", stop_in_round_2)
        with pytest.raises(KeyboardInterrupt):
            yield


def crash_at(monkeypatch: pytest.MonkeyPatch, steps: Sequence[tuple[type, str]], at: int, *, before: bool) -> None:
    """Break off at the n-th call of these methods, each a durable step, before or after it has happened."""
    done = 0

    def breaking(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == at and before:
                raise Crash
            result = function(*arguments, **options)
            if done == at and not before:
                raise Crash
            return result

        return call

    for owner, name in steps:
        monkeypatch.setattr(owner, name, breaking(getattr(owner, name)))

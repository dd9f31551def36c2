"""Processes that die at a chosen durable step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest


class Crash(BaseException):
    """The process is killed here, as by kill -9: no handler may catch it."""


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

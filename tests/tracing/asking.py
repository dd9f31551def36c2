"""Answers as JSON has them, for tests that check what others rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from liberate.json_edge import to_json

Arguments = ParamSpec("Arguments")


def asked(question: Callable[Arguments, object], *args: Arguments.args, **kwargs: Arguments.kwargs) -> dict[str, Any]:
    """Ask a question, and return the answer as `--json` prints it."""
    answer: dict[str, Any] = to_json(question(*args, **kwargs))
    return answer

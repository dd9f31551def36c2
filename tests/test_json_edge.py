"""Typed answers become JSON in one way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.identifiers import Digest
from liberate.json_edge import to_json


class Outcome(StrEnum):
    used = "used"


class Step(msgspec.Struct, frozen=True, rename={"recipient": "by"}):
    recipient: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    position: int
    leaf_hash: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Entry):
    outcome: Outcome
    steps: tuple[Step, ...]
    pairs: tuple[tuple[int, float | None], ...]


def test_an_answer_keeps_its_fields_in_order() -> None:
    answer = Answer(
        position=3, leaf_hash=Digest(b"ab"), outcome=Outcome.used, steps=(Step(4),), pairs=((1, 0.5), (2, None))
    )

    found = to_json(answer)

    assert found == {
        "position": 3,
        "leaf_hash": "YWI=",
        "outcome": "used",
        "steps": [{"by": 4}],
        "pairs": [[1, 0.5], [2, None]],
    }
    assert list(found) == ["position", "leaf_hash", "outcome", "steps", "pairs"]


def test_numbers_of_numpy_are_numbers_and_what_is_not_finite_is_null() -> None:
    found = to_json({"a": np.int64(3), "b": np.array([1.0, math.nan]), "c": -math.inf, "d": np.float64(math.inf)})

    assert found == {"a": 3, "b": [1.0, None], "c": None, "d": None}


def test_keys_become_strings_paths_text_and_large_numbers_stay() -> None:
    assert to_json({1: Path("runs/a"), 2: 2**80}) == {"1": "runs/a", "2": 2**80}


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        to_json({"a": object()})

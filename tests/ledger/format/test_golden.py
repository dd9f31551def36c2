"""The golden vectors of format 2: they never change, and whoever reads the format gets these bytes."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any, get_args

import pytest

from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.note import verify_checkpoint
from liberate.errors import RefusedEntry
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Record
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry
from tests.ledger.format.golden import PATHS, written
from tests.ledger.world import key

VECTORS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in PATHS}
of_each_ledger = pytest.mark.parametrize("vectors", VECTORS.values(), ids=VECTORS)


def replayed(vectors: dict[str, Any]) -> State:
    state = State()
    for position, each in enumerate(vectors["entries"]):
        apply_entry(state, decode_entry(b64decode(each["entry"])), position)
    return state


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_format_has_not_changed(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == written(path)


@of_each_ledger
def test_each_entry_has_its_hash_and_leaves_its_state(vectors: dict[str, Any]) -> None:
    state = State()
    for position, each in enumerate(vectors["entries"]):
        data = b64decode(each["entry"])
        entry = decode_entry(data)
        apply_entry(state, entry, position)

        assert each["valid"]
        assert entry.body.decode() == each["record"]
        assert entry.leaf_hash == leaf_hash(data) == b64decode(each["leaf_hash"])
        assert state.root() == b64decode(each["state_root"])


@of_each_ledger
def test_signatures_are_deterministic(vectors: dict[str, Any]) -> None:
    first = b64decode(vectors["entries"][0]["entry"])

    assert sign(decode_entry(first).record, key(0)) == first


@of_each_ledger
def test_the_checkpoint_is_over_all_entries(vectors: dict[str, Any]) -> None:
    checkpoint = verify_checkpoint(vectors["checkpoint"], vectors["log_vkey"])

    assert checkpoint.size == len(vectors["entries"])
    assert checkpoint.root == root([leaf_hash(b64decode(each["entry"])) for each in vectors["entries"]])


def test_every_kind_is_there() -> None:
    kinds = {json.loads(each["record"])["kind"] for vectors in VECTORS.values() for each in vectors["entries"]}

    assert kinds == {kind.__struct_config__.tag for kind in get_args(Record)}


@pytest.mark.parametrize(
    ("name", "each"),
    [
        pytest.param(name, each, id=each["description"])
        for name, vectors in VECTORS.items()
        for each in vectors["refused"]
    ],
)
def test_what_does_not_follow_is_refused_with_its_reason(name: str, each: dict[str, Any]) -> None:
    state = replayed(VECTORS[name])
    before = [principal.encode() for principal in state.principals], state.size, state.root()

    with pytest.raises(RefusedEntry) as caught:
        apply_entry(state, decode_entry(b64decode(each["entry"])), state.size)

    assert not each["valid"]
    assert caught.value.reason == each["reason"]
    assert ([principal.encode() for principal in state.principals], state.size, state.root()) == before

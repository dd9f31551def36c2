"""The golden vectors of format 1: they never change, and whoever reads the format gets these bytes."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any, get_args

import pytest

from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.note import open_checkpoint
from liberate.errors import RefusedEntry
from liberate.ledger.records import Record, decode_entry, sign
from liberate.ledger.rules import apply
from liberate.ledger.state import State
from tests.ledger.golden import PATH, written
from tests.ledger.world import key

VECTORS: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))


def replayed() -> State:
    state = State()
    for position, each in enumerate(VECTORS["entries"]):
        apply(state, decode_entry(b64decode(each["entry"])), position)
    return state


def test_the_format_has_not_changed() -> None:
    assert PATH.read_text(encoding="utf-8") == written()


def test_each_entry_has_its_hash_and_leaves_its_state() -> None:
    state = State()
    for position, each in enumerate(VECTORS["entries"]):
        data = b64decode(each["entry"])
        entry = decode_entry(data)
        apply(state, entry, position)

        assert each["valid"]
        assert entry.body.decode() == each["record"]
        assert entry.leaf_hash == leaf_hash(data) == b64decode(each["leaf_hash"])
        assert state.root() == b64decode(each["state_root"])


def test_signatures_are_deterministic() -> None:
    first = b64decode(VECTORS["entries"][0]["entry"])

    assert sign(decode_entry(first).record, key(0)) == first


def test_the_checkpoint_is_over_all_entries() -> None:
    checkpoint = open_checkpoint(VECTORS["checkpoint"], VECTORS["log_vkey"])

    assert checkpoint.size == len(VECTORS["entries"])
    assert checkpoint.root == root([leaf_hash(b64decode(each["entry"])) for each in VECTORS["entries"]])


def test_every_kind_is_there() -> None:
    kinds = {json.loads(each["record"])["kind"] for each in VECTORS["entries"]}

    assert kinds == {kind.__struct_config__.tag for kind in get_args(Record)}


@pytest.mark.parametrize("each", VECTORS["refused"], ids=lambda each: each["description"])
def test_what_does_not_follow_is_refused_with_its_reason(each: dict[str, Any]) -> None:
    state = replayed()
    before = [principal.encode() for principal in state.principals], state.size, state.root()

    with pytest.raises(RefusedEntry) as caught:
        apply(state, decode_entry(b64decode(each["entry"])), state.size)

    assert not each["valid"]
    assert caught.value.reason == each["reason"]
    assert ([principal.encode() for principal in state.principals], state.size, state.root()) == before

"""A reader of format 2 that was written from its documentation alone agrees with ours, on what follows and what not."""

from __future__ import annotations

import json
import random
from base64 import b64decode
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from liberate.errors import RefusedEntry
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.proof_files import write_completeness_proof, write_inclusion_proof
from liberate.ledger.publish.tiles import export_tiles
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry
from tests.ledger.format.golden import PATHS
from tests.ledger.format.test_fuzz import Recorder, history, is_record, mutated, signed_again
from tests.ledger.rules import test_sharing
from tests.ledger.rules.test_transition import BAD_GENESES, CASES, Make
from tests.ledger.world import FOUNDER, LOG_VKEY, World, bare_world, create, key, write_history, write_sharing
from tests.reference import ledger_format as second

VECTORS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in PATHS}
UNREADABLE = {"malformed", "unknown_kind", "unknown_version"}
"""Codes between which a reader may choose for bytes that are no record."""


def follow(entries: Iterable[bytes]) -> second.Ledger:
    """What the second reader knows after some entries."""
    ledger = second.Ledger()
    for data in entries:
        ledger.apply(data)
    return ledger


def our_answer(state: State, data: bytes) -> str:
    """The state root after an entry, or why it is refused."""
    try:
        apply_entry(state, decode_entry(data), state.size)
    except RefusedEntry as refused:
        return "unreadable" if refused.reason in UNREADABLE else refused.reason
    return state.root().hex()


def their_answer(ledger: second.Ledger, data: bytes) -> str:
    """The same by the second reader."""
    try:
        ledger.apply(data)
    except second.Refused as refused:
        return "unreadable" if str(refused) in UNREADABLE else str(refused)
    return ledger.state_root().hex()


@pytest.mark.parametrize("name", VECTORS)
def test_the_golden_ledger_leads_to_the_same_states(name: str) -> None:
    ledger, vectors = second.Ledger(), VECTORS[name]

    for each in vectors["entries"]:
        ledger.apply(b64decode(each["entry"]))

        assert ledger.state_root() == b64decode(each["state_root"])
    assert second.open_note(vectors["checkpoint"], vectors["log_vkey"])[1] == ledger.size == ledger.block_size


@pytest.mark.parametrize("name", VECTORS)
def test_what_does_not_follow_the_golden_ledger_is_refused_for_the_same_reason(name: str) -> None:
    ledger = follow(b64decode(each["entry"]) for each in VECTORS[name]["entries"])

    for refused in VECTORS[name]["refused"]:
        with pytest.raises(second.Refused, match=f"^{refused['reason']}$"):
            ledger.apply(b64decode(refused["entry"]))


@pytest.mark.parametrize(
    ("auditors", "reason", "prepare", "make"),
    [
        *(pytest.param(False, r, p, m, id=f"{r}: {n}") for r, n, p, m in CASES),
        *(pytest.param(True, r, p, m, id=f"{r}: {n}") for r, n, p, m in test_sharing.CASES),
    ],
)
def test_each_rule_is_read_in_the_same_way(
    auditors: bool, reason: str, prepare: Callable[[World], World], make: Make
) -> None:
    recorder = Recorder()
    world = prepare(bare_world(recorder, auditors=auditors))
    record = make(world)
    ledger = follow(data for _, data in recorder.history)

    assert their_answer(ledger, world.sign(record)) == reason


@pytest.mark.parametrize(("reason", "name", "record"), BAD_GENESES)
def test_each_rule_for_a_genesis_is_read_in_the_same_way(reason: str, name: str, record: Any) -> None:
    assert their_answer(second.Ledger(), sign(record, key(FOUNDER))) == reason, name


@pytest.mark.parametrize("n", [1_500, pytest.param(200_000, marks=pytest.mark.soak)])
def test_mutated_entries_get_the_same_answer(n: int) -> None:
    randomness = random.Random(n)
    ledger, states = second.Ledger(), []
    for state, data in history():
        if state.genesis is None:
            ledger = second.Ledger()
        states.append((state, deepcopy(ledger), data))
        ledger.apply(data)

    for _ in range(n):
        state, ledger, data = randomness.choice(states)
        other = randomness.choice(states)[2]
        change = mutated(data, randomness, other)
        if randomness.randrange(3) == 0 and is_record(change):
            change = mutated(change, randomness, other)
        for candidate in (change, signed_again(change, len(state.principals))):
            assert our_answer(deepcopy(state), candidate) == their_answer(deepcopy(ledger), candidate), candidate


@pytest.mark.parametrize("write", [write_history, write_sharing])
def test_an_export_and_proofs_are_read(tmp_path: Path, write: Callable[[Ledger], None]) -> None:
    log = create(tmp_path / "ledger", auditors=write is write_sharing)
    write(log)
    export_tiles(log, tmp_path / "tiles")

    entries = second.read_export(tmp_path / "tiles", LOG_VKEY)
    ledger = follow(entries)

    assert entries == [data for _, data in log.entries()]
    assert ledger.state_root() == log.state.root()
    assert ledger.block_size == log.size
    for position, data in log.entries():
        assert second.read_inclusion(write_inclusion_proof(log, position), LOG_VKEY) == data
    for number, principal in enumerate(log.state.principals):
        if principal.role not in ("registrar", "log"):
            records = second.read_history(write_completeness_proof(log, number).encode(), LOG_VKEY)
            assert len(records) == principal.about_count
    log.close()

"""Bytes that nobody meant: the decoder and the rules refuse them without a crash and without a trace.

A seeded mutator changes entries of a real history: bits, slices, numbers, members, members of other entries. What it
makes is offered with the signature it has, and signed again by its author, so that it gets past the signature.
"""

from __future__ import annotations

import json
import random
import time
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from liberate.crypto.canonical_json import encode
from liberate.crypto.signing import SIGNATURE_BYTES
from liberate.errors import RefusedEntry
from liberate.ledger.format.entries import Entry, decode_entry, signed_bytes
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry
from tests.ledger.log.test_sqlite import steps
from tests.ledger.rules.test_transition import snapshot
from tests.ledger.world import BareRules, World, genesis, key, write_sharing

NUMBERS = (-(2**63), -1, 0, 1, 2, 3, 255, 256, 2**31, 2**32, 2**53 - 1, 2**53, 2**63, 2**64, 10**30)
VALUES: tuple[Any, ...] = (*NUMBERS, None, True, "", "a", "é", "\x00", 0.5, 1e300, [], {}, "AA==", "A" * 44, [[]], [0])


class Recorder(BareRules):
    """The rules, with a copy of the state before each entry that they accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[State, bytes]] = []

    def append(self, entries: Any) -> Any:
        results: list[Any] = []
        for data in entries:
            before = deepcopy(self.state)
            results += super().append([data])
            if isinstance(results[-1], int):
                self.history.append((before, data))
        return results


@cache
def history() -> tuple[tuple[State, bytes], ...]:
    """Entries of every kind that a log is offered, of two ledgers, each with the state that accepts it."""
    recorder = Recorder()
    world = World(recorder)
    world.add(genesis(auditors=True))
    world.populate()
    world.add(world.block())
    for step in steps(world):
        step()
        world.add(world.block())
    shared = Recorder()
    World(shared).add(genesis(auditors=True))
    write_sharing(shared)
    return (*recorder.history, *shared.history)


def mutated(data: bytes, randomness: random.Random, other: bytes) -> bytes:
    """Change an entry a little."""
    signature, body = data[:SIGNATURE_BYTES], bytearray(data[SIGNATURE_BYTES:])
    place = randomness.randrange(len(body))
    match randomness.randrange(6):
        case 0:
            body[place] ^= 1 << randomness.randrange(8)
        case 1:
            del body[place : place + randomness.randrange(1, 9)]
        case 2:
            begin = randomness.randrange(len(other))
            body[place:place] = other[begin : begin + randomness.randrange(1, 40)]
        case 3:
            body[place] = randomness.choice(b'0123456789-+.eE"\\{}[],: \tn\xff')
        case _:
            return signature + changed_members(bytes(body), randomness, other[SIGNATURE_BYTES:])
    return signature + bytes(body)


def changed_members(body: bytes, randomness: random.Random, other: bytes) -> bytes:
    """Change a member somewhere in a record, and write it as canonically as can be."""
    record, foreign = json.loads(body), json.loads(other)
    holder = record
    while inner := [value for value in holder.values() if isinstance(value, dict) and value]:
        if randomness.random() < 0.6:
            break
        holder = randomness.choice(inner)
    name = randomness.choice([*holder])
    match randomness.randrange(5):
        case 0:
            del holder[name]
        case 1:
            holder[randomness.choice(["x", "kind", "v", "é", name + "_"])] = randomness.choice(VALUES)
        case 2:
            holder[name] = foreign.get(name, randomness.choice([*foreign.values()]))
        case 3 if isinstance(holder[name], int):
            holder[name] += randomness.choice([-2, -1, 1, 2])
        case _:
            holder[name] = randomness.choice(VALUES)
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=randomness.random() < 0.1).encode()


def signed_again(data: bytes, n_principals: int) -> bytes:
    """Sign a body with the key of the author it names, where it names one."""
    body = data[SIGNATURE_BYTES:]
    try:
        author = json.loads(body)["author"]
        return key(author).sign(signed_bytes(body)) + body if 0 <= author < n_principals else data
    except (ValueError, TypeError, KeyError):
        return data


def offer(state: State, data: bytes) -> bool:
    """Offer bytes to a copy of a state; say whether they were accepted."""
    try:
        entry: Entry = decode_entry(data)
    except RefusedEntry:
        return False
    assert entry.signature + encode(entry.record) == data, "accepted bytes are the only ones of their record"
    before, root = snapshot(state), state.root()
    try:
        apply_entry(state, entry, state.size)
    except RefusedEntry:
        assert (snapshot(state), state.root()) == (before, root), "a refused entry leaves no trace"
        return False
    return True


@pytest.mark.parametrize("seconds", [5, pytest.param(600, marks=pytest.mark.soak)])
def test_mutated_entries_are_refused_without_a_trace_or_are_canonical(seconds: float) -> None:
    randomness = random.Random(int(seconds))
    states = history()
    end = time.monotonic() + seconds
    n_offered = n_accepted = 0
    while time.monotonic() < end:
        before, data = randomness.choice(states)
        other = randomness.choice(states)[1]
        change = mutated(data, randomness, other)
        if randomness.randrange(2) and is_record(change):
            change = mutated(change, randomness, other)
        state = deepcopy(before)
        for candidate in (change, signed_again(change, len(state.principals))):
            n_offered += 1
            if offer(state, candidate):
                n_accepted += 1
                break

    assert n_offered > 100
    assert n_accepted, "the mutator reaches entries that the rules accept"


def is_record(data: bytes) -> bool:
    """Whether the body is an object with members."""
    try:
        return bool(dict(json.loads(data[SIGNATURE_BYTES:])))
    except (ValueError, TypeError):
        return False


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"kind":[', b'{"x":{"v":['])
def test_deep_nesting_is_malformed(opening: bytes) -> None:
    body = opening * ((65_535 - SIGNATURE_BYTES) // len(opening))

    for data in (body, b'{"kind":"x","v":2,"z":' + body[:60_000]):
        with pytest.raises(RefusedEntry, match="malformed"):
            decode_entry(bytes(SIGNATURE_BYTES) + data)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_are_no_entries(seed: int) -> None:
    randomness = random.Random(seed)
    for _ in range(2_000):
        data = randomness.randbytes(randomness.randrange(200))
        with pytest.raises(RefusedEntry, match="malformed"):
            decode_entry(data)

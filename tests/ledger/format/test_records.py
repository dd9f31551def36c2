"""Entries are signed canonical records; whatever else is offered has a reason code."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.canonical_json import decode
from liberate.crypto.merkle import leaf_hash
from liberate.crypto.signing import verify_signature
from liberate.errors import InvalidRecord, RefusedEntry
from liberate.ledger.format.entries import MAX_ENTRY_BYTES, decode_entry, involves, principals_of, sign, signed_bytes
from liberate.ledger.format.number_sets import Range, includes, numbers_in, to_ranges
from liberate.ledger.format.records import KINDS, DatasetRecord, ModelRecord, Record
from tests.ledger.world import COORDINATOR, FOUNDER, HOST, LOG, PARTICIPANTS, bare_world, digest, genesis, key
from tests.strategies import records

DATASET = DatasetRecord(origin="example.org/test", author=3, seq=1, commitment=digest("ratings"))


@given(records())
def test_an_entry_gives_back_its_record(record: Record) -> None:
    data = sign(record, key(0))

    entry = decode_entry(data)

    assert entry.record == record
    assert entry.data == data == entry.signature + entry.body
    assert entry.leaf_hash == leaf_hash(data)
    assert rfc8785.dumps(json.loads(entry.body)) == entry.body
    check(data)


@given(records(), st.data())
def test_a_flipped_bit_of_an_entry_is_detected(record: Record, data: st.DataObject) -> None:
    flipped = bytearray(sign(record, key(0)))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises((RefusedEntry, InvalidRecord)):
        check(bytes(flipped))


def check(data: bytes) -> None:
    entry = decode_entry(data)
    verify_signature(key(0).public, signed_bytes(entry.body), entry.signature)


def test_the_signature_covers_the_payload_type() -> None:
    body = decode_entry(sign(DATASET, key(3))).body

    assert signed_bytes(body).startswith(b"DSSEv1 36 application/vnd.liberate.record+json ")


def test_every_kind_is_in_the_union_and_within_the_profile() -> None:
    kinds = {kind.__struct_config__.tag for kind in get_args(Record)}

    assert kinds == KINDS
    for kind in get_args(Record):
        with pytest.raises(InvalidRecord):
            decode(b"{}", kind)


def changed(old: bytes, new: bytes) -> bytes:
    data = sign(DATASET, key(3))
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "malformed", id="empty"),
        pytest.param(bytes(64), "malformed", id="signature only"),
        pytest.param(changed(b"{", b" {"), "malformed", id="not canonical"),
        pytest.param(changed(b'"seq":1', b'"seq":0'), "malformed", id="out of range"),
        pytest.param(changed(b'"seq":1', b'"seq":1.5'), "malformed", id="float"),
        pytest.param(changed(b'"v":2', b'"v":3'), "unknown_version", id="later version"),
        pytest.param(changed(b'"v":2', b'"v":3,"w":0'), "unknown_version", id="later version, new member"),
        pytest.param(changed(b"dataset", b"unknown"), "unknown_kind", id="later kind"),
        pytest.param(changed(b"dataset", b"unknown").replace(b'"v":2', b'"v":3'), "unknown_kind", id="both"),
        pytest.param(changed(b"dataset", b"enrol"), "malformed", id="members of another kind"),
        pytest.param(bytes(64) + b"[" * 60_000, "malformed", id="deep nesting"),
        pytest.param(bytes(MAX_ENTRY_BYTES + 1), "too_large", id="too large"),
    ],
)
def test_what_is_no_entry_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(RefusedEntry) as caught:
        decode_entry(data)

    assert caught.value.reason == reason


def model_with(unused: int) -> ModelRecord:
    return ModelRecord(
        origin="o",
        author=0,
        seq=1,
        round=1,
        version=1,
        parent=digest(1),
        digest=digest(1),
        updates_root=digest(1),
        unused=tuple(range(100_000, 100_000 + unused)),
        sum_digest=digest(1),
        solver="adam/1",
        parameters={},
    )


def test_an_entry_as_large_as_allowed_is_made_and_a_larger_one_is_not() -> None:
    spare = MAX_ENTRY_BYTES - len(sign(model_with(1), key(0)))
    largest = 1 + spare // len("100000,")

    assert len(decode_entry(sign(model_with(largest), key(0))).data) <= MAX_ENTRY_BYTES
    with pytest.raises(InvalidRecord, match="at most 65535"):
        sign(model_with(largest + 1), key(0))


def test_what_no_reader_accepts_is_not_signed() -> None:
    with pytest.raises(InvalidRecord):
        sign(msgspec.structs.replace(DATASET, seq=0), key(3))


@given(st.sets(st.integers(0, 5_000)))
def test_ranges_give_back_the_numbers_in_order(participants: set[int]) -> None:
    assert list(numbers_in(to_ranges(participants))) == sorted(participants)


@given(st.sets(st.integers(0, 2**53 - 1), max_size=5))
def test_ranges_are_small_and_sound_wherever_the_numbers_lie(participants: set[int]) -> None:
    parts = to_ranges(participants)

    assert list(numbers_in(parts)) == sorted(participants)
    assert all(part.bitmap[0] & 1 and part.bitmap[-1] for part in parts)
    assert sum(len(part.bitmap) for part in parts) <= 33 * len(participants)


@given(st.sets(st.integers(0, 3_000)), st.integers(0, 3_100))
def test_ranges_include_their_numbers_and_no_other(participants: set[int], number: int) -> None:
    parts = to_ranges(participants)

    assert includes(parts, number) == (number in participants)
    assert all(includes(parts, each) for each in participants)


def test_a_range_counts_bits_from_the_lowest() -> None:
    assert to_ranges([3, 4, 11, 1000]) == (Range(first=3, bitmap=b"\x03\x01"), Range(first=1000, bitmap=b"\x01"))


def test_ranges_of_262144_people_fit_into_an_entry() -> None:
    world = bare_world()
    world.add(world.round())
    update = msgspec.structs.replace(world.update(HOST), participants=to_ranges(range(262_144)))

    assert len(sign(update, key(HOST))) < MAX_ENTRY_BYTES


def test_records_concern_their_author_and_subjects() -> None:
    world = bare_world()
    world.add(world.round())

    assert principals_of(genesis()) == [FOUNDER, LOG]
    assert principals_of(world.enrol(7, "participant")) == [FOUNDER, 7]
    assert principals_of(world.update(3)) == [3]
    assert principals_of(world.update(HOST)) == [*PARTICIPANTS, HOST]
    assert principals_of(world.round()) == [2]
    assert principals_of(world.update(4, (3, digest("share")))) == [3, 4]
    assert principals_of(world.consent(3, 5, COORDINATOR)) == [COORDINATOR, 3, 5]
    assert principals_of(world.withdrawal(3)) == [3]
    assert principals_of(world.share(3, 5)) == [3, 5]
    assert principals_of(world.pool(3, 4)) == [COORDINATOR, 3, 4]
    assert principals_of(world.erasure(4)) == [4]
    assert principals_of(world.erasure_report(4, notified=(5,), confirmed=(5,))) == [COORDINATOR, 4, 5]
    assert world.update(HOST).answers_for() == PARTICIPANTS
    assert world.update(3).answers_for() == (3,)


@given(records(), st.data())
def test_a_record_concerns_those_whose_history_it_belongs_to(record: Record, data: st.DataObject) -> None:
    listed = principals_of(record)
    number = data.draw(st.integers(0, 2**20) | st.sampled_from(listed or [0]))

    assert involves(record, number) == (number in listed)

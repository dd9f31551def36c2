"""There is one way to write a record, and it is RFC 8785's."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.canonical_json import LARGEST_INTEGER, Bytes32, Integer, Natural, Token, decode, encode
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.dsse import dsse_pae
from liberate.errors import InvalidRecord


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: Natural


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="sample"):
    text: str
    integer: Integer
    flag: bool
    nothing: Natural | None
    digest: Bytes32
    inner: tuple[Inner, ...]
    pair: tuple[Natural, str]
    table: dict[Token, Integer]


integers = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
naturals = st.integers(0, LARGEST_INTEGER)
samples = st.builds(
    Sample,
    text=st.text(),
    integer=integers,
    flag=st.booleans(),
    nothing=st.none() | naturals,
    digest=st.binary(min_size=32, max_size=32),
    inner=st.lists(st.builds(Inner, naturals)).map(tuple),
    pair=st.tuples(naturals, st.text()),
    table=st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_./-]{0,5}\Z"), integers),
)
SAMPLE = Sample(
    text='ä\n\u2028\x7f\x01/"\\😀',
    integer=-5,
    flag=True,
    nothing=None,
    digest=bytes(range(32)),
    inner=(Inner(1),),
    pair=(1, "x"),
    table={"b": 2, "a": 1},
)


@given(samples)
def test_decoding_gives_back_what_was_encoded(record: Sample) -> None:
    assert decode(encode(record), Sample) == record


@given(samples)
def test_encoding_is_that_of_rfc_8785(record: Sample) -> None:
    data = encode(record)

    assert rfc8785.dumps(json.loads(data)) == data


@given(samples, st.data())
def test_a_flipped_bit_is_another_record_or_none(record: Sample, data: st.DataObject) -> None:
    flipped = bytearray(encode(record))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    try:
        other = decode(bytes(flipped), Sample)
    except InvalidRecord:
        return
    assert other != record
    assert encode(other) == flipped


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        record = decode(data, Inner)
    except InvalidRecord:
        return
    assert encode(record) == data


CANONICAL = encode(SAMPLE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'"integer":-5', b'"integer":-5.0', id="float"),
        pytest.param(b'"integer":-5', b'"integer":-5e0', id="exponent"),
        pytest.param(b'"integer":-5', b'"integer":-0', id="minus zero"),
        pytest.param(b'"integer":-5', b'"integer":9007199254740992', id="integer above the range"),
        pytest.param(b'"integer":-5', b'"integer":-9007199254740992', id="integer below the range"),
        pytest.param(b'"integer":-5', b'"integer":' + b"9" * 5_000, id="endless integer"),
        pytest.param(b'"integer":-5', b'"integer":"-5"', id="text for an integer"),
        pytest.param(b'"integer":-5', b'"integer":NaN', id="not a number"),
        pytest.param(b'"integer":-5', b'"integer":-5,"integer":-5', id="duplicate member"),
        pytest.param(b'"a":1', b'"a":1,"a":1', id="duplicate key"),
        pytest.param(b'"a":1,"b":2', b'"b":2,"a":1', id="members out of order"),
        pytest.param(b'"a":1', b'"A":1', id="key that is no token"),
        pytest.param(b'"a":1', '"ä":1'.encode(), id="key that is not ASCII"),
        pytest.param(b'"flag":true', b'"flag": true', id="space"),
        pytest.param(b'"flag":true', b'"fl\\u0061g":true', id="escaped key"),
        pytest.param("ä".encode(), b"\\u00e4", id="needless escape"),
        pytest.param(b"/", b"\\/", id="escaped slash"),
        pytest.param("ä".encode(), b"\xe4", id="not UTF-8"),
        pytest.param("ä".encode(), b"\\ud800", id="lone surrogate"),
        pytest.param("ä".encode(), b"\xed\xa0\x80", id="surrogate in UTF-8"),
        pytest.param(b'"flag":true', b'"flag":true,"more":1', id="unknown member"),
        pytest.param(b'"flag":true,', b"", id="missing member"),
        pytest.param(b'"kind":"sample"', b'"kind":"other"', id="other kind"),
        pytest.param(b'Hh8="', b'Hh9="', id="base64 with stray bits"),
        pytest.param(b'Hh8="', b'Hh8"', id="base64 without padding"),
        pytest.param(b'Hh8="', b'="', id="31 bytes for 32"),
        pytest.param(b"}", b"} ", id="trailing space"),
        pytest.param(b"{", b"\xef\xbb\xbf{", id="byte order mark"),
    ],
)
def test_other_ways_to_write_it_are_refused(old: bytes, new: bytes) -> None:
    assert old in CANONICAL

    with pytest.raises(InvalidRecord):
        decode(CANONICAL.replace(old, new, 1), Sample)


JCS_OUTSIDE = {"french.json", "values.json", "weird.json"}
"""Samples that the profile refuses: for its floats, and for its member names that are not ASCII."""


def test_the_jcs_vectors_are_read_as_the_oracle_reads_them(shared_folder: Path) -> None:
    """The third-party samples guard the oracle that guards us."""
    folder = shared_folder / "vectors" / "jcs" / "testdata"
    paths = sorted((folder / "input").iterdir())

    assert len(paths) == 6
    for path in paths:
        value = json.loads(path.read_text("utf-8"))
        assert rfc8785.dumps(value) == (folder / "output" / path.name).read_bytes()


def test_the_jcs_vectors_are_within_the_profile_or_refused_by_it(shared_folder: Path) -> None:
    """Within it we write what the samples say; outside no type of a record can hold them."""
    for path in sorted((shared_folder / "vectors" / "jcs" / "testdata" / "output").iterdir()):
        data = path.read_bytes()
        value = json.loads(data)

        if path.name in JCS_OUTSIDE:
            assert not is_within_profile(value), path.name
        else:
            assert is_within_profile(value), path.name
            assert msgspec.json.encode(value, order="sorted") == data.removesuffix(b"\n")


def is_within_profile(value: object) -> bool:
    match value:
        case float():
            return False
        case dict():
            return all(name.isascii() and is_within_profile(inner) for name, inner in value.items())
        case list():
            return all(map(is_within_profile, value))
        case _:
            return True


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**70])
def test_encode_refuses_what_no_reader_accepts(value: int) -> None:
    with pytest.raises(InvalidRecord):
        encode(msgspec.structs.replace(SAMPLE, integer=value))


@pytest.mark.parametrize(
    "field",
    [float, int, list[Natural], dict[str, Natural], dict[Natural, Natural], float | None, tuple[float, ...]],
    ids=str,
)
def test_types_outside_the_profile_are_a_mistake(field: object) -> None:
    kind = msgspec.defstruct("Wrong", [("field", field)], forbid_unknown_fields=True)

    with pytest.raises(TypeError, match="profile"):
        decode(b"{}", kind)


def test_a_struct_that_lets_unknown_members_pass_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="profile"):
        decode(b"{}", msgspec.defstruct("Open", [("field", Natural)]))


def test_a_member_name_that_is_not_ascii_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="ASCII"):
        decode(b"{}", msgspec.defstruct("Wrong", [("größe", Natural)], forbid_unknown_fields=True))


def test_pre_authentication_encoding_of_the_dsse_specification() -> None:
    encoded = dsse_pae("http://example.com/HelloWorld", b"hello world")

    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_commitment_is_the_hash_of_salt_and_parts() -> None:
    salt = bytes(range(32))

    found = salted_commitment(salt, b"ab", bytearray(b"c"), memoryview(b"d"))

    assert found == sha256(salt + b"abcd").digest()
    assert found != salted_commitment(bytes(32), b"abcd")


def test_a_short_salt_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        salted_commitment(b"short", b"data")

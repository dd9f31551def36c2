"""Checkpoints are C2SP signed notes, read in their one form only."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.note import (
    Checkpoint,
    SignatureType,
    WitnessPolicy,
    add_cosignature,
    cosign,
    cosignature_times,
    parse_verifier_key,
    parse_witness_key,
    sign_checkpoint,
    verifier_key,
    verify_checkpoint,
    verify_cosigned_checkpoint,
)
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, NoQuorum
from liberate.identifiers import Digest

KEY = SigningKey.from_seed(bytes(32))
OTHER = SigningKey.from_seed(bytes([1] * 32))
ORIGIN = "example.org/ledger"
VKEY = verifier_key(ORIGIN, KEY.public)
CHECKPOINT = Checkpoint(ORIGIN, 20852163, Digest(bytes(range(32))))
NOTE = sign_checkpoint(CHECKPOINT, KEY)


def test_a_verifier_key_of_the_go_checksum_database_is_read() -> None:
    """The best-known vkey there is; its key hash is part of it."""
    vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

    key = parse_verifier_key(vkey)

    assert key.name == "sum.golang.org"
    assert str(key) == vkey == verifier_key(key.name, key.public)


def test_a_checkpoint_has_three_lines_and_a_signature_line() -> None:
    text, signature = NOTE.split("\n\n")

    assert text == f"{ORIGIN}\n20852163\n{base64.b64encode(bytes(range(32))).decode()}"
    assert signature.startswith(f"— {ORIGIN} ")
    assert verify_checkpoint(NOTE, VKEY) == CHECKPOINT


@given(st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_what_was_signed_is_read_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, Digest(root))

    assert verify_checkpoint(sign_checkpoint(checkpoint, KEY), VKEY) == checkpoint


def test_every_flipped_bit_of_a_note_is_refused() -> None:
    data = NOTE.encode()
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            note = flipped.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(InvalidRecord):
            verify_checkpoint(note, VKEY)


def test_signatures_by_others_are_passed_over() -> None:
    witness = sign_checkpoint(CHECKPOINT, OTHER).split("\n\n")[1]

    assert verify_checkpoint(NOTE + witness, VKEY) == CHECKPOINT
    with pytest.raises(InvalidRecord, match="no signature by"):
        verify_checkpoint(str(CHECKPOINT) + "\n" + witness, VKEY)


def test_a_note_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="no signature by"):
        verify_checkpoint(NOTE, verifier_key(ORIGIN, OTHER.public))


def signed(text: str) -> str:
    """Any text as a note, properly signed."""
    blob = parse_verifier_key(VKEY).key_hash + KEY.sign(text.encode())
    return f"{text}\n— {ORIGIN} {base64.b64encode(blob).decode()}\n"


ROOT_LINE = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"other.org\n1\n{ROOT_LINE}\n", id="other origin"),
        pytest.param(f"{ORIGIN}\n01\n{ROOT_LINE}\n", id="leading zero"),
        pytest.param(f"{ORIGIN}\n-1\n{ROOT_LINE}\n", id="negative"),
        pytest.param(f"{ORIGIN}\n{'9' * 5_000}\n{ROOT_LINE}\n", id="endless size"),
        pytest.param(f"{ORIGIN}\n٣\n{ROOT_LINE}\n", id="digits of another script"),
        pytest.param(f"{ORIGIN}\n1\n{ROOT_LINE}\nextension\n", id="extension line"),
        pytest.param(f"{ORIGIN}\n1\nAAAA\n", id="short root"),
        pytest.param(f"{ORIGIN}\n1\n{ROOT_LINE[:-2]}B=\n", id="stray bits in the root"),
        pytest.param(f"{ORIGIN}\n1\n", id="no root"),
    ],
)
def test_what_is_no_checkpoint_is_refused_even_if_signed(text: str) -> None:
    with pytest.raises(InvalidRecord):
        verify_checkpoint(signed(text), VKEY)


@pytest.mark.parametrize("note", ["", "\n\n", NOTE.rstrip("\n"), NOTE + "\n", NOTE + "— x y\n", NOTE.replace("—", "-")])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidRecord):
        verify_checkpoint(note, VKEY)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000",
        VKEY.replace("example", "example2"),
        VKEY + "=",
        VKEY[:-4],
        VKEY.replace(ORIGIN, ""),
        VKEY.replace("+A", "+B"),
    ],
)
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(InvalidRecord):
        parse_verifier_key(vkey)


@pytest.mark.parametrize("name", ["", "with space", "with+plus", "with\nnewline", "with\u2003space", "\udc80"])
def test_a_name_that_would_break_the_line_is_refused(name: str) -> None:
    with pytest.raises(InvalidRecord):
        verifier_key(name, KEY.public)


def test_a_key_of_small_order_is_no_verifier_key() -> None:
    with pytest.raises(InvalidRecord):
        verifier_key(ORIGIN, bytes(32))


# --- cosignatures ----------------------------------------------------------------------------------------------------

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "cosignatures.json").read_text("utf-8"))
WITNESS_KEYS = tuple(VECTORS["witnesses"])


def witness_key(number: int) -> SigningKey:
    return SigningKey.from_seed(sha256(f"witness {number}".encode()).digest())


def test_a_cosignature_is_written_as_the_vectors_have_it() -> None:
    checkpoint = Checkpoint(VECTORS["origin"], VECTORS["size"], Digest(base64.b64decode(VECTORS["root"])))

    line = cosign(checkpoint, "witness.example/0", witness_key(0), VECTORS["times"][0])

    assert line == VECTORS["line"]
    key = verifier_key("witness.example/0", witness_key(0).public, SignatureType.COSIGNATURE_V1)
    assert key == WITNESS_KEYS[0] == str(parse_witness_key(key))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["description"])
def test_vectors_of_cosigned_checkpoints(case: dict[str, Any]) -> None:
    """All but the impossible time have been compared with `formats/note` of transparency-dev, in Go."""
    policy = WitnessPolicy(WITNESS_KEYS, case["threshold"])

    if case["valid"]:
        assert verify_cosigned_checkpoint(case["note"], VECTORS["log"], policy).size == VECTORS["size"]
    else:
        with pytest.raises((InvalidRecord, NoQuorum)):
            verify_cosigned_checkpoint(case["note"], VECTORS["log"], policy)


def test_cosignatures_say_when() -> None:
    note = next(case["note"] for case in VECTORS["cases"] if case["description"] == "three of three")

    assert list(cosignature_times(note, WITNESS_KEYS).values()) == VECTORS["times"]


def test_the_latest_cosignature_of_a_witness_counts() -> None:
    lines = [cosign(CHECKPOINT, "witness.example/0", witness_key(0), time) for time in (5, 9, 7)]

    assert cosignature_times(NOTE + "".join(lines), WITNESS_KEYS) == {WITNESS_KEYS[0]: 9}


def test_a_cosignature_is_taken_from_an_answer_without_the_rest() -> None:
    line = cosign(CHECKPOINT, "witness.example/0", witness_key(0), 5)
    other = cosign(CHECKPOINT, "witness.example/1", witness_key(1), 5)

    assert add_cosignature(NOTE, other + line, WITNESS_KEYS[0]) == NOTE + line
    of_another = cosign(Checkpoint(ORIGIN, 1, CHECKPOINT.root), "witness.example/0", witness_key(0), 5)
    for answer in (other, of_another, "", "nonsense\n", line.rstrip("\n")):
        with pytest.raises(InvalidRecord):
            add_cosignature(NOTE, answer, WITNESS_KEYS[0])


def test_every_flipped_bit_of_a_cosigned_note_is_refused() -> None:
    data = (NOTE + cosign(CHECKPOINT, "witness.example/0", witness_key(0), 1679315147)).encode()
    policy = WitnessPolicy(WITNESS_KEYS, 1)
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            note = flipped.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises((InvalidRecord, NoQuorum)):
            verify_cosigned_checkpoint(note, VKEY, policy)


def test_keys_of_logs_and_of_witnesses_are_not_taken_for_one_another() -> None:
    with pytest.raises(InvalidRecord, match="log's verifier key"):
        parse_verifier_key(WITNESS_KEYS[0])
    with pytest.raises(InvalidRecord, match="witness's verifier key"):
        parse_witness_key(VKEY)

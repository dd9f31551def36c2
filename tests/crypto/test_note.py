"""Checkpoints are C2SP signed notes, read in their one form only."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Digest
from liberate.crypto.note import Checkpoint, open_checkpoint, parse_verifier_key, sign_checkpoint, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord

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
    assert open_checkpoint(NOTE, VKEY) == CHECKPOINT


@given(st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_what_was_signed_is_read_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, Digest(root))

    assert open_checkpoint(sign_checkpoint(checkpoint, KEY), VKEY) == checkpoint


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
            open_checkpoint(note, VKEY)


def test_signatures_by_others_are_passed_over() -> None:
    witness = sign_checkpoint(CHECKPOINT, OTHER).split("\n\n")[1]

    assert open_checkpoint(NOTE + witness, VKEY) == CHECKPOINT
    with pytest.raises(InvalidRecord, match="no signature by"):
        open_checkpoint(str(CHECKPOINT) + "\n" + witness, VKEY)


def test_a_note_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="no signature by"):
        open_checkpoint(NOTE, verifier_key(ORIGIN, OTHER.public))


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
        open_checkpoint(signed(text), VKEY)


@pytest.mark.parametrize("note", ["", "\n\n", NOTE.rstrip("\n"), NOTE + "\n", NOTE + "— x y\n", NOTE.replace("—", "-")])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidRecord):
        open_checkpoint(note, VKEY)


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

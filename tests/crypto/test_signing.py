"""Ed25519 as in RFC 8032, without the inputs on which libraries disagree."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.signing import (
    SMALL_ORDER_POINTS,
    SignatureClaim,
    SigningKey,
    check_public_key,
    key_id,
    load_key,
    save_key,
    verify_batch,
    verify_signature,
)
from liberate.errors import InvalidRecord, LiberateError

KEY = SigningKey.from_seed(bytes(32))

# RFC 8032, 7.1: TEST 1, TEST 2, TEST 3.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_examples_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))

    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify_signature(key.public, bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(max_size=64), st.integers(0, 64 * 8 - 1))
def test_a_flipped_bit_of_the_signature_is_detected(message: bytes, place: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[place // 8] ^= 1 << place % 8

    with pytest.raises(InvalidRecord):
        verify_signature(KEY.public, message, bytes(signature))


@given(st.binary(min_size=1, max_size=64), st.data())
def test_a_flipped_bit_of_the_message_is_detected(message: bytes, data: st.DataObject) -> None:
    changed = bytearray(message)
    changed[data.draw(st.integers(0, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(InvalidRecord):
        verify_signature(KEY.public, bytes(changed), KEY.sign(message))


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidRecord):
        verify_signature(KEY.public, b"", KEY.sign(b"").ljust(65, b"\0")[:length])


@pytest.mark.parametrize("point", sorted(SMALL_ORDER_POINTS), ids=bytes.hex)
def test_points_of_small_order_are_neither_keys_nor_nonces(point: bytes) -> None:
    with pytest.raises(InvalidRecord):
        check_public_key(point)
    with pytest.raises(InvalidRecord):
        verify_signature(KEY.public, b"", point + bytes(32))


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(KEY.public[:31], id="short"),
        pytest.param(KEY.public + b"\0", id="long"),
        pytest.param(b"\xff" * 32, id="not canonical"),
        pytest.param(b"\x02" + bytes(31), id="not on the curve"),
    ],
)
def test_what_is_no_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(InvalidRecord):
        check_public_key(public)


def test_an_honest_key_is_accepted() -> None:
    check_public_key(KEY.public)


def test_the_14_encodings_of_small_order_are_those_of_cctv(shared_folder: Path) -> None:
    vectors = cctv(shared_folder)
    keys = {bytes.fromhex(vector["key"]) for vector in vectors if "low_order_A" in (vector["flags"] or ())}
    nonces = {bytes.fromhex(vector["sig"])[:32] for vector in vectors if "low_order_R" in (vector["flags"] or ())}

    assert keys == nonces == SMALL_ORDER_POINTS


def test_cctv_vectors_get_one_answer_from_two_libraries(shared_folder: Path) -> None:
    """Of 914 edge cases, 808 have a key or R of small order and are refused; on the other 106 OpenSSL agrees."""
    refused, agreed = 0, 0
    for vector in cctv(shared_folder):
        public, signature = bytes.fromhex(vector["key"]), bytes.fromhex(vector["sig"])
        message, flags = vector["msg"].encode(), vector["flags"] or ()
        if "low_order_A" in flags or "low_order_R" in flags:
            assert not is_accepted(public, message, signature)
            refused += 1
        else:
            assert is_accepted(public, message, signature) == is_accepted_by_openssl(public, message, signature)
            agreed += 1

    assert (refused, agreed) == (808, 106)


def cctv(shared_folder: Path) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads(
        (shared_folder / "vectors/cctv-ed25519/ed25519/ed25519vectors.json").read_text()
    )
    return vectors


def is_accepted(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_signature(public, message, signature)
    except InvalidRecord:
        return False
    return True


def is_accepted_by_openssl(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 129])
def test_a_batch_is_answered_claim_by_claim_in_order(size: int) -> None:
    wrong = set(range(0, size, 3))
    claims = [
        SignatureClaim(KEY.public, bytes([i]), KEY.sign(bytes([i, 0]) if i in wrong else bytes([i])))
        for i in range(size)
    ]

    assert verify_batch(claims) == [i not in wrong for i in range(size)]


def test_a_key_id_is_short_and_of_the_public_key() -> None:
    assert key_id(bytes(32)) == "66687aadf862bd77"


def test_a_key_shows_no_secret() -> None:
    assert bytes(32).hex() not in repr(KEY)
    assert "_secret" not in repr(KEY)


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey.from_seed(b"short")


def test_a_saved_key_is_its_owners_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "log.key"

    save_key(path, KEY)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == KEY


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    save_key(path, KEY)

    with pytest.raises(LiberateError, match="exists already"):
        save_key(path, SigningKey.from_seed(bytes([1] * 32)))

    assert load_key(path) == KEY


@pytest.mark.parametrize("content", [b"", b"AAAA\n", b"?" * 44, bytes(32), b"\xff" * 45])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.key"
    path.write_bytes(content)

    with pytest.raises(LiberateError, match="holds no signing key"):
        load_key(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LiberateError, match=r"no key file .*absent"):
        load_key(tmp_path / "absent")

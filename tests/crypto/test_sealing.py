"""What is sealed opens with its key in its context, and not otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.sealing import open_sealed, seal
from liberate.errors import SealBroken

KEY = bytes(range(32))


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_sealed_bytes_open(plaintext: bytes, context: bytes) -> None:
    assert open_sealed(KEY, seal(KEY, plaintext, context), context) == plaintext


def test_sealing_twice_gives_unrelated_bytes() -> None:
    assert seal(KEY, b"same", b"") != seal(KEY, b"same", b"")


@given(st.binary(max_size=20), st.data())
def test_a_flipped_bit_is_detected(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, plaintext, b"context"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(SealBroken):
        open_sealed(KEY, bytes(sealed), b"context")


@pytest.mark.parametrize("length", [0, 23, 24, 39])
def test_sealed_bytes_that_are_cut_short_do_not_open(length: int) -> None:
    with pytest.raises(SealBroken):
        open_sealed(KEY, seal(KEY, b"", b"context")[:length], b"context")


def test_another_key_or_context_does_not_open() -> None:
    sealed = seal(KEY, b"plaintext", b"context")

    with pytest.raises(SealBroken):
        open_sealed(bytes(32), sealed, b"context")
    with pytest.raises(SealBroken):
        open_sealed(KEY, sealed, b"other")

"""Uploads as bytes: what is written is read back, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import FixedPointStatistics
from liberate.errors import BadCommitment, FederationError
from liberate.federation.wire.round_messages import (
    RoundAnswer,
    RoundRefusal,
    RoundRequest,
    decode_answer,
    decode_message,
    decode_upload,
    encode_message,
    encode_upload,
)

N_ITEMS, WIDTH, TAIL = 7, 2, 3


def release_of(items: list[int], seed: int = 0) -> FixedPointStatistics:
    rng = np.random.default_rng(seed)
    return FixedPointStatistics(
        indptr=np.array([0, len(items)]),
        indices=np.array(items, np.int32),
        rows=rng.integers(-(2**31), 2**31, (len(items), WIDTH)).astype(np.int32),
        tails=rng.integers(-(2**40), 2**40, (1, TAIL)),
    )


@given(st.sets(st.integers(0, N_ITEMS - 1)), st.integers(0, 99))
def test_sparse_upload_is_read_back(items: set[int], seed: int) -> None:
    release = release_of(sorted(items), seed)

    read = decode_upload(encode_upload(release, 0, is_dense=False), shape=(N_ITEMS, WIDTH, TAIL), is_dense=False)

    assert np.array_equal(read.indices, release.indices)
    assert np.array_equal(read.rows, release.rows)
    assert np.array_equal(read.tails, release.tails)


def test_dense_upload_needs_no_indices() -> None:
    release = release_of(list(range(N_ITEMS)))

    data = encode_upload(release, 0, is_dense=True)

    read = decode_upload(data, shape=(N_ITEMS, WIDTH, TAIL), is_dense=True)
    assert np.array_equal(read.indices, release.indices)
    assert np.array_equal(read.rows, release.rows)
    assert len(encode_upload(release, 0, is_dense=False)) == len(data) + 4 * N_ITEMS


@given(st.data())
def test_any_other_bytes_are_refused_or_of_the_right_shape(data: st.DataObject) -> None:
    upload = bytearray(encode_upload(release_of([1, 4]), 0, is_dense=False))
    place = data.draw(st.integers(0, len(upload) - 1))
    upload[place] ^= data.draw(st.integers(1, 255))

    try:
        read = decode_upload(bytes(upload), shape=(N_ITEMS, WIDTH, TAIL), is_dense=False)
    except BadCommitment:
        return

    assert read.rows.shape == (2, WIDTH)
    assert 0 <= read.indices[0] < read.indices[1] < N_ITEMS


@pytest.mark.parametrize(
    ("items", "shape", "is_dense"),
    [
        ([4, 1], (N_ITEMS, WIDTH, TAIL), False),
        ([1, 1], (N_ITEMS, WIDTH, TAIL), False),
        ([1, N_ITEMS], (N_ITEMS, WIDTH, TAIL), False),
        ([-1, 1], (N_ITEMS, WIDTH, TAIL), False),
        ([1, 4], (N_ITEMS, WIDTH + 1, TAIL), False),
        ([1, 4], (N_ITEMS, WIDTH, TAIL + 1), False),
        ([1, 4], (N_ITEMS, WIDTH, TAIL), True),
    ],
)
def test_upload_of_another_shape_is_refused(items: list[int], shape: tuple[int, int, int], is_dense: bool) -> None:
    upload = encode_upload(release_of(items), 0, is_dense=False)

    with pytest.raises(BadCommitment):
        decode_upload(upload, shape=shape, is_dense=is_dense)


def test_dense_upload_must_have_every_row() -> None:
    upload = encode_upload(release_of(list(range(N_ITEMS - 1))), 0, is_dense=True)

    with pytest.raises(BadCommitment, match="does not fit"):
        decode_upload(upload, shape=(N_ITEMS, WIDTH, TAIL), is_dense=True)


def test_cut_upload_is_refused() -> None:
    upload = encode_upload(release_of([1, 4]), 0, is_dense=False)

    for size in range(len(upload)):
        with pytest.raises(BadCommitment):
            decode_upload(upload[:size], shape=(N_ITEMS, WIDTH, TAIL), is_dense=False)


def test_messages_are_read_back_by_kind() -> None:
    answer = RoundAnswer(entry=b"entry", upload=b"upload", salt=b"salt")
    refusal = RoundRefusal(reason="answered", detail="once", known_size=3)

    assert decode_answer(encode_message(answer), RoundAnswer) == answer
    assert decode_answer(encode_message(refusal), RoundAnswer) == refusal


def test_noise_on_the_line_is_refused() -> None:
    with pytest.raises(FederationError, match="RoundRequest"):
        decode_message(b"\x00\x01", RoundRequest)
    with pytest.raises(FederationError, match="reply is not a readable RoundAnswer"):
        decode_answer(b"\xc1", RoundAnswer)

"""Masks cancel to the bit, and nobody outside learns a key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.errors import PrivacyError
from liberate.privacy.neighbour_graph import draw_graph
from liberate.privacy.secure_aggregation import (
    MaskSecrets,
    add_mask,
    add_pair_mask,
    agree,
    decrypt_share,
    encrypt_share,
    key_commitment,
    pair_key,
    public_key,
    signed_sum,
)

SEED, ROUND = bytes(range(32)), bytes(32)


def keys_of(number: int) -> MaskSecrets:
    return MaskSecrets.derive(number.to_bytes(32, "big"))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_both_sides_agree_on_a_key_and_nobody_else_does() -> None:
    a, b, c = (keys_of(number).mask for number in (1, 2, 3))

    agreed = agree(a, public_key(b))

    assert agreed == agree(b, public_key(a))
    assert agreed != agree(c, public_key(a))
    assert pair_key(agreed, ROUND) != pair_key(agreed, SEED)


@pytest.mark.parametrize("peer", [bytes(32), b"\x01" + bytes(31), b"short"])
def test_a_key_that_fixes_the_agreement_is_refused(peer: bytes) -> None:
    with pytest.raises(PrivacyError, match="usable"):
        agree(keys_of(1).mask, peer)


def test_secrets_of_a_round_are_unrelated() -> None:
    keys = keys_of(1)

    assert len({keys.mask, keys.seal, keys.own, keys.seed, key_commitment(keys.own), keys_of(2).own}) == 6


@given(st.binary(max_size=100))
def test_what_is_sealed_with_a_key_opens_with_it_alone(message: bytes) -> None:
    a, b, c = (keys_of(number).seal for number in (1, 2, 3))
    sealed = encrypt_share(pair_key(agree(a, public_key(b)), ROUND), message)

    assert decrypt_share(pair_key(agree(b, public_key(a)), ROUND), sealed) == message
    for secret, peer, data, context in (
        (c, public_key(a), sealed, ROUND),
        (b, public_key(c), sealed, ROUND),
        (b, public_key(a), sealed[:-1] + bytes([sealed[-1] ^ 1]), ROUND),
        (b, public_key(a), b"", ROUND),
        (b, public_key(a), sealed, SEED),
    ):
        with pytest.raises(PrivacyError, match="does not open"):
            decrypt_share(pair_key(agree(secret, peer), context), data)


# --- masks ------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 7), st.integers(0, 40), st.integers(0, 2**32 - 1), st.data())
def test_masks_cancel_to_the_bit(n_participants: int, size: int, seed: int, data: st.DataObject) -> None:
    """Whoever vanishes after keys were agreed: what is left over is taken out with the neighbours' secrets."""
    values = np.random.default_rng(seed).integers(0, 2**32, (n_participants, size), np.uint32)
    keys = [keys_of(number) for number in range(n_participants)]
    seeds = {number: keys[number].seed for number in range(n_participants)}
    drawn = draw_graph(seeds, ROUND, range(n_participants), max(1, n_participants // 2))
    masked = values.copy()
    for number in range(n_participants):
        add_mask(masked[number], keys[number].own)
        for other in drawn.neighbours(number):
            key = pair_key(agree(keys[number].mask, public_key(keys[other].mask)), ROUND)
            add_pair_mask(masked[number], key, number, other)
    survivors = sorted(data.draw(st.sets(st.integers(0, n_participants - 1), min_size=1)))

    total = masked[survivors].sum(axis=0, dtype=np.uint32)
    for number in survivors:
        add_mask(total, keys[number].own, subtract=True)
        for other in set(drawn.neighbours(number)) - set(survivors):
            key = pair_key(agree(keys[other].mask, public_key(keys[number].mask)), ROUND)
            add_pair_mask(total, key, number, other, undo=True)

    assert np.array_equal(total, values[survivors].sum(axis=0, dtype=np.uint32))


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**17 + 3])
def test_a_long_mask_is_one_stream(size: int) -> None:
    values = np.zeros(size, np.uint32)
    add_mask(values, SEED)

    assert len(np.unique(values)) > 0.99 * size
    beginning = np.zeros(100, np.uint32)
    add_mask(beginning, SEED)
    assert np.array_equal(values[:100], beginning)
    add_mask(values, SEED, subtract=True)
    assert not values.any()


def test_a_mask_is_the_keystream_of_chacha20() -> None:
    """RFC 8439, appendix A.1, test vector 1: key, counter and nonce zero."""
    values = np.zeros(4, np.uint32)
    add_mask(values, bytes(32))

    assert values.astype("<u4").tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_a_sum_is_read_with_its_sign() -> None:
    values = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)

    assert signed_sum(values).tolist() == [0, 1, 2**31 - 1, -(2**31), -1]

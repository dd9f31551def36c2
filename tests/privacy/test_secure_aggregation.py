"""Masks cancel to the bit, shares give back what undoes them, and nobody outside learns a key."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.errors import PrivacyError
from liberate.privacy.secure_aggregation import (
    NEIGHBOURS,
    MaskSecrets,
    add_mask,
    add_pair_mask,
    decrypt_share,
    encrypt_share,
    graph,
    key_commitment,
    pair_key,
    public_key,
    shamir_combine,
    shamir_split,
    signed_sum,
    threshold,
)

SEED, ROUND = bytes(range(32)), bytes(32)


def keys_of(number: int) -> MaskSecrets:
    return MaskSecrets.derive(number.to_bytes(32, "big"))


# --- who masks with whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 30), 50, 99, 100, 101, 1000])
def test_everybody_has_the_same_number_of_neighbours_and_it_is_mutual(size: int) -> None:
    participants = [3 * i + 5 for i in range(size)]
    drawn = graph(participants, SEED)

    around = {person: drawn.neighbours(person) for person in participants}

    assert {len(others) for others in around.values()} == {min(NEIGHBOURS, size - 1)}
    for person, others in around.items():
        assert list(others) == sorted({*others} - {person})
        assert all(person in around[other] for other in others)


@pytest.mark.parametrize("size", [22, 24, 60, 100])
def test_everybody_is_connected_whatever_was_drawn(size: int) -> None:
    for seed in range(20):
        drawn = graph(range(size), seed.to_bytes(32, "big"))
        reached, edge = {0}, {0}
        while edge:
            edge = {other for person in edge for other in drawn.neighbours(person)} - reached
            reached |= edge

        assert len(reached) == size


def test_another_round_draws_other_neighbours() -> None:
    participants = range(100)

    assert graph(participants, SEED).neighbours(7) == graph(participants, SEED).neighbours(7)
    assert graph(participants, SEED).neighbours(7) != graph(participants, ROUND).neighbours(7)
    assert graph(participants, SEED).distances != graph(participants, ROUND).distances


def test_neighbours_of_a_stranger_are_not_drawn() -> None:
    with pytest.raises(ValueError, match="not on the ring"):
        graph(range(5), SEED).neighbours(5)


@pytest.mark.parametrize("size", range(2, 41))
def test_two_thirds_of_the_neighbours_are_too_few(size: int) -> None:
    assert 2 * size < 3 * threshold(size) <= 3 * size
    assert 3 * (threshold(size) - 1) <= 2 * size


# --- keys -------------------------------------------------------------------------------------------------------------


def test_both_sides_agree_on_a_key_and_nobody_else_does() -> None:
    a, b, c = (keys_of(number).mask for number in (1, 2, 3))

    agreed = pair_key(a, public_key(b), ROUND)

    assert agreed == pair_key(b, public_key(a), ROUND)
    assert agreed != pair_key(c, public_key(a), ROUND)
    assert agreed != pair_key(a, public_key(b), SEED)


@pytest.mark.parametrize("peer", [bytes(32), b"\x01" + bytes(31), b"short"])
def test_a_key_that_fixes_the_agreement_is_refused(peer: bytes) -> None:
    with pytest.raises(PrivacyError, match="usable"):
        pair_key(keys_of(1).mask, peer, ROUND)


def test_secrets_of_a_round_are_unrelated() -> None:
    keys = keys_of(1)

    assert len({keys.mask, keys.seal, keys.own, key_commitment(keys.own), keys_of(2).own}) == 5


@given(st.binary(max_size=100))
def test_what_is_sealed_to_a_key_opens_with_it_alone(message: bytes) -> None:
    a, b, c = (keys_of(number).seal for number in (1, 2, 3))
    sealed = encrypt_share(a, public_key(b), message, ROUND)

    assert decrypt_share(b, public_key(a), sealed, ROUND) == message
    for secret, peer, data, context in (
        (c, public_key(a), sealed, ROUND),
        (b, public_key(c), sealed, ROUND),
        (b, public_key(a), sealed[:-1] + bytes([sealed[-1] ^ 1]), ROUND),
        (b, public_key(a), b"", ROUND),
        (b, public_key(a), sealed, SEED),
    ):
        with pytest.raises(PrivacyError, match="does not open"):
            decrypt_share(secret, peer, data, context)


# --- masks ------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 7), st.integers(0, 40), st.integers(0, 2**32 - 1), st.data())
def test_masks_cancel_to_the_bit(n_participants: int, size: int, seed: int, data: st.DataObject) -> None:
    """Whoever vanishes after keys were agreed: what is left over is taken out with the neighbours' secrets."""
    values = np.random.default_rng(seed).integers(0, 2**32, (n_participants, size), np.uint32)
    keys = [keys_of(number) for number in range(n_participants)]
    drawn = graph(range(n_participants), SEED)
    masked = values.copy()
    for number in range(n_participants):
        add_mask(masked[number], keys[number].own)
        for other in drawn.neighbours(number):
            key = pair_key(keys[number].mask, public_key(keys[other].mask), ROUND)
            add_pair_mask(masked[number], key, number, other)
    survivors = sorted(data.draw(st.sets(st.integers(0, n_participants - 1), min_size=1)))

    total = masked[survivors].sum(axis=0, dtype=np.uint32)
    for number in survivors:
        add_mask(total, keys[number].own, subtract=True)
        for other in set(drawn.neighbours(number)) - set(survivors):
            key = pair_key(keys[other].mask, public_key(keys[number].mask), ROUND)
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


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("needed", "n_shares"), [(2, 2), (2, 3), (3, 5)])
def test_enough_shares_give_the_secret_back_and_fewer_do_not(needed: int, n_shares: int) -> None:
    secret = keys_of(1).own
    shares = dict(enumerate(shamir_split(secret, needed, n_shares), start=1))

    assert {len(share) for share in shares.values()} == {32}
    for chosen in combinations(shares, needed):
        assert shamir_combine({index: shares[index] for index in chosen}) == secret
    for chosen in combinations(shares, needed - 1):
        assert shamir_combine({index: shares[index] for index in chosen}) != secret


def test_shares_are_drawn_afresh() -> None:
    assert shamir_split(SEED, 2, 3) != shamir_split(SEED, 2, 3)

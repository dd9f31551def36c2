"""Enough shares restore the secret, whichever they are, and fewer fit every secret."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.errors import PrivacyError
from liberate.privacy import shamir

SMALL = 11  # a field in which every polynomial can be written down


@given(st.data(), st.binary(min_size=32, max_size=32))
def test_any_threshold_of_the_shares_restores_the_secret(data: st.DataObject, secret: bytes) -> None:
    n_shares = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, n_shares))
    shares = dict(enumerate(shamir.split(secret, threshold, n_shares), start=1))
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]

    assert shamir.combine({index: shares[index] for index in chosen}) == secret
    assert {len(share) for share in shares.values()} == {shamir.SHARE_BYTES}


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret_survive_many_shares(secret: bytes) -> None:
    shares = dict(enumerate(shamir.split(secret, 185, 343), start=1))

    assert shamir.combine({index: shares[index] for index in range(159, 344)}) == secret


def test_fewer_shares_fit_every_secret_equally_often() -> None:
    threshold, n_shares = 3, 5
    seen: dict[tuple[int, ...], list[int]] = {}
    polynomials = [(a, b, c) for a in range(SMALL) for b in range(SMALL) for c in range(SMALL)]

    for coefficients in polynomials:
        for indices in combinations(range(1, n_shares + 1), threshold - 1):
            shares = [shamir.evaluate(coefficients, index, SMALL) for index in indices]
            seen.setdefault((*indices, *shares), []).append(coefficients[0])

    assert all(sorted(secrets) == list(range(SMALL)) for secrets in seen.values())


def test_enough_shares_fit_one_secret_in_every_small_world() -> None:
    for coefficients in [(a, b, c) for a in range(SMALL) for b in range(SMALL) for c in range(SMALL)]:
        for indices in combinations(range(1, 6), 3):
            weights = shamir.weights_at_zero(indices, SMALL)
            values = [shamir.evaluate(coefficients, index, SMALL) for index in indices]
            assert sum(w * v for w, v in zip(weights, values, strict=True)) % SMALL == coefficients[0]


def test_the_modulus_is_the_least_prime_above_all_secrets() -> None:
    """By Miller and Rabin's test to the first forty primes as bases."""
    bases = [n for n in range(2, 174) if all(n % d for d in range(2, n))]

    def is_prime(n: int) -> bool:
        twos = ((n - 1) & -(n - 1)).bit_length() - 1
        for base in bases:
            powers = [pow(base, (n - 1) >> shift, n) for shift in range(twos, -1, -1)]
            if powers[0] != 1 and n - 1 not in powers[:-1]:
                return False
        return True

    assert is_prime(shamir.PRIME)
    assert not any(is_prime(n) for n in range(2**256, shamir.PRIME))


def test_each_split_draws_other_shares() -> None:
    assert shamir.split(bytes(32), 2, 3) != shamir.split(bytes(32), 2, 3)


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), shamir.PRIME.to_bytes(33, "big")])
def test_what_is_no_share_is_refused(share: bytes) -> None:
    good = shamir.split(bytes(32), 2, 3)

    with pytest.raises(PrivacyError, match="below the prime"):
        shamir.combine({1: good[0], 2: share})


def test_shares_that_restore_more_than_32_bytes_are_refused() -> None:
    with pytest.raises(PrivacyError, match="belong together"):
        shamir.combine({1: (2**256 + 1).to_bytes(33, "big")})


@pytest.mark.parametrize(("threshold", "n_shares"), [(0, 3), (4, 3), (1, 0)])
def test_a_threshold_beyond_the_shares_is_a_mistake(threshold: int, n_shares: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        shamir.split(bytes(32), threshold, n_shares)

"""Shamir's secret sharing over the integers modulo a prime, for any number of shares.

Source: Shamir 1979, "How to Share a Secret", Communications of the ACM 22(11).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

from liberate.errors import PrivacyError

PRIME = 2**256 + 297
"""The least prime above 2**256: every 32 bytes are a number below it."""

SECRET_BYTES = 32
SHARE_BYTES = 33

_DRAWN_BYTES = 48  # of which the remainder by the prime is uniform but for 2**-127


def split(secret: bytes, threshold: int, n_shares: int) -> list[bytes]:
    """Split a secret into shares, of which `threshold` restore it and fewer tell nothing.

    Drawn from the system's randomness, so that every call returns other shares. Share i has the index i + 1.

    Args:
        secret: 32 bytes.
        threshold: 1 <= threshold <= n_shares.
        n_shares: How many shares, of 33 bytes each.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if not 1 <= threshold <= n_shares:
        raise ValueError(f"threshold {threshold} is not between 1 and {n_shares}")

    drawn = secrets.token_bytes(_DRAWN_BYTES * (threshold - 1))
    parts = [drawn[begin : begin + _DRAWN_BYTES] for begin in range(0, len(drawn), _DRAWN_BYTES)]
    coefficients = [int.from_bytes(part, "big") % PRIME for part in (secret, *parts)]

    return [evaluate(coefficients, index, PRIME).to_bytes(SHARE_BYTES, "big") for index in range(1, n_shares + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that shares by index restore, exactly as many as are needed.

    Any shares combine to something: whoever combines has to know what to compare it with.

    Raises:
        PrivacyError: A share is no number below the prime, or these shares restore no 32 bytes.
    """
    values = [int.from_bytes(share, "big") for share in shares.values()]
    if not all(len(share) == SHARE_BYTES for share in shares.values()) or not all(value < PRIME for value in values):
        raise PrivacyError(f"a share is not {SHARE_BYTES} bytes that stand for a number below the prime")

    weights = weights_at_zero(tuple(shares), PRIME)
    secret = sum(weight * value for weight, value in zip(weights, values, strict=True)) % PRIME
    if secret.bit_length() > 8 * SECRET_BYTES:
        raise PrivacyError("these shares do not belong together")
    return secret.to_bytes(SECRET_BYTES, "big")


def evaluate(coefficients: Sequence[int], at: int, prime: int) -> int:
    """Return the value of a polynomial, its constant term first, by Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = value * at + coefficient
    return value % prime  # once: indices are small, and the value grows slowly


@lru_cache(maxsize=1024)
def weights_at_zero(indices: tuple[int, ...], prime: int) -> tuple[int, ...]:
    """Return Lagrange's weights: the value at zero is the sum of weight times value, over the indices.

    Args:
        indices: Distinct, 0 < index < prime.
        prime: The field.
    """
    if len(set(indices)) != len(indices) or not all(0 < index < prime for index in indices):
        raise ValueError("shares have distinct indices from 1")

    above, below = [], []
    for index in indices:
        numerator = denominator = 1
        for other in indices:
            if other != index:
                numerator = numerator * other % prime
                denominator = denominator * (other - index) % prime
        above.append(numerator)
        below.append(denominator)

    return tuple(n * inverse % prime for n, inverse in zip(above, _inverses(below, prime), strict=True))


def _inverses(values: Sequence[int], prime: int) -> list[int]:
    """Invert all values modulo a prime with a single inversion (Montgomery's trick)."""
    products = [1]
    for value in values:
        products.append(products[-1] * value % prime)

    inverse = pow(products[-1], -1, prime)
    inverses = []
    for value, before in zip(reversed(values), reversed(products[:-1]), strict=True):
        inverses.append(inverse * before % prime)
        inverse = inverse * value % prime
    return inverses[::-1]

"""Plain twins of `privacy.noise`: the published algorithms, one step per line, with Python's own integers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

INT32_MAX = 2**31 - 1


def chacha_words(key: bytes) -> Iterator[int]:
    """Read a ChaCha20 keystream as 32-bit little-endian words, without end."""
    keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    while True:
        yield int.from_bytes(keystream.update(bytes(4)), "little")


def below(bound: int, words: Iterator[int]) -> int:
    """Draw uniformly from [0, bound): the high half of word * bound, unless the low half is over-represented."""
    while True:
        high, low = divmod(next(words) * bound, 2**32)
        if low >= 2**32 % bound:
            return high


def bernoulli(numerator: int, denominator: int, words: Iterator[int]) -> bool:
    """Draw true with probability numerator / denominator <= 1; certainty costs no word."""
    return numerator == denominator or below(denominator, words) < numerator


def bernoulli_exp(u: int, t: int, words: Iterator[int]) -> bool:
    """Algorithm 1 of Canonne, Kamath, Steinke 2020 for exp(-u / t): how many coins of odds u / (t k) come up?"""
    k = 1
    while bernoulli(u, t, words) and bernoulli(1, k, words):
        k += 1
    return k % 2 == 1


def exact_sample(scale: int, words: Iterator[int]) -> int:
    """Algorithm 2 of Canonne, Kamath, Steinke 2020 with s = 1."""
    while True:
        u = below(scale, words)
        if not bernoulli_exp(u, scale, words):
            continue
        v = 0
        while bernoulli_exp(1, 1, words):
            v += 1
        magnitude = u + scale * v
        is_negative = bernoulli(1, 2, words) is False
        if not (is_negative and magnitude == 0):
            return -magnitude if is_negative else magnitude


def add_exact(values: Sequence[int], scale: int, key: bytes) -> list[int]:
    """Twin of `noise.add_exact` for one row."""
    words = chacha_words(key)
    return [clamp(value + exact_sample(scale, words)) for value in values]


def xoshiro256pp(key: bytes) -> Iterator[int]:
    """xoshiro256++ of Blackman and Vigna, seeded with the key's four words."""
    s = [int.from_bytes(key[8 * i : 8 * i + 8], "little") for i in range(4)]
    while True:
        yield (_rotate((s[0] + s[3]) % 2**64, 23) + s[0]) % 2**64
        shifted = (s[1] << 17) % 2**64
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = _rotate(s[3], 45)


def add_fast(values: Sequence[int], scale: int, key: bytes) -> list[int]:
    """Twin of `noise.add_fast` for one row: P(X <= -m) = P(X >= m) = exp(-m / scale) / (1 + exp(-1 / scale)), m > 0."""
    negative = 1.0 / (1.0 + math.exp(1.0 / scale))
    noisy = []
    for value, word in zip(values, xoshiro256pp(key), strict=False):
        uniform = ((word >> 11) + 1) * 2.0**-53
        is_negative = uniform <= negative
        tail = uniform if is_negative else uniform - negative
        magnitude = math.floor(scale * (math.log1p(-negative) - math.log(tail)))
        noisy.append(clamp(value - max(1, magnitude) if is_negative else value + max(0, magnitude)))
    return noisy


def _rotate(x: int, n: int) -> int:
    return (x << n | x >> (64 - n)) % 2**64


def clamp(x: int) -> int:
    return max(-INT32_MAX - 1, min(INT32_MAX, x))

"""Discrete Laplace noise on integers: exact for devices, fast and seeded for simulations.

P(X = x) = tanh(1 / (2 t)) * exp(-|x| / t) for integers x and an integer scale t, in grid units.

Both samplers are fixed by a key of 32 bytes: the same key gives the same noise, whatever else is in the batch and
however many cores there are. `add_exact` is the product's protection: it computes with integers only, so no output
betrays its input by the spacing of floating-point numbers. `add_fast` takes logarithms in float64 and its generator
can be predicted: it protects nobody and serves simulations, which must say so.

Sums beyond int32 are clamped to its ends, in the sum and never in the noise alone: clamping what has already been
released is post-processing, so the guarantee holds as it stands. With a scale of at most 2**24 a sample leaves
int32 with probability below exp(-96).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numba import njit, prange

from liberate.arrays import Int32Array, UInt64Array

Words = npt.NDArray[np.uint32]

KEY_BYTES = 32
LARGEST_SCALE = 2**31 - 1

_WORDS_PER_SAMPLE = 9  # the mean is a little below; it only steers how much keystream is drawn at a time
_LARGEST_DRAW = 2**18
_INT32_MAX = np.int64(2**31 - 1)
_INT32_MIN = np.int64(-(2**31))
_LOW = np.uint64(2**32 - 1)
_TWO_32 = np.uint64(2**32)
_32 = np.uint64(32)
_1 = np.uint64(1)


def add_exact(values: Int32Array, scale: int, keys: Sequence[bytes]) -> None:
    """Add exact discrete Laplace noise in place, one key per row.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        scale: t, in grid units, 0 < t < 2**31.
        keys: n keys of 32 bytes, each used for nothing else, ever.

    Source: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", Algorithm 2 with s = 1
    over Algorithm 1; the random bits are ChaCha20's keystream (RFC 8439) under the row's key.
    """
    _check(values, scale, keys)
    for row, key in zip(values, keys, strict=True):
        keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
        words = np.empty(0, np.uint32)
        done = 0
        while done < row.size:
            n_fresh = min(_WORDS_PER_SAMPLE * (row.size - done) + 64, _LARGEST_DRAW)
            fresh = np.frombuffer(keystream.update(bytes(4 * n_fresh)), "<u4")
            words = np.concatenate([words, fresh])
            done, used = _add_exact(row, done, np.uint64(scale), words)
            words = words[used:]


def add_fast(values: Int32Array, scale: int, keys: Sequence[bytes]) -> None:
    """Add discrete Laplace noise for a simulation in place, one key per row; rows run on all cores.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        scale: t, in grid units, 0 < t < 2**31.
        keys: n keys of 32 bytes.

    Source: Blackman, Vigna 2021, "Scrambled Linear Pseudorandom Number Generators" (xoshiro256++), seeded with the
    key's four words; the distribution function is inverted in float64, so tails end at 36 t.
    """
    _check(values, scale, keys)
    seeds = np.frombuffer(b"".join(keys), "<u8").reshape(len(keys), 4).astype(np.uint64)
    _add_fast(values, scale, seeds)


def _check(values: Int32Array, scale: int, keys: Sequence[bytes]) -> None:
    if not 0 < scale <= LARGEST_SCALE:
        raise ValueError(f"noise scale {scale} is outside [1, {LARGEST_SCALE}]")
    if values.dtype != np.int32 or values.ndim != 2 or not values.flags.c_contiguous:
        raise ValueError("noise is added to C-contiguous int32 values of shape (n, size)")
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} noise keys for {len(values)} rows")
    if any(len(key) != KEY_BYTES or key == bytes(KEY_BYTES) for key in keys):
        raise ValueError(f"a noise key has {KEY_BYTES} bytes, not all zero")
    if len(set(keys)) < len(keys):
        raise ValueError("a noise key is used for two rows: their difference would show through")


# The exact kernels read 32-bit words at `at` and return the place after the last one used. When the words run out
# they return a place past the end: the sample is then void and is drawn again, from the same place, with more words.


@njit(cache=True)
def _below(bound: np.uint64, words: Words, at: int) -> tuple[np.uint64, int]:
    """Draw an integer uniform on [0, bound), 0 < bound <= 2**32; give `bound` itself when the words run out.

    Source: Lemire 2019, "Fast Random Integer Generation in an Interval", Algorithm 5: multiplication and rejection.
    """
    while at < words.size:
        product = np.uint64(words[at]) * bound
        at += 1
        low = product & _LOW
        if low >= bound or low >= (_TWO_32 - bound) % bound:
            return product >> _32, at
    return bound, words.size + 1


@njit(cache=True)
def _bernoulli_exp(u: np.uint64, t: np.uint64, words: Words, at: int) -> tuple[bool, int]:
    """Draw true with probability exp(-u / t), 0 <= u <= t.

    Source: Canonne, Kamath, Steinke 2020, Algorithm 1; Bernoulli(u / (t k)) is drawn as (u / t) and (1 / k).
    """
    k = _1
    while True:
        if u < t:
            draw, at = _below(t, words, at)
            if draw >= u:
                break
        if k > _1:
            draw, at = _below(k, words, at)
            if draw != np.uint64(0):
                break
        k += _1
    return k & _1 == _1, at


@njit(cache=True)
def _discrete_laplace(t: np.uint64, words: Words, at: int) -> tuple[np.int64, int]:
    """Draw a discrete Laplace integer of scale t. Source: Canonne, Kamath, Steinke 2020, Algorithm 2 with s = 1."""
    while at <= words.size:
        u, at = _below(t, words, at)
        is_accepted, at = _bernoulli_exp(u, t, words, at)
        if not is_accepted:
            continue
        magnitude = np.int64(u)
        while True:
            goes_on, at = _bernoulli_exp(_1, _1, words, at)
            if not goes_on:
                break
            magnitude += np.int64(t)
        sign, at = _below(np.uint64(2), words, at)
        if sign == np.uint64(0):
            return magnitude, at
        if magnitude != 0:
            return -magnitude, at
    return np.int64(0), at


@njit(cache=True)
def _add_exact(row: Int32Array, begin: int, t: np.uint64, words: Words) -> tuple[int, int]:
    """Add noise to row[begin:] as far as the words reach; give how far that was and how many words were used."""
    at = 0
    for i in range(begin, row.size):
        noise, after = _discrete_laplace(t, words, at)
        if after > words.size:
            return i, at
        at = after
        row[i] = min(max(np.int64(row[i]) + noise, _INT32_MIN), _INT32_MAX)
    return row.size, at


@njit(cache=True)
def _rotate(x: np.uint64, n: int) -> np.uint64:
    return (x << np.uint64(n)) | (x >> np.uint64(64 - n))


@njit(cache=True, parallel=True)
def _add_fast(values: Int32Array, t: int, seeds: UInt64Array) -> None:
    negative = 1.0 / (1.0 + np.exp(1.0 / t))  # P(X < 0)
    log_rest = np.log1p(-negative)
    for d in prange(values.shape[0]):
        a, b, c, e = seeds[d, 0], seeds[d, 1], seeds[d, 2], seeds[d, 3]
        for i in range(values.shape[1]):
            word = _rotate(a + e, 23) + a
            shifted = b << np.uint64(17)
            c ^= a
            e ^= b
            b ^= c
            a ^= e
            c ^= shifted
            e = _rotate(e, 45)
            uniform = (np.int64(word >> np.uint64(11)) + 1) * 2.0**-53  # on (0, 1]
            if uniform <= negative:
                noise = -np.int64(max(1.0, np.floor(t * (log_rest - np.log(uniform)))))
            else:
                noise = np.int64(max(0.0, np.floor(t * (log_rest - np.log(uniform - negative)))))
            values[d, i] = min(max(np.int64(values[d, i]) + noise, _INT32_MIN), _INT32_MAX)

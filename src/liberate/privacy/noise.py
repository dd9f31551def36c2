"""Discrete Laplace and Gaussian noise on integers: exact for devices, fast and seeded for simulations.

P(X = x) is proportional to exp(-|x| / t) (Laplace, scale t) or exp(-x**2 / (2 sigma**2)) (Gaussian, deviation sigma)
for integers x; t and sigma are in grid units.

All samplers are fixed by a key of 32 bytes: the same key gives the same noise, whatever else is in the batch and
however many cores there are. The exact ones are the product's protection: they compute with integers only, so no
output betrays its input by the spacing of floating-point numbers. The fast ones compute in float64 and their generator
can be predicted: they protect nobody and serve simulations, which must say so.

Sums beyond int32 are clamped to its ends, in the sum and never in the noise alone: clamping what has already been
released is post-processing, so the guarantee holds unchanged. With a scale of at most 2**24 a Laplace sample leaves
int32 with probability below exp(-96), with a deviation of at most 2**27 a Gaussian one with one below exp(-127).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from liberate.arrays import Int32Array, UInt64Array
from liberate.privacy import exact_samplers, fast_samplers

KEY_BYTES = 32
LARGEST_SCALE = 2**31 - 1
LARGEST_SIGMA = 2**27

_WORDS_PER_SAMPLE = {False: 9, True: 19}
"""Of Laplace and of Gaussian noise, a little above the mean: it steers how much keystream is drawn at a time only."""

_LARGEST_DRAW = 2**18


def add_exact_laplace(values: Int32Array, scale: int, keys: Sequence[bytes]) -> None:
    """Add exact discrete Laplace noise in place, one key per row.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        scale: t, in grid units, 0 < t < 2**31.
        keys: n keys of 32 bytes, each used for nothing else, ever.

    Source: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", Algorithm 2 with s = 1
    over Algorithm 1; the random bits are ChaCha20's keystream (RFC 8439) under the row's key.
    """
    _check(values, scale, LARGEST_SCALE, keys)
    _add_from_keystreams(values, scale, keys, is_gaussian=False)


def add_exact_gaussian(values: Int32Array, sigma: int, keys: Sequence[bytes]) -> None:
    """Add exact discrete Gaussian noise in place, one key per row.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        sigma: In grid units, 0 < sigma <= 2**27.
        keys: n keys of 32 bytes, each used for nothing else, ever.

    Source: as of `add_exact_laplace`, Algorithm 3 with t = sigma.
    """
    _check(values, sigma, LARGEST_SIGMA, keys)
    _add_from_keystreams(values, sigma, keys, is_gaussian=True)


def add_fast_laplace(values: Int32Array, scale: int, keys: Sequence[bytes]) -> None:
    """Add discrete Laplace noise for a simulation in place, one key per row; rows run on all cores.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        scale: t, in grid units, 0 < t < 2**31.
        keys: n keys of 32 bytes.

    Source: Blackman, Vigna 2021, "Scrambled Linear Pseudorandom Number Generators" (xoshiro256++), seeded with the
    key's four words; the distribution function is inverted in float64, so tails end at 36 t.
    """
    _check(values, scale, LARGEST_SCALE, keys)
    fast_samplers.add_laplace(values, scale, _seeds(keys))


def add_fast_gaussian(values: Int32Array, sigma: float, keys: Sequence[bytes]) -> None:
    """Add rounded normal noise for a simulation in place, one key per row; rows run on all cores.

    Rounding adds a variance of 1/12, which is taken off before; from sigma = 1 on, the result has the discrete
    Gaussian's variance to six digits.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        sigma: In grid units, 1 <= sigma <= 2**27.
        keys: n keys of 32 bytes.

    Source: Marsaglia, Tsang 2000, "The Ziggurat Method for Generating Random Variables", with 256 layers; uniform
    words as of `add_fast_laplace`.
    """
    _check(values, sigma, LARGEST_SIGMA, keys)
    fast_samplers.add_gaussian(values, np.sqrt(sigma * sigma - 1.0 / 12.0), _seeds(keys))


def _add_from_keystreams(values: Int32Array, size: int, keys: Sequence[bytes], *, is_gaussian: bool) -> None:
    for row, key in zip(values, keys, strict=True):
        keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
        words = np.empty(0, np.uint32)
        done = 0
        while done < row.size:
            n_fresh = min(_WORDS_PER_SAMPLE[is_gaussian] * (row.size - done) + 64, _LARGEST_DRAW)
            fresh = np.frombuffer(keystream.update(bytes(4 * n_fresh)), "<u4")
            words = np.concatenate([words, fresh])
            done, used = exact_samplers.add_noise(row, done, np.uint64(size), words, is_gaussian)
            words = words[used:]


def _seeds(keys: Sequence[bytes]) -> UInt64Array:
    return np.frombuffer(b"".join(keys), "<u8").reshape(len(keys), 4).astype(np.uint64)


def _check(values: Int32Array, scale: float, largest: int, keys: Sequence[bytes]) -> None:
    if not 1 <= scale <= largest:
        raise ValueError(f"noise scale {scale} is outside [1, {largest}]")
    if values.dtype != np.int32 or values.ndim != 2 or not values.flags.c_contiguous:
        raise ValueError("noise is added to C-contiguous int32 values of shape (n, size)")
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} noise keys for {len(values)} rows")
    if any(len(key) != KEY_BYTES or key == bytes(KEY_BYTES) for key in keys):
        raise ValueError(f"a noise key has {KEY_BYTES} bytes, not all zero")
    if len(set(keys)) < len(keys):
        raise ValueError("a noise key is used for two rows: their difference would show through")

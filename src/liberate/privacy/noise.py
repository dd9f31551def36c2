"""Discrete Laplace and Gaussian noise on integers: exact for devices, fast and seeded for simulations.

P(X = x) is proportional to exp(-|x| / t) (Laplace, scale t) or exp(-x**2 / (2 sigma**2)) (Gaussian, deviation sigma)
for integers x; t and sigma are in grid units.

All samplers are fixed by a key of 32 bytes: the same key gives the same noise, whatever else is in the batch and
however many cores there are. The exact ones are the product's protection: they compute with integers only, so no
output betrays its input by the spacing of floating-point numbers. The fast ones compute in float64 and their generator
can be predicted: they protect nobody and serve simulations, which must say so.

Sums beyond int32 are clamped to its ends, in the sum and never in the noise alone: clamping what has already been
released is post-processing, so the guarantee holds as it stands. With a scale of at most 2**24 a Laplace sample leaves
int32 with probability below exp(-96), with a deviation of at most 2**27 a Gaussian one with one below exp(-127).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from liberate.arrays import Float64Array, Int32Array, UInt64Array
from liberate.compilation import parallel_kernel, prange, serial_kernel

Words = npt.NDArray[np.uint32]

KEY_BYTES = 32
LARGEST_SCALE = 2**31 - 1
LARGEST_SIGMA = 2**27

_LAPLACE_WORDS = 9  # per sample; the mean is a little below; it only steers how much keystream is drawn at a time
_GAUSSIAN_WORDS = 19
_LARGEST_DRAW = 2**18
_INT32_MAX = np.int64(2**31 - 1)
_INT32_MIN = np.int64(-(2**31))
_LOW = np.uint64(2**32 - 1)
_TWO_32 = np.uint64(2**32)
_32 = np.uint64(32)
_2 = np.uint64(2)
_1 = np.uint64(1)


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
    _add_from_keystreams(values, scale, keys, _add_exact_laplace, _LAPLACE_WORDS)


def add_exact_gaussian(values: Int32Array, sigma: int, keys: Sequence[bytes]) -> None:
    """Add exact discrete Gaussian noise in place, one key per row.

    Args:
        values: Integers in grid units, shape (n, size), C-contiguous; changed.
        sigma: In grid units, 0 < sigma <= 2**27.
        keys: n keys of 32 bytes, each used for nothing else, ever.

    Source: as of `add_exact_laplace`, Algorithm 3 with t = sigma.
    """
    _check(values, sigma, LARGEST_SIGMA, keys)
    _add_from_keystreams(values, sigma, keys, _add_exact_gaussian, _GAUSSIAN_WORDS)


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
    _add_fast_laplace(values, scale, _seeds(keys))


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
    _add_fast_gaussian(values, np.sqrt(sigma * sigma - 1.0 / 12.0), _seeds(keys))


def _add_from_keystreams(
    values: Int32Array,
    size: int,
    keys: Sequence[bytes],
    kernel: Callable[[Int32Array, int, np.uint64, Words], tuple[int, int]],
    words_per_sample: int,
) -> None:
    for row, key in zip(values, keys, strict=True):
        keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
        words = np.empty(0, np.uint32)
        done = 0
        while done < row.size:
            n_fresh = min(words_per_sample * (row.size - done) + 64, _LARGEST_DRAW)
            fresh = np.frombuffer(keystream.update(bytes(4 * n_fresh)), "<u4")
            words = np.concatenate([words, fresh])
            done, used = kernel(row, done, np.uint64(size), words)
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


# The exact kernels read 32-bit words at `at` and return the place after the last one used. When the words run out
# they return a place past the end: the sample is then void and is drawn again, from the same place, with more words.


@serial_kernel
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


@serial_kernel
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


@serial_kernel
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


@serial_kernel
def _bernoulli_exp_half_square(u: np.uint64, s: np.uint64, words: Words, at: int) -> tuple[bool, int]:
    """Draw true with probability exp(-(u / s)**2 / 2), 0 <= u <= s.

    Source: as of `_bernoulli_exp`; Bernoulli((u / s)**2 / (2 k)) is drawn as (1 / (2 k)), (u / s) and (u / s).
    """
    k = _1
    while True:
        draw, at = _below(_2 * k, words, at)
        if draw != np.uint64(0):
            break
        if u < s:
            draw, at = _below(s, words, at)
            if draw >= u:
                break
            draw, at = _below(s, words, at)
            if draw >= u:
                break
        k += _1
    return k & _1 == _1, at


@serial_kernel
def _discrete_gaussian(s: np.uint64, words: Words, at: int) -> tuple[np.int64, int]:
    """Draw a discrete Gaussian integer of deviation s.

    Source: Canonne, Kamath, Steinke 2020, Algorithm 3 with t = s: y = u + s v, 0 <= u < s, of a discrete Laplace
    distribution of scale s is kept with probability exp(-(y - s)**2 / (2 s**2)). With w = v - 1 that is
    exp(-1/2)**(w w) * exp(-u / s)**w * exp(-(u / s)**2 / 2), and for v = 0 it is exp(-((s - u) / s)**2 / 2), so no
    number is ever squared.
    """
    while at <= words.size:
        u, at = _below(s, words, at)
        is_kept, at = _bernoulli_exp(u, s, words, at)
        if not is_kept:
            continue
        v = np.int64(0)
        while True:
            goes_on, at = _bernoulli_exp(_1, _1, words, at)
            if not goes_on:
                break
            v += 1
        if v == 0:
            is_kept, at = _bernoulli_exp_half_square(s - u, s, words, at)
        else:
            is_kept, at = _bernoulli_exp_half_square(u, s, words, at)
            w = v - 1
            i = np.int64(0)
            while is_kept and i < w:
                is_kept, at = _bernoulli_exp(u, s, words, at)
                i += 1
            i = np.int64(0)
            while is_kept and i < w * w:
                is_kept, at = _bernoulli_exp(_1, _2, words, at)
                i += 1
        if not is_kept:
            continue
        magnitude = np.int64(u) + np.int64(s) * v
        sign, at = _below(_2, words, at)
        if sign == np.uint64(0):
            return magnitude, at
        if magnitude != 0:
            return -magnitude, at
    return np.int64(0), at


@serial_kernel
def _add_exact_laplace(row: Int32Array, begin: int, t: np.uint64, words: Words) -> tuple[int, int]:
    """Add noise to row[begin:] as far as the words reach; give how far that was and how many words were used."""
    at = 0
    for i in range(begin, row.size):
        noise, after = _discrete_laplace(t, words, at)
        if after > words.size:
            return i, at
        at = after
        row[i] = min(max(np.int64(row[i]) + noise, _INT32_MIN), _INT32_MAX)
    return row.size, at


@serial_kernel
def _add_exact_gaussian(row: Int32Array, begin: int, s: np.uint64, words: Words) -> tuple[int, int]:
    """As `_add_exact_laplace`, for discrete Gaussian noise."""
    at = 0
    for i in range(begin, row.size):
        noise, after = _discrete_gaussian(s, words, at)
        if after > words.size:
            return i, at
        at = after
        row[i] = min(max(np.int64(row[i]) + noise, _INT32_MIN), _INT32_MAX)
    return row.size, at


@serial_kernel
def _rotate(x: np.uint64, n: int) -> np.uint64:
    return (x << np.uint64(n)) | (x >> np.uint64(64 - n))


@serial_kernel
def _next_word(state: UInt64Array) -> np.uint64:
    """Step xoshiro256++."""
    a, b, c, e = state[0], state[1], state[2], state[3]
    word = _rotate(a + e, 23) + a
    c ^= a
    e ^= b
    state[0] = a ^ e
    state[1] = b ^ c
    state[2] = c ^ (b << np.uint64(17))
    state[3] = _rotate(e, 45)
    return np.uint64(word)


@parallel_kernel
def _add_fast_laplace(values: Int32Array, t: int, seeds: UInt64Array) -> None:
    negative = 1.0 / (1.0 + np.exp(1.0 / t))  # P(X < 0)
    log_rest = np.log1p(-negative)
    for d in prange(values.shape[0]):
        state = seeds[d].copy()
        for i in range(values.shape[1]):
            uniform = (np.int64(_next_word(state) >> np.uint64(11)) + 1) * 2.0**-53  # on (0, 1]
            if uniform <= negative:
                noise = -np.int64(max(1.0, np.floor(t * (log_rest - np.log(uniform)))))
            else:
                noise = np.int64(max(0.0, np.floor(t * (log_rest - np.log(uniform - negative)))))
            values[d, i] = min(max(np.int64(values[d, i]) + noise, _INT32_MIN), _INT32_MAX)


def _ziggurat(n_layers: int = 256, edge: float = 3.6541528853610088) -> Float64Array:
    """Return the right ends of layers of equal area under exp(-x**2 / 2), widest first; the tail begins at `edge`."""
    area = edge * math.exp(-edge * edge / 2) + math.sqrt(math.pi / 2) * math.erfc(edge / math.sqrt(2))
    ends = np.zeros(n_layers + 1)
    ends[0], ends[1] = area * np.exp(edge * edge / 2), edge
    for i in range(2, n_layers):
        ends[i] = np.sqrt(-2 * np.log(area / ends[i - 1] + np.exp(-(ends[i - 1] ** 2) / 2)))
    return ends


_ENDS = _ziggurat()
_RATIOS = _ENDS[1:] / _ENDS[:-1]


@serial_kernel
def _normal(state: UInt64Array) -> float:
    """Draw a standard normal number."""
    while True:
        word = _next_word(state)
        layer = np.int64(word & np.uint64(255))
        uniform = (np.int64(word) >> 11) * 2.0**-52  # on [-1, 1)
        x = uniform * _ENDS[layer]
        if abs(uniform) < _RATIOS[layer]:
            return float(x)
        other = (np.int64(_next_word(state) >> np.uint64(11)) + 1) * 2.0**-53  # on (0, 1]
        if layer == 0:
            # Marsaglia 1964: the tail beyond the edge.
            while True:
                beyond = -np.log(other) / _ENDS[1]
                height = -np.log((np.int64(_next_word(state) >> np.uint64(11)) + 1) * 2.0**-53)
                if 2 * height > beyond * beyond:
                    return float(_ENDS[1] + beyond if uniform > 0 else -_ENDS[1] - beyond)
                other = (np.int64(_next_word(state) >> np.uint64(11)) + 1) * 2.0**-53
        low, high = np.exp((x * x - _ENDS[layer] ** 2) / 2), np.exp((x * x - _ENDS[layer + 1] ** 2) / 2)
        if low + other * (high - low) < 1.0:
            return float(x)


@parallel_kernel
def _add_fast_gaussian(values: Int32Array, sigma: float, seeds: UInt64Array) -> None:
    for d in prange(values.shape[0]):
        state = seeds[d].copy()
        for i in range(values.shape[1]):
            noise = np.int64(np.floor(sigma * _normal(state) + 0.5))
            values[d, i] = min(max(np.int64(values[d, i]) + noise, _INT32_MIN), _INT32_MAX)

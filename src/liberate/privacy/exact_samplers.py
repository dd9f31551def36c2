"""Kernels of exact noise: they compute with integers only, from 32-bit words of a keystream.

They read words at `at` and return the place after the last one used. When the words run out they return a place past
the end: the sample is then void and is drawn again, from the same place, with more words.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liberate.arrays import Int32Array
from liberate.compilation import serial_kernel

Words = npt.NDArray[np.uint32]

_INT32_MAX = np.int64(2**31 - 1)
_INT32_MIN = np.int64(-(2**31))
_LOW = np.uint64(2**32 - 1)
_TWO_32 = np.uint64(2**32)
_32 = np.uint64(32)
_2 = np.uint64(2)
_1 = np.uint64(1)


@serial_kernel
def below(bound: np.uint64, words: Words, at: int) -> tuple[np.uint64, int]:
    """Draw an integer uniform on [0, bound), 0 < bound <= 2**32; return `bound` itself when the words run out.

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
def bernoulli_exp(u: np.uint64, t: np.uint64, words: Words, at: int) -> tuple[bool, int]:
    """Draw true with probability exp(-u / t), 0 <= u <= t.

    Source: Canonne, Kamath, Steinke 2020, Algorithm 1; Bernoulli(u / (t k)) is drawn as (u / t) and (1 / k).
    """
    k = _1
    while True:
        if u < t:
            draw, at = below(t, words, at)
            if draw >= u:
                break
        if k > _1:
            draw, at = below(k, words, at)
            if draw != np.uint64(0):
                break
        k += _1
    return k & _1 == _1, at


@serial_kernel
def bernoulli_exp_half_square(u: np.uint64, s: np.uint64, words: Words, at: int) -> tuple[bool, int]:
    """Draw true with probability exp(-(u / s)**2 / 2), 0 <= u <= s.

    Source: as of `bernoulli_exp`; Bernoulli((u / s)**2 / (2 k)) is drawn as (1 / (2 k)), (u / s) and (u / s).
    """
    k = _1
    while True:
        draw, at = below(_2 * k, words, at)
        if draw != np.uint64(0):
            break
        if u < s:
            draw, at = below(s, words, at)
            if draw >= u:
                break
            draw, at = below(s, words, at)
            if draw >= u:
                break
        k += _1
    return k & _1 == _1, at


@serial_kernel
def geometric(words: Words, at: int) -> tuple[np.int64, int]:
    """Draw how often in a row an event of probability exp(-1) happens."""
    n = np.int64(0)
    while True:
        goes_on, at = bernoulli_exp(_1, _1, words, at)
        if not goes_on:
            return n, at
        n += 1


@serial_kernel
def is_kept_by_gaussian(u: np.uint64, v: np.int64, s: np.uint64, words: Words, at: int) -> tuple[bool, int]:
    """Draw true with probability exp(-(y - s)**2 / (2 s**2)), y = u + s v, 0 <= u < s.

    With w = v - 1 that is exp(-1/2)**(w w) * exp(-u / s)**w * exp(-(u / s)**2 / 2), and for v = 0 it is
    exp(-((s - u) / s)**2 / 2), so no number is ever squared.
    """
    if v == 0:
        return bernoulli_exp_half_square(s - u, s, words, at)
    is_kept, at = bernoulli_exp_half_square(u, s, words, at)
    w = v - 1
    i = np.int64(0)
    while is_kept and i < w + w * w:
        if i < w:
            is_kept, at = bernoulli_exp(u, s, words, at)
        else:
            is_kept, at = bernoulli_exp(_1, _2, words, at)
        i += 1
    return is_kept, at


@serial_kernel
def discrete(size: np.uint64, words: Words, at: int, is_gaussian: bool) -> tuple[np.int64, int]:
    """Draw a discrete Laplace integer of scale `size`, or a discrete Gaussian one of deviation `size`.

    Source: Canonne, Kamath, Steinke 2020, Algorithm 2 with s = 1, and Algorithm 3 with t = sigma, which keeps a Laplace
    integer with a probability that `is_kept_by_gaussian` draws.
    """
    while at <= words.size:
        u, at = below(size, words, at)
        is_kept, at = bernoulli_exp(u, size, words, at)
        if not is_kept:
            continue

        v, at = geometric(words, at)
        if is_gaussian:
            is_kept, at = is_kept_by_gaussian(u, v, size, words, at)
            if not is_kept:
                continue

        magnitude = np.int64(u) + np.int64(size) * v
        sign, at = below(_2, words, at)
        if sign == np.uint64(0):
            return magnitude, at
        # Of the two zeros only one counts.
        if magnitude != 0:
            return -magnitude, at
    return np.int64(0), at


@serial_kernel
def add_noise(row: Int32Array, begin: int, size: np.uint64, words: Words, is_gaussian: bool) -> tuple[int, int]:
    """Add noise to row[begin:] as far as the words reach; return how far that was and how many words were used."""
    at = 0
    for i in range(begin, row.size):
        noise, after = discrete(size, words, at, is_gaussian)
        if after > words.size:
            return i, at
        at = after
        row[i] = min(max(np.int64(row[i]) + noise, _INT32_MIN), _INT32_MAX)
    return row.size, at

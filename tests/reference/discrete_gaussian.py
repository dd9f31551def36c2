"""Plain twins of the Gaussian half of `privacy.noise`, and the exact distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from liberate.arrays import Float64Array, Int64Array
from tests.reference.discrete_laplace import below, bernoulli, bernoulli_exp, chacha_words, clamp, xoshiro256pp


def probabilities(x: Int64Array, sigma: float) -> Float64Array:
    """P(X = x) of the discrete Gaussian distribution, normalised over everything within 40 deviations."""
    everything = np.arange(-math.ceil(40 * sigma), math.ceil(40 * sigma) + 1)
    return np.asarray(np.exp(-((x / sigma) ** 2) / 2) / np.exp(-((everything / sigma) ** 2) / 2).sum())


def bernoulli_exp_half_square(u: int, s: int, words: Iterator[int]) -> bool:
    """Algorithm 1 of Canonne, Kamath, Steinke 2020 for exp(-(u / s)**2 / 2), coin by coin."""
    k = 1
    while bernoulli(1, 2 * k, words) and bernoulli(u, s, words) and bernoulli(u, s, words):
        k += 1
    return k % 2 == 1


def exact_sample(s: int, words: Iterator[int]) -> int:
    """Algorithm 3 with t = s: a discrete Laplace sample y, kept with probability exp(-(|y| - s)**2 / (2 s**2))."""
    while True:
        u = below(s, words)
        if not bernoulli_exp(u, s, words):
            continue
        v = 0
        while bernoulli_exp(1, 1, words):
            v += 1
        if v == 0:
            if not bernoulli_exp_half_square(s - u, s, words):
                continue
        elif not (
            bernoulli_exp_half_square(u, s, words)
            and all(bernoulli_exp(u, s, words) for _ in range(v - 1))
            and all(bernoulli_exp(1, 2, words) for _ in range((v - 1) ** 2))
        ):
            continue
        magnitude = u + s * v
        is_negative = below(2, words) == 1
        if not (is_negative and magnitude == 0):
            return -magnitude if is_negative else magnitude


def add_exact(values: Sequence[int], sigma: int, key: bytes) -> list[int]:
    """Twin of `noise.add_exact_gaussian` for one row."""
    words = chacha_words(key)
    return [clamp(value + exact_sample(sigma, words)) for value in values]


def ziggurat() -> list[float]:
    """Right ends of 256 layers of equal area under exp(-x**2 / 2); the right tail's place is found by halving."""
    low, high = 3.0, 4.0
    while low < (low + high) / 2 < high:
        middle = (low + high) / 2
        low, high = (middle, high) if len(_ends(middle)) < 257 else (low, middle)
    return [*_ends(high)[:256], 0.0]


def _ends(edge: float) -> list[float]:
    """Layers one above the other, at most 257, as long as they stay below the top."""
    area = edge * math.exp(-edge * edge / 2) + math.sqrt(math.pi / 2) * math.erfc(edge / math.sqrt(2))
    ends = [area * math.exp(edge * edge / 2), edge]
    while len(ends) < 257:
        height = area / ends[-1] + math.exp(-(ends[-1] ** 2) / 2)
        if height >= 1:
            break
        ends.append(math.sqrt(-2 * math.log(height)))
    return ends


def add_fast(values: Sequence[int], sigma: int, key: bytes) -> list[int]:
    """Twin of `noise.add_fast_gaussian` for one row."""
    words = xoshiro256pp(key)
    ends = ziggurat()
    deviation = math.sqrt(sigma * sigma - 1 / 12)
    return [clamp(value + math.floor(deviation * _normal(ends, words) + 0.5)) for value in values]


def _normal(ends: Sequence[float], words: Iterator[int]) -> float:
    """Marsaglia and Tsang's ziggurat: a point of a layer, kept where it lies under the curve."""
    while True:
        word = next(words)
        layer, uniform = word % 256, ((word >> 11) - (2**53 if word >= 2**63 else 0)) * 2.0**-52
        x = uniform * ends[layer]
        if abs(x) < ends[layer + 1]:
            return x
        height = _uniform(words)
        if layer == 0:
            while True:
                beyond = -math.log(height) / ends[1]
                if -2 * math.log(_uniform(words)) > beyond * beyond:
                    return math.copysign(ends[1] + beyond, uniform)
                height = _uniform(words)
        bottom, top = math.exp(-(ends[layer] ** 2) / 2), math.exp(-(ends[layer + 1] ** 2) / 2)
        if bottom + height * (top - bottom) < math.exp(-x * x / 2):
            return x


def _uniform(words: Iterator[int]) -> float:
    return ((next(words) >> 11) + 1) * 2.0**-53

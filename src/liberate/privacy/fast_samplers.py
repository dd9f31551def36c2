"""Kernels of noise for simulations: float64 and a generator that can be predicted, so that they protect nobody."""

from __future__ import annotations

import math

import numpy as np

from liberate.arrays import Float64Array, Int32Array, UInt64Array
from liberate.compilation import parallel_kernel, prange, serial_kernel

_INT32_MAX = np.int64(2**31 - 1)
_INT32_MIN = np.int64(-(2**31))


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


@serial_kernel
def _uniform(state: UInt64Array) -> float:
    """Draw a number uniform on (0, 1]."""
    return (np.int64(_next_word(state) >> np.uint64(11)) + 1) * 2.0**-53


@parallel_kernel
def add_laplace(values: Int32Array, t: int, seeds: UInt64Array) -> None:
    """Add discrete Laplace noise of scale t in place, each row with its seed, shape (n, 4): inverts in float64."""
    negative = 1.0 / (1.0 + np.exp(1.0 / t))  # P(X < 0)
    log_rest = np.log1p(-negative)
    for d in prange(values.shape[0]):
        state = seeds[d].copy()
        for i in range(values.shape[1]):
            uniform = _uniform(state)
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

        other = _uniform(state)
        if layer == 0:
            # Marsaglia 1964: the tail beyond the edge.
            while True:
                beyond = -np.log(other) / _ENDS[1]
                height = -np.log(_uniform(state))
                if 2 * height > beyond * beyond:
                    return float(_ENDS[1] + beyond if uniform > 0 else -_ENDS[1] - beyond)
                other = _uniform(state)

        low, high = np.exp((x * x - _ENDS[layer] ** 2) / 2), np.exp((x * x - _ENDS[layer + 1] ** 2) / 2)
        if low + other * (high - low) < 1.0:
            return float(x)


@parallel_kernel
def add_gaussian(values: Int32Array, sigma: float, seeds: UInt64Array) -> None:
    """Add rounded normal noise of deviation sigma in place, each row with its seed, shape (n, 4)."""
    for d in prange(values.shape[0]):
        state = seeds[d].copy()
        for i in range(values.shape[1]):
            noise = np.int64(np.floor(sigma * _normal(state) + 0.5))
            values[d, i] = min(max(np.int64(values[d, i]) + noise, _INT32_MIN), _INT32_MAX)

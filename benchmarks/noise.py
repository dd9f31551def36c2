"""How many samples of noise per second each sampler gives, and what dense releases and clipping cost around them.

Each figure is the best of five.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from benchmarks.figures import Figure, seconds, show
from liberate.arrays import RealStatistics
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.laplace import Laplace
from liberate.privacy.noise import add_exact_gaussian, add_exact_laplace, add_fast_gaussian, add_fast_laplace

SCALE, SIGMA, SAMPLES = 2**24, 2048, 16_000_000
ROWS = 16
N_ITEMS, WIDTH, N_RATED = 3_706, 9, 165
N_PAIRS = 720_600
"""Pairs of 1,200 items: the largest Gram of a distributed run."""


def measure() -> Iterator[Figure]:
    """Measure samplers, then what stands around them."""
    keys = [sha256(f"benchmark {row}".encode()).digest() for row in range(ROWS)]
    values = np.zeros((ROWS, SAMPLES // ROWS), np.int32)
    samplers = {
        "exact Laplace": lambda: add_exact_laplace(values, SCALE, keys),
        "fast Laplace": lambda: add_fast_laplace(values, SCALE, keys),
        "exact Gauss": lambda: add_exact_gaussian(values, SIGMA, keys),
        "fast Gauss": lambda: add_fast_gaussian(values, SIGMA, keys),
    }
    for name, draw in samplers.items():
        yield Figure(name=f"{name}, samples", value=values.size / seconds(draw), unit="1/s")

    mechanism, batch = Laplace(fraction_bits=22, clip_units=2**22, scale_units=SCALE), updates()
    shares = DistributedGaussian(fraction_bits=18, clip_units=2**18, share_units=SIGMA, honest=5_436, masked=0)
    grams = updates(n_rated=N_PAIRS // 30, n_rows=N_PAIRS, width=1)
    acts = {
        "exact release": lambda: mechanism.release(batch, N_ITEMS, keys, True),
        "fast release": lambda: mechanism.release(batch, N_ITEMS, keys, False),
        "exact release of a Gram": lambda: shares.release(grams, N_PAIRS, keys, True),
        "fast release of a Gram": lambda: shares.release(grams, N_PAIRS, keys, False),
        "clip of a Gram": lambda: shares.clip(grams),
    }
    for name, act in acts.items():
        yield Figure(name=f"{name}, one device", value=1000 * seconds(act) / ROWS, unit="ms")

    total, tail = np.zeros((N_PAIRS, 1), np.int64), np.zeros(0, np.int64)
    on_sum = seconds(lambda: shares.add_to_sum(total, tail, 6_040, keys[0], True))
    yield Figure(name="exact noise on a sum", value=1000 * on_sum, unit="ms")


def updates(n_rated: int = N_RATED, n_rows: int = N_ITEMS, width: int = WIDTH) -> RealStatistics:
    """Return as many devices as rows of noise, each with as many rows as a person of MovieLens-1M has on average."""
    rng = np.random.default_rng(1)
    return RealStatistics(
        indptr=np.arange(ROWS + 1) * n_rated,
        indices=np.concatenate([np.sort(rng.permutation(n_rows)[:n_rated]) for _ in range(ROWS)]).astype(np.int32),
        rows=rng.normal(size=(ROWS * n_rated, width)).astype(np.float32),
        tails=np.empty((ROWS, 0)),
    )


if __name__ == "__main__":
    show(measure())

"""How many samples of noise per second each sampler gives, and what dense releases and clipping cost around them.

Each figure is the best of some repetitions. Prints one JSON object.

    python benchmarks/noise.py [--scale 16777216] [--sigma 2048] [--samples 16000000]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from hashlib import sha256

import numba
import numpy as np

from liberate.arrays import RealStatistics
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.laplace import Laplace
from liberate.privacy.noise import add_exact_gaussian, add_exact_laplace, add_fast_gaussian, add_fast_laplace

ROWS = 16
N_ITEMS, WIDTH, N_RATED = 3_706, 9, 165
N_PAIRS = 720_600
"""Pairs of 1,200 items: the largest Gram of a distributed run."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=2**24)
    parser.add_argument("--sigma", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=16_000_000)
    arguments = parser.parse_args()
    keys = [sha256(f"benchmark {row}".encode()).digest() for row in range(ROWS)]
    values = np.zeros((ROWS, arguments.samples // ROWS), np.int32)
    samplers = {
        "exact_laplace": lambda: add_exact_laplace(values, arguments.scale, keys),
        "fast_laplace": lambda: add_fast_laplace(values, arguments.scale, keys),
        "exact_gaussian": lambda: add_exact_gaussian(values, arguments.sigma, keys),
        "fast_gaussian": lambda: add_fast_gaussian(values, arguments.sigma, keys),
    }
    mechanism = Laplace(fraction_bits=22, clip_units=2**22, scale_units=arguments.scale)
    batch = updates()
    shares = DistributedGaussian(
        fraction_bits=18, clip_units=2**18, share_units=arguments.sigma, honest=5_436, masked=0
    )
    grams = updates(n_rated=N_PAIRS // 30, n_rows=N_PAIRS, width=1)
    total = np.zeros((N_PAIRS, 1), np.int64)
    print(
        json.dumps(
            {
                "scale": arguments.scale,
                "sigma": arguments.sigma,
                **{f"{name}_samples_per_s": round(values.size / seconds(draw)) for name, draw in samplers.items()},
                "exact_release_ms": per_row_ms(lambda: mechanism.release(batch, N_ITEMS, keys, True)),
                "fast_release_ms": per_row_ms(lambda: mechanism.release(batch, N_ITEMS, keys, False)),
                "exact_gram_release_ms": per_row_ms(lambda: shares.release(grams, N_PAIRS, keys, True)),
                "fast_gram_release_ms": per_row_ms(lambda: shares.release(grams, N_PAIRS, keys, False)),
                "gram_clip_ms": per_row_ms(lambda: shares.clip(grams)),
                "exact_sum_noise_ms": round(
                    1e3 * seconds(lambda: shares.add_to_sum(total, np.zeros(0, np.int64), 6_040, keys[0], True)), 3
                ),
                "release_size": N_ITEMS * WIDTH,
                "gram_size": N_PAIRS,
                "threads": numba.get_num_threads(),
                "machine": platform.machine(),
                "python": platform.python_version(),
                "numba": numba.__version__,
            }
        )
    )


def updates(n_rated: int = N_RATED, n_rows: int = N_ITEMS, width: int = WIDTH) -> RealStatistics:
    """Give as many devices as rows of noise, each with as many rows as a person of MovieLens-1M has on average."""
    rng = np.random.default_rng(1)
    return RealStatistics(
        indptr=np.arange(ROWS + 1) * n_rated,
        indices=np.concatenate([np.sort(rng.permutation(n_rows)[:n_rated]) for _ in range(ROWS)]).astype(np.int32),
        rows=rng.normal(size=(ROWS * n_rated, width)).astype(np.float32),
        tails=np.empty((ROWS, 0)),
    )


def per_row_ms(work: Callable[[], object]) -> float:
    """Give the shortest time of some work for all rows, per row, in milliseconds."""
    return round(1e3 * seconds(work) / ROWS, 3)


def seconds(work: Callable[[], object], repetitions: int = 5) -> float:
    """Give the shortest wall-clock time of some work; the first repetition also compiles."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    main()

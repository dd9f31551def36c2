"""How many discrete Laplace samples per second each sampler gives, and what a dense release costs around them.

Each figure is the best of some repetitions. Prints one JSON object.

    python benchmarks/noise.py [--scale 16777216] [--samples 16000000]
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

from liberate.arrays import RealRows
from liberate.privacy.mechanism import Laplace
from liberate.privacy.noise import add_exact_laplace, add_fast_laplace

ROWS = 16
N_ITEMS, WIDTH, N_RATED = 3_706, 9, 165


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=2**24)
    parser.add_argument("--samples", type=int, default=16_000_000)
    arguments = parser.parse_args()
    keys = [sha256(f"benchmark {row}".encode()).digest() for row in range(ROWS)]
    values = np.zeros((ROWS, arguments.samples // ROWS), np.int32)
    exact = seconds(lambda: add_exact_laplace(values, arguments.scale, keys))
    fast = seconds(lambda: add_fast_laplace(values, arguments.scale, keys))
    mechanism = Laplace(grid_bits=22, clip_units=2**22, scale_units=arguments.scale)
    batch = updates()
    print(
        json.dumps(
            {
                "scale": arguments.scale,
                "exact_samples_per_s": round(values.size / exact),
                "fast_samples_per_s": round(values.size / fast),
                "exact_release_ms": round(
                    1e3 * seconds(lambda: mechanism.release(batch, N_ITEMS, keys, True)) / ROWS, 3
                ),
                "fast_release_ms": round(
                    1e3 * seconds(lambda: mechanism.release(batch, N_ITEMS, keys, False)) / ROWS, 3
                ),
                "release_size": N_ITEMS * WIDTH,
                "threads": numba.get_num_threads(),
                "machine": platform.machine(),
                "python": platform.python_version(),
                "numba": numba.__version__,
            }
        )
    )


def updates() -> RealRows:
    """Give as many devices as rows, each with as many ratings as a person of MovieLens-1M has on average."""
    rng = np.random.default_rng(1)
    return RealRows(
        indptr=np.arange(ROWS + 1) * N_RATED,
        indices=np.tile(np.arange(N_RATED, dtype=np.int32), ROWS),
        rows=rng.normal(size=(ROWS * N_RATED, WIDTH)).astype(np.float32),
        tails=np.empty((ROWS, 0)),
    )


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

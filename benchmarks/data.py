"""Measure how fast a million ratings are read; `python -m benchmarks.data` prints one JSON object.

The ratings are made up. Each figure is the best of three, in seconds.
"""

from __future__ import annotations

import gzip
import json
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.__main__ import machine
from liberate.data.readers import read
from liberate.data.splits import random_split
from liberate.errors import DataError

N_RATINGS = 1_000_000
N_USERS = 6_000
N_ITEMS = 4_000


def best(action: Callable[[], object]) -> float:
    """Give the shortest time of three, in seconds."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return round(min(times), 4)


def write_files(folder: Path) -> dict[str, Path]:
    """Write the same million ratings in several layouts, and once with a last row that is no rating."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(N_USERS * N_ITEMS, N_RATINGS, replace=False)
    table = pa.table(
        {
            "user_id": pairs // N_ITEMS,
            "item_id": pairs % N_ITEMS,
            "rating": rng.integers(1, 6, N_RATINGS),
            "timestamp": rng.integers(0, 10**8, N_RATINGS),
        }
    )
    names = ("any.csv", "any.csv.gz", "any.parquet", "u.data", "ratings.dat", "bad.csv")
    files = {name: folder / name for name in names}
    pa.parquet.write_table(table, files["any.parquet"])
    pa.csv.write_csv(table, files["any.csv"], pa.csv.WriteOptions(quoting_style="none"))
    text = files["any.csv"].read_bytes().replace(b'"', b"")
    files["any.csv.gz"].write_bytes(gzip.compress(text, 6))
    body = text[text.index(b"\n") + 1 :]
    files["u.data"].write_bytes(body.replace(b",", b"\t"))
    files["ratings.dat"].write_bytes(body.replace(b",", b"::"))
    files["bad.csv"].write_bytes(text + b"1,1,none,1\n")
    return files


def read_bad(path: Path) -> None:
    """Read a file that must be refused."""
    with suppress(DataError):
        read(path)
        raise AssertionError(f"{path} was not refused")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        bad = files.pop("bad.csv")
        figures = {f"read {name}": best(partial(read, path)) for name, path in files.items()}
        figures["refuse the last line of a CSV file"] = best(partial(read_bad, bad))
        dataset = read(files["any.parquet"])
        figures["split at random"] = best(partial(random_split, dataset))
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "pyarrow")}
    found = {"ratings": N_RATINGS, "machine": machine(), "versions": versions, "seconds": figures}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

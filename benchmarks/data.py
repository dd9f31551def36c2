"""How fast a million ratings are read and split; the ratings are made up, and each figure is the best of three."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.figures import Figure, seconds, show
from liberate.data.readers import read
from liberate.data.splits import random_split
from liberate.errors import DataError

N_RATINGS = 1_000_000
N_USERS = 6_000
N_ITEMS = 4_000


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


def measure() -> Iterator[Figure]:
    """Read every layout, refuse a bad file, and split."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        bad = files.pop("bad.csv")
        acts: dict[str, Callable[[], object]] = {f"read {name}": partial(read, path) for name, path in files.items()}
        acts["refuse the last line of a CSV file"] = partial(read_bad, bad)
        acts["split at random"] = partial(random_split, read(files["any.parquet"]))
        for name, act in acts.items():
            yield Figure(name=name, value=seconds(act, 3), unit="s")


if __name__ == "__main__":
    show(measure())

"""Measure the main job as a person meets it, by the command line; `make bench` runs it.

Each figure is the best of some repetitions, in seconds. The result is printed, and written to
`benchmarks/results/<date>.json` with the machine's size and the versions of what matters.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIBERATE = str(Path(sys.executable).parent / "liberate")
PACKAGES = ("liberate-rec", "numba", "numpy", "pyarrow", "pynacl", "msgspec")


def seconds(command: list[str], repetitions: int = 1) -> float:
    """Give the shortest wall-clock time of a command, its start included."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return min(times)


def source(name: str) -> str:
    """Give what `--data` should say: the folder beside the repository where there is one, else the name."""
    beside = REPOSITORY.parent / "shared" / "data" / name
    return str(beside) if beside.exists() else name


def measure_data_set(name: str, folder: Path) -> dict[str, float]:
    """Train in `plain`, verify the ledger and trace one participant, in seconds."""
    run = str(folder / name)
    train = [LIBERATE, "train", "--data", source(name), "--set", "privacy.mode=plain", "--out", run]
    return {
        f"train {name}": seconds(train),
        f"verify {name}": seconds([LIBERATE, "ledger", "verify", run]),
        f"trace {name}": seconds([LIBERATE, "trace", run, "--participant", "user:1"]),
    }


def machine() -> dict[str, str | int | None]:
    """Say what the figures were measured on."""
    return {"cores": os.cpu_count(), "system": platform.system(), "machine": platform.machine()}


def main() -> None:
    """Measure, print and write."""
    figures = {"help": seconds([LIBERATE, "--help"], repetitions=5)}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ml-100k", "ml-1m"):
            try:
                figures |= measure_data_set(name, Path(folder))
            except subprocess.CalledProcessError:
                print(f"{name}: not measured; is it there? liberate data get {name}", file=sys.stderr)
    for name, figure in figures.items():
        print(f"{name:<16} {figure:8.2f} s")

    results = REPOSITORY / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    found = {"date": date.today().isoformat(), "machine": machine(), "versions": versions, "seconds": figures}
    (results / f"{date.today()}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

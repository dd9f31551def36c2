"""Run benchmarks, all by default, and print each figure with its limit and whether that is met; `make bench` runs it.

    python -m benchmarks [NAME ...]

The figures are also written to `benchmarks/results/<date>.json`, with commit, processor and versions.
A benchmark whose data set is not there is named, and left out. All of them take some hours, most of that `lists`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version

from benchmarks import command, data, ledger, lists, masked_run, model, noise, recompute, secure_aggregation, trace
from benchmarks.figures import REPOSITORY, Figure, show
from liberate.errors import DataError
from liberate_studies.stamp import Stamp

BENCHMARKS: dict[str, Callable[[], Iterable[Figure]]] = {
    "command": command.measure,
    "data": data.measure,
    "model": model.measure,
    "noise": noise.measure,
    "ledger": ledger.measure,
    "secure_aggregation": secure_aggregation.measure,
    "masked_run": masked_run.measure,
    "recompute": recompute.measure,
    "trace": trace.measure,
    "lists": lists.measure,
}
PACKAGES = ("liberate-rec", "numba", "numpy", "pyarrow", "pynacl", "msgspec")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what has a limit, and more.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHMARKS)}")
    names = parser.parse_args(arguments).names or list(BENCHMARKS)

    begin, measured = time.perf_counter(), {}
    stamp = Stamp.begin(" ".join(["python -m benchmarks", *names]))
    for name in names:
        print(f"\n{name}: {(sys.modules[f'benchmarks.{name}'].__doc__ or '').splitlines()[0]}")
        try:
            measured[name] = [asdict(figure) for figure in show(BENCHMARKS[name]())]
        except DataError as error:
            print(f"not measured: {error}", file=sys.stderr)

    versions = {package: version(package) for package in PACKAGES}
    results = REPOSITORY / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    text = json.dumps(
        {"stamp": asdict(stamp.end(time.perf_counter() - begin)), "versions": versions, "figures": measured}, indent=2
    )
    (results / f"{date.today()}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The main job as a person meets it, by the command line, and a private training.

Each command is a process of its own, its start included. The seconds of a private training are those that the run
itself states, from its first round to its last model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, data_sets, seconds

LIBERATE = str(Path(sys.executable).parent / "liberate")
PLACEMENTS = {"on_sum": 30.0, "per_upload": 240.0}
"""Where noise is added in a simulation, and the seconds within which MovieLens-1M is to be learned then."""


def run(*arguments: str) -> bytes:
    """Run `liberate` and return what it prints."""
    return subprocess.run([LIBERATE, *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def measure() -> Iterator[Figure]:
    """Train in `plain`, verify the ledger and trace a participant; then train privately on the larger data set."""
    yield Figure(name="help", value=seconds(partial(run, "--help")), unit="s")
    with tempfile.TemporaryDirectory() as folder:
        for name, source in data_sets("ml-100k", "ml-1m"):
            out = str(Path(folder, name))
            commands = {
                "train": ["train", "--data", source, "--set", "privacy.mode=plain", "--out", out],
                "verify": ["ledger", "verify", out],
                "trace": ["trace", out, "--participant", "user:1"],
            }
            for verb, arguments in commands.items():
                yield Figure(name=f"{verb} {name}", value=seconds(partial(run, *arguments), 1), unit="s")

        private = ["--data", source, "--set", "privacy.mode=distributed", "--set", "privacy.epsilon=8"]
        for placement, limit in PLACEMENTS.items():
            placed = ["--set", f"run.noise_placement={placement}", "--out", str(Path(folder, placement)), "--json"]
            result = json.loads(run("train", *private, *placed))
            yield Figure(name=f"private training, noise {placement}", value=result["seconds"], unit="s", at_most=limit)

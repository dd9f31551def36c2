"""Real witnesses: processes of the command, on the loopback, that are told to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Running:
    """A witness that takes connections."""

    process: subprocess.Popen[str]
    url: str
    key: str

    @property
    def address(self) -> str:
        return f"{self.url} {self.key}"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Tell it to end; give exit code and what it has printed since it began to listen."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate()
        return self.process.returncode, out, err


def new_key(file: Path, name: str, kind: str = "witness") -> str:
    """Make a key with the command; give its verifier key."""
    command = [sys.executable, "-m", "liberate", "keys", "new", str(file), "--name", name, "--kind", kind, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["verifier_key"])


def start(folder: Path, name: str, logs: Sequence[str], *, replay: Sequence[Path] = (), port: int = 0) -> Running:
    """Start a witness whose key lies in its folder, and wait until it takes connections."""
    folder.mkdir(exist_ok=True)
    key = folder / "witness.key"
    if not key.exists():
        new_key(key, name)
    flags = [flag for vkey in logs for flag in ("--log", vkey)]
    flags += [flag for place in replay for flag in ("--replay", str(place))]
    flags += ["--name", name, "--key", str(key), "--port", str(port), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "liberate", "--verbose", "witness", str(folder), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    found = json.loads(line)
    return Running(process, found["url"], found["verifier_key"])


@contextmanager
def running(folder: Path, name: str, logs: Sequence[str], *, replay: Sequence[Path] = ()) -> Iterator[Running]:
    """A witness for the time of a test."""
    witness = start(folder, name, logs, replay=replay)
    try:
        yield witness
    finally:
        witness.kill()

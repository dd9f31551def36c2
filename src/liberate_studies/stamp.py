"""Where, when and by which command figures were measured."""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What somebody must know to measure again, and to compare what comes out.

    Attributes:
        commit: Of this repository, `-dirty` where `src/` differs from it; the release where this is no checkout.
        processor: Its name; digests of models and all times depend on it.
        date: Of the day, ISO 8601.
        command: As typed in a shell.
        seconds: Wall clock, from the first step to the last.
    """

    commit: str
    processor: str
    date: str
    command: str
    seconds: float

    @classmethod
    def begin(cls, command: str) -> Stamp:
        """Return the stamp of what is now to be measured: the commit may be another one when that ends."""
        return cls(
            commit=_commit(),
            processor=_processor(),
            date=date.today().isoformat(),
            command=command,
            seconds=0.0,
        )

    def end(self, seconds: float) -> Stamp:
        """Return the stamp with the seconds that it took."""
        return replace(self, seconds=round(seconds, 1))

    def __str__(self) -> str:
        return (
            f"Made by `{self.command}` on {self.date} in {self.seconds:,.0f} s, "
            f"at commit {self.commit}, on a processor {self.processor}."
        )


def _commit() -> str:
    if not (_REPOSITORY / ".git").exists():
        return f"release {version('liberate-rec')}"
    is_dirty = _git("status", "--porcelain", "--", "src")
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if is_dirty else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_REPOSITORY), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _processor() -> str:
    described = _CPU_INFO.read_text("utf-8") if _CPU_INFO.exists() else ""
    named = re.search(r"^model name\s*: (.+)$", described, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()

"""Headless Chromium without a network, which says what a page asked for."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIME_LIMIT_S = 120

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--proxy-server=http://127.0.0.1:9",  # nobody listens there
    "--proxy-bypass-list=<-loopback>",
    "--virtual-time-budget=5000",
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as the browser shows it.

    Attributes:
        dom: The document after its scripts have run, as HTML.
        requests: Addresses outside the file that the page asked for, in order; none was answered.
    """

    dom: str
    requests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Browser:
    """Headless Chromium.

    Args:
        program: Path of the executable.
    """

    program: str

    def open(self, file: Path) -> Page:
        """Open a local file without a network and give what is shown when it has loaded."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "network.json")
            dom = self._run(file, "--dump-dom", f"--log-net-log={log}")
            return Page(dom, _page_requests(json.loads(log.read_text(encoding="utf-8"))))

    def picture(self, file: Path, to: Path, *, width: int = 1200, height: int = 1600) -> None:
        """Write what a window of the given size in pixels shows of a local file as a PNG."""
        self._run(file, f"--screenshot={to}", f"--window-size={width},{height}")

    def _run(self, file: Path, *flags: str) -> str:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [self.program, *FLAGS, f"--user-data-dir={profile}", *flags, file.resolve().as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=True)
        return done.stdout


def _page_requests(log: dict[str, Any]) -> tuple[str, ...]:
    """Return the addresses that a page requested, of Chromium's network log; what Chromium asks for has no origin."""
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = (event.get("params", {}) for event in log["events"] if event["type"] == started)
    return tuple(event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin")

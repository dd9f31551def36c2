"""Headless Chromium behind a proxy that lets nothing through and remembers what was asked for."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TIME_LIMIT_S = 120

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--hide-scrollbars",
    "--proxy-bypass-list=<-loopback>",
    "--virtual-time-budget=5000",
)

# What Chromium asks for by itself, whatever page is open. Exact names: a font from the same company is the page's.
OWN_HOSTS = frozenset(
    {
        "accounts.google.com",
        "clients2.google.com",
        "content-autofill.googleapis.com",
        "optimizationguide-pa.googleapis.com",
        "safebrowsing.googleapis.com",
        "update.googleapis.com",
    }
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as the browser shows it.

    Attributes:
        dom: The document after its scripts have run, as HTML.
        requests: Addresses outside the file that the page asked for, in order; each was refused.
    """

    dom: str
    requests: tuple[str, ...]


class _Proxy(ThreadingHTTPServer):
    """Refuses and remembers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refuse)
        self.asked: list[str] = []


class _Refuse(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        assert isinstance(self.server, _Proxy)
        self.server.asked.append(self.path)
        self.send_error(502)

    do_GET = do_HEAD = do_POST = do_CONNECT = _refuse  # noqa: N815 - the names that http.server looks up

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@dataclass(frozen=True, slots=True)
class Browser:
    """Headless Chromium.

    Args:
        program: Path of the executable.
    """

    program: str

    def open(self, file: Path) -> Page:
        """Open a local file without a network and give what is shown when it has loaded."""
        with _Proxy() as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            dom = self._run(file, "--dump-dom", f"--proxy-server=http://127.0.0.1:{proxy.server_port}")
            proxy.shutdown()
        return Page(dom, tuple(address for address in proxy.asked if not _is_own(address)))

    def picture(self, file: Path, to: Path, *, width: int = 1200, height: int = 1600) -> None:
        """Write what a window of the given size in pixels shows of a local file as a PNG."""
        self._run(file, f"--screenshot={to}", f"--window-size={width},{height}", "--proxy-server=http://127.0.0.1:9")

    def _run(self, file: Path, *flags: str) -> str:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [self.program, *FLAGS, f"--user-data-dir={profile}", *flags, file.resolve().as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=True)
        return done.stdout


def _is_own(address: str) -> bool:
    host = address.removeprefix("http://").partition("/")[0].partition(":")[0]
    return host in OWN_HOSTS

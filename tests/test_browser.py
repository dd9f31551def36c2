"""The browser that judges our pages sees scripts run and sees every request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import Browser

pytestmark = pytest.mark.engines


def test_browser_runs_the_scripts_of_a_page(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<p id=p></p><script>document.getElementById('p').textContent = 6 * 7</script>")

    page = browser.open(file)

    assert '<p id="p">42</p>' in page.dom
    assert page.requests == ()


def test_browser_names_each_external_request_of_a_page(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        "<link rel=stylesheet href='https://fonts.googleapis.com/css'>"
        "<img src='http://images.example/a.png'><script src='https://scripts.example/b.js'></script>"
        "<script>fetch('http://data.example/c').catch(() => 0); new WebSocket('ws://socket.example/d')</script>"
        "<iframe src='https://www.google.com/e'></iframe>"
    )

    page = browser.open(file)

    assert set(page.requests) == {
        "https://fonts.googleapis.com/css",
        "http://images.example/a.png",
        "https://scripts.example/b.js",
        "http://data.example/c",
        "ws://socket.example/d",
        "https://www.google.com/e",
    }

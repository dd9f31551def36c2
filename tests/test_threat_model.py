"""Each answer in the threat model names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_threat_names_a_test_that_exists(repository: Path) -> None:
    page = (repository / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!threat|---)(.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (repository / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))

    assert len(rows) > 30
    for threat, _, cell in rows:
        assert set(re.findall(r"`(\w+)`", cell)) <= tests, threat
        assert cell.startswith("`test_"), threat

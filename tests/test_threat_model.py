"""Each answer in the threat model names a test that exists, and what is taken out to see that test fail exists too."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.run_mutations import MUTATIONS, read_mutations


def test_every_threat_names_a_test_that_exists(repository: Path) -> None:
    page = (repository / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!threat|message|figure|---)(.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (repository / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))

    assert len(rows) > 30
    for threat, _, cell in rows:
        assert set(re.findall(r"`(\w+)`", cell)) <= tests, threat
        assert cell.startswith("`test_"), threat


def test_every_mutation_fits_the_sources_and_names_tests_of_the_threat_model(repository: Path) -> None:
    page = (repository / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")

    mutations = read_mutations(sorted(MUTATIONS.glob("*.toml")))

    assert mutations
    for mutation in mutations:
        for test in mutation.tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (repository / path).read_text(encoding="utf-8"), mutation.threat
            assert f"`{name}`" in page, f"{mutation.threat}: the threat model does not name {name}"

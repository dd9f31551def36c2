"""The generated reference of records is what the code says."""

from __future__ import annotations

import sys

import pytest

from scripts import describe_records


def test_the_reference_of_records_is_current() -> None:
    assert describe_records.PAGE.read_text(encoding="utf-8") == describe_records.describe()


def test_check_finds_a_page_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["describe_records.py", "--check"])

    assert describe_records.main() == 0
    monkeypatch.setattr(describe_records, "HEADER", "# Other")
    assert describe_records.main() == 1


def test_every_member_has_words() -> None:
    meanings = describe_records.describe().partition("## What every record says")[2]

    assert "see above" not in meanings

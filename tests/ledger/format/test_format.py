"""The published format and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import Record
from liberate.ledger.format.refusals import Reason
from liberate.ledger.log.tables import SCHEMA
from liberate.ledger.rules.principal import Principal


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "reference" / "ledger-format.md").read_text(encoding="utf-8")


def named(text: str) -> set[str]:
    """What stands in code in the first column of a section's table."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def section(page: str, title: str) -> str:
    match = re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    assert match, f"the page has a section on {title}"
    return match[1]


@pytest.mark.parametrize("kind", get_args(Record), ids=lambda kind: kind.__struct_config__.tag)
def test_every_member_of_every_kind_is_described(page: str, kind: type[Record]) -> None:
    described = named(section(page, str(kind.__struct_config__.tag)))

    assert described == set(kind.__struct_fields__) - set(RecordBase.__struct_fields__)


def test_what_every_record_says_is_described(page: str) -> None:
    assert named(section(page, "What every record says")) == {*RecordBase.__struct_fields__, "kind"}


def test_every_reason_is_listed(page: str) -> None:
    assert named(section(page, "Refusals")) == set(get_args(Reason))


def test_every_table_is_listed(page: str) -> None:
    tables = {name for name, statement in SCHEMA.items() if statement.startswith("CREATE TABLE")}

    assert named(section(page, "File")) == tables


def test_a_state_leaf_has_the_bytes_that_are_listed(page: str) -> None:
    widths = re.findall(r"^\| ([\d, ]+) \|", section(page, "Trees"), re.MULTILINE)

    total = sum(int(width) for cell in widths for width in cell.split(", "))
    assert total == len(Principal(key=bytes(32), role="log").encode())

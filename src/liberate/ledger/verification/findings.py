"""What is wrong with a ledger, collected with its place; and stored rows beside those that should be there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from liberate.database import FAILURES
from liberate.errors import LedgerError
from liberate.ledger.log.tables import Row

_MAX_FINDINGS = 1_000
_LONGEST_VALUE = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        place: Where: an entry by position, a row by table and key, or a part of the file.
        reason: What was found and what was wanted.
    """

    place: str
    reason: str


class FindingCollector:
    """Collects findings, the first thousand of them in full."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._unlisted = 0

    def add(self, place: str, reason: str) -> None:
        """Note a finding."""
        if len(self._findings) < _MAX_FINDINGS:
            self._findings.append(Finding(place, reason))
        else:
            self._unlisted += 1

    def listed(self) -> tuple[Finding, ...]:
        """Return the findings; the last one says how many were left out."""
        more = [Finding("ledger", f"{self._unlisted} more findings are not listed")] if self._unlisted else []
        return (*self._findings, *more)

    @contextmanager
    def reading(self, place: str) -> Iterator[None]:
        """Turn what SQLite cannot read into a finding."""
        try:
            yield
        except FAILURES as error:
            self.add(place, f"cannot be read: {error}")

    @contextmanager
    def checking(self, place: str) -> Iterator[None]:
        """Turn an error of the ledger into a finding."""
        try:
            yield
        except LedgerError as error:
            self.add(place, error.message)


class RowComparison:
    """The stored rows of a table, in the order of their integer keys, beside the rows that should be there.

    Rows whose first key is smaller than `begin` are left out.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        table: str,
        keys: Sequence[str],
        findings: FindingCollector,
        *,
        begin: int = 0,
    ) -> None:
        self._table = table
        self._n_keys = len(keys)
        self._findings = findings
        self._is_readable = True
        self._columns: list[str] = []
        where = f" WHERE {keys[0]} >= {begin}" if begin else ""
        self._rows = self._select(connection, f"SELECT * FROM {table}{where} ORDER BY {', '.join(keys)}")
        self._head = next(self._rows, None)

    def expect(self, row: Row) -> None:
        """Compare the row that should come next; rows must be given in the order of their keys."""
        key = self._key(row)
        while self._head is not None and self._key(self._head) < key:
            self._report_extra(self._head)

        if self._head is None or self._key(self._head) > key:
            if self._is_readable:
                self._findings.add(self._place(row), "is missing")
            return

        difference = describe_difference(self._columns, self._head, row)
        if difference:
            self._findings.add(self._place(row), difference)
        self._head = next(self._rows, None)

    def end(self) -> None:
        """Report all rows after the last one that should be there."""
        while self._head is not None:
            self._report_extra(self._head)

    def _select(self, connection: sqlite3.Connection, query: str) -> Iterator[Row]:
        try:
            cursor = connection.execute(query)
            self._columns = [column[0] for column in cursor.description]
            last = self._n_keys - 1  # a table here has one key or two
            for row in cursor:
                if type(row[0]) is int and type(row[last]) is int:
                    yield row
                else:
                    self._findings.add(self._place(row), "the key is no integer")
        except FAILURES as error:
            self._findings.add(self._table, f"cannot be read: {error}")
            self._is_readable = False

    def _report_extra(self, row: Row) -> None:
        self._findings.add(self._place(row), "does not follow from the entries")
        self._head = next(self._rows, None)

    def _key(self, row: Row) -> Row:
        return row[: self._n_keys]

    def _place(self, row: Row) -> str:
        return f"{self._table} {'/'.join(map(str, self._key(row)))}"


def describe_difference(columns: Sequence[str], stored: Row, wanted: Row) -> str:
    """Return in which column two rows differ, in value or type; empty when in none."""
    if len(stored) != len(wanted):
        return f"{len(stored)} columns, wanted {len(wanted)}"
    for name, one, other in zip(columns, stored, wanted, strict=True):
        if type(one) is not type(other) or one != other:
            return f"{name} is {_short(one)}, wanted {_short(other)}"
    return ""


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."

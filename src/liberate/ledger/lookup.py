"""Entries of a log as records of the kind that the caller asks for.

`RecordBase` stands for any kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from liberate.errors import LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, RecordT, decode_entry, kind_name
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.interface import Ledger

RecordT_co = TypeVar("RecordT_co", bound=RecordBase, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEntry(Generic[RecordT_co]):
    """An entry of the log.

    Attributes:
        position: Its position, 0 <= position < size of the log.
        entry: Its bytes, signature and leaf hash.
        record: Its record, of the kind that was asked for.
    """

    position: int
    entry: Entry
    record: RecordT_co

    @property
    def leaf_hash(self) -> Digest:
        """RFC 6962 hash of the entry."""
        return self.entry.leaf_hash


def entry_at(ledger: Ledger, position: int, kind: type[RecordT]) -> RecordedEntry[RecordT]:
    """Return the entry at a position.

    Raises:
        LedgerError: There is no such position, or the record there is of another kind.
    """
    if not 0 <= position < ledger.size:
        raise LedgerError(f"entry {position} is beyond the ledger's {ledger.size} entries")

    entry = decode_entry(ledger.entry(position))
    if not isinstance(entry.record, kind):
        raise LedgerError(
            f"entry {position} is of kind {entry.record.kind}, not of kind {kind_name(kind)}",
            hint=f"ledger show --kind {kind_name(kind)} lists those",
        )
    return RecordedEntry(position=position, entry=entry, record=entry.record)


def entries(
    ledger: Ledger, kind: type[RecordT], *, author: int | None = None, about: int | None = None
) -> Iterator[RecordedEntry[RecordT]]:
    """Yield all entries of a kind by increasing position, if wanted only those by an author or about a principal."""
    name = None if kind is RecordBase else kind_name(kind)
    for position in ledger.positions(kind=name, author=author, about=about):
        yield entry_at(ledger, position, kind)


def entries_between(ledger: Ledger, begin: int, end: int, kind: type[RecordT]) -> Iterator[RecordedEntry[RecordT]]:
    """Yield the entries of a kind at the positions [begin, end), increasing.

    Reads all entries of the range, which is quick where most of them are of the kind.
    """
    for position, data in ledger.entries(begin, end):
        entry = decode_entry(data)
        if isinstance(entry.record, kind):
            yield RecordedEntry(position=position, entry=entry, record=entry.record)

"""Entries of a run's ledger for people: records as they are, their authors by all three names."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.crypto.signing import key_id
from liberate.errors import LiberateError
from liberate.identifiers import KeyId
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import KINDS
from liberate.ledger.lookup import entry_at
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import find_participant


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEntry:
    """An entry, and who wrote it.

    Attributes:
        position: Its position.
        record: Its record, which names the author by number.
        key_id: Short name of the key that signed it.
        user_id: The author's id in the data set; None of who has none, and of the erased.
    """

    position: int
    record: RecordBase
    key_id: KeyId
    user_id: str | None


def read_entries(run: Run, *, kind: str | None, author: str | None, limit: int) -> list[ListedEntry]:
    """Return the newest entries, the oldest of them first.

    Raises:
        LiberateError: No such kind or author.
    """
    if kind is not None and kind not in KINDS:
        raise LiberateError(f"no kind {kind!r}", hint="known are " + ", ".join(sorted(KINDS)))

    with run.open() as reader:
        ledger = reader.ledger
        number = None if author is None else _author_number(reader, author)
        user_ids = {device.number: device.user_id for device in reader.devices.devices() if not device.is_erased}

        listed = []
        for position in ledger.positions(kind=kind, author=number)[-limit:]:
            record = entry_at(ledger, position, RecordBase).record
            listed.append(
                ListedEntry(
                    position=position,
                    record=record,
                    key_id=key_id(ledger.state.author_key(record, position)),
                    user_id=user_ids.get(record.author),
                )
            )
        return listed


def _author_number(reader: RunReader, name: str) -> int:
    """Return the number of any principal, participant or not."""
    if name.isdecimal() and int(name) < len(reader.ledger.state.principals):
        return int(name)
    return find_participant(reader.ledger, reader.devices, name).number

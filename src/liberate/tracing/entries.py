"""Entries of a run's ledger for people: fields by name, participants by all three names."""

from __future__ import annotations

from typing import Any

import msgspec

from liberate.crypto.signing import key_id
from liberate.errors import LiberateError
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import KINDS
from liberate.ledger.lookup import RecordedEntry, entry_at
from liberate.ledger.rules.state import State
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import find_participant


def read_entries(run: Run, *, kind: str | None, author: str | None, limit: int) -> list[dict[str, Any]]:
    """Give the newest entries, oldest of them first, each as a flat dictionary.

    Raises:
        LiberateError: No such kind or author.
    """
    if kind is not None and kind not in KINDS:
        raise LiberateError(f"no kind {kind!r}", hint="known are " + ", ".join(sorted(KINDS)))
    with run.open() as reader:
        ledger, state = reader.ledger, reader.ledger.state
        number = None if author is None else _author_number(reader, author)
        user_ids = {device.number: device.user_id for device in reader.devices.devices() if not device.is_erased}
        positions = ledger.positions(kind=kind, author=number)
        return [_fields(entry_at(ledger, position, RecordBase), user_ids, state) for position in positions[-limit:]]


def _author_number(reader: RunReader, name: str) -> int:
    """Return the number of any principal, participant or not."""
    if name.isdecimal() and int(name) < len(reader.ledger.state.principals):
        return int(name)
    return find_participant(reader.ledger, reader.devices, name).number


def _fields(entry: RecordedEntry[RecordBase], user_ids: dict[int | None, str], state: State) -> dict[str, Any]:
    record, author = entry.record, entry.record.author
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return {
        "position": entry.position,
        "kind": record.kind,
        "author": author,
        "key_id": key_id(state.key_at(author, entry.position)),
        "user_id": user_ids.get(author),
    } | fields

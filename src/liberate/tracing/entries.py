"""Entries of a run's ledger for people: records as they are, their authors by all three names."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from liberate.crypto.signing import key_id
from liberate.errors import LiberateError
from liberate.federation.store.devices import DeviceStore
from liberate.identifiers import KeyId
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import KINDS
from liberate.ledger.lookup import entry_at
from liberate.runs.folder import Run
from liberate.runs.participants import find_person


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

    with closing(run.open_ledger()) as ledger, DeviceStore(run.devices_folder) as devices:
        state = ledger.state
        number = None if author is None else _author_number(run, author, len(state.principals))
        user_ids = {device.number: device.user_id for device in devices.devices() if not device.is_erased}

        listed = []
        for position in ledger.positions(kind=kind, author=number)[-limit:]:
            record = entry_at(ledger, position, RecordBase).record
            listed.append(
                ListedEntry(
                    position=position,
                    record=record,
                    key_id=key_id(state.key_at(record.author, position)),
                    user_id=user_ids.get(record.author),
                )
            )
        return listed


def _author_number(run: Run, name: str, n_principals: int) -> int:
    """Return the number of any principal, participant or not."""
    if name.isdecimal() and int(name) < n_principals:
        return int(name)
    return find_person(run, name).number

"""What devices have proved of their own history on the ledger, so that each entry is replayed once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from liberate.federation.store.act_tables import ActTables

HISTORY_SCHEMA = """
CREATE TABLE IF NOT EXISTS proved_history (slot INTEGER PRIMARY KEY REFERENCES device, history BLOB NOT NULL) STRICT;
"""


class ProvedHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A device's own history, as far as it was proved; all of it is on the ledger.

    Attributes:
        size: Tree size of the checkpoint under which it was proved.
        leaf: The participant's leaf of the state tree.
        consents: Leaf hashes of the consents that were not withdrawn, in ledger order.
    """

    size: int
    leaf: bytes
    consents: tuple[bytes, ...]


class HistoryTables(ActTables):
    """The part of a device store that is about its participants' histories."""

    def proved_histories(self) -> dict[int, ProvedHistory]:
        """Return what devices have proved, by slot."""
        rows = self._rows("SELECT slot, history FROM proved_history")
        return {slot: msgspec.msgpack.decode(history, type=ProvedHistory) for slot, history in rows}

    def put_proved_histories(self, histories: Sequence[tuple[int, ProvedHistory]], *, note: str) -> None:
        """Store what devices have proved, each by its slot, and the checkpoint under which they did."""
        with self._transaction():
            self._execute_many(
                "INSERT OR REPLACE INTO proved_history (slot, history) VALUES (?, ?)",
                [(slot, msgspec.msgpack.encode(history)) for slot, history in histories],
            )
            self._put_checkpoint(note)

"""The copies that a coordinator has received for its pool, each sender's sealed under a key of their own.

`copies.sqlite` holds the rows, `senders.keys` the keys: overwriting a key erases its sender.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import msgspec

from liberate.crypto.sealing import open_sealed, seal
from liberate.database import SqliteStore
from liberate.federation.store.erasable_keys import ErasableKeys
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest

_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS sender (number INTEGER PRIMARY KEY, key_index INTEGER NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS copy (
    share BLOB PRIMARY KEY,
    sender INTEGER NOT NULL REFERENCES sender,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""


class PoolStore(SqliteStore):
    """The pool of one coordinator.

    Args:
        folder: Holds `copies.sqlite` and `senders.keys`; made if absent, readable by the owner only.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "copies.sqlite", _SCHEMA)
        self._keys_path = folder / "senders.keys"
        self._keys_path.touch(mode=0o600)

    def put(self, copies: Sequence[tuple[Digest, ReceivedCopy]]) -> None:
        """Store copies under the leaf hash of their share; all of them or none."""
        keys = self._keys_of({copy.sender for _, copy in copies})
        with self._transaction():
            self._execute_many(
                "INSERT OR REPLACE INTO copy (share, sender, sealed) VALUES (?, ?, ?)",
                [
                    (share, copy.sender, seal(keys[copy.sender], msgspec.msgpack.encode(copy), _context(share)))
                    for share, copy in copies
                ],
            )

    def copies(self, shares: Sequence[Digest]) -> Iterator[ReceivedCopy]:
        """Yield the copies of shares, in their order.

        Raises:
            KeyError: A copy is not here, or its sender was erased.
        """
        keys = ErasableKeys(self._keys_path)
        query = "SELECT key_index, sealed FROM copy JOIN sender ON sender = number WHERE share = ?"
        for share in shares:
            row = self._row(query, (share,))
            if row is None or keys.is_erased(row[0]):
                raise KeyError(share)
            yield msgspec.msgpack.decode(open_sealed(keys[row[0]], row[1], _context(share)), type=ReceivedCopy)

    def shares(self) -> frozenset[Digest]:
        """Return the leaf hashes of the shares whose copies are here."""
        keys = ErasableKeys(self._keys_path)
        rows = self._rows("SELECT share, key_index FROM copy JOIN sender ON sender = number")
        return frozenset(Digest(share) for share, key_index in rows if not keys.is_erased(key_index))

    def erase_sender(self, sender: int) -> bool:
        """Destroy a sender's key in place, then the copies. Repeating it changes nothing.

        Returns:
            Whether there were copies from this participant.
        """
        row = self._row("SELECT key_index FROM sender WHERE number = ?", (sender,))
        if row is None:
            return False
        ErasableKeys(self._keys_path).erase(row[0])
        self._execute("DELETE FROM copy WHERE sender = ?", (sender,))
        self._empty_log()
        return True

    def _keys_of(self, senders: Set[int]) -> dict[int, bytes]:
        """Return each sender's key; new keys are durable before anything is sealed with them."""
        indices: dict[int, int] = dict(self._rows("SELECT number, key_index FROM sender"))
        new = {sender: index for index, sender in enumerate(sorted(senders - indices.keys()), len(indices))}

        keys = ErasableKeys(self._keys_path)
        keys.add(len(indices), len(new))
        with self._transaction():
            self._execute_many("INSERT INTO sender (number, key_index) VALUES (?, ?)", new.items())

        indices |= new
        return {sender: keys[indices[sender]] for sender in senders}


def _context(share: Digest) -> bytes:
    return b"pool:" + share

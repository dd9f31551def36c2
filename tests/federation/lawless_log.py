"""A log that appends whatever it is told, against all rules but those of Merkle trees, and keeps an honest state tree.

It can be edited in a few lines: to show a device entries or a state that do not belong together, or to fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liberate.crypto import merkle
from liberate.crypto.note import Checkpoint, sign_checkpoint, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, involves, sign
from liberate.ledger.format.records import Block, Record
from liberate.ledger.rules.principal import Principal
from liberate.ledger.rules.state import State

LOG_KEY = SigningKey.from_seed(b"l" * 32)
LOG_NUMBER = 1


class LawlessLog:
    """The part of `Ledger` that rounds are proven from.

    Args:
        origin: Its name.
        principals: Whom it has enrolled, by number.
    """

    def __init__(self, origin: str, principals: Sequence[Principal]) -> None:
        self.origin = origin
        self.state = State()
        for principal in principals:
            self.state.enrol(principal)
        self.data: list[bytes] = []

    @property
    def log_key(self) -> str:
        return verifier_key(self.origin, LOG_KEY.public)

    @property
    def size(self) -> int:
        return len(self.data)

    def append(self, *records: Record, by: SigningKey) -> list[int]:
        """Append records and a block, and return their positions."""
        begin = self.size
        for record in records:
            self._append(sign(record, by))
        blocks = sum(isinstance(decode_entry(data).record, Block) for data in self.data)
        block = Block(
            origin=self.origin,
            author=LOG_NUMBER,
            seq=blocks + 1,
            parent=Digest(bytes(32)),
            count=len(records),
            state_root=self.state.root(),
            time_us=1,
        )
        self._append(sign(block, LOG_KEY))
        return list(range(begin, begin + len(records)))

    def _append(self, data: bytes) -> None:
        self.data.append(data)
        self.state.advance(decode_entry(data))

    def entry(self, position: int) -> bytes:
        return self.data[position]

    def entries(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        yield from list(enumerate(self.data))[begin:end]

    def positions(self, *, about: int) -> list[int]:
        return [at for at, data in enumerate(self.data) if involves(decode_entry(data).record, about)]

    def node(self, level: int, index: int) -> Digest:
        leaves = self.data[index << level : (index + 1) << level]
        return merkle.root([decode_entry(data).leaf_hash for data in leaves])

    def inclusion_proof(self, position: int, size: int | None = None) -> list[Digest]:
        return merkle.inclusion_proof(position, size or self.size, self.node)

    def consistency_proof(self, old: int, new: int) -> list[Digest]:
        return merkle.consistency_proof(old, new, self.node)

    def note(self) -> str:
        """The newest checkpoint."""
        root = merkle.root([decode_entry(data).leaf_hash for data in self.data])
        return sign_checkpoint(Checkpoint(self.origin, self.size, root), LOG_KEY)

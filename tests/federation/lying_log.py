"""A log that breaks its own rules: it signs trees of any entries, and state roots of any principals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from liberate.crypto import merkle
from liberate.crypto.merkle import MutableTree, leaf_hash
from liberate.crypto.note import Checkpoint, sign_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import ZERO, Block
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.principal import Principal


@dataclass(slots=True)
class LyingLog:
    """A log that goes on from a ledger as it likes.

    Attributes:
        origin: The ledger's name.
        key: The log's key.
        entries: All entries.
    """

    origin: str
    key: SigningKey
    entries: list[bytes]
    _tree: MutableTree = field(default_factory=MutableTree)
    _state: MutableTree = field(default_factory=MutableTree)

    @classmethod
    def of(cls, ledger: Ledger, key: SigningKey) -> LyingLog:
        """Go on from a ledger, which stays as it is."""
        log = cls(ledger.origin, key, [])
        log._state.update({number: leaf_hash(leaf.encode()) for number, leaf in enumerate(ledger.state.principals)})
        for _, data in ledger.entries():
            log.append(data)
        return log

    def append(self, data: bytes) -> int:
        """Append anything; return its position."""
        self._tree.update({len(self.entries): leaf_hash(data)})
        self.entries.append(data)
        return len(self.entries) - 1

    def end_block(self, principals: Mapping[int, Principal] | None = None) -> int:
        """Append a block whose state root has some principals as they are given here, and the others as they were."""
        changed = principals or {}
        self._state.update({number: leaf_hash(principal.encode()) for number, principal in changed.items()})
        block = Block(
            origin=self.origin, author=1, seq=1, parent=ZERO, count=1, state_root=self._state.root(), time_us=0
        )
        return self.append(sign(block, self.key))

    def checkpoint(self) -> str:
        return sign_checkpoint(Checkpoint(self.origin, len(self.entries), self._tree.root()), self.key)

    @property
    def n_principals(self) -> int:
        return self._state.size

    def inclusion_proof(self, position: int) -> list[Digest]:
        return self._tree.inclusion_proof(position)

    def state_proof(self, number: int) -> list[Digest]:
        return self._state.inclusion_proof(number)

    def consistency_proof(self, old: int) -> list[Digest]:
        return merkle.consistency_proof(old, len(self.entries), self._node)

    def _node(self, level: int, index: int) -> Digest:
        begin, end = index << level, (index + 1) << level
        return merkle.root([leaf_hash(data) for data in self.entries[begin:end]])

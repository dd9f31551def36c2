"""Proofs of many entries of one ledger under its newest checkpoint, each entry once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from liberate.arrays import Digest
from liberate.crypto.merkle import inclusion_proof, verify_inclusion
from liberate.crypto.note import open_checkpoint
from liberate.crypto.signing import Claim, verify, verify_batch
from liberate.errors import LedgerError
from liberate.ledger.log import Ledger
from liberate.ledger.records import Block, Entry, Record, decode_entry, signed_bytes

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedEntry:
    """An entry, its author's signature and its inclusion under the trace's checkpoint checked.

    Attributes:
        position: Its position.
        entry: The entry.
        height: Height of its block.
        time_us: Time of its block, in microseconds since 1970-01-01 UTC.
        proof: Inclusion proof against the checkpoint.
    """

    position: int
    entry: Entry
    height: int
    time_us: int
    proof: tuple[Digest, ...]


class Prover:
    """Proves what lies in one ledger under its newest checkpoint.

    Args:
        ledger: The ledger.
        verified: Leaf hashes of entries whose signatures are known to be their authors'.
    """

    def __init__(self, ledger: Ledger, verified: Collection[Digest] = ()) -> None:
        self.note = ledger.checkpoint()
        self.blocks = ledger.positions(kind="block")
        self._ledger = ledger
        self._verified = verified
        self._checkpoint = open_checkpoint(self.note, ledger.state.founding.log_vkey)
        self._node = cache(ledger.node)
        self._checked: dict[int, tuple[Entry, tuple[Digest, ...]]] = {}
        self._proved: dict[int, ProvedEntry] = {}

    @property
    def proof_count(self) -> int:
        """How many inclusion proofs were checked."""
        return len(self._checked)

    def block_of(self, position: int) -> int:
        """Give the position of the block entry that ends an entry's batch."""
        return self.blocks[bisect_left(self.blocks, position)]

    def prove(self, position: int) -> ProvedEntry:
        """Give an entry after checking its signature, its inclusion, and that of its block."""
        return self.prove_all([position])[0]

    def prove_all(self, positions: Iterable[int]) -> list[ProvedEntry]:
        """Do as `prove` with many."""
        positions = list(positions)
        fresh = dict.fromkeys(position for position in positions if position not in self._proved)
        self._check_all(dict.fromkeys([*fresh, *map(self.block_of, fresh)]))
        for position in fresh:
            entry, proof = self._checked[position]
            block = self._checked[self.block_of(position)][0].record
            if not isinstance(block, Block):
                raise LedgerError(f"entry {self.block_of(position)} is no block")
            self._proved[position] = ProvedEntry(
                position=position, entry=entry, height=block.seq, time_us=block.time_us, proof=proof
            )
        return [self._proved[position] for position in positions]

    def _check_all(self, positions: Iterable[int]) -> None:
        entries = {at: decode_entry(self._ledger.entry(at)) for at in positions if at not in self._checked}
        verify_signed(self._ledger, {at: entry for at, entry in entries.items() if not self._is_verified(entry)})
        size, root = self._checkpoint.size, self._checkpoint.root
        for position, entry in entries.items():
            proof = inclusion_proof(position, size, self._node)
            verify_inclusion(entry.leaf_hash, position, size, proof, root)
            self._checked[position] = entry, tuple(proof)

    def _is_verified(self, entry: Entry) -> bool:
        """Whether a signature need not be checked: for what the log signs, its checkpoint stands."""
        return isinstance(entry.record, Block) or entry.leaf_hash in self._verified


def verify_signed(ledger: Ledger, entries: Mapping[int, Entry]) -> None:
    """Check that entries, given by position, are signed with the keys that their authors had there.

    Raises:
        InvalidRecord: a signature is wrong.
    """
    claims = [
        Claim(ledger.state.key_at(entry.record.author, position), signed_bytes(entry.body), entry.signature)
        for position, entry in entries.items()
    ]
    for claim, is_valid in zip(claims, verify_batch(claims), strict=True):
        if not is_valid:
            verify(claim.public, claim.message, claim.signature)


def of_kind(history: Iterable[ProvedEntry], kind: type[RecordT]) -> Iterator[tuple[ProvedEntry, RecordT]]:
    """Give the entries of a kind, each with its record."""
    for each in history:
        if isinstance(each.entry.record, kind):
            yield each, each.entry.record

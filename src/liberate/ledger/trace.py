"""Where a participant's data went: own entries, the models they entered, and what was built on these.

Everything is found in the ledger alone, and every proof is checked before it is given out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from liberate.arrays import Digest
from liberate.crypto.merkle import Node, inclusion_proof, leaf_hash, node_hash, verify_inclusion
from liberate.crypto.note import open_checkpoint
from liberate.crypto.signing import verify
from liberate.errors import LedgerError
from liberate.ledger.completeness import Completeness, follow, prove_completeness, verify_completeness
from liberate.ledger.log import Ledger
from liberate.ledger.records import Block, Entry, Model, Update, decode_entry, signed_bytes

Outcome = Literal["used", "unused", "aborted", "open"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Proof that an update is leaf `index` of the `size` updates under a model's `updates_root`."""

    index: int
    size: int
    proof: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What became of an update.

    Attributes:
        update: The participant's own update, or the host's that answers for it.
        round: The round it answers.
        outcome: Used for a model, left out of it, round aborted, or round still open.
        model: The model that used it, or None.
        membership: Proof that this model used it, or None.
        descendants: Models built on this model, directly or not, in ledger order.
    """

    update: ProvedEntry
    round: ProvedEntry
    outcome: Outcome
    model: ProvedEntry | None = None
    membership: Membership | None = None
    descendants: tuple[ProvedEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A participant's history.

    Attributes:
        number: The participant's number.
        key: Its present public key.
        checkpoint: The signed note under which everything was proved.
        history: All entries that name the participant as author or subject, in ledger order.
        completeness: The proof that there are no others.
        contributions: What became of each update.
        epsilon_nano: Spent from the ε account, in 1e-9.
        rho_nano: Spent from the ρ account, in 1e-9.
        proof_count: How many inclusion, membership and completeness proofs were checked.
    """

    number: int
    key: bytes
    checkpoint: str
    history: tuple[ProvedEntry, ...]
    completeness: Completeness
    contributions: tuple[Contribution, ...]
    epsilon_nano: int
    rho_nano: int
    proof_count: int


def trace_participant(ledger: Ledger, number: int) -> Trace:
    """Follow a participant's data through a ledger.

    Raises:
        LedgerError: there is no such participant.
        ProofMismatch: the ledger cannot prove what it says.
        InvalidRecord: a signature is missing or wrong.
    """
    principals = ledger.state.principals
    if number >= len(principals) or principals[number].role != "participant":
        raise LedgerError(f"principal {number} is no participant")
    tracer = _Tracer(ledger)
    completeness = prove_completeness(ledger, number)
    verify_completeness(completeness, ledger.state.founding.log_vkey)
    principal = follow(number, completeness.entries, ledger.origin)
    history = tuple(tracer.prove(position) for position in ledger.positions(about=number))
    updates = [(each, each.entry.record) for each in history if isinstance(each.entry.record, Update)]
    contributions = tuple(tracer.contribution(each, update) for each, update in updates)
    return Trace(
        number=number,
        key=principal.key,
        checkpoint=tracer.note,
        history=history,
        completeness=completeness,
        contributions=contributions,
        epsilon_nano=principal.epsilon_nano,
        rho_nano=principal.rho_nano,
        proof_count=tracer.proof_count + 1,
    )


class _Tracer:
    """Proves what lies in one ledger under its newest checkpoint, each entry once."""

    def __init__(self, ledger: Ledger) -> None:
        self.note = ledger.checkpoint()
        self._ledger = ledger
        self._checkpoint = open_checkpoint(self.note, ledger.state.founding.log_vkey)
        self._checked: dict[int, tuple[Entry, tuple[Digest, ...]]] = {}
        self._memberships = 0
        self._blocks = ledger.positions(kind="block")
        self._rounds = ledger.positions(kind="round")
        self._updates = ledger.positions(kind="update")
        self._models = ledger.positions(kind="model")
        self._closings = sorted([*self._models, *ledger.positions(kind="aborted")])

    @property
    def proof_count(self) -> int:
        """How many proofs were checked."""
        return len(self._checked) + self._memberships

    def prove(self, position: int) -> ProvedEntry:
        """Give an entry after checking its signature and its inclusion, and those of its block."""
        entry, proof = self._check(position)
        block_position = self._blocks[bisect_left(self._blocks, position)]
        block, _ = self._check(block_position)
        if not isinstance(block.record, Block):
            raise LedgerError(f"entry {block_position} is no block")
        height, time_us = block.record.seq, block.record.time_us
        return ProvedEntry(position=position, entry=entry, height=height, time_us=time_us, proof=proof)

    def contribution(self, update: ProvedEntry, record: Update) -> Contribution:
        """Follow one update into the model that used it."""
        opening = self.prove(self._rounds[record.round - 1])
        if record.round > len(self._closings):
            return Contribution(update=update, round=opening, outcome="open")
        closing = self.prove(self._closings[record.round - 1])
        model = closing.entry.record
        if not isinstance(model, Model):
            return Contribution(update=update, round=opening, outcome="aborted")
        if update.position in model.unused:
            return Contribution(update=update, round=opening, outcome="unused")
        return Contribution(
            update=update,
            round=opening,
            outcome="used",
            model=closing,
            membership=self._membership(update, opening.position, closing.position, model),
            descendants=tuple(self._descendants(closing.position, model)),
        )

    def _check(self, position: int) -> tuple[Entry, tuple[Digest, ...]]:
        if position not in self._checked:
            entry = decode_entry(self._ledger.entry(position))
            key = self._ledger.state.key_at(entry.record.author, position)
            verify(key, signed_bytes(entry.body), entry.signature)
            size = self._checkpoint.size
            proof = self._ledger.inclusion_proof(position, size)
            verify_inclusion(entry.leaf_hash, position, size, proof, self._checkpoint.root)
            self._checked[position] = entry, tuple(proof)
        return self._checked[position]

    def _membership(self, update: ProvedEntry, opening: int, closing: int, model: Model) -> Membership:
        answers = self._updates[bisect_left(self._updates, opening) : bisect_left(self._updates, closing)]
        used = [position for position in answers if position not in set(model.unused)]
        leaves = [leaf_hash(self._ledger.entry(position)) for position in used]
        index = used.index(update.position)
        proof = inclusion_proof(index, len(leaves), _perfect_subtrees(leaves))
        verify_inclusion(update.entry.leaf_hash, index, len(leaves), proof, model.updates_root)
        self._memberships += 1
        return Membership(index=index, size=len(leaves), proof=tuple(proof))

    def _descendants(self, position: int, model: Model) -> Iterator[ProvedEntry]:
        lineage = {model.digest}
        for later in self._models[bisect_left(self._models, position) + 1 :]:
            record = decode_entry(self._ledger.entry(later)).record
            if isinstance(record, Model) and record.parent in lineage:
                lineage.add(record.digest)
                yield self.prove(later)


def _perfect_subtrees(leaves: list[Digest]) -> Node:
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=False)])
    return lambda level, index: levels[level][index]

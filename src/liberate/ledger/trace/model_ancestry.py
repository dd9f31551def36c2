"""Who shaped a model: whose answers and copies it used, and the models before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from liberate.crypto.merkle import root
from liberate.errors import LedgerError, ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import ModelRecord, Round, Update
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries_between
from liberate.ledger.trace.prover import ProvedEntry, Prover, of_kind, verify_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAncestor:
    """A model, or one that it was built on, and who shaped it beside those who shaped its parent.

    Attributes:
        checkpoint: The signed note under which it was proved.
        model: The model.
        round: Its round.
        updates: The updates it used, in ledger order; the root that the model names proves that there are no others.
        participants: Whose answers these are.
        senders: Whose copies they used, each with the positions of the updates that did.
        pools: The coordinator's entries that name whose copies it used itself.
        pooled: Whose copies these are.
    """

    checkpoint: str
    model: ProvedEntry[ModelRecord]
    round: ProvedEntry[Round]
    updates: tuple[RecordedEntry[Update], ...]
    participants: frozenset[int]
    senders: dict[int, tuple[int, ...]]
    pools: tuple[ProvedEntry[PoolRecord], ...]
    pooled: frozenset[int]


def model_ancestry(ledger: Ledger, version: int) -> Iterator[ModelAncestor]:
    """Follow a model back to where its lineage begins.

    Args:
        ledger: The ledger.
        version: The model's version.

    Yields:
        The model, then its parent, and so on, up to a model whose parent was not made on this ledger. Nothing is read
        or proved beyond what the caller asks for.

    Raises:
        LedgerError: there is no such model.
        ProofMismatch: the ledger cannot prove what it says.
        InvalidRecord: a signature is wrong.
    """
    positions = ledger.positions(kind="model")
    if not 1 <= version <= len(positions):
        raise LedgerError(f"there is no model {version}, the newest is {len(positions)}")

    prover = Prover(ledger)
    rounds = ledger.positions(kind="round")
    models = list(of_kind(prover.prove_all(positions[:version]), ModelRecord))
    digests = [model.record.digest for model in models]
    index = version - 1
    while index >= 0:
        model = models[index]
        opening = rounds[bisect_left(rounds, model.position) - 1]
        yield _ancestor(ledger, prover, prover.prove(opening, Round), model)
        index = _last_index(digests[:index], model.record.parent)


def _ancestor(
    ledger: Ledger, prover: Prover, opening: ProvedEntry[Round], model: ProvedEntry[ModelRecord]
) -> ModelAncestor:
    begin, end = opening.position + 1, model.position
    unused = set(model.record.unused)
    updates = [update for update in entries_between(ledger, begin, end, Update) if update.position not in unused]
    _check_updates(ledger, updates, model.record.updates_root)

    named = [position for position in ledger.positions(kind="pool") if begin <= position < end]
    pools = tuple(of_kind(prover.prove_all(named), PoolRecord))

    return ModelAncestor(
        checkpoint=prover.note,
        model=model,
        round=opening,
        updates=tuple(updates),
        participants=frozenset(number for update in updates for number in update.record.answers_for()),
        senders=_senders(updates),
        pools=pools,
        pooled=frozenset(number for pool in pools for number in numbers_in(pool.record.participants)),
    )


def _check_updates(ledger: Ledger, updates: Sequence[RecordedEntry[Update]], wanted: Digest) -> None:
    """Check that updates are signed, and all that a model used.

    Raises:
        ProofMismatch: They do not lead to the root that the model names.
        InvalidRecord: A signature is wrong.
    """
    calculated = root([update.leaf_hash for update in updates])
    if calculated != wanted:
        raise ProofMismatch(f"the updates lead to {calculated.hex()}, the model names {wanted.hex()}")
    verify_signed(ledger, {update.position: update.entry for update in updates})


def _senders(updates: Sequence[RecordedEntry[Update]]) -> dict[int, tuple[int, ...]]:
    """Return whose copies updates used, each with the positions of the updates that did."""
    senders: dict[int, tuple[int, ...]] = {}
    for update in updates:
        for sender in {copy.sender for copy in update.record.shares}:
            senders[sender] = (*senders.get(sender, ()), update.position)
    return senders


def _last_index(digests: list[Digest], wanted: Digest) -> int:
    """Return the last index of a digest, or -1."""
    return next((index for index in range(len(digests) - 1, -1, -1) if digests[index] == wanted), -1)

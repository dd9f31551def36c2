"""Who shaped a model: whose answers and shares it used, and the models before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from liberate.crypto.merkle import root
from liberate.errors import LedgerError, ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import ModelRecord, Update
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.trace.prover import ProvedEntry, Prover, of_kind, verify_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAncestor:
    """One model on the way, and who shaped it beside those who shaped its parent.

    Attributes:
        checkpoint: The signed note under which it was proved.
        model: The model.
        round: Its round.
        updates: The updates it used, by position; proved to be all by the root that the model names.
        people: Whose answers these are.
        senders: Whose copies they used, each with the positions of the updates that did.
        pools: What the coordinator said of shares that it used.
        pooled: Whose shares these are.
    """

    checkpoint: str
    model: ProvedEntry
    round: ProvedEntry
    updates: dict[int, Entry]
    participants: frozenset[int]
    senders: dict[int, tuple[int, ...]]
    pools: tuple[ProvedEntry, ...]
    pooled: frozenset[int]


def model_ancestry(ledger: Ledger, version: int) -> Iterator[ModelAncestor]:
    """Follow a model back to where its lineage begins, one step at a time.

    Args:
        ledger: The ledger.
        version: The model's version.

    Yields:
        The step that made the model, then the one that made its parent, and so on, up to a model that was not made on
        this ledger; whoever asks for no more pays for no more.

    Raises:
        LedgerError: there is no such model.
        ProofMismatch: the ledger cannot prove what it says.
        InvalidRecord: a signature is wrong.
    """
    models = ledger.positions(kind="model")
    if not 1 <= version <= len(models):
        raise LedgerError(f"there is no model {version}, the newest is {len(models)}")
    prover = Prover(ledger)
    rounds = ledger.positions(kind="round")
    digests = [record.digest for _, record in of_kind(prover.prove_all(models[:version]), ModelRecord)]
    at = version - 1
    while at >= 0:
        ((proved, model),) = of_kind([prover.prove(models[at])], ModelRecord)
        opening = rounds[bisect_left(rounds, proved.position) - 1]
        yield _step(ledger, prover, prover.prove(opening), proved, model)
        at = _last_index(digests[:at], model.parent)


def _step(
    ledger: Ledger, prover: Prover, opening: ProvedEntry, closing: ProvedEntry, model: ModelRecord
) -> ModelAncestor:
    entries = {at: decode_entry(data) for at, data in ledger.entries(opening.position + 1, closing.position)}
    pools = prover.prove_all(at for at, entry in entries.items() if isinstance(entry.record, PoolRecord))
    unused = set(model.unused)
    updates = {at: entry for at, entry in entries.items() if isinstance(entry.record, Update) and at not in unused}
    _check_updates(ledger, updates, model.updates_root)
    participants: set[int] = set()
    senders: dict[int, tuple[int, ...]] = {}
    for position, entry in updates.items():
        if isinstance(entry.record, Update):
            participants.update(entry.record.answers_for())
            for sender in {each.sender for each in entry.record.shares}:
                senders[sender] = (*senders.get(sender, ()), position)
    return ModelAncestor(
        checkpoint=prover.note,
        model=closing,
        round=opening,
        updates=updates,
        participants=frozenset(participants),
        senders=senders,
        pools=tuple(pools),
        pooled=frozenset(number for _, pool in of_kind(pools, PoolRecord) for number in numbers_in(pool.participants)),
    )


def _check_updates(ledger: Ledger, updates: dict[int, Entry], wanted: Digest) -> None:
    """Check that updates are signed, and all that a model used."""
    calculated = root([entry.leaf_hash for entry in updates.values()])
    if calculated != wanted:
        raise ProofMismatch(f"the updates lead to {calculated.hex()}, the model names {wanted.hex()}")
    verify_signed(ledger, updates)


def _last_index(digests: list[Digest], wanted: Digest) -> int:
    """Give the last index of a digest, or -1."""
    return next((index for index in range(len(digests) - 1, -1, -1) if digests[index] == wanted), -1)

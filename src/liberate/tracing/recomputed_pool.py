"""A pool's round again: the copies that the coordinator named, opened and learned from."""

from __future__ import annotations

from dataclasses import dataclass

from liberate.crypto.commitments import salted_commitment
from liberate.errors import LedgerError
from liberate.federation.coordinator.pool_round import copies_digest
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.store.pool import PoolStore
from liberate.identifiers import Digest
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.ledger.queries.usable_copies import pooled_copies
from liberate.model.model import Model
from liberate.model.pool_learner import learner_from
from liberate.tracing.kept_run import Derivation, KeptRun
from liberate.tracing.rounds import CompletedRound


def open_pool(run: KeptRun, closed: CompletedRound, base: Model | None) -> Derivation:
    """Open the copies that a pool's round used, and say how its model follows from them.

    Raises:
        LedgerError: The pool names a share that does not exist.
    """
    shares = pooled_copies(run.ledger, closed.position, closed.model_position)
    if run.pool is None or base is None:
        return Derivation(len(shares), 0)

    n_findings = len(run.findings)
    opened: list[_OpenedCopy] = []
    missing: dict[int, int] = {}
    for sender, share_hash in shares:
        share = _share(run.ledger, sender, share_hash)
        try:
            opened.append(_open(run, run.pool, share))
        except KeyError:
            missing[share.position] = sender

    if run.are_missing("copy", missing):
        return Derivation(len(shares), len(opened))

    # What does not open its commitment cannot add up either: one finding is enough.
    if len(run.findings) == n_findings:
        run.check_sum(closed, "copies", copies_digest(copy.commitment for copy in opened))

    def derive() -> Model:
        learner = learner_from(closed.model.solver, closed.model.parameters)
        ratings = as_ratings([copy.copy for copy in opened], base.n_items)
        return learner.learn(base, ratings, [copy.epsilon_nano for copy in opened])

    return Derivation(len(shares), len(opened), derive)


@dataclass(frozen=True, slots=True)
class _OpenedCopy:
    copy: bytes
    commitment: Digest
    epsilon_nano: int


def _open(run: KeptRun, pool: PoolStore, share: RecordedEntry[Share]) -> _OpenedCopy:
    """Return a copy from the pool, and report one that does not open its commitment.

    Raises:
        KeyError: The pool has no such copy.
    """
    (received,) = pool.copies([share.leaf_hash])
    commitment = salted_commitment(received.salt, received.copy)
    if commitment != share.record.copy:
        run.report(f"copy {share.position}", "does not open its commitment")
    return _OpenedCopy(received.copy, commitment, share.record.epsilon_nano or 0)


def _share(ledger: Ledger, sender: int, share_hash: Digest) -> RecordedEntry[Share]:
    """Find a share by its leaf hash."""
    for share in entries(ledger, Share, author=sender):
        if share.leaf_hash == share_hash:
            return share
    raise LedgerError(f"participant {sender} made no share {share_hash.hex()[:16]}")

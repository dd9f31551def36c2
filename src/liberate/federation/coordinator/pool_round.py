"""The round of the pool: no device answers it, its model is learned from the copies that participants have shared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from liberate.crypto.commitments import salted_commitment
from liberate.errors import FederationError, InsufficientCohort
from liberate.federation.coordinator.opening import new_round, opened_round
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import MAX_PARTICIPANTS, to_ranges
from liberate.ledger.format.records import Round
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.queries.usable_copies import pooled_copies
from liberate.ledger.rules.round_state import OpenRound
from liberate.model.codec import model_digest
from liberate.model.model import Model
from liberate.model.pool_learner import PoolLearner
from liberate.privacy.mechanism_base import Plain
from liberate.timing import measure


def run_pool_round(
    writer: EntryWriter,
    store: ModelStore,
    pool: PoolStore,
    base: Model,
    learner: PoolLearner,
    *,
    run: int,
    rounds: int | None,
    deadline_blocks: int,
) -> Model:
    """Carry out the round of the pool, or finish the one that a crash left open.

    Returns:
        The next version, on disk and on the ledger.

    Raises:
        InsufficientCohort: No copies may be used, one that was named is gone, or no model follows from them; the round
            is closed as aborted.
        FederationError: The ledger refuses what the coordinator signs, or the base does not fit an open round.
    """
    base_digest = model_digest(store.save(base))
    if writer.ledger.state.open_round is None:
        writer.append(_round_record(writer, base, base_digest, run, rounds, deadline_blocks))
    current = opened_round(writer, base_digest, base.statistic)
    _name_senders(writer, pool, current)

    model, copies = _learn(writer, pool, current, base, learner)

    # The model is durable before its entry: whoever reads the entry finds its bytes.
    digest = model_digest(store.save(model))
    sum_digest = copies_digest(salted_commitment(copy.salt, copy.copy) for copy in copies)
    writer.close(current.record, version=model.version, digest=digest, maker=learner, leaves={}, sum_digest=sum_digest)
    return model


def _round_record(
    writer: EntryWriter, base: Model, base_digest: Digest, run: int, rounds: int | None, deadline_blocks: int
) -> Round:
    return new_round(
        writer,
        base,
        base_digest,
        run=run,
        rounds=rounds,
        statistic=base.statistic,
        shape=(base.n_items, 0, 0),
        mechanism=Plain(),
        minimum=1,
        deadline_blocks=deadline_blocks,
    )


def _learn(
    writer: EntryWriter, pool: PoolStore, current: OpenRound, base: Model, learner: PoolLearner
) -> tuple[Model, Sequence[ReceivedCopy]]:
    """Return the model that follows from the copies of all named senders, and the copies.

    Raises:
        InsufficientCohort: There is none; the round is closed as aborted.
    """
    shares = pooled_copies(writer.ledger, current.position, writer.ledger.size)
    try:
        copies = list(pool.copies([share for _, share in shares]))
        with measure("solve"):
            ratings = as_ratings([copy.copy for copy in copies], base.n_items)
            return learner.learn(base, ratings, [copy.epsilon_nano for copy in copies]), copies
    except (KeyError, FederationError) as error:
        writer.abort(current.record, "no_model")
        why = "one of them was erased" if isinstance(error, KeyError) else str(error)
        raise InsufficientCohort(
            f"round {current.record.number}: no model follows from the {len(shares)} copies of the pool: {why}",
            hint="the round is closed as aborted; the same command tries again with the copies that may be used now",
        ) from error


def copies_digest(commitments: Iterable[Digest]) -> Digest:
    """Return what the model entry says of a pool: SHA-256 over the commitments to its copies, by sender and leaf hash.

    A digest of the copies themselves would not be salted, and a few ratings can be guessed.
    """
    return Digest(sha256(b"".join(commitments)).digest())


def _usable_senders(writer: EntryWriter, pool: PoolStore) -> list[int]:
    """Return the senders all of whose usable copies have reached the pool, increasing."""
    shares = writer.ledger.state.usable_shares()
    received = [(share.sender, hash) for hash, share in shares if share.record.recipient == writer.number]
    stored = pool.shares()
    return sorted({sender for sender, _ in received} - {sender for sender, hash in received if hash not in stored})


def _name_senders(writer: EntryWriter, pool: PoolStore, current: OpenRound) -> None:
    """Record every sender whose copies may be used, unless an attempt before has.

    Raises:
        InsufficientCohort: There is none; the round is closed as aborted.
    """
    record = current.record
    senders = [sender for sender in _usable_senders(writer, pool) if sender not in current.pool]
    for begin in range(0, len(senders), MAX_PARTICIPANTS):
        participants = to_ranges(senders[begin : begin + MAX_PARTICIPANTS])
        writer.append(
            PoolRecord(**writer.header(), round=record.number, round_hash=current.hash, participants=participants)
        )

    if not current.pool:
        writer.abort(record, "insufficient_updates")
        raise InsufficientCohort(
            f"round {record.number}: there are no copies in the pool that may be used",
            hint="people share by consent: see the share command, or sharing.user_fraction in a simulation",
        )

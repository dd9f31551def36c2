"""The round of the pool: no device answers it, its model is learned from the copies that people have shared."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from liberate.crypto.commitments import salted_commitment
from liberate.errors import FederationError, InsufficientCohort
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.parts import MechanismSpec
from liberate.ledger.format.records import Aborted, Round
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.queries.usable_copies import pooled_copies
from liberate.ledger.rules.participants import MAX_PARTICIPANTS
from liberate.ledger.rules.round_state import OpenRound
from liberate.model.codec import model_digest
from liberate.model.model import Model
from liberate.model.pool_learner import PoolLearner
from liberate.privacy.mechanism_base import Plain


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
    """Carry out the round of the pool, or finish the one a crash left open.

    Args:
        writer: Writes the coordinator's entries.
        store: Where model versions are kept.
        pool: The copies that the coordinator has received.
        base: The model the round starts from.
        learner: Turns copies into a model.
        run: Number of the run the round belongs to.
        rounds: Rounds of the whole run where that is fixed beforehand.
        deadline_blocks: Blocks that the round may last.

    Returns:
        The next version, on disk and on the ledger.

    Raises:
        InsufficientCohort: Nobody's copies may be used, those that were named are gone, or no model follows from them;
            the round is closed as aborted.
        FederationError: The ledger refuses what the coordinator signs, or the base does not fit an open round.
    """
    base_bytes = store.save(base)
    if writer.ledger.state.open_round is None:
        writer.append(_round(writer, base, model_digest(base_bytes), run, rounds, deadline_blocks))
    current = writer.ledger.state.open_round
    assert current is not None  # opened above, or by the attempt before
    if (current.record.statistic, current.record.base_digest) != (base.statistic, model_digest(base_bytes)):
        raise FederationError("the open round on the ledger starts from another model than this run has")
    _name_senders(writer, pool, current)
    shares = pooled_copies(writer.ledger, current.position, writer.ledger.size)
    try:
        received = list(pool.copies([share for _, share in shares]))
        with writer.stopwatch.measure("solve"):
            copies = as_ratings([each.copy for each in received], base.n_items)
            model = learner.learn(base, copies, [each.epsilon_nano for each in received])
    except (KeyError, FederationError) as error:
        writer.append(Aborted(**writer.header(), round=current.record.number, reason="no_model"))
        why = "one of them was erased" if isinstance(error, KeyError) else str(error)
        raise InsufficientCohort(
            f"round {current.record.number}: no model follows from the {len(shares)} copies of the pool: {why}",
            hint="the round is closed as aborted; the same command tries again with the copies that may be used now",
        ) from error
    digest = model_digest(store.save(model))
    sum_digest = copies_digest(salted_commitment(each.salt, each.copy) for each in received)
    writer.close(current.record, version=model.version, digest=digest, maker=learner, leaves={}, sum_digest=sum_digest)
    return model


def copies_digest(commitments: Iterable[Digest]) -> Digest:
    """Give what the model entry says of a pool: SHA-256 over the commitments to its copies, by sender and leaf hash.

    A digest of the copies themselves would not be salted, and a few ratings can be guessed.
    """
    return Digest(sha256(b"".join(commitments)).digest())


def _usable_senders(writer: EntryWriter, pool: PoolStore) -> list[int]:
    """Give the people of whom the coordinator has received copies that it may use now, and has, increasing."""
    shares = writer.ledger.state.usable_shares()
    own = [(share.sender, hash) for hash, share in shares if share.record.recipient == writer.number]
    held = pool.shares()
    return sorted({sender for sender, _ in own} - {sender for sender, hash in own if hash not in held})


def _round(
    writer: EntryWriter, base: Model, base_digest: Digest, run: int, rounds: int | None, deadline_blocks: int
) -> Round:
    mechanism = Plain()
    return Round(
        **writer.header(),
        number=writer.ledger.state.round_number + 1,
        run=run,
        rounds=rounds,
        base_version=base.version,
        base_digest=base_digest,
        cohort=(),
        statistic=base.statistic,
        shape=(base.n_items, 0, 0),
        mechanism=MechanismSpec(name=mechanism.name, parameters=dict(mechanism.parameters)),
        noise_placement="per_upload",
        fraction_bits=mechanism.fraction_bits,
        account=mechanism.account,
        spend_nano=mechanism.spend_nano,
        minimum=1,
        deadline=writer.ledger.height + deadline_blocks,
    )


def _name_senders(writer: EntryWriter, pool: PoolStore, current: OpenRound) -> None:
    """Name everybody whose copies may be used and who is not named yet."""
    record = current.record
    senders = [sender for sender in _usable_senders(writer, pool) if sender not in current.pool]
    for begin in range(0, len(senders), MAX_PARTICIPANTS):
        participants = to_ranges(senders[begin : begin + MAX_PARTICIPANTS])
        writer.append(
            PoolRecord(**writer.header(), round=record.number, round_hash=current.hash, participants=participants)
        )
    if not current.pool:
        writer.append(Aborted(**writer.header(), round=record.number, reason="insufficient_updates"))
        raise InsufficientCohort(
            f"round {record.number}: there are no copies in the pool that may be used",
            hint="people share by consent: see the share command, or sharing.user_fraction in a simulation",
        )

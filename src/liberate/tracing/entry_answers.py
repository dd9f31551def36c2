"""What answers about a ledger say of entries, each proved: updates, consents, copies, uses, models and erasures.

Field names are JSON keys. Digests are bytes; amounts of ε and ρ are plain numbers; other entries are named by position.
The classes have no slots, because what extends an entry is made from the `vars` of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.format.sharing_records import Erasure
from liberate.ledger.trace.contributions import Contribution, ContributionStatus, Membership
from liberate.ledger.trace.copies import TracedConsent, TracedCopy
from liberate.ledger.trace.participant import CopyUse
from liberate.ledger.trace.prover import ProvedEntry
from liberate.units import from_nano


@dataclass(frozen=True, kw_only=True)
class EntryAnswer:
    """An entry whose signature and inclusion were checked.

    Attributes:
        position: Its position.
        kind: The kind of its record.
        author: The number of its author.
        block: The height of its block.
        time_us: The time of its block, in microseconds since 1970-01-01 UTC.
        leaf_hash: Its leaf hash.
        proof: Its inclusion proof against the answer's checkpoint.
    """

    position: int
    kind: str
    author: int
    block: int
    time_us: int
    leaf_hash: Digest
    proof: tuple[Digest, ...]


@dataclass(frozen=True, kw_only=True)
class ContributionAnswer(EntryAnswer):
    """An update or a pool, and what became of it.

    Attributes:
        round: The number of its round.
        outcome: Used for a model, left out of it, round aborted, or round still open.
        version: The model that used it, or None.
        descendants: How many models were built on that one.
        membership: Proof that the model used the update; None if none did, and for a pool.
    """

    round: int
    outcome: ContributionStatus
    version: int | None
    descendants: int
    membership: Membership | None


@dataclass(frozen=True, kw_only=True)
class UseAnswer(ContributionAnswer):
    """A use of copies by their recipient, with the positions of their shares."""

    by: int
    shares: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ConsentAnswer(EntryAnswer):
    """A consent, its limits, and what became of it.

    Attributes:
        recipients: Who may be handed copies.
        expiry: The last block in which it is valid.
        max_shares: How many copies it allows.
        epsilon: At which each rating is perturbed; None: copies are open.
        is_active: Whether it was neither withdrawn nor has expired.
        withdrawn: The position of its withdrawal, or None.
    """

    recipients: tuple[int, ...]
    expiry: int
    max_shares: int
    epsilon: float | None
    is_active: bool
    withdrawn: int | None


@dataclass(frozen=True, kw_only=True)
class CopyAnswer(EntryAnswer):
    """A copy that was handed over.

    Attributes:
        sender: Whose ratings these are.
        recipient: Who got them.
        base: The commitment to the base copy.
        copy: The commitment to the copy.
        epsilon: At which each rating was perturbed; None: the copy is open.
        consent: The position of the consent that covers it.
        receipt: The position of the recipient's receipt, or None.
        is_active: Whether the consent was neither withdrawn nor has expired.
        withdrawn: The position of the consent's withdrawal, or None.
    """

    sender: int
    recipient: int
    base: Digest
    copy: Digest
    epsilon: float | None
    consent: int
    receipt: int | None
    is_active: bool
    withdrawn: int | None


@dataclass(frozen=True, kw_only=True)
class ModelEntry(EntryAnswer):
    """A model."""

    version: int
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class ShapedModel(ModelEntry):
    """A model that used somebody's data.

    Attributes:
        directly: Whether it used an update of theirs.
        through: The recipients who used copies for it.
    """

    directly: bool
    through: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ErasureAnswer(EntryAnswer):
    """A request to be erased, all of whose fields are None, or the report of what was done.

    Attributes:
        destroyed: What was destroyed.
        notified: The recipients who were told.
        confirmed: Those of them who have answered.
        models: Models that contain the data.
    """

    destroyed: tuple[str, ...] | None
    notified: tuple[int, ...] | None
    confirmed: tuple[int, ...] | None
    models: tuple[int, ...] | None


def position_or_none(proved: ProvedEntry[RecordBase] | None) -> int | None:
    """Return an entry's position, None without an entry."""
    return None if proved is None else proved.position


def entry_answer(proved: ProvedEntry[RecordBase]) -> EntryAnswer:
    """Return an entry as answers have it."""
    return EntryAnswer(
        position=proved.position,
        kind=proved.record.kind,
        author=proved.record.author,
        block=proved.height,
        time_us=proved.time_us,
        leaf_hash=proved.leaf_hash,
        proof=proved.proof,
    )


def contribution_answer(contribution: Contribution) -> ContributionAnswer:
    """Return an update, or a pool, as answers have it."""
    return ContributionAnswer(
        **vars(entry_answer(contribution.update)),
        round=contribution.round.record.number,
        outcome=contribution.outcome,
        version=contribution.model.record.version if contribution.model else None,
        descendants=len(contribution.descendants),
        membership=contribution.membership,
    )


def use_answer(use: CopyUse) -> UseAnswer:
    """Return a use of copies as answers have it."""
    shares = tuple(copy.share.position for copy in use.copies)
    return UseAnswer(**vars(contribution_answer(use.contribution)), by=use.recipient, shares=shares)


def consent_answer(consent: TracedConsent) -> ConsentAnswer:
    """Return a consent as answers have it."""
    terms = consent.entry.record
    return ConsentAnswer(
        **vars(entry_answer(consent.entry)),
        recipients=tuple(numbers_in(terms.recipients)),
        expiry=terms.expiry,
        max_shares=terms.max_shares,
        epsilon=from_nano(terms.epsilon_nano),
        is_active=consent.is_active,
        withdrawn=position_or_none(consent.withdrawal),
    )


def copy_answer(copy: TracedCopy) -> CopyAnswer:
    """Return a copy as answers have it."""
    share = copy.share.record
    return CopyAnswer(
        **vars(entry_answer(copy.share)),
        sender=copy.sender,
        recipient=copy.recipient,
        base=share.base,
        copy=share.copy,
        epsilon=from_nano(share.epsilon_nano),
        consent=copy.consent.entry.position,
        receipt=position_or_none(copy.receipt),
        is_active=copy.consent.is_active,
        withdrawn=position_or_none(copy.consent.withdrawal),
    )


def model_entry(proved: ProvedEntry[ModelRecord]) -> ModelEntry:
    """Return a model as answers have it."""
    return ModelEntry(**vars(entry_answer(proved)), version=proved.record.version, digest=proved.record.digest)


def erasure_answer(proved: ProvedEntry[Erasure]) -> ErasureAnswer:
    """Return a request to be erased, or the report of it, as answers have it."""
    report = proved.record.report
    return ErasureAnswer(
        **vars(entry_answer(proved)),
        destroyed=report.destroyed if report else None,
        notified=tuple(numbers_in(report.notified)) if report else None,
        confirmed=tuple(numbers_in(report.confirmed)) if report else None,
        models=tuple(numbers_in(report.models)) if report else None,
    )

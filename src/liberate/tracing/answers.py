"""Answers about a ledger: where data went, what became of a copy, what was received, who shaped a model.

Field names are the keys of `liberate trace --json`, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

from liberate.identifiers import Digest, KeyId
from liberate.ledger.format.parts import Custody
from liberate.ledger.trace.completeness import Completeness
from liberate.tracing.entry_answers import (
    ConsentAnswer,
    ContributionAnswer,
    CopyAnswer,
    EntryAnswer,
    ErasureAnswer,
    ModelEntry,
    ShapedModel,
    UseAnswer,
)
from liberate.tracing.parties import CopyRecipient, CopySender, Party


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryProof:
    """What proves that an answer rests on all entries that name somebody; fields as of `Completeness`."""

    entries: tuple[bytes, ...]
    block: bytes
    block_proof: tuple[Digest, ...]
    principal_count: int
    state_proof: tuple[Digest, ...]

    @classmethod
    def of(cls, proof: Completeness) -> HistoryProof:
        """Return the proof without what the answer says anyway: of whom, and under which checkpoint."""
        return cls(
            entries=proof.entries,
            block=proof.block,
            block_proof=proof.block_proof,
            principal_count=proof.principal_count,
            state_proof=proof.state_proof,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpending:
    """What a participant's updates in one run have cost."""

    run: int
    epsilon: float
    rho: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBase:
    """A base copy that copies were made of, and its ε per rating; None: open."""

    base: Digest
    epsilon: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantAnswer:
    """What became of a participant's data; the fields are the keys of `liberate trace --participant --json`.

    Attributes:
        number, key_id, user_id: All names of the participant.
        enrolled_by: Numbers of the registrars who enrolled the participant, who recorded it first.
        custody: Who holds the participant's keys: the participant (`own`), or a `host` in the participant's name.
        entries: All entries that name the participant, in ledger order.
        updates: The participant's updates.
        consents: The consents given.
        shares: The copies handed over.
        recipients: Who got them.
        uses: Each use of them by others.
        received: Copies of others' ratings.
        models: The models that used an update or a copy.
        descendants: Models built on one of these that used neither.
        epsilon, rho: Spent in all runs.
        spent: By run; runs that cost nothing are left out.
        bases: The base copies of `shares`.
        withdrawal: Position of the withdrawal from everything, or None.
        used_after_withdrawal: What a later model used all the same, as it had been accepted before.
        erasures: The request to be erased, and the reports of what was done.
        disclosures: Positions of the entries before which an auditor had the participant's commitments opened.
        complete: Whether `completeness` was checked.
        completeness: The proof that no entry is missing.
        proofs: How many proofs were checked.
        entry_count, root, checkpoint: Of the log when it was asked; the checkpoint is a signed note.
    """

    number: int
    key_id: KeyId
    user_id: str | None
    enrolled_by: tuple[int, ...]
    custody: Custody
    entries: tuple[EntryAnswer, ...]
    updates: tuple[ContributionAnswer, ...]
    consents: tuple[ConsentAnswer, ...]
    shares: tuple[CopyAnswer, ...]
    recipients: tuple[CopyRecipient, ...]
    uses: tuple[UseAnswer, ...]
    received: tuple[CopyAnswer, ...]
    models: tuple[ShapedModel, ...]
    descendants: tuple[ModelEntry, ...]
    epsilon: float
    rho: float
    spent: tuple[RunSpending, ...]
    bases: tuple[SharedBase, ...]
    withdrawal: int | None
    used_after_withdrawal: tuple[ContributionAnswer, ...]
    erasures: tuple[ErasureAnswer, ...]
    disclosures: tuple[int, ...]
    complete: bool = True
    completeness: HistoryProof
    proofs: int
    entry_count: int
    root: Digest
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareAnswer:
    """What became of one copy; the fields are the keys of `liberate trace --share --json`.

    Attributes:
        sender: Whose ratings these are; completeness is proved of the sender's entries.
        shares: The copy.
        recipients: Who got it.
        consents: The consent that covers it.
        receipt: The recipient's receipt, or None.
        uses: Each use of it.
        updates: Those of the uses that are updates.
        models: The models that used it.
        descendants: Models built on one of these that did not.
        same_base: The sender's other copies of the same base copy.
        complete, completeness, proofs, entry_count, root, checkpoint: As of `ParticipantAnswer`.
    """

    sender: Party
    shares: tuple[CopyAnswer, ...]
    recipients: tuple[CopyRecipient, ...]
    consents: tuple[ConsentAnswer, ...]
    receipt: EntryAnswer | None
    uses: tuple[UseAnswer, ...]
    updates: tuple[UseAnswer, ...]
    models: tuple[ShapedModel, ...]
    descendants: tuple[ModelEntry, ...]
    same_base: tuple[CopyAnswer, ...]
    complete: bool = True
    completeness: HistoryProof
    proofs: int
    entry_count: int
    root: Digest
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class RecipientAnswer(Party):
    """What somebody received; the fields are the keys of `liberate trace --recipient --json`.

    Attributes:
        shares: The copies.
        senders: Whose ratings these are.
        consents: The consents that cover them.
        complete, completeness, proofs, entry_count, root, checkpoint: As of `ParticipantAnswer`.
    """

    shares: tuple[CopyAnswer, ...]
    senders: tuple[CopySender, ...]
    consents: tuple[ConsentAnswer, ...]
    complete: bool = True
    completeness: HistoryProof
    proofs: int
    entry_count: int
    root: Digest
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderUse:
    """A sender of copies, and the positions of the updates that used them."""

    number: int
    updates: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class AncestorModel(ModelEntry):
    """A model, or one that it was built on, and who shaped it beside those who shaped its parent.

    Attributes:
        round, run, statistic: Of the round that made it.
        updates: Positions of the updates it used.
        participants: Whose updates these are.
        senders: Whose copies these used.
        pools: Positions of the coordinator's entries that name whose copies it used itself.
        pooled: Whose copies these are.
    """

    round: int
    run: int
    statistic: str
    updates: tuple[int, ...]
    participants: tuple[int, ...]
    senders: tuple[SenderUse, ...]
    pools: tuple[int, ...]
    pooled: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContributor:
    """A participant, and the versions that used their updates, their copies, and their copies in the pool."""

    number: int
    answers: tuple[int, ...]
    copies: tuple[int, ...]
    pooled: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """Who shaped a model; the fields are the keys of `liberate trace --model --json`.

    Attributes:
        version: The model's version.
        models: The model, then each model that it was built on, to the first.
        participants: Everybody whose data one of them used.
        updates: Positions of the updates that they used.
        shares: Positions of the shares that the updates used, or that were in a pool.
        recipients: Who received these.
        proofs, entry_count, root, checkpoint: As of `ParticipantAnswer`.
    """

    version: int
    models: tuple[AncestorModel, ...]
    participants: tuple[ModelContributor, ...]
    updates: tuple[int, ...]
    shares: tuple[int, ...]
    recipients: tuple[Party, ...]
    proofs: int
    entry_count: int
    root: Digest
    checkpoint: str

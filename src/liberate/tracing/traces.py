"""Where a participant's data went, what became of a copy, and what somebody received: each proved from the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from liberate.crypto.note import Checkpoint, verify_checkpoint
from liberate.identifiers import KeyId
from liberate.ledger.format.records import Update
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.lookup import entry_at
from liberate.ledger.trace.completeness import verify_completeness
from liberate.ledger.trace.contributions import Contribution
from liberate.ledger.trace.copies import TracedCopy
from liberate.ledger.trace.participant import CopyUse, ParticipantTrace, RecipientTrace, RunSpend, trace_received
from liberate.ledger.trace.participant import trace_participant as trace_on_ledger
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import Participant, find_participant
from liberate.tracing.answers import (
    HistoryProof,
    ParticipantAnswer,
    RecipientAnswer,
    RunSpending,
    ShareAnswer,
    SharedBase,
)
from liberate.tracing.entry_answers import (
    CopyAnswer,
    ModelEntry,
    ShapedModel,
    consent_answer,
    contribution_answer,
    copy_answer,
    entry_answer,
    erasure_answer,
    model_entry,
    position_or_none,
    use_answer,
)
from liberate.tracing.parties import CopyRecipient, CopySender, PartyNames
from liberate.units import from_nano


def trace_participant(run: Run, participant: str) -> ParticipantAnswer:
    """Trace a participant's data: updates, copies, who used them, the models they shaped, what was built on these.

    Every inclusion, signature and membership is checked before anything is returned, under a checkpoint signed with
    the key that `run.toml` keeps.

    Args:
        run: A run.
        participant: Number, key id, or user:ID.

    Raises:
        LiberateError: Nobody has that name.
        LedgerError: The ledger cannot prove what it says.
    """
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
        trace = trace_on_ledger(reader.ledger, person.number)
        names = PartyNames(reader.ledger.state.principals, reader.devices)
        recipients = _recipients(trace.copies, trace.uses, names)
    return _participant_answer(person, trace, recipients, _verified(run, trace))


def _participant_answer(
    person: Participant, trace: ParticipantTrace, recipients: tuple[CopyRecipient, ...], checkpoint: Checkpoint
) -> ParticipantAnswer:
    models, descendants = _models_shaped_by(trace.contributions, trace.uses)
    return ParticipantAnswer(
        number=person.number,
        key_id=KeyId(person.key_id),
        user_id=person.user_id,
        enrolled_by=trace.enrolled_by,
        custody=trace.principal.custody,
        entries=tuple(map(entry_answer, trace.history)),
        updates=tuple(map(contribution_answer, trace.contributions)),
        consents=tuple(map(consent_answer, trace.consents)),
        shares=tuple(map(copy_answer, trace.copies)),
        recipients=recipients,
        uses=tuple(map(use_answer, trace.uses)),
        received=tuple(map(copy_answer, trace.received)),
        models=models,
        descendants=descendants,
        epsilon=from_nano(trace.principal.epsilon_nano),
        rho=from_nano(trace.principal.rho_nano),
        spent=_by_run(trace.spent),
        bases=tuple(SharedBase(base=base, epsilon=from_nano(nano)) for base, nano in trace.bases.items()),
        withdrawal=position_or_none(trace.withdrawal),
        used_after_withdrawal=tuple(map(contribution_answer, trace.used_after_withdrawal())),
        erasures=tuple(map(erasure_answer, trace.erasures)),
        disclosures=tuple(entry.position for entry in trace.disclosures),
        completeness=HistoryProof.of(trace.completeness),
        proofs=trace.proof_count,
        entry_count=checkpoint.size,
        root=checkpoint.root,
        checkpoint=trace.checkpoint,
    )


def trace_share(run: Run, position: int) -> ShareAnswer:
    """Trace one copy: who gave it to whom under which consent, who used it, and the models that it shaped.

    It is told from the sender's history, whose completeness is proved: there is no other use.

    Args:
        run: A run.
        position: Position of the share's entry.

    Raises:
        LiberateError: There is no such share.
        LedgerError: The ledger cannot prove what it says.
    """
    with run.open() as reader:
        trace = trace_on_ledger(reader.ledger, entry_at(reader.ledger, position, Share).record.author)
        names = PartyNames(reader.ledger.state.principals, reader.devices)
        copy = next(copy for copy in trace.copies if copy.share.position == position)
        uses = [use for use in trace.uses if copy in use.copies]
        recipients = _recipients([copy], uses, names)
        sender = names.of(trace.number)

    checkpoint = _verified(run, trace)
    models, descendants = _models_shaped_by((), uses)
    return ShareAnswer(
        sender=sender,
        shares=(copy_answer(copy),),
        recipients=recipients,
        consents=(consent_answer(copy.consent),),
        receipt=entry_answer(copy.receipt) if copy.receipt else None,
        uses=tuple(map(use_answer, uses)),
        updates=tuple(use_answer(use) for use in uses if isinstance(use.contribution.update.record, Update)),
        models=models,
        descendants=descendants,
        same_base=_others_of_base(trace.copies, copy),
        completeness=HistoryProof.of(trace.completeness),
        proofs=trace.proof_count,
        entry_count=checkpoint.size,
        root=checkpoint.root,
        checkpoint=trace.checkpoint,
    )


def trace_recipient(run: Run, name: str) -> RecipientAnswer:
    """Say what somebody received, from whom, under which consents; for the pool, this is a coordinator.

    Args:
        run: A run.
        name: Number of a participant or coordinator, a participant's key id, or user:ID.

    Raises:
        LiberateError: Nobody has that name, or nothing can be received under it.
        LedgerError: The ledger cannot prove what it says.
    """
    with run.open() as reader:
        names = PartyNames(reader.ledger.state.principals, reader.devices)
        trace = trace_received(reader.ledger, _recipient_number(reader, name))
        recipient = names.of(trace.number)
        senders = tuple(_sender(trace.copies, number, names) for number in sorted({c.sender for c in trace.copies}))

    checkpoint = _verified(run, trace)
    consents = {copy.consent.entry.position: copy.consent for copy in trace.copies}
    proved = {
        entry.position
        for copy in trace.copies
        for entry in (copy.share, copy.receipt, copy.consent.entry, copy.consent.withdrawal)
        if entry is not None
    }
    return RecipientAnswer(
        **vars(recipient),
        shares=tuple(map(copy_answer, trace.copies)),
        senders=senders,
        consents=tuple(consent_answer(consent) for _, consent in sorted(consents.items())),
        completeness=HistoryProof.of(trace.completeness),
        proofs=len(proved) + 1,
        entry_count=checkpoint.size,
        root=checkpoint.root,
        checkpoint=trace.checkpoint,
    )


def _verified(run: Run, trace: ParticipantTrace | RecipientTrace) -> Checkpoint:
    """Check a history once more with the key that the run keeps, and return the checkpoint that it is proved under."""
    verify_completeness(trace.completeness, run.verifier_key)
    return verify_checkpoint(trace.checkpoint, run.verifier_key)


def _recipient_number(reader: RunReader, name: str) -> int:
    """Return the number of a coordinator, or of the participant whom a name means."""
    principals = reader.ledger.state.principals
    if name.isdecimal() and int(name) < len(principals) and principals[int(name)].role == "coordinator":
        return int(name)
    return find_participant(reader.ledger, reader.devices, name).number


def _sender(copies: Sequence[TracedCopy], number: int, names: PartyNames) -> CopySender:
    shares = tuple(copy.share.position for copy in copies if copy.sender == number)
    return CopySender(**vars(names.of(number)), shares=shares)


def _others_of_base(copies: Sequence[TracedCopy], copy: TracedCopy) -> tuple[CopyAnswer, ...]:
    """Return the copies that were made of the same base copy as one, without it."""
    base = copy.share.record.base
    return tuple(copy_answer(other) for other in copies if other.share.record.base == base and other is not copy)


def _recipients(copies: Sequence[TracedCopy], uses: Sequence[CopyUse], names: PartyNames) -> tuple[CopyRecipient, ...]:
    """Return who got copies, and the models that their use of them shaped."""
    recipients = []
    for number in sorted({copy.recipient for copy in copies}):
        received = [copy for copy in copies if copy.recipient == number]
        models, _ = _models_shaped_by((), [use for use in uses if use.recipient == number])
        recipients.append(
            CopyRecipient(
                **vars(names.of(number)),
                shares=tuple(copy.share.position for copy in received),
                accepted=sum(copy.receipt is not None for copy in received),
                models=tuple(model.version for model in models),
            )
        )
    return tuple(recipients)


def _models_shaped_by(
    updates: Sequence[Contribution], uses: Sequence[CopyUse]
) -> tuple[tuple[ShapedModel, ...], tuple[ModelEntry, ...]]:
    """Return the models that used somebody's updates or copies, and those built on them that used neither."""
    contributions = [*updates, *(use.contribution for use in uses)]
    used = {contribution.model.position: contribution.model for contribution in contributions if contribution.model}
    later = {model.position: model for contribution in contributions for model in contribution.descendants}

    directly = {update.model.position for update in updates if update.model}
    through: dict[int, set[int]] = {}
    for use in uses:
        if use.contribution.model:
            through.setdefault(use.contribution.model.position, set()).add(use.recipient)

    shaped = tuple(
        ShapedModel(
            **vars(model_entry(model)), directly=position in directly, through=tuple(sorted(through.get(position, ())))
        )
        for position, model in sorted(used.items())
    )
    return shaped, tuple(model_entry(later[position]) for position in sorted(later.keys() - used.keys()))


def _by_run(spent: Iterable[RunSpend]) -> tuple[RunSpending, ...]:
    """Add up what each run has cost in both accounts, in the order of the runs' first updates."""
    runs: dict[int, dict[str, float]] = {}
    for spend in spent:
        runs.setdefault(spend.run, {"epsilon": 0.0, "rho": 0.0})[spend.account] = from_nano(spend.nano)
    return tuple(RunSpending(run=run, epsilon=cost["epsilon"], rho=cost["rho"]) for run, cost in runs.items())

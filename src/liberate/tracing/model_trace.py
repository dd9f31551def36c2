"""Who shaped a model: whose updates and copies it used, and those of the models it was built on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from liberate.crypto.note import verify_checkpoint
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.ledger.queries.usable_copies import pooled_copies
from liberate.ledger.trace.model_ancestry import ModelAncestor, model_ancestry
from liberate.runs.folder import Run
from liberate.timing import Progress, silent
from liberate.tracing.answers import AncestorModel, ModelAnswer, ModelContributor, SenderUse
from liberate.tracing.entry_answers import model_entry
from liberate.tracing.parties import PartyNames


def trace_model(run: Run, version: int, progress: Progress = silent) -> ModelAnswer:
    """Say who shaped a model: whose updates and copies it used, and those of the models it was built on, to the first.

    Args:
        run: A run.
        version: The model's version.
        progress: Told each model that was checked.

    Raises:
        LedgerError: There is no such model, or the ledger cannot prove what it says.
    """
    with run.open() as reader:
        ancestors = []
        for ancestor in model_ancestry(reader.ledger, version):
            ancestors.append(ancestor)
            progress(
                f"checked the {len(ancestor.updates):,} updates behind the model of entry {ancestor.model.position}"
            )

        shares = _shares_used(reader.ledger, ancestors)
        names = PartyNames(reader.ledger.state.principals, reader.devices)
        recipients = tuple(names.of(number) for number in sorted({share.record.recipient for share in shares}))

    note = ancestors[0].checkpoint
    checkpoint = verify_checkpoint(note, run.verifier_key)
    return ModelAnswer(
        version=version,
        models=tuple(map(_ancestor, ancestors)),
        participants=_contributors(ancestors),
        updates=tuple(sorted(update.position for ancestor in ancestors for update in ancestor.updates)),
        shares=tuple(share.position for share in shares),
        recipients=recipients,
        proofs=sum(3 + len(ancestor.pools) for ancestor in ancestors),
        entry_count=checkpoint.size,
        root=checkpoint.root,
        checkpoint=note,
    )


def _shares_used(ledger: Ledger, ancestors: Sequence[ModelAncestor]) -> list[RecordedEntry[Share]]:
    """Return the shares that updates used or that were in a pool, in ledger order."""
    used = {copy.share for ancestor in ancestors for update in ancestor.updates for copy in update.record.shares}
    for ancestor in ancestors:
        if ancestor.pools:
            pooled = pooled_copies(ledger, ancestor.round.position, ancestor.model.position)
            used |= {share for _, share in pooled}
    return [share for share in entries(ledger, Share) if share.leaf_hash in used] if used else []


def _ancestor(ancestor: ModelAncestor) -> AncestorModel:
    opening = ancestor.round.record
    return AncestorModel(
        **vars(model_entry(ancestor.model)),
        round=opening.number,
        run=opening.run,
        statistic=opening.statistic,
        updates=tuple(update.position for update in ancestor.updates),
        participants=tuple(sorted(ancestor.participants)),
        senders=tuple(SenderUse(number=sender, updates=at) for sender, at in sorted(ancestor.senders.items())),
        pools=tuple(pool.position for pool in ancestor.pools),
        pooled=tuple(sorted(ancestor.pooled)),
    )


def _contributors(ancestors: Sequence[ModelAncestor]) -> tuple[ModelContributor, ...]:
    """Return everybody whose data was used, each with the versions that used it, increasing."""
    oldest_first = ancestors[::-1]

    def versions(number: int, used: Callable[[ModelAncestor], Collection[int]]) -> tuple[int, ...]:
        return tuple(ancestor.model.record.version for ancestor in oldest_first if number in used(ancestor))

    numbers = {number for step in ancestors for number in (*step.participants, *step.senders, *step.pooled)}
    return tuple(
        ModelContributor(
            number=number,
            answers=versions(number, lambda ancestor: ancestor.participants),
            copies=versions(number, lambda ancestor: ancestor.senders),
            pooled=versions(number, lambda ancestor: ancestor.pooled),
        )
        for number in sorted(numbers)
    )

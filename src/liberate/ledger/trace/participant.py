"""Where a participant's data went: answers, copies, the models they entered, and what was built on these.

Everything is found in the ledger alone, and every proof is checked before it is given out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from liberate.errors import LedgerError
from liberate.identifiers import Account, Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import Update
from liberate.ledger.format.sharing_records import Consent, Disclosure, Erasure, PoolRecord, Receipt, Share, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.trace.completeness import Completeness, prove_completeness, proven_principal
from liberate.ledger.trace.contributions import Contribution, ContributionTracer
from liberate.ledger.trace.copies import CopyHistory, TracedConsent, TracedCopy
from liberate.ledger.trace.prover import ProvedEntry, Prover, of_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyUse:
    """Somebody's copies were used by who received them.

    Attributes:
        by: The recipient: a participant for the own answer, or the coordinator for the pool.
        copies: The copies.
        contribution: The update that used them, or the pool, and what became of it.
    """

    by: int
    copies: tuple[TracedCopy, ...]
    contribution: Contribution


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpend:
    """What a run's answers have cost, in 1e-9 of an account."""

    run: int
    account: Account
    nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientTrace:
    """What somebody received, from whom, under which consent.

    Attributes:
        number: The recipient's number.
        checkpoint: The signed note under which everything was proved.
        completeness: The proof that there is nothing else.
        copies: The copies handed over, in ledger order; those without a receipt were not accepted.
    """

    number: int
    checkpoint: str
    completeness: Completeness
    copies: tuple[TracedCopy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantTrace:
    """A participant's history.

    Attributes:
        number: The participant's number.
        key: Its present public key.
        checkpoint: The signed note under which everything was proved.
        history: All entries that name the participant as author or subject, in ledger order.
        completeness: The proof that there are no others.
        contributions: What became of each own update, and of a host's for the participant.
        grants: The consents given.
        copies: The copies handed over.
        uses: Each use of them by others.
        received: The copies received of others.
        withdrawal: The withdrawal from everything, or None.
        erasures: The request to be forgotten, and what was said to be done.
        disclosures: Entries before which somebody looked the participant up.
        epsilon_nano: Spent from the ε account, in 1e-9.
        rho_nano: Spent from the ρ account, in 1e-9.
        spent: The same by run; runs that cost nothing are left out.
        bases: The base copies that copies were made of, each with its ε per rating in 1e-9, or None: open.
        proof_count: How many inclusion, membership and completeness proofs were checked.
    """

    number: int
    key: bytes
    checkpoint: str
    history: tuple[ProvedEntry, ...]
    completeness: Completeness
    contributions: tuple[Contribution, ...]
    grants: tuple[TracedConsent, ...]
    copies: tuple[TracedCopy, ...]
    uses: tuple[CopyUse, ...]
    received: tuple[TracedCopy, ...]
    withdrawal: ProvedEntry | None
    erasures: tuple[ProvedEntry, ...]
    disclosures: tuple[ProvedEntry, ...]
    epsilon_nano: int
    rho_nano: int
    spent: tuple[RunSpend, ...]
    bases: dict[Digest, int | None]
    proof_count: int

    def used_after_withdrawal(self) -> tuple[Contribution, ...]:
        """Give what models used after the participant had taken it back.

        What was accepted before may be used after. Nothing is accepted after: the rules refuse it, and the history,
        which is complete, would show it here.
        """
        own = [each for each in self.contributions if _is_used_after(each, self.withdrawal)]
        shared = [
            use.contribution
            for use in self.uses
            if any(_is_used_after(use.contribution, copy.grant.end) for copy in use.copies)
        ]
        return (*own, *shared)


def trace_participant(ledger: Ledger, number: int, *, with_memberships: bool = True) -> ParticipantTrace:
    """Follow a participant's data through a ledger.

    Args:
        ledger: The ledger.
        number: The participant's number.
        with_memberships: Whether to prove of each update that it is under its model's root, which takes reading all
            updates of its round; that the model does not name it as unused is checked in any case.

    Raises:
        LedgerError: there is no such participant.
        ProofMismatch: the ledger cannot prove what it says.
        InvalidRecord: a signature is missing or wrong.
    """
    principals = ledger.state.principals
    if number >= len(principals) or principals[number].role != "participant":
        raise LedgerError(f"principal {number} is no participant")
    completeness = prove_completeness(ledger, number)
    principal = proven_principal(completeness, ledger.state.founding.log_vkey)
    positions = ledger.positions(about=number)
    prover = Prover(ledger, follower=number, history=positions)
    history = prover.prove_all(positions)
    sharing = CopyHistory(ledger, prover, history)
    lineage = ContributionTracer(ledger, prover, with_memberships)
    lineage.prepare(record.round for each in history if isinstance(record := each.entry.record, Update | PoolRecord))
    given = tuple(copy for copy in sharing.copies() if copy.sender == number)
    answers = [(each, record) for each, record in of_kind(history, Update) if number in record.answers_for()]
    return ParticipantTrace(
        number=number,
        key=principal.key,
        checkpoint=prover.note,
        history=tuple(history),
        completeness=completeness,
        contributions=tuple(lineage.contribution(each, record) for each, record in answers),
        grants=tuple(sharing.grant(each) for each, record in of_kind(history, Consent) if record.author == number),
        copies=given,
        uses=tuple(_uses(history, given, number, lineage)),
        received=tuple(copy for copy in sharing.copies() if copy.recipient == number),
        withdrawal=next((each for each, record in of_kind(history, Withdrawal) if record.consent is None), None),
        erasures=tuple(each for each, record in of_kind(history, Erasure) if record.number == number),
        disclosures=tuple(each for each, _ in of_kind(history, Disclosure)),
        epsilon_nano=principal.epsilon_nano,
        rho_nano=principal.rho_nano,
        spent=tuple(_spent(lineage, [record for _, record in answers])),
        bases={record.base: record.epsilon_nano for _, record in of_kind(history, Share) if record.author == number},
        proof_count=prover.proof_count + lineage.membership_count + 1,
    )


def trace_received(ledger: Ledger, number: int) -> RecipientTrace:
    """Say what a participant, or a coordinator for its pool, received, from whom, and under which consents.

    Raises:
        LedgerError: nobody of that number can receive anything.
        ProofMismatch: the ledger cannot prove what it says.
        InvalidRecord: a signature is missing or wrong.
    """
    principals = ledger.state.principals
    if number >= len(principals) or principals[number].role not in ("participant", "coordinator"):
        raise LedgerError(f"principal {number} receives nothing")
    completeness = prove_completeness(ledger, number)
    proven_principal(completeness, ledger.state.founding.log_vkey)
    positions = ledger.positions(about=number)
    prover = Prover(ledger, follower=number, history=positions)
    entries = zip(positions, completeness.entries, strict=True)
    history = prover.prove_all(
        at for at, data in entries if isinstance(decode_entry(data).record, Consent | Share | Receipt)
    )
    copies = CopyHistory(ledger, prover, history).copies()
    return RecipientTrace(
        number=number,
        checkpoint=prover.note,
        completeness=completeness,
        copies=tuple(copy for copy in copies if copy.recipient == number),
    )


def _uses(
    history: Sequence[ProvedEntry], given: Sequence[TracedCopy], sender: int, lineage: ContributionTracer
) -> Iterator[CopyUse]:
    """Give each use of somebody's copies by others, in ledger order."""
    by_hash = {copy.share.entry.leaf_hash: copy for copy in given}
    for each in history:
        match each.entry.record:
            case Update(shares=inputs) as update:
                copies = [by_hash[one.share] for one in inputs if one.sender == sender]
                for recipient in sorted({copy.recipient for copy in copies}):
                    of_one = tuple(copy for copy in copies if copy.recipient == recipient)
                    yield CopyUse(by=recipient, copies=of_one, contribution=lineage.contribution(each, update))
            case PoolRecord(author=coordinator) as pool if coordinator != sender:
                pooled = tuple(copy for copy in given if copy.recipient == coordinator and _is_usable(copy, each))
                yield CopyUse(by=coordinator, copies=pooled, contribution=lineage.contribution(each, pool))
            case _:
                pass


def _is_usable(copy: TracedCopy, by: ProvedEntry) -> bool:
    """Whether a copy could be used by an entry."""
    consent, end, receipt = copy.grant.consent.entry.record, copy.grant.end, copy.receipt
    if receipt is None or receipt.position > by.position or not isinstance(consent, Consent):
        return False
    return by.height <= consent.expiry and (end is None or end.position > by.position)


def _spent(lineage: ContributionTracer, answers: Iterable[Update]) -> Iterator[RunSpend]:
    by_run: dict[tuple[int, Account], int] = {}
    for answer in answers:
        key = lineage.round(answer.round)[1].run, answer.account
        by_run[key] = by_run.get(key, 0) + answer.spend_nano
    for (run, account), nano in by_run.items():
        if nano:
            yield RunSpend(run=run, account=account, nano=nano)


def _is_used_after(contribution: Contribution, end: ProvedEntry | None) -> bool:
    """Whether something entered a model, or was accepted at all, after a withdrawal."""
    if end is None:
        return False
    return (contribution.model or contribution.update).position > end.position

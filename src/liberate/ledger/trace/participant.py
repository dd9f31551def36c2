"""Where a participant's data went: answers, copies, the models they entered, and what was built on those.

All of it is found in the ledger alone, and every proof is checked before it is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from liberate.errors import LedgerError
from liberate.identifiers import Account, Digest
from liberate.ledger.format.parts import PrincipalRole
from liberate.ledger.format.records import Enrol, Record, Update
from liberate.ledger.format.sharing_records import Disclosure, Erasure, PoolRecord, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.principal import Principal
from liberate.ledger.trace.completeness import Completeness, prove_completeness, proven_principal
from liberate.ledger.trace.contributions import Contribution, ContributionTracer
from liberate.ledger.trace.copies import CopyHistory, TracedConsent, TracedCopy
from liberate.ledger.trace.prover import ProvedEntry, Prover, is_kind, of_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyUse:
    """A recipient used copies of a participant's ratings.

    Attributes:
        recipient: Who used them: a participant for an answer, or the coordinator for its pool.
        copies: The copies.
        contribution: The update that used them, or the pool, and what became of it.
    """

    recipient: int
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
    """The copies that a recipient was handed.

    Attributes:
        number: The recipient's number.
        checkpoint: The signed note under which everything was proved.
        completeness: The proof that there are no others.
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
        principal: The key and accounts that the history leads to.
        checkpoint: The signed note under which everything was proved.
        history: All entries that name the participant as author or subject, in ledger order.
        completeness: The proof that there are no others.
        contributions: What became of each of the participant's updates, and of a host's for the participant.
        consents: The consents given.
        copies: The copies handed over.
        uses: Each use of them by others.
        received: The copies received from others.
        spent: What each run has cost; runs that cost nothing are left out.
        proof_count: How many inclusion, membership and completeness proofs were checked.
    """

    number: int
    principal: Principal
    checkpoint: str
    history: tuple[ProvedEntry[Record], ...]
    completeness: Completeness
    contributions: tuple[Contribution, ...]
    consents: tuple[TracedConsent, ...]
    copies: tuple[TracedCopy, ...]
    uses: tuple[CopyUse, ...]
    received: tuple[TracedCopy, ...]
    spent: tuple[RunSpend, ...]
    proof_count: int

    @property
    def enrolled_by(self) -> tuple[int, ...]:
        """The registrars who enrolled the participant, who recorded it first; of a registrar or the log nobody."""
        enrolment = next((entry.record for entry in of_kind(self.history, Enrol)), None)
        if enrolment is None or enrolment.number != self.number:
            return ()
        return enrolment.author, *(approval.registrar for approval in enrolment.approvals)

    @property
    def withdrawal(self) -> ProvedEntry[Withdrawal] | None:
        """The withdrawal from everything, or None."""
        return next((entry for entry in of_kind(self.history, Withdrawal) if entry.record.consent is None), None)

    @property
    def erasures(self) -> list[ProvedEntry[Erasure]]:
        """The participant's request to be forgotten, and the reports of what was done."""
        return [entry for entry in of_kind(self.history, Erasure) if entry.record.number == self.number]

    @property
    def disclosures(self) -> list[ProvedEntry[Disclosure]]:
        """The entries before which an auditor had the participant's commitments opened."""
        return list(of_kind(self.history, Disclosure))

    @property
    def bases(self) -> dict[Digest, int | None]:
        """The base copies that copies were made of, each with its ε per rating in 1e-9, or None: open."""
        return {copy.share.record.base: copy.share.record.epsilon_nano for copy in self.copies}

    def used_after_withdrawal(self) -> tuple[Contribution, ...]:
        """Return what models used after the participant had withdrawn it.

        What was accepted before may be used after. Nothing is accepted after: the rules refuse it, and the history,
        which is complete, would show it here.
        """
        answers = [answer for answer in self.contributions if _is_used_after(answer, self.withdrawal)]
        copies = [
            use.contribution
            for use in self.uses
            if any(_is_used_after(use.contribution, copy.consent.withdrawal) for copy in use.copies)
        ]
        return (*answers, *copies)


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
    if not _has_role(ledger, number, "participant"):
        raise LedgerError(f"principal {number} is no participant")

    completeness, principal, prover = _prove_complete(ledger, number)
    history = prover.prove_all(ledger.positions(about=number))
    sharing = CopyHistory(ledger, prover, history)
    tracer = ContributionTracer(ledger, prover, history, with_memberships)

    copies = [copy for copy in sharing.copies() if copy.sender == number]
    answers = [update for update in of_kind(history, Update) if number in update.record.answers_for()]
    return ParticipantTrace(
        number=number,
        principal=principal,
        checkpoint=prover.note,
        history=tuple(history),
        completeness=completeness,
        contributions=tuple(map(tracer.contribution, answers)),
        consents=tuple(sharing.consents_of(number)),
        copies=tuple(copies),
        uses=tuple(_uses(history, copies, number, tracer)),
        received=tuple(copy for copy in sharing.copies() if copy.recipient == number),
        spent=tuple(_spent(tracer, answers)),
        proof_count=prover.proof_count + tracer.membership_count + 1,
    )


def trace_received(ledger: Ledger, number: int) -> RecipientTrace:
    """Return what a participant, or a coordinator for its pool, received, from whom, and under which consents.

    Raises:
        LedgerError: nobody of that number can receive anything.
        ProofMismatch: the ledger cannot prove what it says.
        InvalidRecord: a signature is missing or wrong.
    """
    if not _has_role(ledger, number, "participant", "coordinator"):
        raise LedgerError(f"principal {number} receives nothing")

    completeness, _, prover = _prove_complete(ledger, number)
    # Only what copies are traced by: the history of a coordinator has every round and model.
    positions = [at for kind in ("consent", "share", "receipt") for at in ledger.positions(kind=kind, about=number)]
    copies = CopyHistory(ledger, prover, prover.prove_all(sorted(positions))).copies()
    return RecipientTrace(
        number=number,
        checkpoint=prover.note,
        completeness=completeness,
        copies=tuple(copy for copy in copies if copy.recipient == number),
    )


def _has_role(ledger: Ledger, number: int, *roles: PrincipalRole) -> bool:
    principals = ledger.state.principals
    return number < len(principals) and principals[number].role in roles


def _prove_complete(ledger: Ledger, number: int) -> tuple[Completeness, Principal, Prover]:
    """Prove which entries are all that name a principal; return the principal that they lead to, and a prover."""
    completeness = prove_completeness(ledger, number)
    principal = proven_principal(completeness, ledger.state.founding.log_vkey)
    return completeness, principal, Prover(ledger, verified_author=number, history=ledger.positions(about=number))


def _uses(
    history: Sequence[ProvedEntry[Record]], copies: Sequence[TracedCopy], sender: int, tracer: ContributionTracer
) -> Iterator[CopyUse]:
    """Yield each use of a sender's copies by others, in ledger order."""
    by_hash = {copy.share.leaf_hash: copy for copy in copies}
    for entry in history:
        if is_kind(entry, Update):
            used = [by_hash[copy.share] for copy in entry.record.shares if copy.sender == sender]
            for recipient in sorted({copy.recipient for copy in used}):
                received = tuple(copy for copy in used if copy.recipient == recipient)
                yield CopyUse(recipient=recipient, copies=received, contribution=tracer.contribution(entry))
        elif is_kind(entry, PoolRecord) and entry.record.author != sender:
            coordinator = entry.record.author
            pooled = tuple(copy for copy in copies if copy.recipient == coordinator and _is_usable(copy, entry))
            yield CopyUse(recipient=coordinator, copies=pooled, contribution=tracer.contribution(entry))


def _is_usable(copy: TracedCopy, use: ProvedEntry[PoolRecord]) -> bool:
    """Whether a copy had been received, and its consent was valid, when the coordinator named its pool."""
    if copy.receipt is None or copy.receipt.position > use.position:
        return False
    withdrawal = copy.consent.withdrawal
    is_withdrawn = withdrawal is not None and withdrawal.position < use.position
    return use.height <= copy.consent.entry.record.expiry and not is_withdrawn


def _spent(tracer: ContributionTracer, answers: Iterable[ProvedEntry[Update]]) -> Iterator[RunSpend]:
    spent: dict[tuple[int, Account], int] = {}
    for answer in answers:
        key = tracer.round(answer.record.round).record.run, answer.record.account
        spent[key] = spent.get(key, 0) + answer.record.spend_nano

    for (run, account), nano in spent.items():
        if nano:
            yield RunSpend(run=run, account=account, nano=nano)


def _is_used_after(contribution: Contribution, withdrawal: ProvedEntry[Withdrawal] | None) -> bool:
    """Whether data entered a model, or was accepted at all, after a withdrawal."""
    if withdrawal is None:
        return False
    return (contribution.model or contribution.update).position > withdrawal.position

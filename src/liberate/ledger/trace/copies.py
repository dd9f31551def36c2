"""Who gave whom a copy of ratings, under which consent, and what became of the consent: told from one history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liberate.errors import LedgerError
from liberate.ledger.format.sharing_records import Consent, Receipt, Share, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.trace.prover import ProvedEntry, Prover, of_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedConsent:
    """A consent, and how it ended.

    Attributes:
        consent: The consent.
        end: The withdrawal of it or of everything, or None.
        is_active: Whether it was neither withdrawn nor has expired.
    """

    consent: ProvedEntry
    end: ProvedEntry | None
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedCopy:
    """A copy of somebody's ratings: who gave it to whom, under which consent.

    Attributes:
        sender: Whose ratings.
        recipient: Who got them.
        share: The share.
        grant: The consent that covers it.
        receipt: The recipient's receipt, or None.
    """

    sender: int
    recipient: int
    share: ProvedEntry
    grant: TracedConsent
    receipt: ProvedEntry | None


class CopyHistory:
    """Puts together what a history says of consents and copies.

    Args:
        ledger: The ledger.
        prover: Who proves the withdrawals that ended consents.
        history: The entries of one sender or recipient that are consents, shares and receipts; others do no harm.
    """

    def __init__(self, ledger: Ledger, prover: Prover, history: Sequence[ProvedEntry]) -> None:
        self._ledger = ledger
        self._prover = prover
        self._shares = list(of_kind(history, Share))
        self._consents = {each.entry.leaf_hash: each for each, _ in of_kind(history, Consent)}
        self._receipts = {record.share: each for each, record in of_kind(history, Receipt)}
        self._withdrawals: dict[int, list[tuple[ProvedEntry, Withdrawal]]] = {}

    def copies(self) -> list[TracedCopy]:
        """Give all copies that the history knows of."""
        return [
            TracedCopy(
                sender=record.author,
                recipient=record.recipient,
                share=each,
                grant=self.grant(self._consents[record.consent]),
                receipt=self._receipts.get(each.entry.leaf_hash),
            )
            for each, record in self._shares
        ]

    def grant(self, consent: ProvedEntry) -> TracedConsent:
        """Say what became of a consent."""
        record = consent.entry.record
        if not isinstance(record, Consent):
            raise LedgerError(f"entry {consent.position} is no consent")
        ended = (consent.entry.leaf_hash, None)
        ends = (end for end, withdrawal in self._withdrawals_of(record.author) if withdrawal.consent in ended)
        end = next((each for each in ends if each.position > consent.position), None)
        return TracedConsent(consent=consent, end=end, is_active=end is None and self._ledger.height < record.expiry)

    def _withdrawals_of(self, sender: int) -> list[tuple[ProvedEntry, Withdrawal]]:
        if sender not in self._withdrawals:
            positions = self._ledger.positions(kind="withdrawal", author=sender)
            self._withdrawals[sender] = list(of_kind(self._prover.prove_all(positions), Withdrawal))
        return self._withdrawals[sender]

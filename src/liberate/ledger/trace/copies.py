"""Who handed whom a copy of ratings, under which consent, and what became of the consent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liberate.ledger.format.records import Record
from liberate.ledger.format.sharing_records import Consent, Receipt, Share, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.trace.prover import ProvedEntry, Prover, of_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedConsent:
    """A consent, and how it ended.

    Attributes:
        entry: The consent.
        withdrawal: The withdrawal of it or of everything, or None.
        is_active: Whether it was neither withdrawn nor has expired.
    """

    entry: ProvedEntry[Consent]
    withdrawal: ProvedEntry[Withdrawal] | None
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedCopy:
    """A copy of one participant's ratings, handed to a recipient.

    Attributes:
        share: The share; its author is the sender.
        consent: The consent that covers it.
        receipt: The recipient's receipt, or None.
    """

    share: ProvedEntry[Share]
    consent: TracedConsent
    receipt: ProvedEntry[Receipt] | None

    @property
    def sender(self) -> int:
        """Whose ratings these are."""
        return self.share.record.author

    @property
    def recipient(self) -> int:
        """Who got the copy."""
        return self.share.record.recipient


class CopyHistory:
    """The consents and copies in the history of one sender or recipient.

    Args:
        ledger: The ledger.
        prover: Proves the withdrawals that ended consents.
        history: The history; consents, shares and receipts are enough.
    """

    def __init__(self, ledger: Ledger, prover: Prover, history: Sequence[ProvedEntry[Record]]) -> None:
        self._ledger = ledger
        self._prover = prover
        self._shares = list(of_kind(history, Share))
        self._consents = {consent.leaf_hash: consent for consent in of_kind(history, Consent)}
        self._receipts = {receipt.record.share: receipt for receipt in of_kind(history, Receipt)}
        self._withdrawals: dict[int, list[ProvedEntry[Withdrawal]]] = {}

    def copies(self) -> list[TracedCopy]:
        """Return all copies of the history, in ledger order."""
        return [
            TracedCopy(
                share=share,
                consent=self._trace(self._consents[share.record.consent]),
                receipt=self._receipts.get(share.leaf_hash),
            )
            for share in self._shares
        ]

    def consents_of(self, sender: int) -> list[TracedConsent]:
        """Return the consents that a sender gave, in ledger order."""
        return [self._trace(consent) for consent in self._consents.values() if consent.record.author == sender]

    def _trace(self, consent: ProvedEntry[Consent]) -> TracedConsent:
        """Find out what became of a consent."""
        withdrawal = next(
            (
                withdrawal
                for withdrawal in self._withdrawals_of(consent.record.author)
                if withdrawal.position > consent.position and withdrawal.record.consent in (consent.leaf_hash, None)
            ),
            None,
        )
        is_active = withdrawal is None and self._ledger.height < consent.record.expiry
        return TracedConsent(entry=consent, withdrawal=withdrawal, is_active=is_active)

    def _withdrawals_of(self, sender: int) -> list[ProvedEntry[Withdrawal]]:
        if sender not in self._withdrawals:
            positions = self._ledger.positions(kind="withdrawal", author=sender)
            self._withdrawals[sender] = list(of_kind(self._prover.prove_all(positions), Withdrawal))
        return self._withdrawals[sender]

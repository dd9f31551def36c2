"""Which copies may be used in a round, and for how many participants each counts in the round's sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from fractions import Fraction

from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Update
from liberate.ledger.format.sharing_records import Consent, PoolRecord, Receipt, Share, UsedCopy, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.ledger.rules.state import State


def pooled_copies(ledger: Ledger, opening: int, closing: int) -> list[tuple[int, Digest]]:
    """Return the copies in the pool of a round: of each sender named, those that were received and valid at that entry.

    Args:
        ledger: The ledger, which accepted the pool entries.
        opening: Position of the round.
        closing: Position of the entry that closes the round, or the size of the ledger while it is open.

    Returns:
        Sender and leaf hash of each share, increasing.
    """
    blocks = ledger.positions(kind="block")
    copies: list[tuple[int, Digest]] = []
    for pool in entries(ledger, PoolRecord):
        if opening < pool.position < closing:
            height = bisect_left(blocks, pool.position) + 1
            for sender in numbers_in(pool.record.participants):
                copies += ((sender, share) for share in _valid_shares(ledger, sender, pool, height))
    return sorted(copies)


def usable_copies(state: State, participants: Collection[int], blocks: int) -> dict[int, list[Digest]]:
    """Return the shares that answers to an open round may use in each of the next blocks, newest first, by recipient.

    The copies of one sender count for at most one participant in total; where there are too many, the newest are taken.

    Args:
        state: State of the ledger.
        participants: Who answers the round.
        blocks: How many blocks their answers take, > 0. An answer that uses a share after its expiry is refused.
    """
    answering = frozenset(participants)
    left: dict[int, Fraction] = {}
    usable: dict[int, list[Digest]] = {}
    for share_hash, share in reversed(list(state.usable_shares(blocks))):
        recipient, consent = share.record.recipient, state.sharing.consents[share.sender][share.record.consent]
        rest = left.get(share.sender, Fraction(1)) - Fraction(1, consent.record.max_shares)
        if recipient in answering and rest >= 0:
            left[share.sender] = rest
            usable.setdefault(recipient, []).append(share_hash)
    return usable


class CopyWeights:
    """How much the copies that an update used count in a sum, where the participant's own ratings count 1.

    Args:
        ledger: The ledger, which accepted the updates.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._weights: dict[int, dict[Digest, Fraction]] = {}

    def of(self, update: Update) -> Fraction:
        """Return the total weight of the copies that an update used: 1/n for each whose consent allows n shares.

        A share that does not exist weighs nothing: the rules refuse the update that names it.
        """
        return sum((self._weight(copy) for copy in update.shares), Fraction(0))

    def _weight(self, copy: UsedCopy) -> Fraction:
        weights = self._weights.get(copy.sender, {})
        if copy.share not in weights:
            weights = self._weights[copy.sender] = self._read_weights(copy.sender)
        return weights.get(copy.share, Fraction(0))

    def _read_weights(self, sender: int) -> dict[Digest, Fraction]:
        allowed = {
            consent.leaf_hash: consent.record.max_shares for consent in entries(self._ledger, Consent, author=sender)
        }
        return {
            share.leaf_hash: Fraction(1, allowed[share.record.consent])
            for share in entries(self._ledger, Share, author=sender)
        }


def _valid_shares(ledger: Ledger, sender: int, pool: RecordedEntry[PoolRecord], height: int) -> Iterator[Digest]:
    """Yield a sender's shares that the pool's coordinator had received, under a consent valid at the pool's block."""
    consents = {consent.leaf_hash: consent.record for consent in entries(ledger, Consent, author=sender)}
    shares = {share.leaf_hash: share for share in entries(ledger, Share, author=sender)}
    withdrawals = [end for end in entries(ledger, Withdrawal, author=sender) if end.position < pool.position]

    for receipt in entries(ledger, Receipt, author=pool.record.author, about=sender):
        if receipt.position > pool.position:
            break

        share = shares[receipt.record.share]
        consent = share.record.consent
        is_withdrawn = any(
            end.position > share.position and end.record.consent in (consent, None) for end in withdrawals
        )
        if height <= consents[consent].expiry and not is_withdrawn:
            yield receipt.record.share

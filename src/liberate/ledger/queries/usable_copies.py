"""Which shares a coordinator means when it names the people of its pool, and what those weigh that answers use."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from fractions import Fraction

from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Record, Update
from liberate.ledger.format.sharing_records import Consent, PoolRecord, Receipt, Share, UsedCopy, Withdrawal
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.state import State


def pooled_copies(ledger: Ledger, opening: int, closing: int) -> list[tuple[int, Digest]]:
    """Give the shares that a round's pools mean: received by the coordinator, and alive, where the sender was named.

    Args:
        ledger: The ledger, which accepted the pools.
        opening: Position of the round.
        closing: Position of what closes it, or where the ledger ends.

    Returns:
        Sender and leaf hash of each share, increasing.
    """
    blocks = ledger.positions(kind="block")
    found: list[tuple[int, Digest]] = []
    for position in ledger.positions(kind="pool"):
        pool = decode_entry(ledger.entry(position)).record
        if opening < position < closing and isinstance(pool, PoolRecord):
            height = bisect_left(blocks, position) + 1
            for sender in numbers_in(pool.participants):
                found += ((sender, hash) for hash in _alive(ledger, sender, pool.author, position, height))
    return sorted(found)


def usable_copies(state: State, participants: Collection[int], blocks: int) -> dict[int, list[Digest]]:
    """Give the shares that people who answer may learn from in each of the next blocks, by their numbers.

    One sender's weigh together no more than one person; where they would, the newest are taken.

    Args:
        state: Of the ledger.
        people: Who answers.
        blocks: How many blocks their answers take, > 0: a share that expires between them would have one refused.
    """
    answering, left, found = frozenset(participants), dict[int, Fraction](), dict[int, list[Digest]]()
    for hash, share in reversed(list(state.usable_shares(blocks))):
        recipient, consent = share.record.recipient, state.sharing.consents[share.sender][share.record.consent]
        rest = left.get(share.sender, Fraction(1)) - Fraction(1, consent.record.max_shares)
        if recipient in answering and rest >= 0:
            left[share.sender] = rest
            found.setdefault(recipient, []).append(hash)
    return found


class CopyWeights:
    """What answers weigh in a sum, by what the ledger says of the shares they used.

    Args:
        ledger: The ledger, which accepted the answers.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._of_shares: dict[int, dict[Digest, Fraction]] = {}

    def of(self, answer: Record) -> Fraction:
        """Give what the shares that an answer used weigh together, in people: 1/n each, if n are allowed.

        What is no share weighs nothing: the rules refuse the answer.
        """
        used = answer.shares if isinstance(answer, Update) else ()
        return sum((self._of(each) for each in used), Fraction(0))

    def _of(self, used: UsedCopy) -> Fraction:
        known = self._of_shares.get(used.sender, {})
        if used.share not in known:
            known = self._of_shares[used.sender] = self._read(used.sender)
        return known.get(used.share, Fraction(0))

    def _read(self, sender: int) -> dict[Digest, Fraction]:
        """Give the weights of all shares that somebody has made: one over what their consent allows."""
        entries = {
            kind: [decode_entry(self._ledger.entry(at)) for at in self._ledger.positions(kind=kind, author=sender)]
            for kind in ("consent", "share")
        }
        allowed = {e.leaf_hash: c.max_shares for e in entries["consent"] if isinstance(c := e.record, Consent)}
        return {
            e.leaf_hash: Fraction(1, allowed[s.consent]) for e in entries["share"] if isinstance(s := e.record, Share)
        }


def _alive(ledger: Ledger, sender: int, recipient: int, position: int, height: int) -> Iterator[Digest]:
    """Give somebody's shares that a recipient had received, and could use in the entry at a position."""

    def entries(kind: str, *, author: int | None = None, about: int | None = None) -> Iterator[tuple[int, Entry]]:
        for at in ledger.positions(kind=kind, author=author, about=about):
            if at < position:
                yield at, decode_entry(ledger.entry(at))

    consents = {entry.leaf_hash: entry.record for _, entry in entries("consent", author=sender)}
    shares = {entry.leaf_hash: (at, entry.record) for at, entry in entries("share", author=sender)}
    ends = [(at, entry.record) for at, entry in entries("withdrawal", author=sender)]
    for _, entry in entries("receipt", about=sender):
        receipt = entry.record
        if not isinstance(receipt, Receipt) or (receipt.author, receipt.sender) != (recipient, sender):
            continue
        made, share = shares[receipt.share]
        consent = consents[share.consent] if isinstance(share, Share) else None
        if not isinstance(share, Share) or not isinstance(consent, Consent) or height > consent.expiry:
            continue
        covered = (share.consent, None)
        if not any(end > made and isinstance(w, Withdrawal) and w.consent in covered for end, w in ends):
            yield receipt.share

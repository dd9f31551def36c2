"""A coordinator accepts copies into its pool: opened, checked against the ledger, acknowledged."""

from __future__ import annotations

from collections.abc import Sequence, Set

from liberate.crypto.signing import SigningKey
from liberate.errors import CopyDeclined, FederationError, LiberateError
from liberate.federation.sharing.copies import OpenedCopy, open_copy
from liberate.federation.sharing.outbox import EntryOutcome
from liberate.federation.store.pool import PoolStore
from liberate.federation.wire.copies import SealedCopy
from liberate.ledger.format.entries import sign
from liberate.ledger.format.sharing_records import Receipt
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.state import State


def accept_into_pool(
    ledger: Ledger, pool: PoolStore, key: SigningKey, number: int, sealed_copies: Sequence[SealedCopy], n_items: int
) -> list[EntryOutcome]:
    """Accept copies for a coordinator, in one block; copies that do not match their entries are left out.

    Of each sender it accepts one copy at a time: in a pool, each copy counts as a participant.

    Args:
        ledger: The ledger, owned by this process.
        pool: Where the copies are kept.
        key: The coordinator's signing key.
        number: The coordinator's number.
        sealed_copies: The copies.
        n_items: Size of the catalogue.

    Returns:
        For each copy, the position of the receipt, or why there is none.
    """
    results = _open_wanted(ledger.state, key, number, sealed_copies, n_items)
    accepted = [result for result in results if isinstance(result, OpenedCopy)]

    # Before its receipt is in the log: a copy without a receipt is never used, but one without its bytes cannot be.
    pool.put([(opened.hash, opened.received) for opened in accepted])

    seq = ledger.state.principals[number].sequence
    receipts = [
        Receipt(
            origin=ledger.origin,
            author=number,
            seq=seq + index,
            sender=opened.share.author,
            share=opened.hash,
            copy=opened.share.copy,
        )
        for index, opened in enumerate(accepted, start=1)
    ]
    appended = iter(ledger.append([sign(receipt, key) for receipt in receipts]) if receipts else [])
    return [next(appended) if isinstance(result, OpenedCopy) else result for result in results]


def _open_wanted(
    state: State, key: SigningKey, number: int, sealed_copies: Sequence[SealedCopy], n_items: int
) -> list[OpenedCopy | LiberateError]:
    """Open copies; where one does not match its entries or is not wanted, return the reason in its place."""
    results: list[OpenedCopy | LiberateError] = []
    senders: set[int] = set()
    for sealed_copy in sealed_copies:
        try:
            opened = open_copy(sealed_copy, key, number, n_items)
            _check_wanted(state, opened, senders)
        except LiberateError as error:
            results.append(error)
        else:
            results.append(opened)
            senders.add(opened.share.author)
    return results


def _check_wanted(state: State, opened: OpenedCopy, senders: Set[int]) -> None:
    """Check that a copy may be received, and that its sender has none in the pool or among those being accepted.

    Raises:
        CopyDeclined: It is the sender's second copy.
        FederationError: No valid consent covers it.
    """
    sender = opened.share.author
    share = state.sharing.shares.get(opened.hash)
    if share is None or not state.may_use(opened.hash, share):
        raise FederationError(f"no valid consent covers the copy of participant {sender}")

    if sender in senders or any(state.sharing.received(sender, opened.share.recipient, state.height)):
        raise CopyDeclined(
            f"a copy of participant {sender} is already in the pool", hint="withdraw its consent to share another one"
        )

"""A coordinator receives copies for its pool: opened, checked against the ledger, acknowledged."""

from __future__ import annotations

from collections.abc import Sequence, Set

from liberate.crypto.signing import SigningKey
from liberate.errors import CopyDeclined, FederationError, LiberateError
from liberate.federation.sharing.actions import EntryOutcome
from liberate.federation.sharing.copies import OpenedCopy, open_copy
from liberate.federation.store.pool import PoolStore
from liberate.federation.wire.copies import SealedCopy
from liberate.ledger.format.entries import sign
from liberate.ledger.format.sharing_records import Receipt
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.state import State


def accept_into_pool(
    ledger: Ledger, pool: PoolStore, key: SigningKey, number: int, sealed_copies: Sequence[SealedCopy], n_items: int
) -> list[EntryOutcome]:
    """Let a coordinator take copies for its pool, in one block; one that is not what it should be is left.

    Of one sender it takes one copy as long as that lives: in a pool each copy counts as a person. A copy is kept before
    its receipt is on the ledger; what the ledger has no receipt of is never used.

    Args:
        ledger: The ledger, owned by this process.
        pool: Where the copies are kept.
        key: The coordinator's signing key.
        number: Its number.
        sealed_copies: The copies.
        n_items: Size of the catalogue.

    Returns:
        For each, the position of the receipt, or why there is none.
    """
    results: list[OpenedCopy | LiberateError] = []
    senders: set[int] = set()
    for sealed_copy in sealed_copies:
        try:
            opened = open_copy(sealed_copy, key, number, n_items)
            _check_wanted(ledger.state, opened, senders)
        except LiberateError as error:
            results.append(error)
        else:
            results.append(opened)
            senders.add(opened.share.author)
    sound = [each for each in results if isinstance(each, OpenedCopy)]
    pool.put([(opened.hash, opened.received) for opened in sound])
    seq = ledger.state.principals[number].sequence
    entries = [
        sign(
            Receipt(
                origin=ledger.origin,
                author=number,
                seq=seq + index,
                sender=opened.share.author,
                share=opened.hash,
                copy=opened.share.copy,
            ),
            key,
        )
        for index, opened in enumerate(sound, 1)
    ]
    appended = iter(ledger.append(entries) if entries else [])
    return [next(appended) if isinstance(each, OpenedCopy) else each for each in results]


def _check_wanted(state: State, opened: OpenedCopy, senders: Set[int]) -> None:
    """Check that a copy may be received, and that its sender's is neither in the pool nor among those being taken.

    Raises:
        CopyDeclined: It is the sender's second one.
        FederationError: No consent that lives covers it.
    """
    sender, share = opened.share.author, state.sharing.shares.get(opened.hash)
    if share is None or not state.may_use(opened.hash, share):
        raise FederationError(f"no consent that lives covers the copy of participant {sender}")
    if sender in senders or any(state.sharing.received(sender, opened.share.recipient, state.height)):
        raise CopyDeclined(
            f"a copy of participant {sender} is in the pool already", hint="withdraw its consent to share another one"
        )

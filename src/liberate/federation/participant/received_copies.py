"""Copies of others' ratings that devices learn from in open rounds, beside their participants' own.

A copy answers through its recipient: the statistic is computed for the participant's ratings and for each copy, and the
sum of them is the recipient's one upload. Of n copies that a consent allows each weighs 1/n, so that a sender weighs no
more than one participant more, however many copies there are.
A private upload uses none: its clipping bounds what one participant may change, and a sender would change several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from liberate.arrays import Float64Array, Int64Array, RealStatistics
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.model.kernels.server import add_rows
from liberate.model.model import Model
from liberate.model.statistics import Statistic

MAX_COPIES_PER_ROUND = 800
"""Copies that one answer may use: so many fit into its entry."""


class ReceivedCopies:
    """The copies that the devices of a host have received.

    Args:
        received: Slot of the device, leaf hash of the share, and copy, of each.
    """

    def __init__(self, received: Iterable[tuple[int, Digest, ReceivedCopy]]) -> None:
        self._received: dict[int, dict[Digest, ReceivedCopy]] = {}
        self._usable: dict[int, tuple[int, tuple[UsedCopy, ...]]] = {}
        for slot, share, copy in received:
            self._received.setdefault(slot, {})[share] = copy

    def allow(self, round_number: int, slot: int, shares: Sequence[Digest]) -> None:
        """Note which shares a device may use in a round; those it has not received are left out."""
        received = self._received.get(slot, {})
        usable = sorted((received[share].sender, share) for share in set(shares) & received.keys())
        chosen = tuple(UsedCopy(sender=sender, share=share) for sender, share in usable[:MAX_COPIES_PER_ROUND])
        self._usable[slot] = round_number, chosen

    def usable_in(self, round_number: int, slot: int) -> tuple[UsedCopy, ...]:
        """Return the copies that a device uses in a round, increasing by sender and share."""
        allowed_in, usable = self._usable.get(slot, (0, ()))
        return usable if allowed_in == round_number else ()

    def compute(
        self,
        statistic: Statistic,
        model: Model,
        ratings: Ratings,
        used: Sequence[tuple[int, tuple[UsedCopy, ...]]],
    ) -> RealStatistics:
        """Return a statistic of devices' ratings and the copies they use.

        Whatever a sender has put into a copy, ratings beyond the scale count as its ends.

        Args:
            statistic: What is computed.
            model: The model it is computed from.
            ratings: Ratings of the devices' participants.
            used: Slot and copies of each device.

        Raises:
            FederationError: A device no longer stores one of its copies.
        """
        rows = statistic.compute(model, ratings)
        copies = [self._copy(slot, share) for slot, shares in used for share in shares]
        if not copies:
            return rows

        received = Ratings.from_user_bytes([copy.copy for copy in copies], ratings.n_items)
        others = statistic.compute(model, replace(received, values=received.values.clip(model.low, model.high)))

        owners = np.repeat(np.arange(len(used)), [len(shares) for _, shares in used])
        weights = np.array([1 / copy.max_shares for copy in copies])
        return _added(rows, others, owners, weights, n_rows=statistic.shape[0])

    def _copy(self, slot: int, used: UsedCopy) -> ReceivedCopy:
        received = self._received.get(slot, {}).get(used.share)
        if received is None:
            raise FederationError(f"device {slot} no longer has the copy of participant {used.sender}")
        return received


def _added(
    rows: RealStatistics, others: RealStatistics, owners: Int64Array, weights: Float64Array, *, n_rows: int
) -> RealStatistics:
    """Return the statistics of participants' ratings plus those of copies, each with its weight.

    Args:
        rows: Computed of the ratings of each device's participant.
        others: Computed of the copies.
        owners: Index of the device that uses each copy, increasing.
        weights: What each copy counts for.
        n_rows: Rows of the statistic's table.
    """
    n_devices = len(rows.tails)
    n_added = np.diff(others.indptr)

    # Each (device, table row) that anything was computed for becomes one row of the result, in this order.
    device = np.concatenate([np.repeat(np.arange(n_devices), np.diff(rows.indptr)), np.repeat(owners, n_added)])
    places = device * n_rows + np.concatenate([rows.indices, others.indices])
    filled, result_rows = np.unique(places, return_inverse=True)
    own_rows, copy_rows = np.split(result_rows.astype(np.int32), [len(rows.rows)])

    summed = np.zeros((len(filled), rows.rows.shape[1]))
    add_rows(summed, own_rows, rows.rows)
    add_rows(summed, copy_rows, others.rows * np.repeat(weights, n_added)[:, None])

    tails = rows.tails.copy()
    np.add.at(tails, owners, others.tails * weights[:, None])
    return RealStatistics(
        indptr=np.searchsorted(filled, np.arange(n_devices + 1) * n_rows),
        indices=(filled % n_rows).astype(np.int32),
        rows=summed.astype(np.float32),
        tails=tails,
    )

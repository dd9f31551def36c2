"""What people on a host learn from besides their own ratings: copies that others have shared with them.

A copy answers through its recipient: the statistic is computed for the own ratings and for each copy, and the sum of
them is the recipient's one upload, clipped and noised as a whole. Of n copies that a consent allows each weighs 1/n, so
that a person weighs no more than one person more, however many copies there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from liberate.arrays import Float64Array, Int64Array, RealStatistics
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.model.kernels.server import add_rows
from liberate.model.model import Model
from liberate.model.statistics import Statistic

MAX_COPIES_PER_ROUND = 800
"""Copies that one answer may use: so many fit into its entry."""


class ReceivedCopies:
    """The copies that lie on the devices of a host.

    Args:
        devices: Their store.
    """

    def __init__(self, devices: DeviceStore) -> None:
        self._received: dict[int, dict[Digest, ReceivedCopy]] = {}
        self._usable: dict[int, tuple[int, tuple[UsedCopy, ...]]] = {}
        for slot, share, received in devices.sharing_rows(ReceivedCopy):
            self._received.setdefault(slot, {})[share] = received

    def tell(self, slot: int, round_number: int, shares: Sequence[bytes]) -> None:
        """Note which shares a device may use in a round; those it does not hold are left out."""
        own = self._received.get(slot, {})
        held = sorted((own[Digest(share)].sender, Digest(share)) for share in set(shares) if share in own)
        usable = tuple(UsedCopy(sender=sender, share=share) for sender, share in held[:MAX_COPIES_PER_ROUND])
        self._usable[slot] = (round_number, usable)

    def of(self, slot: int, round_number: int) -> tuple[UsedCopy, ...]:
        """Give the shares that a device uses in a round, increasing by sender and hash."""
        told, usable = self._usable.get(slot, (0, ()))
        return usable if told == round_number else ()

    def compute(
        self,
        statistic: Statistic,
        model: Model,
        own: Ratings,
        uses: Sequence[tuple[int, tuple[UsedCopy, ...]]],
    ) -> RealStatistics:
        """Compute a statistic of devices' own ratings and the copies they use.

        Whatever a sender has put in a copy, ratings beyond the scale count as its ends.

        Args:
            statistic: What is computed.
            model: The model it is computed from.
            own: Ratings of the devices.
            uses: Slot and shares of each of them.

        Raises:
            FederationError: A copy is not on its device any more.
        """
        rows = statistic.compute(model, own)
        owners = np.array([at for at, (_, inputs) in enumerate(uses) for _ in inputs], np.int64)
        if not len(owners):
            return rows
        copies = [self._copy(slot, each) for slot, inputs in uses for each in inputs]
        received = Ratings.from_user_bytes([each.copy for each in copies], own.n_items)
        others = statistic.compute(model, replace(received, values=received.values.clip(model.low, model.high)))
        return _added(rows, others, owners, np.array([1 / each.max_shares for each in copies]))

    def _copy(self, slot: int, used: UsedCopy) -> ReceivedCopy:
        received = self._received.get(slot, {}).get(used.share)
        if received is None:
            raise FederationError(f"device {slot} does not hold the copy of participant {used.sender} any more")
        return received


def _added(rows: RealStatistics, others: RealStatistics, owners: Int64Array, weights: Float64Array) -> RealStatistics:
    """Add what was computed of copies, each with its weight, to what was computed of their owners' ratings."""
    n, counts = len(rows.indptr) - 1, np.diff(others.indptr)
    device = np.concatenate([np.repeat(np.arange(n), np.diff(rows.indptr)), np.repeat(owners, counts)])
    indices = np.concatenate([rows.indices, others.indices])
    order = np.lexsort((indices, device))
    device, indices = device[order], indices[order]
    is_first = (np.diff(device, prepend=-1) | np.diff(indices, prepend=-1)) != 0
    starts, places = np.flatnonzero(is_first), np.empty(len(order), np.int32)
    places[order] = np.cumsum(is_first) - 1
    summed = np.zeros((len(starts), rows.rows.shape[1]))
    add_rows(summed, places[: len(rows.rows)], rows.rows)
    add_rows(summed, places[len(rows.rows) :], others.rows * np.repeat(weights, counts)[:, None])
    tails = rows.tails.copy()
    np.add.at(tails, owners, others.tails * weights[:, None])
    return RealStatistics(
        indptr=np.searchsorted(device[starts], np.arange(n + 1)),
        indices=indices[starts],
        rows=summed.astype(np.float32),
        tails=tails,
    )

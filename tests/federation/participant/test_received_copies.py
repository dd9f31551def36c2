"""Received copies: whatever a sender puts into one, its recipient uploads what ratings within the scale can give."""

from __future__ import annotations

import numpy as np
import pytest

from liberate.arrays import FixedPointStatistics, RealStatistics
from liberate.data.ratings import Ratings
from liberate.federation.participant.received_copies import ReceivedCopies
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.model.config import ModelConfig
from liberate.model.model import Model, initial
from liberate.model.registry import statistic_of
from liberate.model.upload_bounds import rating_bounds
from liberate.privacy.mechanism_base import PLAIN_FRACTION_BITS, Plain
from tests.worlds import HIGH, LOW, low_rank_ratings

OWN = low_rank_ratings()
SHARES = tuple(UsedCopy(sender=sender, share=Digest(bytes([sender]) * 32)) for sender in (4, 5))


def computed(values: np.ndarray, model: Model) -> RealStatistics:
    """What device 0 computes of its participant's ratings and two received copies, one with these values."""
    rated = np.arange(len(values), dtype=np.int32)
    users = np.zeros(len(values), np.int32)
    hostile = Ratings.from_triples(users, rated, values.astype(np.float32), 1, OWN.n_items)
    copies = [
        ReceivedCopy(sender=used.sender, copy=copy, salt=bytes(32), max_shares=2, epsilon_nano=0)
        for used, copy in zip(SHARES, (OWN.user_bytes(1), hostile.user_bytes(0)), strict=True)
    ]
    received = ReceivedCopies((0, Digest(used.share), copy) for used, copy in zip(SHARES, copies, strict=True))

    return received.compute(statistic_of(model, noisy=False), model, OWN.select(np.arange(1)), [(0, SHARES)])


@pytest.mark.parametrize("statistic", ["normal", "gradient"])
def test_ratings_beyond_the_scale_count_as_its_ends(statistic: str) -> None:
    config = ModelConfig(n_factors=2, statistic="gradient" if statistic == "gradient" else "normal")
    model = initial(config, OWN.n_items, LOW, HIGH, bytes(32))

    clipped = computed(np.array([1e30, -7.0, 4.0]), model)

    ends = computed(np.array([HIGH, LOW, 4.0]), model)
    assert np.array_equal(clipped.rows, ends.rows)
    assert np.array_equal(clipped.tails, ends.tails)
    sent: FixedPointStatistics = Plain().release(clipped, OWN.n_items, [], exact=False)
    rating_bounds(model).check(sent, PLAIN_FRACTION_BITS, 1 + len(SHARES) / 2)

"""What Hypothesis makes up for more than one test module."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liberate.arrays import RealRows
from liberate.model.ratings import Ratings

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT64_MAX = float(np.finfo(np.float64).max)


@st.composite
def real_rows(draw: st.DrawFn, largest: float | None = None, n_items: int = 5) -> RealRows:
    """A batch of one to four devices, finite numbers, up to `largest` if given; devices without ratings happen."""
    rated = draw(st.lists(st.sets(st.integers(0, n_items - 1)), min_size=1, max_size=4))
    width, n_tail = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    n_rows = sum(map(len, rated))
    row_bound, tail_bound = (FLOAT32_MAX, FLOAT64_MAX) if largest is None else (largest, largest)
    return RealRows(
        indptr=np.cumsum([0, *map(len, rated)], dtype=np.int64),
        items=np.array([item for items in rated for item in sorted(items)], np.int32),
        rows=draw(hnp.arrays(np.float32, (n_rows, width), elements=st.floats(-row_bound, row_bound, width=32))),
        tails=draw(hnp.arrays(np.float64, (len(rated), n_tail), elements=st.floats(-tail_bound, tail_bound))),
    )


def device(batch: RealRows, d: int) -> RealRows:
    """One device of a batch, alone."""
    begin, end = batch.indptr[d : d + 2]
    return RealRows(
        indptr=np.array([0, end - begin], np.int64),
        items=batch.items[begin:end],
        rows=batch.rows[begin:end],
        tails=batch.tails[d : d + 1],
    )


@st.composite
def ratings(draw: st.DrawFn, most_users: int = 6, most_items: int = 8) -> Ratings:
    """Ratings from 1 to 5 of a few users and items; users without ratings and items nobody rated happen."""
    n_users, n_items = draw(st.integers(1, most_users)), draw(st.integers(1, most_items))
    rated = draw(hnp.arrays(np.bool_, (n_users, n_items)))
    users, items = np.nonzero(rated)
    values = draw(hnp.arrays(np.float32, len(users), elements=st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0])))
    return Ratings.from_triples(users, items, values, n_users, n_items)

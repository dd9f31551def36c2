"""What Hypothesis makes up for more than one test module."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import inspect

from liberate.arrays import RealStatistics
from liberate.data.ratings import Ratings
from liberate.ledger.format.records import Record

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT64_MAX = float(np.finfo(np.float64).max)


@st.composite
def real_rows(draw: st.DrawFn, largest: float | None = None, n_items: int = 5) -> RealStatistics:
    """A batch of one to four devices, finite numbers, up to `largest` if given; devices without ratings happen."""
    rated = draw(st.lists(st.sets(st.integers(0, n_items - 1)), min_size=1, max_size=4))
    width, n_tail = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    n_rows = sum(map(len, rated))
    row_bound, tail_bound = (FLOAT32_MAX, FLOAT64_MAX) if largest is None else (largest, largest)
    return RealStatistics(
        indptr=np.cumsum([0, *map(len, rated)], dtype=np.int64),
        indices=np.array([item for items in rated for item in sorted(items)], np.int32),
        rows=draw(hnp.arrays(np.float32, (n_rows, width), elements=st.floats(-row_bound, row_bound, width=32))),
        tails=draw(hnp.arrays(np.float64, (len(rated), n_tail), elements=st.floats(-tail_bound, tail_bound))),
    )


def device(batch: RealStatistics, d: int) -> RealStatistics:
    """One device of a batch, alone."""
    begin, end = batch.indptr[d : d + 2]
    return RealStatistics(
        indptr=np.array([0, end - begin], np.int64),
        indices=batch.indices[begin:end],
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


def records() -> st.SearchStrategy[Record]:
    """Any record within its schema; few of them would be accepted by a ledger."""
    return st.one_of(*(_within(inspect.type_info(kind)) for kind in get_args(Record)))


def _within(node: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a msgspec type, its limits included."""
    match node:
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _within(field.type) for field in fields})
        case inspect.UnionType(types=members):
            return st.one_of(*map(_within, members))
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_within, items))
        case inspect.VarTupleType(item_type=item):
            return st.lists(_within(item), max_size=3).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_within(key), _within(value), max_size=3)
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case inspect.StrType(min_length=least, max_length=most):
            return st.text(min_size=least or 0, max_size=min(most or 9, 9))
        case inspect.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=min(most or 40, max(least or 0, 40)))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case _:
            raise TypeError(f"no strategy for {node}")

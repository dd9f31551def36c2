"""Sums of uploads: integers in any order; trimmed ones do not follow a minority."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import FixedPointStatistics
from liberate.federation.coordinator.aggregate import UploadAggregate

SHAPE = (4, 2, 3)
Parts = list[tuple[dict[int, list[int]], list[int]]]
ROW, TAIL = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**50), 2**50)


def parts() -> st.SearchStrategy[Parts]:
    """Uploads: rows by index, and a tail."""
    rows = st.dictionaries(st.integers(0, SHAPE[0] - 1), st.lists(ROW, min_size=SHAPE[1], max_size=SHAPE[1]))
    return st.lists(st.tuples(rows, st.lists(TAIL, min_size=SHAPE[2], max_size=SHAPE[2])), max_size=9)


def summed(uploads: Parts, trimmed_nano: int) -> UploadAggregate:
    total = UploadAggregate.empty(SHAPE, trimmed_nano)
    for rows, tail in uploads:
        items = sorted(rows)
        total.add(
            FixedPointStatistics(
                indptr=np.array([0, len(items)]),
                indices=np.array(items, np.int32),
                rows=np.array([rows[item] for item in items], np.int32).reshape(-1, SHAPE[1]),
                tails=np.array([tail], np.int64),
            )
        )
    total.settle()
    return total


def plain_trimmed(numbers: list[int], trimmed_nano: int) -> int:
    """The trimmed mean times the number of all, in Python's integers."""
    m = len(numbers)
    out = m * trimmed_nano // 10**9
    kept = sorted(numbers)[out : m - out]
    return sum(kept) * m // len(kept) if kept else 0


@given(uploads=parts(), trimmed_nano=st.sampled_from([0, 1, 100_000_000, 250_000_000, 333_333_334, 499_999_999]))
def test_trimmed_sum_equals_its_twin(uploads: Parts, trimmed_nano: int) -> None:
    total = summed(uploads, trimmed_nano)

    assert total.n_uploads == len(uploads)
    for item in range(SHAPE[0]):
        for t in range(SHAPE[1]):
            assert total.rows[item, t] == plain_trimmed(
                [rows[item][t] for rows, _ in uploads if item in rows], trimmed_nano
            )
    for t in range(SHAPE[2]):
        assert total.tail[t] == plain_trimmed([tail[t] for _, tail in uploads], trimmed_nano)


@given(uploads=parts(), trimmed_nano=st.sampled_from([0, 250_000_000]), seed=st.integers(0, 99))
def test_order_of_uploads_does_not_change_a_bit(uploads: Parts, trimmed_nano: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(uploads))

    assert summed([uploads[i] for i in order], trimmed_nano).digest() == summed(uploads, trimmed_nano).digest()


@given(honest=st.lists(st.integers(-50, 50), min_size=8, max_size=8), hostile=st.lists(ROW, min_size=2, max_size=2))
def test_a_trimmed_mean_stays_among_the_honest(honest: list[int], hostile: list[int]) -> None:
    uploads: Parts = [({0: [number, 0]}, [0, 0, 0]) for number in honest + hostile]

    mean = int(summed(uploads, 200_000_000).rows[0, 0]) / 10

    assert min(honest) - 1 <= mean <= max(honest)

"""Copies that differ by recipient, and who a leak is attributed to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Int32Array
from liberate.privacy.fingerprinting import REPLACED_AT_END, REPLACED_INSIDE, fingerprint, score_recipient

KEY = bytes(range(32))
RECIPIENTS = 100


def ratings(n: int, seed: int = 0) -> tuple[Int32Array, Int32Array]:
    """Draw levels of a scale of five, and the items they are of."""
    rng = np.random.default_rng(seed)
    return rng.integers(5, size=n, dtype=np.int32), rng.permutation(n).astype(np.int32)


def copies_of(base: Int32Array, items: Int32Array, key: bytes = KEY, first: int = 0) -> Int32Array:
    return np.stack([fingerprint(base, items, 5, key, first + recipient) for recipient in range(RECIPIENTS)])


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 300)), unique_by=lambda row: row[1])


@given(rows, st.integers(0, 2**63 - 1), st.data())
def test_a_mark_depends_on_key_recipient_and_row_alone(
    rows: list[tuple[int, int]], recipient: int, data: st.DataObject
) -> None:
    base, items = (np.array([row[i] for row in rows], np.int32) for i in (0, 1))
    some = np.array(data.draw(st.permutations(range(len(rows)))), np.int32)[: len(rows) // 2]

    copy = fingerprint(base, items, 5, KEY, recipient)

    assert np.all((copy >= 0) & (copy < 5))
    np.testing.assert_array_equal(fingerprint(base[some], items[some], 5, KEY, recipient), copy[some])


def test_copies_differ_from_the_base_copy_as_often_as_stated() -> None:
    base, items = ratings(100_000)

    copy = fingerprint(base, items, 5, KEY, 3)

    for level in range(5):
        shares = [np.mean(copy[base == level] == level + step) for step in (-1, 1)]
        ends = [0.0 if level == end else REPLACED_AT_END if level == 4 - end else REPLACED_INSIDE for end in (0, 4)]
        assert shares == pytest.approx(ends, abs=0.01)
    assert np.abs(copy - base).max() == 1


def test_on_a_scale_of_two_levels_one_stands_for_the_other() -> None:
    base = np.arange(100_000, dtype=np.int32) % 2

    copy = fingerprint(base, np.arange(100_000, dtype=np.int32), 2, KEY, 3)

    assert set(np.unique(copy)) == {0, 1}
    assert np.mean(copy != base) == pytest.approx(REPLACED_AT_END, abs=0.005)


def test_marks_of_two_recipients_or_two_keys_are_independent() -> None:
    base, items = np.full(100_000, 2, np.int32), np.arange(100_000, dtype=np.int32)

    first, second, of_other_key = (
        fingerprint(base, items, 5, key, recipient) != base for key, recipient in ((KEY, 3), (KEY, 4), (bytes(32), 3))
    )

    share = np.mean(first)
    assert np.mean(first & second) == pytest.approx(share**2, abs=0.002)
    assert np.mean(first & of_other_key) == pytest.approx(share**2, abs=0.002)


def test_a_leaked_copy_names_its_recipient() -> None:
    base, items = ratings(200)
    copies = copies_of(base, items)
    altered = np.random.default_rng(1).random(200) < 0.2
    leaked = np.where(altered, (copies[42] + 1) % 5, copies[42]).astype(np.int32)

    found = score_recipient(leaked, base, copies, 5)

    assert list(np.flatnonzero(found.accused)) == [42]
    assert found.log10_likelihood.argmax() == found.bound.argmin() == 42
    assert found.log10_likelihood[42] > 5


def test_a_mixture_of_copies_names_only_its_sources() -> None:
    base, items = ratings(900)
    copies = copies_of(base, items)
    leaked = copies[np.random.default_rng(1).integers(3, size=900), np.arange(900)]

    found = score_recipient(leaked, base, copies, 5)

    accused = set(np.flatnonzero(found.accused))
    assert accused
    assert accused <= {0, 1, 2}


@pytest.mark.parametrize("leak", ["base", "raw", "another recipient's", "of another key", "made up"])
def test_nobody_is_accused_of_what_was_not_made_from_a_copy(leak: str) -> None:
    base, items = ratings(300)
    leaked = {
        "base": base,
        "raw": np.where(np.random.default_rng(1).random(300) < 0.4, (base + 2) % 5, base).astype(np.int32),
        "another recipient's": fingerprint(base, items, 5, KEY, RECIPIENTS),
        "of another key": fingerprint(base, items, 5, bytes(32), 42),
        "made up": np.random.default_rng(2).integers(5, size=300, dtype=np.int32),
    }[leak]

    found = score_recipient(leaked, base, copies_of(base, items), 5)

    assert not found.accused.any()


def test_the_bound_on_false_accusations_holds_for_leaks_of_others() -> None:
    """Without a source among the candidates, the least bound of a leak is below x in at most x of all leaks."""
    least = []
    for trial in range(400):
        base, items = ratings(60, seed=trial)
        leaked = fingerprint(base, items, 5, KEY, 1000 + trial)
        copies = copies_of(base, items, first=10_000 + RECIPIENTS * trial)
        least.append(score_recipient(leaked, base, copies, 5).bound.min())

    for x in (0.1, 0.3):
        assert np.mean(np.array(least) <= x) <= x


def test_a_leak_without_a_row_accuses_nobody() -> None:
    none = np.empty(0, np.int32)

    found = score_recipient(none, none, np.empty((3, 0), np.int32), 5)

    np.testing.assert_array_equal(found.bound, np.ones(3))
    np.testing.assert_array_equal(found.log10_likelihood, np.zeros(3))


@pytest.mark.parametrize(("level", "n_levels"), [(5, 5), (-1, 5), (0, 1)])
def test_levels_outside_the_scale_are_refused(level: int, n_levels: int) -> None:
    base = np.array([level], np.int32)

    with pytest.raises(ValueError, match="level"):
        fingerprint(base, np.zeros(1, np.int32), n_levels, KEY, 0)
    with pytest.raises(ValueError, match="level"):
        score_recipient(base, np.zeros(1, np.int32), np.zeros((1, 1), np.int32), n_levels)


def test_other_shapes_and_keys_are_refused() -> None:
    base, items = ratings(3)

    with pytest.raises(ValueError, match="key"):
        fingerprint(base, items, 5, b"short", 0)
    with pytest.raises(ValueError, match="rows"):
        score_recipient(base, base, base[None, :2], 5)

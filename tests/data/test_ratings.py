"""Ratings by user, data sets and their splits."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Int64Array
from liberate.data.dataset import Catalogue, Dataset, content_digest
from liberate.data.ratings import Ratings
from liberate.data.readers import read
from liberate.data.splits import leave_last_out, random_split
from liberate.errors import DataError

Triple = tuple[int, int, float]


def triples_of(ratings: Ratings) -> set[Triple]:
    """The (user, item, value) triples, as a set."""
    return set(zip(ratings.users().tolist(), ratings.items.tolist(), ratings.values.tolist(), strict=True))


def ratings_of(triples: list[Triple], n_users: int, n_items: int) -> Ratings:
    users, items, values = (np.array(column) for column in zip(*triples, strict=True)) if triples else [np.empty(0)] * 3
    return Ratings.from_triples(users.astype(np.int64), items.astype(np.int64), values, n_users, n_items)


def dataset_of(triples: list[Triple], times: list[int] | None = None) -> Dataset:
    users, items, values = (np.array(column) for column in zip(*triples, strict=True))
    return Dataset.of(
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        values=values.astype(np.float32),
        timestamps=None if times is None else np.array(times, np.int64),
        user_ids=tuple(f"u{user}" for user in range(users.max() + 1)),
        item_ids=tuple(f"i{item}" for item in range(items.max() + 1)),
        low=1,
        high=5,
        name="tiny",
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Triple], int, int]:
    """Distinct (user, item) pairs with ratings, in any order, and the numbers of users and items."""
    n_users, n_items = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    pairs = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))
    triples = [(u, i, float(draw(st.integers(1, 5)))) for u, i in draw(st.lists(pairs, unique=True))]
    return triples, n_users, n_items


@st.composite
def full_worlds(draw: st.DrawFn) -> list[Triple]:
    """The pairs of a grid of users and items, in any order."""
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    pairs = draw(st.permutations([(u, i) for u in range(n_users) for i in range(n_items)]))
    return [(u, i, float(draw(st.integers(1, 5)))) for u, i in pairs]


# --- Ratings ----------------------------------------------------------------------------------------------------------


@given(worlds())
def test_grouping_keeps_every_rating_and_sorts_each_users_items(world: tuple[list[Triple], int, int]) -> None:
    triples, n_users, n_items = world

    ratings = ratings_of(triples, n_users, n_items)

    assert triples_of(ratings) == set(triples)
    assert (ratings.n_users, ratings.n_ratings, ratings.n_items) == (n_users, len(triples), n_items)
    for user in range(n_users):
        assert np.all(np.diff(ratings.items[ratings.indptr[user] : ratings.indptr[user + 1]]) > 0)


@given(worlds(), st.data())
def test_selected_users_keep_their_ratings_in_the_order_asked(
    world: tuple[list[Triple], int, int], data: st.DataObject
) -> None:
    triples, n_users, n_items = world
    ratings = ratings_of(triples, n_users, n_items)
    users = data.draw(st.lists(st.integers(0, n_users - 1)))

    selected = ratings.select(np.array(users, np.int64))

    assert selected.n_users == len(users)
    assert [selected.user_bytes(place) for place in range(len(users))] == [ratings.user_bytes(user) for user in users]


@given(worlds())
def test_a_users_bytes_are_read_back(world: tuple[list[Triple], int, int]) -> None:
    triples, n_users, n_items = world
    ratings = ratings_of(triples, n_users, n_items)

    again = Ratings.from_user_bytes([ratings.user_bytes(user) for user in range(n_users)], n_items)

    assert triples_of(again) == set(triples)
    assert again.indptr.tolist() == ratings.indptr.tolist()


def test_a_users_bytes_are_count_items_and_values_in_little_endian() -> None:
    ratings = ratings_of([(0, 258, 1.5), (0, 1, 4.0)], 1, 300)

    assert ratings.user_bytes(0).hex() == "02000000" + "01000000" + "02010000" + "00008040" + "0000c03f"


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\0\0\0",
        b"\x01\0\0\0" + b"\x05\0\0\0" + b"\0\0\x80\x3f",
        b"\x01\0\0\0" + b"\xff\xff\xff\xff" + b"\0\0\x80\x3f",
        b"\x02\0\0\0" + b"\x01\0\0\0" * 2 + b"\0\0\x80\x3f" * 2,
    ],
    ids=["too short", "item out of range", "negative item", "item twice"],
)
def test_bytes_that_no_user_wrote_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"bytes of a user|items must increase"):
        Ratings.from_user_bytes([data], 5)


@given(worlds(), st.data())
def test_where_keeps_the_marked_ratings_users_and_items(
    world: tuple[list[Triple], int, int], data: st.DataObject
) -> None:
    triples, n_users, n_items = world
    ratings = ratings_of(triples, n_users, n_items)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(triples), max_size=len(triples))), np.bool_)

    part, rest = ratings.where(kept), ratings.where(~kept)

    assert (part.n_users, part.n_items, part.n_ratings) == (n_users, n_items, int(kept.sum()))
    assert triples_of(part).isdisjoint(triples_of(rest))
    assert triples_of(part) | triples_of(rest) == set(triples)


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((2, 0, 1.0), r"user index outside \[0, 2\)"),
        ((-1, 0, 1.0), r"user index outside \[0, 2\)"),
        ((0, 3, 1.0), r"item index outside \[0, 3\)"),
        ((1, 1, 4.0), "a \\(user, item\\) pair occurs twice"),
        ((0, 0, float("nan")), "not finite"),
        ((0, 0, float("inf")), "not finite"),
    ],
)
def test_grouping_refuses_what_is_no_rating(triple: Triple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ratings_of([(1, 1, 3.0), triple], 2, 3)


@pytest.mark.parametrize(
    ("indptr", "n_values", "kind"),
    [([1, 2], 2, "int64"), ([0, 1], 2, "int64"), ([], 0, "int64"), ([0, 2], 1, "int64"), ([0, 2], 2, "int32")],
)
def test_arrays_that_do_not_fit_together_are_refused(indptr: list[int], n_values: int, kind: str) -> None:
    pointers: Int64Array = np.array(indptr, kind)

    with pytest.raises(ValueError, match="indptr"):
        Ratings(pointers, np.arange(2, dtype=np.int32), np.ones(n_values, np.float32), 2)


# --- Dataset ----------------------------------------------------------------------------------------------------------


def test_the_digest_covers_ids_ratings_times_and_order() -> None:
    triples = [(0, 0, 1.0), (0, 1, 2.0), (1, 0, 3.0), (1, 1, 4.0)]
    base = dataset_of(triples, [1, 2, 3, 4])

    others = [
        dataset_of(triples),
        dataset_of(triples, [1, 2, 3, 5]),
        dataset_of([(0, 0, 2.0), *triples[1:]], [1, 2, 3, 4]),
        dataset_of([triples[1], triples[0], *triples[2:]], [2, 1, 3, 4]),
    ]

    assert len({base.digest, *(other.digest for other in others)}) == 5
    renamed = [content_digest(base.users, base.items, base.values, base.timestamps, *ids) for ids in ID_PAIRS]
    assert len({base.digest, *renamed}) == 1 + len(ID_PAIRS)
    assert dataset_of(triples, [1, 2, 3, 4]).digest == base.digest


ID_PAIRS = [(("u0", "u1"), ("i0", "i2")), (("u0u", "1"), ("i0", "i1")), (("i0", "i1"), ("u0", "u1"))]


def test_the_digest_of_a_tiny_data_set_never_changes() -> None:
    """A changed digest makes every run folder and every recorded digest wrong: it is a format change."""
    dataset = dataset_of([(0, 0, 1.0), (1, 0, 2.5)], [7, 8])

    content = (
        b"liberate dataset 1\0"
        + struct.pack("<3Q", 2, 1, 2)
        + b"".join(struct.pack("<I", 2) + text for text in (b"u0", b"u1", b"i0"))
        + struct.pack("<2i", 0, 1)
        + struct.pack("<2i", 0, 0)
        + struct.pack("<2f", 1.0, 2.5)
        + b"\1"
        + struct.pack("<2q", 7, 8)
    )
    assert dataset.digest == hashlib.sha256(content).hexdigest()
    assert dataset.digest == "ff4d16656fe64193b83c261fcab2f4c5c151b4e7f067e131b01e79a0b4a6a23f"


def test_a_data_set_cannot_be_written_to() -> None:
    dataset = dataset_of([(0, 0, 1.0), (1, 0, 2.0)], [1, 2])

    for array in (dataset.users, dataset.items, dataset.values, dataset.timestamps):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": ("a", "a")}, "a user id occurs twice"),
        ({"user_ids": ("a", "b", "c")}, r"the user indices are not exactly \[0, 3\)"),
        ({"item_ids": ()}, r"the item indices are not exactly \[0, 0\)"),
        ({"values": np.ones(3, np.float32)}, "the arrays differ in length"),
        ({"timestamps": np.ones(3, np.int64)}, "the arrays differ in length"),
        ({"values": np.array([1, 6], np.float32)}, r"outside the scale \[1, 5\]"),
        ({"values": np.array([1, np.nan], np.float32)}, r"outside the scale \[1, 5\]"),
    ],
)
def test_a_data_set_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    fields = dataclasses.asdict(dataset_of([(0, 0, 1.0), (1, 0, 2.0)], [1, 2])) | change
    for computed in ("digest", "has_found_scale", "catalogue", "notes"):
        del fields[computed]

    with pytest.raises(ValueError, match=message):
        Dataset.of(**fields)


# --- splits -----------------------------------------------------------------------------------------------------------


@given(full_worlds(), st.integers(0, 2**32), st.floats(0.01, 0.99))
def test_a_random_split_is_the_first_rows_of_the_seeded_permutation(
    triples: list[Triple], seed: int, fraction: float
) -> None:
    split = random_split(dataset_of(triples), seed, fraction)

    rows = np.random.default_rng(seed).permutation(len(triples)).tolist()
    n_test = round(fraction * len(triples))
    assert triples_of(split.test) == {triples[row] for row in rows[:n_test]}
    assert triples_of(split.train) == {triples[row] for row in rows[n_test:]}
    assert split.train.n_users == split.test.n_users == 1 + max(user for user, _, _ in triples)
    assert split.train.n_items == split.test.n_items == 1 + max(item for _, item, _ in triples)


@given(full_worlds(), st.data())
def test_leave_last_out_holds_out_the_latest_row_of_each_user(triples: list[Triple], data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(-3, 3), min_size=len(triples), max_size=len(triples)))

    split = leave_last_out(dataset_of(triples, times))

    expected = set()
    for user in {user for user, _, _ in triples}:
        rows = [row for row, triple in enumerate(triples) if triple[0] == user]
        if len(rows) > 1:
            expected.add(triples[max(rows, key=lambda row: (times[row], row))])
    assert triples_of(split.test) == expected
    assert triples_of(split.train) == set(triples) - expected


def test_part_of_a_data_set_is_what_a_file_of_these_rows_would_be(tmp_path: Path) -> None:
    rows = [("7", "b", 3), ("10", "9", 1), ("9", "10", 5), ("10", "2", 4), ("7", "10", 2)]
    for name, chosen in (("whole", rows), ("part", rows[1:])):
        lines = [f"{user},{item},{value},{place}" for place, (user, item, value) in enumerate(chosen)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["user,item,rating,timestamp", *lines]) + "\n", "utf-8")
    whole, wanted = (read(tmp_path / f"{name}.csv", scale=(1, 5)) for name in ("whole", "part"))

    part = replace(whole, timestamps=np.arange(-1, 4)).only(np.array([False, True, True, True, True]))

    assert part.digest == wanted.digest
    assert (part.user_ids, part.item_ids) == (("7", "9", "10"), ("2", "9", "10"))
    assert whole.item_ids == ("10", "2", "9", "b")


def test_part_of_a_data_set_has_what_is_known_of_its_items() -> None:
    whole = dataset_of([(0, 0, 1.0), (1, 2, 2.0), (0, 1, 3.0)])
    catalogue = Catalogue(("A", "B", "C"), np.array([1, 2, 3], np.int32), (("a",), (), ("c",)))

    part = replace(whole, catalogue=catalogue, notes=("2 rows dropped",)).only(np.array([True, True, False]))

    assert part.catalogue is not None
    assert (part.item_ids, part.catalogue.titles, part.catalogue.years.tolist()) == (("i0", "i2"), ("A", "C"), [1, 3])
    assert part.notes == ()


def test_leave_last_out_needs_times() -> None:
    with pytest.raises(DataError, match="tiny has no timestamps"):
        leave_last_out(dataset_of([(0, 0, 1.0), (0, 1, 2.0)]))


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
def test_a_part_to_hold_out_is_a_true_fraction(fraction: float) -> None:
    dataset = dataset_of([(0, 0, 1.0), (0, 1, 2.0)])

    with pytest.raises(ValueError, match="fraction"):
        random_split(dataset, 42, fraction)

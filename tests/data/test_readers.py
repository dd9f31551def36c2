"""Reading ratings and item files: every layout, and every way in which a file can be wrong."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.data.dataset import Dataset
from liberate.data.readers import read
from liberate.errors import DataError, SettingsError

Row = tuple[str, str, float]
FOUND_SCALE = "the scale, {} to {}, is that of the lowest and highest rating found"


def rows_of(dataset: Dataset) -> list[Row]:
    """The rows with their original ids, in the order of the file."""
    return [
        (dataset.user_ids[user], dataset.item_ids[item], value)
        for user, item, value in zip(
            dataset.users.tolist(), dataset.items.tolist(), dataset.values.tolist(), strict=True
        )
    ]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file, text as UTF-8, compressed where its name ends in `.gz`."""

    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return written


def refusal(path: Path, **options: dict[str, str] | tuple[float, float]) -> tuple[int | None, str]:
    """The line and the reason with which a file is refused; the message begins with file and line."""
    with pytest.raises(DataError) as caught:
        read(path, **options)  # type: ignore[arg-type]  # the tests pass matching pairs
    error = caught.value
    place = str(path) if error.line is None else f"{path}, line {error.line}"
    assert str(error) == f"{place}: {error.reason}"
    return error.line, error.reason


# --- layouts ----------------------------------------------------------------------------------------------------------

ROWS = [("2", "20", 5.0), ("10", "3", 1.0), ("2", "3", 4.0)]


def check_tiny(dataset: Dataset, low: float, high: float, *, has_times: bool = True) -> None:
    assert rows_of(dataset) == ROWS
    assert (dataset.user_ids, dataset.item_ids) == (("2", "10"), ("3", "20"))
    assert (dataset.low, dataset.high) == (low, high)
    assert (dataset.timestamps is not None) == has_times
    if dataset.timestamps is not None:
        assert dataset.timestamps.tolist() == [30, 10, 20]


def check_catalogue(dataset: Dataset) -> None:
    assert dataset.catalogue is not None
    assert dataset.catalogue.titles == ("Café Lumière", "Up, Up")
    assert dataset.catalogue.years.tolist() == [1999, 0]
    assert dataset.catalogue.genres == (("Comedy", "Drama"), ())


def write_ml_100k(write: Callable[..., Path], folder: str) -> Path:
    write(f"{folder}/u.genre", "unknown|0\nDrama|1\nComedy|2\n\n")
    items = "3|Café Lumière (1999)|01-Jan-1999||url|0|1|1\n20|Up, Up||||1|0|0\n77|Not rated (2000)||||0|1|0\n"
    write(f"{folder}/u.item", items.encode("iso-8859-1"))
    return write(f"{folder}/u.data", "2\t20\t5\t30\n10\t3\t1\t10\n2\t3\t4\t20\n")


@pytest.mark.parametrize("asked", ["folder", "file"])
def test_the_layout_of_movielens_100k_is_read(write: Callable[..., Path], asked: str) -> None:
    file = write_ml_100k(write, "hundred")

    dataset = read(file.parent if asked == "folder" else file)

    check_tiny(dataset, 1, 5)
    check_catalogue(dataset)
    assert dataset.name == "hundred"
    assert dataset.notes == ("1 of the 3 items in u.item have no rating",)


def test_genres_are_unknown_without_their_names(write: Callable[..., Path]) -> None:
    file = write_ml_100k(write, "hundred")
    (file.parent / "u.genre").unlink()

    dataset = read(file.parent)

    assert dataset.catalogue is not None
    assert dataset.catalogue.genres == ((), ())


@pytest.mark.parametrize("encoding", ["iso-8859-1", "utf-8"])
def test_the_layout_of_movielens_1m_is_read(write: Callable[..., Path], encoding: str) -> None:
    movies = "3::Café Lumière (1999)::Drama|Comedy\n20::Up, Up::\n"
    write("million/movies.dat", movies.encode(encoding))
    file = write("million/ratings.dat", "2::20::5::30\n10::3::1::10\n2::3::4::20\n")

    dataset = read(file.parent)

    check_tiny(dataset, 1, 5)
    check_catalogue(dataset)
    assert (dataset.name, dataset.notes) == ("million", ())


def test_the_layout_of_movielens_latest_is_read(write: Callable[..., Path]) -> None:
    write(
        "latest/movies.csv",
        'movieId,title,genres\n3,Café Lumière (1999),Drama|Comedy\n20,"Up, Up",(no genres listed)\n',
    )
    file = write("latest/ratings.csv", "userId,movieId,rating,timestamp\n2,20,5.0,30\n10,3,1.0,10\n2,3,4.0,20\n")

    dataset = read(file.parent)

    check_tiny(dataset, 0.5, 5)
    check_catalogue(dataset)
    assert (dataset.name, dataset.notes) == ("latest", ())


def test_recbole_atomic_files_are_read(write: Callable[..., Path]) -> None:
    write(
        "atomic/tiny.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "3\tCafé Lumière\t1999\tDrama Comedy\n20\tUp, Up\tV\tunknown\n",
    )
    file = write(
        "atomic/tiny.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n2\t20\t5\t30\n10\t3\t1\t10\n2\t3\t4\t20\n",
    )

    dataset = read(file.parent)

    check_tiny(dataset, 1, 5)
    check_catalogue(dataset)
    assert (dataset.name, dataset.notes) == ("atomic", (FOUND_SCALE.format(1, 5),))


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz", "ratings.parquet"])
@pytest.mark.parametrize("items", ["u.item", "movies.dat", "movies.csv", "any.item"])
def test_a_table_is_read_beside_any_item_file(write: Callable[..., Path], name: str, items: str) -> None:
    match items:
        case "u.item":
            write_ml_100k(write, "mixed").unlink()
        case "movies.dat":
            write("mixed/movies.dat", "3::Café Lumière (1999)::Comedy|Drama\n20::Up, Up::\n")
        case "movies.csv":
            write("mixed/movies.csv", 'movieId,title,genres\n3,Café Lumière (1999),Comedy|Drama\n20,"Up, Up",\n')
        case _:
            head = "item_id:token\ttitle:token_seq\tgenre:token_seq\n"
            write("mixed/any.item", head + "3\tCafé Lumière (1999)\tComedy Drama\n20\tUp, Up\t\n")
    if name == "ratings.parquet":
        file = write("mixed/ratings.parquet", b"")
        table = {"user_id": [2, 10, 2], "item_id": [20, 3, 3], "rating": pa.array([5, 1, 4], pa.int8())}
        pq.write_table(pa.table(table), file)
    else:
        file = write(f"mixed/{name}", "user_id,item_id,rating\n2,20,5\n10,3,1\n2,3,4\n")

    dataset = read(file.parent)

    check_tiny(dataset, 0.5 if items == "movies.csv" else 1, 5, has_times=False)
    check_catalogue(dataset)


def test_a_rated_item_that_is_not_described_has_an_empty_title(write: Callable[..., Path]) -> None:
    write("some/movies.dat", "1::One (2001)::\n")
    file = write("some/ratings.dat", "1::1::5::1\n1::2::4::1\n")

    dataset = read(file)

    assert dataset.catalogue is not None
    assert dataset.catalogue.titles == ("One", "")
    assert dataset.notes == ("1 rated items are not in movies.dat",)


def test_another_files_items_are_not_taken(write: Callable[..., Path]) -> None:
    write("movies.csv", "movieId,title\n1,One\n")

    assert read(write("mine.csv", "user,item,rating\n1,1,1\n1,2,2\n")).catalogue is None


def test_the_same_content_has_the_same_digest_in_any_layout(write: Callable[..., Path]) -> None:
    rows = [(2, 20, 5, 30), (10, 3, 1, 10), (2, 3, 4, 20)]
    named = [("user", "item", "rating", "timestamp"), *rows]
    parquet = write("ratings.parquet", b"")
    pq.write_table(pa.table(dict(zip(named[0], map(list, zip(*rows, strict=True)), strict=True))), parquet)

    files = [
        parquet,
        write("u.data", "".join("\t".join(map(str, row)) + "\n" for row in rows)),
        write("ratings.dat", "".join("::".join(map(str, row)) + "\n" for row in rows)),
        write("tiny.inter", "".join("\t".join(map(str, row)) + "\n" for row in named)),
        write("tiny.csv.gz", "".join(";".join(map(str, row)) + "\r\n" for row in named)),
    ]

    assert len({read(file).digest for file in files}) == 1


# --- named columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "user,item,rating,timestamp",
        "userId,movieId,rating,timestamp",
        "User-ID,ISBN,Book-Rating,Time",
        '"USER_ID","Item Id"," Score ",unixReviewTime',
        "user\titem\trating\ttime",
        "user;item;rating;time",
        "user|item|rating|time",
    ],
)
def test_usual_names_and_separators_are_found(write: Callable[..., Path], header: str) -> None:
    separator = next(character for character in ",\t;|" if character in header)
    header = header.replace("Book-Rating", "rating")
    body = "2,20,5,30\n10,3,1,10\n2,3,4,20\n".replace(",", separator)

    check_tiny(read(write("any.csv", f"{header}\n{body}")), 1, 5)


def test_columns_are_taken_by_the_names_given(write: Callable[..., Path]) -> None:
    path = write("any.csv", "note,who,what,how much,user\na,2,20,5,x\nb,10,3,1,x\nc,2,3,4,x\n")

    dataset = read(path, columns={"user": "who", "item": "what", "rating": "how much"})

    check_tiny(dataset, 1, 5, has_times=False)


def test_the_best_alias_wins(write: Callable[..., Path]) -> None:
    dataset = read(write("any.csv", "user,user_id,item,rating\nAnn,1,1,1\nBob,2,1,2\n"))

    assert dataset.user_ids == ("1", "2")


@pytest.mark.parametrize(
    ("header", "columns", "reason"),
    [
        ("user,item,time", {}, "there is no rating column (such as rating, ratings, score); the columns are"),
        ("item,rating", {}, "there is no user column (such as user_id, user, uid); the columns are 'item', 'rating'"),
        ("user,item,rating", {"item": "film"}, "there is no item column (named 'film'); the columns are"),
        ("user,item,rating", {"timestamp": "when"}, "there is no timestamp column (named 'when')"),
        ("user,item,item,rating", {}, "2 columns are called 'item'"),
    ],
)
def test_a_missing_column_is_refused(
    write: Callable[..., Path], header: str, columns: dict[str, str], reason: str
) -> None:
    line, found = refusal(write("any.csv", f"{header}\n1,2,3\n"), columns=columns)

    assert line == 1
    assert found.startswith(reason)


def test_a_missing_parquet_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "any.parquet"
    pq.write_table(pa.table({"user": [1], "item": [2]}), path)

    line, reason = refusal(path)

    assert line is None
    assert reason == "there is no rating column (such as rating, ratings, score); the columns are 'user', 'item'"


def test_a_column_of_no_meaning_cannot_be_named(write: Callable[..., Path]) -> None:
    with pytest.raises(SettingsError, match="columns names some of user, item, rating, timestamp; got film"):
        read(write("any.csv", "user,item,rating\n1,2,3\n"), columns={"film": "item"})


# --- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "ordered"),
    [
        (["10", "9", "-1", "0"], ("-1", "0", "9", "10")),
        (["007", "7", "10"], ("007", "10", "7")),
        (["+1", "10", "9"], ("+1", "10", "9")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["\u0661", "2"], ("2", "\u0661")),
        (["é", "z", "日本", "😀"], ("z", "é", "日本", "😀")),
        ([f"1{'0' * 40}", "18446744073709551616", "2"], ("2", "18446744073709551616", f"1{'0' * 40}")),
        (["1.0", "1"], ("1", "1.0")),
    ],
)
def test_ids_are_kept_as_text_and_ordered(write: Callable[..., Path], ids: list[str], ordered: tuple[str, ...]) -> None:
    lines = [f"{user},{item},{1 + place % 2}\n" for place, (user, item) in enumerate(zip(ids, ids[::-1], strict=True))]

    dataset = read(write("any.csv", "user,item,rating\n" + "".join(lines)))

    assert dataset.user_ids == dataset.item_ids == ordered
    assert [row[0] for row in rows_of(dataset)] == ids


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda text: bool(text.strip()))


@given(
    st.dictionaries(st.tuples(TEXT, TEXT), st.floats(-9, 9, width=32), min_size=1),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_what_a_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, ratings: dict[tuple[str, str], float], mark: bytes
) -> None:
    """Any ids: separators, quotes, line ends inside quotes, control characters."""
    text = io.StringIO(newline="")
    rows = [(user, item, value) for (user, item), value in ratings.items()]
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("user", "item", "rating"), *rows])
    path = tmp_path_factory.mktemp("csv") / "any.csv"
    path.write_bytes(mark + text.getvalue().encode())

    dataset = read(path, scale=(-9, 9))

    assert rows_of(dataset) == rows


@pytest.mark.parametrize("empty", ["", "  ", "\t"])
def test_an_empty_id_is_refused(write: Callable[..., Path], empty: str) -> None:
    assert refusal(write("any.csv", f"user,item,rating\n1,1,1\n1,{empty},2\n")) == (3, "the item id is empty")


# --- what is no rating ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rating", "reason"),
    [
        ("x", "the rating 'x' is not a number"),
        ("", "the rating '' is not a number"),
        ("4,5", "the rating '4,5' is not a number"),
        ("0x4", "the rating '0x4' is not a number"),
        ("nan", "the rating is NaN, not a finite number"),
        ("NaN", "the rating is NaN, not a finite number"),
        ("inf", "the rating is infinite, not a finite number"),
        ("-Infinity", "the rating is infinite, not a finite number"),
        ("1e999", "the rating is infinite, not a finite number"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(write: Callable[..., Path], rating: str, reason: str) -> None:
    good = "".join(f"{user};1;{1 + user % 5}\n" for user in range(500))

    found = refusal(write("any.csv", f"user;item;rating\n{good}\n\n600;2;{rating}\n601;1;{rating}\n"))

    assert found == (504, reason)


def test_a_line_is_counted_through_line_ends_inside_quotes(write: Callable[..., Path]) -> None:
    assert refusal(write("any.csv", 'user,item,rating\n"a\nb","c\r\nd",1\n\n1,2,x\n'))[0] == 6


def test_a_line_is_found_behind_a_very_long_field(write: Callable[..., Path]) -> None:
    assert refusal(write("any.csv", f"user,item,rating\n1,{'x' * 200_000},3\n1,2,x\n"))[0] == 3


@pytest.mark.parametrize("name", ["u.data", "ratings.dat"])
def test_a_line_is_counted_from_one_without_a_header(write: Callable[..., Path], name: str) -> None:
    separator = "\t" if name == "u.data" else "::"
    text = "1,1,1,5\n1,2,9,5\n".replace(",", separator)

    assert refusal(write(name, text)) == (2, "the rating 9 is outside the scale 1 to 5")


@pytest.mark.parametrize(
    ("line", "n_fields"), [("1,2", 2), ("1,2,3,4", 4), ("   ", 1), ('1,"2,3', 2)], ids=["few", "many", "blank", "open"]
)
def test_a_row_of_another_width_is_refused(write: Callable[..., Path], line: str, n_fields: int) -> None:
    found = refusal(write("any.csv", f"user,item,rating\n1,1,1\n{line}\n1,3,3\n"))

    assert found == (3, f"the row has {n_fields} fields, not 3")


@pytest.mark.parametrize(
    ("low", "high", "rating"), [(1, 4, 5), (2, 5, 1.5), (0.5, 4.5, 5)], ids=["above", "below", "halves"]
)
def test_a_rating_outside_the_scale_given_is_refused(
    write: Callable[..., Path], low: float, high: float, rating: float
) -> None:
    path = write("any.csv", f"user,item,rating\n1,1,3\n1,2,{rating}\n")

    assert refusal(path, scale=(low, high)) == (3, f"the rating {rating:g} is outside the scale {low:g} to {high:g}")


def test_the_scale_of_a_layout_can_be_overruled(write: Callable[..., Path]) -> None:
    path = write("u.data", "1\t1\t0.5\t1\n1\t2\t10\t1\n")

    dataset = read(path, scale=(0, 10))

    assert (dataset.low, dataset.high, dataset.notes) == (0, 10, ())


def test_a_found_scale_is_stated(write: Callable[..., Path]) -> None:
    dataset = read(write("any.csv", "user,item,rating\n1,1,-2\n1,2,7.5\n1,3,0\n"))

    assert (dataset.low, dataset.high, dataset.notes) == (-2, 7.5, (FOUND_SCALE.format(-2, 7.5),))


def test_no_scale_is_found_where_all_ratings_are_equal(write: Callable[..., Path]) -> None:
    path = write("any.csv", "user,item,rating\n1,1,3\n1,2,3\n")

    assert refusal(path) == (None, "every rating is 3, which does not determine a scale")
    assert read(path, scale=(1, 5)).high == 5


def test_a_rating_beyond_32_bits_is_refused(write: Callable[..., Path]) -> None:
    line, reason = refusal(write("any.csv", "user,item,rating\n1,1,3\n1,2,1e39\n"))

    assert line == 3
    assert reason.startswith("the rating 1e+39 is outside the scale")


@pytest.mark.parametrize("scale", [(5, 1), (3, 3), (float("nan"), 5), (1, float("inf"))])
def test_a_scale_that_is_no_range_is_refused(write: Callable[..., Path], scale: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="low < high"):
        read(write("any.csv", "user,item,rating\n1,1,3\n"), scale=scale)


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("noon", "the timestamp 'noon' is not a number"),
        ("nan", "the timestamp is NaN, not a finite number"),
        ("1e300", "the timestamp is not a time in seconds"),
    ],
)
def test_a_time_that_is_none_is_refused(write: Callable[..., Path], time: str, reason: str) -> None:
    assert refusal(write("any.csv", f"user,item,rating,time\n1,1,1,5\n1,2,2,{time}\n")) == (3, reason)


def test_times_are_whole_seconds(write: Callable[..., Path]) -> None:
    dataset = read(write("any.csv", "user,item,rating,time\n1,1,1,5.9\n1,2,2,-0.5\n1,3,2,7\n"))

    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [5, -1, 7]


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_identical_rows_are_dropped_and_counted(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    path = write("any.csv", "user,item,rating,time\n1,1,1,9\n2,1,5,1\n1,1,1.0,3\n2,2,5,1\n1,1,1,4\n")

    with caplog.at_level("DEBUG"):
        dataset = read(path, scale=(1, 5))

    assert caplog.messages == [], "what is held out may be among them"
    assert rows_of(dataset) == [("1", "1", 1), ("2", "1", 5), ("2", "2", 5)]
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [9, 1, 1]
    assert dataset.notes == ("rows dropped because they repeat another: 2",)


def test_two_different_ratings_of_one_item_are_refused(write: Callable[..., Path]) -> None:
    rows = "1,1,1\n2,2,2\n3,3,3\n3,3,3\n2,2,1\n1,1,2\n"

    found = refusal(write("any.csv", f"user,item,rating\n{rows}"))

    assert found == (6, "the user rated this item differently on line 3")


# --- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["any.csv", "any.csv.gz", "u.data", "ratings.dat", "tiny.inter"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_refused(write: Callable[..., Path], name: str, content: str) -> None:
    assert refusal(write(name, content)) == (None, "the file is empty")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_file_with_only_a_header_is_refused(write: Callable[..., Path], ending: str) -> None:
    assert refusal(write("any.csv", f"user,item,rating{ending}")) == (None, "the file holds no ratings")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_of_any_system_are_read(
    write: Callable[..., Path], ending: str, mark: str
) -> None:
    lines = ["user,item,rating", "2,20,5", "10,3,1", "2,3,4"]

    check_tiny(read(write("any.csv", mark + ending.join(lines))), 1, 5, has_times=False)


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, part: float) -> None:
    text = "user,item,rating\n" + "".join(f"{user},{user * 7 % 31},{user % 5}\n" for user in range(1000))
    data = gzip.compress(text.encode())
    path = tmp_path / "any.csv.gz"
    path.write_bytes(data[: int(part * len(data))])

    assert refusal(path) == (None, "the gzip stream ends too early: the file is truncated")


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"user,item,rating\n1,1,1\n1,2,2\n"))
    data[-6] ^= 1
    path = tmp_path / "any.csv.gz"
    path.write_bytes(data)

    assert refusal(path)[1].startswith("not a valid gzip file: CRC check failed")


def test_text_that_is_not_utf_8_is_refused_with_its_line(write: Callable[..., Path]) -> None:
    assert refusal(write("any.csv", b"user,item,rating\n1,1,1\n\xe9,2,2\n")) == (3, "the text is not UTF-8")
    assert refusal(write("any.csv", "user,item,rating\n1,1,1\n".encode("utf-16"))) == (1, "the text is not UTF-8")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "any.csv") == (None, "there is no such file or folder")


def test_a_folder_without_ratings_is_refused(write: Callable[..., Path]) -> None:
    folder = write("some/notes.txt", "x").parent

    assert refusal(folder)[1].endswith("this one holds none")

    for name in ("a.inter", "b.inter"):
        write(f"some/{name}", "x")
    assert refusal(folder)[1].endswith("this one holds 2 .inter files")


# --- Parquet ----------------------------------------------------------------------------------------------------------


def parquet_with(tmp_path: Path, **columns: pa.Array) -> Path:
    plain = {"user": pa.array([2, 10, 2]), "item": pa.array([20, 3, 3]), "rating": pa.array([5, 1, 4])}
    path = tmp_path / "any.parquet"
    pq.write_table(pa.table({**plain, **columns}), path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {"user": pa.array(["2", "10", "2"])},
        {"user": pa.array(["2", "10", "2"], pa.large_string())},
        {"user": pa.array([2, 10, 2], pa.uint64())},
        {"user": pa.array(["2", "10", "2"]).dictionary_encode()},
        {"user": pa.DictionaryArray.from_arrays(pa.array([1, 2, 1]), ["unused", "2", "10"])},
        {"rating": pa.array([5, 1, 4], pa.float32())},
        {"rating": pa.array([Decimal("5.0"), Decimal("1.0"), Decimal("4.0")])},
        {"rating": pa.array(["5", "1", "4"])},
        {"time": pa.array([30, 10, 20])},
        {"time": pa.array([30_000, 10_000, 20_999], pa.timestamp("ms"))},
        {"time": pa.array([30_000, 10_000, 20_999], pa.timestamp("ms", "Europe/Berlin"))},
    ],
)
def test_parquet_columns_of_many_types_are_read(tmp_path: Path, columns: dict[str, pa.Array]) -> None:
    check_tiny(read(parquet_with(tmp_path, **columns)), 1, 5, has_times="time" in columns)


@pytest.mark.parametrize(
    ("columns", "line", "reason"),
    [
        ({"rating": pa.array([5, None, 4])}, 2, "the rating is missing"),
        ({"user": pa.array(["2", "10", None])}, 3, "the user is missing"),
        ({"user": pa.array(["2", "10", ""])}, 3, "the user id is empty"),
        ({"rating": pa.array([5.0, 1.0, float("nan")])}, 3, "the rating is NaN, not a finite number"),
        ({"rating": pa.array(["5", "1", "four"])}, 3, "the rating 'four' is not a number"),
        ({"user": pa.array([2.0, 10.0, 2.0])}, None, "the user column holds double, not text or integers"),
        ({"rating": pa.array([True, False, True])}, None, "the rating column holds bool, not numbers"),
        ({"item": pa.array([20, 3, 20])}, 3, "the user rated this item differently on line 1"),
    ],
)
def test_bad_parquet_cells_are_refused_with_their_row(
    tmp_path: Path, columns: dict[str, pa.Array], line: int | None, reason: str
) -> None:
    assert refusal(parquet_with(tmp_path, **columns)) == (line, reason)


def test_parquet_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = parquet_with(tmp_path, user=pa.array([b"2", b"\xff", b"2"]).view(pa.string()))

    assert "UTF8" in refusal(path)[1]


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "any.parquet"
    pq.write_table(pa.table({name: pa.array([], pa.int64()) for name in ("user", "item", "rating")}), path)

    assert refusal(path) == (None, "the file holds no ratings")


@pytest.mark.parametrize("keep", [0, 4, 200])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = parquet_with(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])

    assert refusal(path)[1].startswith("not a valid Parquet file: ")


# --- item files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "line", "reason"),
    [
        ("movies.dat", "1::One::A\n2::Two\n", 2, "the row has 2 fields, not 3"),
        ("movies.dat", "1::One::A\n\n1::Two::A\n", 3, "the item '1' is described twice"),
        ("movies.csv", "title,genres\nOne,A\n", 1, "there is no item column (such as item_id, item, movie_id)"),
        ("movies.csv", "", None, "the file is empty"),
    ],
)
def test_a_bad_item_file_is_refused_with_its_line(
    write: Callable[..., Path], name: str, text: str, line: int | None, reason: str
) -> None:
    ratings = write("some/ratings.dat", "1::1::5::1\n1::2::4::1\n")
    items = write(f"some/{name}", text)

    with pytest.raises(DataError) as caught:
        read(ratings.parent)

    assert (caught.value.path, caught.value.line) == (str(items), line)
    assert caught.value.reason.startswith(reason)


# --- real data --------------------------------------------------------------------------------------------------------


def test_real_atomic_files_are_read(real_data: Callable[[str], Path]) -> None:
    dataset = read(real_data("ml-100k"))

    assert (len(dataset.user_ids), len(dataset.item_ids), len(dataset.values)) == (943, 1682, 100_000)
    assert (dataset.low, dataset.high, dataset.notes) == (1, 5, ())
    assert dataset.timestamps is not None
    assert dataset.catalogue is not None
    assert dataset.catalogue.years[0] == 1995
    assert dataset.catalogue.genres[0] == ("Animation", "Children's", "Comedy")
    assert dataset.item_ids == tuple(str(item + 1) for item in range(1682))


def test_real_parquet_is_read_beside_movies(shared_folder: Path) -> None:
    dataset = read(shared_folder / "data" / "ml-1m")

    assert (len(dataset.user_ids), len(dataset.item_ids), len(dataset.values)) == (6040, 3449, 999_714)
    assert dataset.timestamps is None
    assert dataset.catalogue is not None
    assert all(dataset.catalogue.titles)
    assert np.all(dataset.catalogue.years > 1900)
    assert dataset.notes == ("434 of the 3,883 items in movies.dat have no rating",)

"""Text and Parquet files as named columns, where every row can be traced to its line.

pyarrow reads whole columns. Only when it fails, or a check fails, is the text walked row by row to name the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from liberate.arrays import BoolArray, Float64Array, Int32Array
from liberate.errors import DataError

ALIASES: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "user", "uid", "user_name", "customer_id", "reviewer_id"),
    "item": ("item_id", "item", "movie_id", "movie", "book_id", "product_id", "parent_asin", "asin", "isbn", "iid"),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "timestamp": ("timestamp", "time", "unix_time", "unix_review_time"),
    "title": ("movie_title", "title", "name"),
    "year": ("release_year", "year"),
    "genres": ("genres", "genre", "class", "categories", "category"),
}
"""Column names that are found without being told, best first; `UserID` and `user-id` are read as `user_id`."""

RATING_ROLES: Mapping[str, bool] = {"user": True, "item": True, "rating": True, "timestamp": False}
"""What a column of a file of ratings can be, and whether there must be one."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNIT_SEPARATOR = "\x1f"  # stands for `::`, because to both parsers a separator is one character
_BLOCK_BYTES = 1 << 24  # a row must fit into a block
_LINE_END = re.compile(rb"\r\n?|\n")
_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,99}", re.ASCII)


# --- text -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a kind of text file is written.

    Attributes:
        separator: What stands between two fields; empty where the header tells.
        is_quoted: Whether a field may stand in double quotes.
        names: The columns, in order, of a file without a header; the last ones may be absent.
    """

    separator: str
    is_quoted: bool = False
    names: tuple[str, ...] = ()


def _layout_of(path: Path) -> _Layout:
    """Tell by its name how a text file is written."""
    name = path.name.removesuffix(".gz")
    match name.rpartition(".")[2]:
        case "item" if name == "u.item":
            return _Layout("|", names=("item", "title"))
        case "dat" if name == "movies.dat":
            return _Layout("::", names=("item", "title", "genres"))
        case "dat":
            return _Layout("::", names=("user", "item", "rating", "timestamp"))
        case "data":
            return _Layout("\t", names=("user", "item", "rating", "timestamp"))
        case "inter" | "item":
            return _Layout("\t")
        case _:
            return _Layout("", is_quoted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text file of rows, decompressed and not yet taken apart.

    Attributes:
        path: Where it came from.
        body: The rows, behind byte-order mark and header.
        separator: One character.
        is_quoted: Whether a field may stand in double quotes.
        names: Name of each column, from the header or the layout; empty where neither has one.
        first_line: Line number of the first row.
    """

    path: Path
    body: memoryview
    separator: str
    is_quoted: bool
    names: tuple[str, ...]
    first_line: int

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Walk the rows slowly: the line where each begins, and its fields. Blank lines are no rows."""
        # NOTE: the limit belongs to the whole process, and is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), len(self.body)))
        lines = io.StringIO(str(self.body, "utf-8", "surrogateescape"), newline="")
        line = self.first_line
        for n_lines, fields in _taken_apart(lines, self.separator, self.is_quoted):
            if fields:
                yield line, fields
            line = self.first_line + n_lines


def _taken_apart(lines: Iterable[str], separator: str, is_quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Take rows apart: the number of lines up to the end of each, and its fields."""
    reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE)
    for fields in reader:
        yield reader.line_num, fields


def open_text(path: Path, *, may_be_latin: bool = False) -> Text:
    """Load a text file and find its separator, its columns and where its rows begin.

    Args:
        path: The file; decompressed when its name ends in `.gz`.
        may_be_latin: Whether text that is not UTF-8 is ISO-8859-1, as GroupLens's older files are.

    Raises:
        DataError: The file cannot be read, is a damaged gzip file, is empty, or its first line is not UTF-8.
    """
    layout = _layout_of(path)
    data = _content(path).removeprefix(_BYTE_ORDER_MARK)
    if may_be_latin:
        data = _as_utf8(data)
    if layout.separator == "::":
        data = data.replace(b"::", _UNIT_SEPARATOR.encode())
    if not data.strip():
        raise DataError("the file is empty", path=str(path))
    line_end = _LINE_END.search(data)
    first = data[: line_end.end()] if line_end else data
    try:
        header = first.decode().strip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("the text is not UTF-8", path=str(path), line=1) from error
    separator = layout.separator.replace("::", _UNIT_SEPARATOR) or max(",\t;|", key=header.count)
    fields = next(_taken_apart([header], separator, layout.is_quoted))[1]
    if layout.names:
        names = [*layout.names, *[""] * len(fields)][: len(fields)]
    elif layout.is_quoted:
        names = [field.strip() for field in fields]
    else:  # a RecBole header gives the types too: user_id:token
        names = [field.partition(":")[0] for field in fields]
    return Text(
        path=path,
        body=memoryview(data)[0 if layout.names else len(first) :],
        separator=separator,
        is_quoted=layout.is_quoted,
        names=tuple(names),
        first_line=1 if layout.names else 2,
    )


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except EOFError as error:
        raise DataError("the gzip stream ends too early: the file is truncated", path=str(path)) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"not a sound gzip file: {error}", path=str(path)) from error
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", path=str(path)) from error


def _as_utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("iso-8859-1").encode()
    return data


# --- columns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns of a file that a reader asked for, whole.

    Attributes:
        path: Where they came from.
        columns: For each role, such as user, its column.
        line_of: Gives the line (Parquet: row) number, counted from 1, of the row with an index; slow.
    """

    path: Path
    columns: Mapping[str, pa.ChunkedArray]
    line_of: Callable[[int], int]

    def refusal(self, row: int, reason: str, *, hint: str = "") -> DataError:
        """Return the error that names a row, 0 <= row < number of rows."""
        return DataError(reason, path=str(self.path), line=self.line_of(row), hint=hint)

    def ids(self, role: str) -> tuple[Int32Array, tuple[str, ...]]:
        """Number the ids of a column, in numeric order when all are canonical integers, else in that of code points.

        An integer is canonical when it is written as Python writes it, without a leading zero or plus sign.

        Returns:
            The number of each row's id, shape (n_rows,), and the ids as text.

        Raises:
            DataError: An id is missing or empty, or the column holds neither text nor integers.
        """
        codes, entries = self._entries(role, are_distinct=True)
        if not _is_text(entries.type) and not pa.types.is_integer(entries.type):
            raise DataError(f"the {role} column holds {entries.type}, not text or integers", path=str(self.path))
        texts: list[str] = entries.cast(pa.string()).to_pylist()
        self._refuse_entries(codes, [not text.strip() for text in texts], lambda entry: f"the {role} id is empty")
        are_integers = all(_CANONICAL_INTEGER.fullmatch(text) for text in texts)
        order = sorted(range(len(texts)), key=(lambda i: int(texts[i])) if are_integers else texts.__getitem__)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return rank[codes], tuple(texts[i] for i in order)

    def numbers(self, role: str) -> Float64Array:
        """Return a column of finite numbers, shape (n_rows,); points in time become seconds since 1970-01-01 UTC.

        Raises:
            DataError: An entry is missing, no number, NaN or infinite, or the column holds something else.
        """
        codes, entries = self._entries(role, are_distinct=False)
        kind = entries.type
        if pa.types.is_timestamp(kind):
            entries = entries.cast(pa.timestamp("s", kind.tz), safe=False).cast(pa.int64())
        elif _is_text(kind):
            entries = pc.utf8_trim_whitespace(entries)
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise DataError(f"the {role} column holds {kind}, not numbers", path=str(self.path))
        try:
            numbers = entries.cast(pa.float64(), safe=False).to_numpy()
        except pa.ArrowInvalid:
            self._refuse_entries(
                codes,
                [not _is_number(entry) for entry in entries],
                lambda i: f"the {role} {entries[i].as_py()!r} is no number",
            )
            raise
        self._refuse_entries(
            codes,
            ~np.isfinite(numbers),
            lambda i: f"the {role} is {'NaN' if np.isnan(numbers[i]) else 'infinite'}, not a finite number",
        )
        values: Float64Array = numbers[codes]
        return values

    def _entries(self, role: str, *, are_distinct: bool) -> tuple[Int32Array, pa.Array]:
        """Return a column as entries, distinct if asked or stored so, and the number of each row's entry."""
        column = self.columns[role]
        if column.null_count:
            raise self.refusal(pc.index(column.is_null(), True).as_py(), f"the {role} is missing")
        if are_distinct and not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        if not pa.types.is_dictionary(column.type):
            return np.arange(len(column), dtype=np.int32), column.combine_chunks()
        encoded = column.unify_dictionaries().combine_chunks()
        return encoded.indices.to_numpy(), encoded.dictionary

    def _refuse_entries(
        self, codes: Int32Array, is_bad: Sequence[bool] | BoolArray, reason: Callable[[int], str]
    ) -> None:
        """Raise the refusal of the first row whose entry is bad, if there is one."""
        flags = np.asarray(is_bad, np.bool_)
        if flags.any():
            row = int(np.argmax(flags[codes]))
            raise self.refusal(row, reason(int(codes[row])))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(entry: pa.Scalar) -> bool:
    try:
        entry.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def choose_columns(
    path: Path, names: Sequence[str], roles: Mapping[str, bool], columns: Mapping[str, str], *, line: int | None
) -> dict[str, int]:
    """Find the column of each role.

    Args:
        path: The file, for the error.
        names: The names of the file's columns.
        roles: The roles wanted, and whether each is required.
        columns: For some roles, the exact name of the column; the others are found by `ALIASES`.
        line: Line of the header, for the error.

    Raises:
        DataError: A required column is missing, or a name stands for two columns.
    """
    plain = [_plain(name) for name in names]
    found = ", ".join(repr(name) for name in names)
    chosen = {}
    for role, is_required in roles.items():
        if role in columns:
            places = [place for place, name in enumerate(names) if name == columns[role]]
            wanted = f"named {columns[role]!r}"
        else:
            alias = next((alias for alias in map(_plain, ALIASES[role]) if alias in plain), None)
            places = [place for place, name in enumerate(plain) if name == alias]
            wanted = f"such as {', '.join(ALIASES[role][:3])}"
        if len(places) > 1:
            raise DataError(f"{len(places)} columns are called {names[places[0]]!r}", path=str(path), line=line)
        if places:
            chosen[role] = places[0]
        elif is_required or role in columns:
            raise DataError(
                f"there is no {role} column ({wanted}); the columns are {found}",
                path=str(path),
                line=line,
                hint=f"say which column holds the {role}",
            )
    return chosen


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_table(path: Path, columns: Mapping[str, str], roles: Mapping[str, bool] = RATING_ROLES) -> Table:
    """Read the columns user, item, rating and, where there is one, timestamp of a file of ratings.

    Args:
        path: The file; Parquet when its name ends in `.parquet`, else text.
        columns: Names of columns as for `choose_columns`.
        roles: Likewise; an item there must be.

    Raises:
        DataError: A column is missing, or the file is empty or malformed.
    """
    table = (_read_parquet if path.suffix == ".parquet" else _read_text)(path, columns, roles)
    if not len(table.columns["item"]):
        raise DataError("the file holds no ratings", path=str(path))
    return table


def _read_text(path: Path, columns: Mapping[str, str], roles: Mapping[str, bool]) -> Table:
    text = open_text(path)
    chosen = choose_columns(path, text.names, roles, columns, line=1)
    names = [str(place) for place in range(len(text.names))]
    few = pa.dictionary(pa.int32(), pa.string())  # few distinct entries: each is kept once
    kinds = {names[place]: pa.string() if role == "timestamp" else few for role, place in chosen.items()}
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(text.body)),
            read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=_BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=text.separator, quote_char='"' if text.is_quoted else False, newlines_in_values=text.is_quoted
            ),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=list(kinds), column_types=kinds),
        )
    except pa.ArrowInvalid as error:
        raise _explained(text, error) from error
    return Table(
        path=path,
        columns={role: table.column(names[place]) for role, place in chosen.items()},
        line_of=lambda row: next(islice(text.rows(), row, None))[0],
    )


def _explained(text: Text, error: pa.ArrowInvalid) -> DataError:
    """Say why pyarrow could not take a text apart: find the line."""
    path, wanted, n_rows = str(text.path), len(text.names), 0
    for line, fields in text.rows():
        if len(fields) != wanted:
            return DataError(f"the row has {len(fields)} fields, not {wanted}", path=path, line=line)
        n_rows += 1
    if not n_rows:
        return DataError("the file holds no ratings", path=path)
    try:
        str(text.body, "utf-8")
    except UnicodeDecodeError as flaw:
        line = text.first_line + bytes(text.body[: flaw.start]).count(b"\n")
        return DataError("the text is not UTF-8", path=path, line=line)
    return DataError(f"the text cannot be taken apart: {error}", path=path)


def _read_parquet(path: Path, columns: Mapping[str, str], roles: Mapping[str, bool]) -> Table:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = choose_columns(path, names, roles, columns, line=None)
            table = file.read(columns=[names[place] for place in chosen.values()])
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a sound Parquet file: {str(error).splitlines()[0]}", path=str(path)) from error
    return Table(
        path=path,
        columns={role: _without_dictionary(table.column(names[place])) for role, place in chosen.items()},
        line_of=lambda row: row + 1,
    )


def _without_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A stored dictionary may have entries that no row uses."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column

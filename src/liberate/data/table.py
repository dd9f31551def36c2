"""Text and Parquet files as named columns, where every row can be traced to its line.

pyarrow reads whole columns. Only when it fails, or a check fails, is the text walked row by row to name the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from liberate.arrays import BoolArray, Float64Array, Int32Array
from liberate.data.columns import RATING_ROLES, choose_columns
from liberate.data.dataset import ranked_ids
from liberate.data.text import Text, open_text
from liberate.errors import DataError

_BLOCK_BYTES = 1 << 24  # a row must fit into a block


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns of a file that a reader asked for, whole.

    Attributes:
        path: Where they came from.
        columns: For each role, such as user, its column.
        line_of: From the index of a row to its line (Parquet: row) number, counted from 1; slow.
    """

    path: Path
    columns: Mapping[str, pa.ChunkedArray]
    line_of: Callable[[int], int]

    def refusal(self, row: int, reason: str, *, hint: str = "") -> DataError:
        """Return the error that names a row, 0 <= row < number of rows."""
        return DataError(reason, path=str(self.path), line=self.line_of(row), hint=hint)

    def refuse(self, is_bad: BoolArray, reason: Callable[[int], str], *, hint: str = "") -> None:
        """Raise the refusal of the first row that is bad, shape (n_rows,), if there is one."""
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise self.refusal(row, reason(row), hint=hint)

    def ids(self, role: str) -> tuple[Int32Array, tuple[str, ...]]:
        """Number the ids of a column in the order of `ranked_ids`.

        Returns:
            The number of each row's id, shape (n_rows,), and the ids as text.

        Raises:
            DataError: An id is missing or empty, or the column holds neither text nor integers.
        """
        codes, entries = self._entries(role, are_distinct=True)
        if not _is_text(entries.type) and not pa.types.is_integer(entries.type):
            raise DataError(f"the {role} column holds {entries.type}, not text or integers", path=str(self.path))

        texts: list[str] = entries.cast(pa.string()).to_pylist()
        is_empty = np.array([not text.strip() for text in texts], np.bool_)
        self.refuse(is_empty[codes], lambda _: f"the {role} id is empty")

        ranks, ordered = ranked_ids(texts)
        return ranks[codes], ordered

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
            values: Float64Array = entries.cast(pa.float64(), safe=False).to_numpy()[codes]
        except pa.ArrowInvalid:
            is_bad = np.array([not _is_number(entry) for entry in entries], np.bool_)
            self.refuse(is_bad[codes], lambda row: f"the {role} {entries[int(codes[row])].as_py()!r} is not a number")
            raise

        self.refuse(
            ~np.isfinite(values),
            lambda row: f"the {role} is {'NaN' if np.isnan(values[row]) else 'infinite'}, not a finite number",
        )
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


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(entry: pa.Scalar) -> bool:
    try:
        entry.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


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

    # Columns are told apart by place: two may have one name.
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
    """Return the error that says why pyarrow could not parse a text, with the line where it can be found."""
    path = str(text.path)
    line = None
    for line, fields in text.rows():
        if len(fields) != len(text.names):
            return DataError(f"the row has {len(fields)} fields, not {len(text.names)}", path=path, line=line)
    if line is None:
        return DataError("the file holds no ratings", path=path)

    try:
        str(text.body, "utf-8")
    except UnicodeDecodeError as flaw:
        line = text.first_line + bytes(text.body[: flaw.start]).count(b"\n")
        return DataError("the text is not UTF-8", path=path, line=line)
    return DataError(f"the text cannot be parsed: {error}", path=path)


def _read_parquet(path: Path, columns: Mapping[str, str], roles: Mapping[str, bool]) -> Table:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = choose_columns(path, names, roles, columns, line=None)
            table = file.read(columns=[names[place] for place in chosen.values()])
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a valid Parquet file: {str(error).splitlines()[0]}", path=str(path)) from error

    return Table(
        path=path,
        columns={role: _without_dictionary(table.column(names[place])) for role, place in chosen.items()},
        line_of=lambda row: row + 1,
    )


def _without_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without its stored dictionary, which may have entries that no row uses."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column

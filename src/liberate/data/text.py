"""Text files of rows: decompressed, with their separator and columns found, and not yet parsed.

A row can be traced to its line by walking the text slowly; that is done only where an error has to name one.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from liberate.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNIT_SEPARATOR = "\x1f"  # written in place of `::`, because to both parsers a separator is one character
_LINE_END = re.compile(rb"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a kind of text file is written.

    Attributes:
        separator: What divides two fields; empty where the header tells.
        is_quoted: Whether a field may be in double quotes.
        names: The columns, in order, of a file without a header; the last ones may be absent.
    """

    separator: str
    is_quoted: bool = False
    names: tuple[str, ...] = ()


_LAYOUTS: Mapping[str, _Layout] = {
    "u.item": _Layout("|", names=("item", "title")),
    "movies.dat": _Layout("::", names=("item", "title", "genres")),
    "dat": _Layout("::", names=("user", "item", "rating", "timestamp")),
    "data": _Layout("\t", names=("user", "item", "rating", "timestamp")),
    "inter": _Layout("\t"),
    "item": _Layout("\t"),
}
"""By the name of the file, or else by its ending."""

_NAMED_COLUMNS = _Layout("", is_quoted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text file of rows, decompressed and not yet parsed.

    Attributes:
        path: Where it came from.
        body: The rows, after byte-order mark and header.
        separator: One character.
        is_quoted: Whether a field may be in double quotes.
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
        for n_lines, fields in _parsed(lines, self.separator, self.is_quoted):
            if fields:
                yield line, fields
            line = self.first_line + n_lines


def open_text(path: Path, *, may_be_latin: bool = False) -> Text:
    """Load a text file and find its separator, its columns and where its rows begin.

    Args:
        path: The file; decompressed when its name ends in `.gz`.
        may_be_latin: Whether text that is not UTF-8 is ISO-8859-1, as GroupLens's older files are.

    Raises:
        DataError: The file cannot be read, is a damaged gzip file, is empty, or its first line is not UTF-8.
    """
    name = path.name.removesuffix(".gz")
    layout = _LAYOUTS.get(name) or _LAYOUTS.get(name.rpartition(".")[2], _NAMED_COLUMNS)
    data = _content(path, may_be_latin=may_be_latin)
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
    _, fields = next(_parsed([header], separator, layout.is_quoted))
    return Text(
        path=path,
        body=memoryview(data)[0 if layout.names else len(first) :],
        separator=separator,
        is_quoted=layout.is_quoted,
        names=_column_names(layout, fields),
        first_line=1 if layout.names else 2,
    )


def _content(path: Path, *, may_be_latin: bool) -> bytes:
    """Return the bytes of a file, decompressed and without a byte-order mark."""
    try:
        data = path.read_bytes()
        data = (gzip.decompress(data) if path.suffix == ".gz" else data).removeprefix(_BYTE_ORDER_MARK)
    except EOFError as error:
        raise DataError("the gzip stream ends too early: the file is truncated", path=str(path)) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"not a valid gzip file: {error}", path=str(path)) from error
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", path=str(path)) from error

    return _as_utf8(data) if may_be_latin else data


def _as_utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("iso-8859-1").encode()
    return data


def _parsed(lines: Iterable[str], separator: str, is_quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Parse rows: the number of lines up to the end of each, and its fields."""
    reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE)
    return ((reader.line_num, fields) for fields in reader)


def _column_names(layout: _Layout, fields: list[str]) -> tuple[str, ...]:
    """Return a name for each field of the first line: the layout's, or those that the line itself is made of."""
    if layout.names:
        return (*layout.names, *[""] * len(fields))[: len(fields)]
    if layout.is_quoted:
        return tuple(field.strip() for field in fields)
    # A RecBole header holds the types too: user_id:token
    return tuple(field.partition(":")[0] for field in fields)

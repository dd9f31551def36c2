"""Write docs/reference/ledger-records.md from the schemas, the rules and the reason codes, or check what is there.

python -m scripts.describe_records [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import inspect as schema

from liberate.crypto.canonical_json import LARGEST_INTEGER, TOKEN_PATTERN
from liberate.ledger.format import number_sets, parts, records, refusals, sharing_records
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import Record
from liberate.ledger.rules.transition import AUTHORS
from scripts.generated_page import write_or_check

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "ledger-records.md"
PARTS = (
    number_sets.Range,
    parts.EnrolmentPolicy,
    parts.Terms,
    parts.Witnesses,
    parts.MechanismSpec,
    parts.Approval,
    parts.NewKey,
    sharing_records.UsedCopy,
    sharing_records.ErasureReport,
)

HEADER = """\
# Ledger records

Written from the code by `scripts/describe_records.py`.
How records become bytes, entries and trees stands in [](ledger-format.md); so do the rules that tie them together.

Every member is always present.
*natural* is an integer from 0 to 2<sup>53</sup> − 1, *positive* one from 1; *token* is a string that matches
`[a-z][a-z0-9_./-]{0,63}`; bytes are standard base64 with padding.
"""


def main() -> int:
    """Write the page, or with `--check` return 1 if it is not what the code says."""
    return write_or_check(PAGE, lambda _: describe())


def describe() -> str:
    """Return the page."""
    return "\n".join([HEADER, *_parts(), *_kinds(), *_reasons()])


def _kinds() -> Iterator[str]:
    yield "## What every record says\n"
    yield _table(RecordBase)
    yield "| `kind` | the name of its kind | which of the kinds below it is |\n"
    for kind in get_args(Record):
        yield f"## {kind.__struct_config__.tag}\n"
        yield _paragraphs(kind)
        yield f"- Signed by: {_authors(kind)}."
        yield f"- Subjects: {_subjects(kind)}\n"
        yield _table(kind, beside=RecordBase) + "\n"


def _parts() -> Iterator[str]:
    yield "## Parts of records\n"
    for part in PARTS:
        yield f"### {part.__name__}\n"
        yield _paragraphs(part)
        yield _table(part) + "\n"


def _reasons() -> Iterator[str]:
    yield "## Reason codes\n"
    yield "| code | the entry is refused because |\n|---|---|"
    meanings = dict(re.findall(r'^    "(\w+)",  # (.+)$', inspect.getsource(refusals), re.MULTILINE))
    for reason in get_args(refusals.Reason):
        yield f"| `{reason}` | {meanings[reason]} |"
    yield ""


def _authors(kind: type[Record]) -> str:
    if kind is records.Genesis:
        return "the founder, principal 0"
    return " or ".join(sorted(AUTHORS[kind]))


def _subjects(kind: type[Record]) -> str:
    if kind is records.Block:
        return "nobody, and not its author either."
    own = inspect.getdoc(kind.subjects) if "subjects" in vars(kind) else None
    return own or "nobody beside its author."


def _paragraphs(kind: type[msgspec.Struct]) -> str:
    return _join((inspect.getdoc(kind) or "").partition("\nAttributes:\n")[0]).strip() + "\n"


def _meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    text = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")[2]
    return {
        name: _join(meaning) for name, meaning in re.findall(r"^    (\w+): (.+(?:\n     +.+)*)", text, re.MULTILINE)
    }


def _join(text: str) -> str:
    return re.sub(r"\bNone\b", "null", re.sub(r"(?<=\S)\n *(?=\S)", " ", text))


def _table(kind: type[msgspec.Struct], *, beside: type[msgspec.Struct] | None = None) -> str:
    node = schema.type_info(kind)
    assert isinstance(node, schema.StructType)
    meanings = _meanings(kind)
    left_out = beside.__struct_fields__ if beside else ()
    rows = [
        f"| `{field.encode_name}` | {_type(field.type)} | {meanings.get(field.name, 'see above')} |"
        for field in node.fields
        if field.name not in left_out
    ]
    return "\n".join(["| member | type | meaning |", "|---|---|---|", *rows])


def _type(node: schema.Type) -> str:
    match node:
        case schema.IntType(ge=0, le=le) if le == LARGEST_INTEGER:
            return "natural"
        case schema.IntType(ge=1, le=le) if le == LARGEST_INTEGER:
            return "positive"
        case schema.StrType(pattern=pattern) if pattern == TOKEN_PATTERN:
            return "token"
        case schema.StrType(min_length=least, max_length=most):
            return "string" if most is None else f"string, {least} to {most} characters"
        case schema.BytesType(min_length=least, max_length=most):
            return f"{least} bytes" if least == most else f"{least} to {most} bytes"
        case schema.BoolType():
            return "boolean"
        case schema.NoneType():
            return "null"
        case schema.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case schema.StructType(cls=cls):
            return cls.__name__
        case schema.UnionType(types=members):
            return " or ".join(map(_type, sorted(members, key=lambda member: isinstance(member, schema.NoneType))))
        case schema.VarTupleType(item_type=item):
            return f"list of {_type(item)}"
        case schema.TupleType(item_types=items):
            return "list of exactly " + ", ".join(map(_type, items))
        case schema.DictType(key_type=key, value_type=value):
            return f"object: {_type(key)} → {_type(value)}"
        case _:
            raise TypeError(f"no words for {node}")


if __name__ == "__main__":
    sys.exit(main())

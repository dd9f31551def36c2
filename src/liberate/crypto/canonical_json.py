"""Records to bytes and back: a profile of RFC 8785 (JCS) in which there is one way to write each record.

The profile: ASCII member names, no floats, integers within ±(2**53 - 1), valid Unicode, no unknown members.
msgspec with sorted members writes exactly what RFC 8785 asks for within it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, inspect

from liberate.errors import InvalidRecord
from liberate.identifiers import Digest

LARGEST_INTEGER = 2**53 - 1

TOKEN_PATTERN = r"\A[a-z][a-z0-9_./-]{0,63}\Z"

Natural = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]
"""An integer from 0 to 2**53 - 1."""

Positive = Annotated[int, Meta(ge=1, le=LARGEST_INTEGER)]
"""An integer from 1 to 2**53 - 1."""

Integer = Annotated[int, Meta(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
"""An integer within ±(2**53 - 1)."""

Token = Annotated[str, Meta(pattern=TOKEN_PATTERN)]
"""A short ASCII name: a lower-case letter, then up to 63 of a-z, 0-9 and _ . / -."""

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""Exactly 32 bytes, written as standard base64."""

Hash = Annotated[Digest, Meta(min_length=32, max_length=32)]
"""A digest, written as `Bytes32`."""

StructT = TypeVar("StructT", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder(order="sorted")


def encode(record: msgspec.Struct) -> bytes:
    """Write a record in its one canonical form.

    Raises:
        InvalidRecord: a value lies outside its field's range, so no reader would accept the bytes.
    """
    data = _encoder.encode(record)
    decode(data, type(record))
    return data


def decode(data: bytes, kind: type[StructT]) -> StructT:
    """Read a record, accepting its canonical bytes only.

    Args:
        data: The bytes.
        kind: A struct, or a union of tagged structs, whose types all lie within the profile.

    Raises:
        InvalidRecord: not exactly the bytes that `encode` writes for such a record.
        TypeError: the type itself lies outside the profile.
    """
    try:
        record: StructT = _decoder(kind).decode(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not a record: {error}") from error
    if _encoder.encode(record) != data:
        raise InvalidRecord("not canonical: other bytes than RFC 8785 writes for this record")
    return record


@lru_cache(maxsize=64)
def _decoder(kind: type[StructT]) -> msgspec.json.Decoder[StructT]:
    _check_profile(inspect.type_info(kind))
    return msgspec.json.Decoder(kind)


def _has_ascii_values(key: inspect.Type) -> bool:
    match key:
        case inspect.StrType(pattern=pattern):
            return pattern == TOKEN_PATTERN
        case inspect.LiteralType(values=values):
            return all(isinstance(value, str) and value.isascii() for value in values)
        case _:
            return False


def _check_profile(node: inspect.Type) -> None:
    """Raise TypeError unless every value of a type can be written within the profile."""
    match node:
        case inspect.StructType(fields=fields, forbid_unknown_fields=True):
            if not all(field.encode_name.isascii() for field in fields):
                raise TypeError(f"{node.cls.__name__}: a member name is not ASCII")
            for field in fields:
                _check_profile(field.type)

        case inspect.UnionType(types=members) | inspect.TupleType(item_types=members):
            for member in members:
                _check_profile(member)
        case inspect.VarTupleType(item_type=item):
            _check_profile(item)
        case inspect.DictType(key_type=key, value_type=value) if _has_ascii_values(key):
            _check_profile(value)
        case inspect.IntType(ge=int(low), le=int(high)) if low >= -LARGEST_INTEGER and high <= LARGEST_INTEGER:
            pass
        case inspect.StrType() | inspect.BytesType() | inspect.BoolType() | inspect.NoneType() | inspect.LiteralType():
            pass
        case _:
            raise TypeError(f"{node} lies outside the canonical profile")

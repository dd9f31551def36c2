"""What records are made of: the parts that several kinds have, what every record says, sets of people as ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from liberate.crypto.encoding import Bytes32, Natural, Positive, Token
from liberate.crypto.signing import SIGNATURE_BYTES

_RANGE_GAP = 256
"""Numbers further apart than this begin a new range: a range costs about as much as a bitmap of this gap."""

Origin = Annotated[str, Meta(min_length=1, max_length=255)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
AdmittedRole = Literal["participant", "host", "coordinator", "witness", "auditor"]
Role = Literal["admitter", "log"] | AdmittedRole
Account = Literal["none", "epsilon", "rho"]
Fidelity = Literal["uploads", "sum"]


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some principal numbers: bit i of byte j of the bitmap stands for first + 8 * j + i.

    The first bit is set and the last byte is not zero.
    """

    first: Natural
    bitmap: Annotated[bytes, Meta(min_length=1, max_length=32_768)]


class Admission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which admitters may enrol a role, and how many of them must sign."""

    admitters: tuple[Natural, ...]
    threshold: Positive


class Witnesses(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verifier keys of the witnesses, and how many must have cosigned before a checkpoint is published."""

    keys: tuple[str, ...]
    threshold: Natural


class Mechanism(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The privacy mechanism of a round, by name and public integers."""

    name: Token
    parameters: dict[Token, Natural]


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A principal's next key, and its own signature over whose it will be: who names it holds it."""

    public: Bytes32
    possession: Signature


class Common(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every record says.

    Attributes:
        v: Version of the format.
        origin: Name of the ledger that the record was made for.
        author: Number of the principal who signs.
        seq: Greater than the author's last accepted one.
    """

    v: Literal[1] = 1
    origin: Origin
    author: Natural
    seq: Positive

    @property
    def kind(self) -> str:
        """The record's kind, as it stands in its bytes."""
        return str(self.__struct_config__.tag)

    def subjects(self) -> Iterable[int]:
        """Give the principals, beside the author, whose history the record belongs to."""
        return ()


def ranges(people: Iterable[int]) -> tuple[Range, ...]:
    """Write a set of principal numbers as ranges."""
    parts: list[list[int]] = []
    for number in sorted(set(people)):
        if not parts or number - parts[-1][-1] > _RANGE_GAP:
            parts.append([])
        parts[-1].append(number)
    return tuple(Range(first=part[0], bitmap=_bitmap(part)) for part in parts)


def numbers(people: Iterable[Range]) -> Iterator[int]:
    """Give the principal numbers that ranges stand for, in their order."""
    for part in people:
        for offset, byte in enumerate(part.bitmap):
            for bit in range(8):
                if byte >> bit & 1:
                    yield part.first + 8 * offset + bit


def includes(people: Iterable[Range], number: int) -> bool:
    """Whether a principal number is among those that ranges stand for."""
    for part in people:
        byte, bit = divmod(number - part.first, 8)
        if 0 <= byte < len(part.bitmap) and part.bitmap[byte] >> bit & 1:
            return True
    return False


def _bitmap(part: list[int]) -> bytes:
    first, last = part[0], part[-1]
    bitmap = bytearray((last - first) // 8 + 1)
    for number in part:
        bitmap[(number - first) >> 3] |= 1 << ((number - first) & 7)
    return bytes(bitmap)

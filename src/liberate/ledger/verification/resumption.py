"""What an auditor keeps of a ledger in which nothing was found: enough to check only what is appended later.

The file belongs to the auditor and is believed: whoever can change it can make the next check overlook something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from liberate.crypto.merkle import MutableTree
from liberate.errors import LedgerError
from liberate.files import write_atomic
from liberate.identifiers import Digest
from liberate.ledger.rules.state import State


class VerifiedPrefix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ledger as far as it was checked, up to the end of a block.

    Attributes:
        layout: How the file is written.
        size: Number of entries.
        roots: Right edge of the tree over them.
        state: What the rules made of them.
    """

    layout: Literal["liberate/verified/1"] = "liberate/verified/1"
    size: int
    roots: tuple[Digest, ...]
    state: State


def save(path: Path, verified: VerifiedPrefix) -> None:
    """Write the file, or replace it as a whole."""
    write_atomic(path, msgspec.msgpack.encode(verified, enc_hook=_levels))


def load(path: Path) -> VerifiedPrefix | None:
    """Return what the file holds, or None when there is no file.

    Raises:
        LedgerError: it was not written by `save` of this version.
    """
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=VerifiedPrefix, dec_hook=_tree)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{path} does not say what was verified: {error}", hint="without the file, everything is verified again"
        ) from error


def _levels(value: object) -> list[bytes]:
    if isinstance(value, MutableTree):
        return value.levels
    raise NotImplementedError(f"no way to write {type(value).__name__}")


def _tree(kind: type, levels: object) -> MutableTree:
    # Of another type than `kind` msgspec refuses it, and what is no list of levels `convert` does.
    return MutableTree(msgspec.convert(levels, Annotated[list[bytes], msgspec.Meta(min_length=1)]))

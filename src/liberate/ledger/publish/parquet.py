"""A ledger as a Parquet table, one row per entry, for DuckDB, Polars, Spark and the like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from liberate.crypto.signing import key_id
from liberate.errors import LedgerError
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.format.records import Block, Record, Round
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import checkpoint_for_publication
from liberate.ledger.publish.tiles import ExportReport
from liberate.ledger.rules.state import State

ENTRIES = "entries.parquet"
_ROW_GROUP = 20_000
_ROW_GROUP_BYTES = 1 << 25

_FIELDS = {
    "number": pa.int64(),
    "role": pa.string(),
    "round": pa.int64(),
    "run": pa.int64(),
    "version": pa.int64(),
    "account": pa.string(),
    "spend_nano": pa.int64(),
    "commitment": pa.binary(32),
    "digest": pa.binary(32),
    "reason": pa.string(),
}
"""Members of records that have a column of their own, null where a record has none."""

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("author", pa.int64(), nullable=False),
        pa.field("key_id", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("subjects", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False),
        *(pa.field(name, kind) for name, kind in _FIELDS.items()),
        pa.field("leaf_hash", pa.binary(32), nullable=False),
        pa.field("record", pa.string(), nullable=False),
        pa.field("entry", pa.binary(), nullable=False),
    ]
)
"""`height` and `time` are the block's, `record` is the JSON text that was signed, `entry` what was hashed."""


@dataclass(frozen=True, slots=True)
class _BlockEntry:
    """An entry, its position, and the block that ends its batch."""

    position: int
    entry: Entry
    block: Block


def export_parquet(ledger: Ledger, folder: Path, note: str | None = None) -> ExportReport:
    """Write all entries under a checkpoint as `entries.parquet`, whole or not at all.

    Args:
        ledger: The ledger.
        folder: Where the table goes; an older one is replaced.
        note: The checkpoint, which goes into the table's metadata; the newest by default.

    Raises:
        NoQuorum: Fewer witnesses have cosigned the checkpoint than the genesis wants.
        LedgerError: The ledger is damaged.
    """
    note, checkpoint = checkpoint_for_publication(ledger, note)
    folder.mkdir(parents=True, exist_ok=True)
    path, draft = folder / ENTRIES, folder / f".{ENTRIES}.draft"
    schema = SCHEMA.with_metadata({"liberate.checkpoint": note, "liberate.log_vkey": ledger.state.founding.log_vkey})
    with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for group in _groups(_entries_with_blocks(ledger, checkpoint.size)):
            writer.write_table(_table(group, ledger.state, schema))
    draft.replace(path)
    return ExportReport(path, checkpoint.size, checkpoint.root)


def _entries_with_blocks(ledger: Ledger, size: int) -> Iterator[_BlockEntry]:
    """Yield the first entries of a ledger, each as soon as the block that ends its batch is read."""
    batch: list[Entry] = []
    wanted = 0
    for position, data in ledger.entries(0, size):
        if position != wanted:
            break
        wanted += 1
        entry = decode_entry(data)
        batch.append(entry)
        if isinstance(entry.record, Block):
            for at, member in enumerate(batch, start=wanted - len(batch)):
                yield _BlockEntry(at, member, entry.record)
            batch.clear()

    if wanted != size or batch:
        what = "the block of the last entries" if wanted == size else f"entry {wanted}"
        raise LedgerError(f"{what} is missing", hint="check it: liberate ledger verify")


def _groups(members: Iterator[_BlockEntry]) -> Iterator[list[_BlockEntry]]:
    """Collect entries for row groups of bounded size."""
    group: list[_BlockEntry] = []
    n_bytes = 0
    for member in members:
        group.append(member)
        n_bytes += len(member.entry.data)
        if len(group) == _ROW_GROUP or n_bytes >= _ROW_GROUP_BYTES:
            yield group
            group, n_bytes = [], 0
    if group:
        yield group


def _table(group: Sequence[_BlockEntry], state: State, schema: pa.Schema) -> pa.Table:
    records = [member.entry.record for member in group]
    author_keys = [state.author_key(member.entry.record, member.position) for member in group]
    columns = {
        "position": [member.position for member in group],
        "height": [member.block.seq for member in group],
        "time": [member.block.time_us for member in group],
        "kind": [record.kind for record in records],
        "author": [record.author for record in records],
        "key_id": [key_id(key) for key in author_keys],
        "seq": [record.seq for record in records],
        "subjects": [list(record.subjects()) for record in records],
        "leaf_hash": [member.entry.leaf_hash for member in group],
        "record": [member.entry.body.decode() for member in group],
        "entry": [member.entry.data for member in group],
    }

    columns |= {name: [_member(record, name) for record in records] for name in _FIELDS}
    return pa.table(columns, schema)


def _member(record: Record, name: str) -> object:
    """Return a member of a record, or None where it has none.

    The number of a round is what other records call their round.
    """
    if isinstance(record, Round) and name in ("number", "round"):
        return record.number if name == "round" else None
    return getattr(record, name, None)

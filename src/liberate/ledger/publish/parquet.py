"""A ledger as a Parquet table, one row per entry, for DuckDB, Polars, Spark and the like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from liberate.crypto.signing import key_id
from liberate.errors import LedgerError
from liberate.ledger.format.entries import Entry, decode_entry
from liberate.ledger.format.records import Block, Round
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import checkpoint_for_publication
from liberate.ledger.publish.tiles import ExportReport

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


def export_parquet(ledger: Ledger, folder: Path, note: str | None = None) -> ExportReport:
    """Write all entries under a checkpoint as `entries.parquet`, whole or not at all.

    Args:
        ledger: The ledger.
        folder: Where the table goes; an older one is replaced.
        note: The checkpoint, which goes into the table's metadata; the newest by default.

    Raises:
        NoQuorum: fewer witnesses have cosigned the checkpoint than the genesis wants.
        LedgerError: the ledger is damaged.
    """
    note, checkpoint = checkpoint_for_publication(ledger, note)
    folder.mkdir(parents=True, exist_ok=True)
    path, draft = folder / ENTRIES, folder / f".{ENTRIES}.draft"
    schema = SCHEMA.with_metadata({"liberate.checkpoint": note, "liberate.log_vkey": ledger.state.founding.log_vkey})
    with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for rows in _groups(_rows(ledger, checkpoint.size)):
            writer.write_table(pa.Table.from_pylist(rows, schema))
    draft.replace(path)
    return ExportReport(path, checkpoint.size, checkpoint.root)


def _rows(ledger: Ledger, size: int) -> Iterator[dict[str, Any]]:
    batch: list[tuple[int, Entry]] = []
    wanted = 0
    for position, data in ledger.entries(0, size):
        if position != wanted:
            break
        wanted += 1
        entry = decode_entry(data)
        batch.append((position, entry))
        if isinstance(entry.record, Block):
            for at, member in batch:
                yield _row(at, member, ledger.state.key_at(member.record.author, at), entry.record)
            batch.clear()
    if wanted != size or batch:
        what = "the block of the last entries" if wanted == size else f"entry {wanted}"
        raise LedgerError(f"{what} is missing", hint="check it: liberate ledger verify")


def _row(position: int, entry: Entry, author_key: bytes, block: Block) -> dict[str, Any]:
    record = entry.record
    fields = {name: getattr(record, name, None) for name in _FIELDS}
    if isinstance(record, Round):  # its own number is what other records call their round
        fields |= {"round": record.number, "number": None}
    return {
        "position": position,
        "height": block.seq,
        "time": block.time_us,
        "kind": record.kind,
        "author": record.author,
        "key_id": key_id(author_key),
        "seq": record.seq,
        "subjects": list(record.subjects()),
        **fields,
        "leaf_hash": entry.leaf_hash,
        "record": entry.body.decode(),
        "entry": entry.data,
    }


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Collect rows into row groups of bounded size."""
    group: list[dict[str, Any]] = []
    n_bytes = 0
    for row in rows:
        group.append(row)
        n_bytes += len(row["entry"])
        if len(group) == _ROW_GROUP or n_bytes >= _ROW_GROUP_BYTES:
            yield group
            group, n_bytes = [], 0
    if group:
        yield group

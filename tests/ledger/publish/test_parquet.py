"""The table holds every entry, says what the entries say, and is read a group at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from liberate.crypto import merkle
from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import key_id, verify_signature
from liberate.errors import LedgerError
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, signed_bytes
from liberate.ledger.format.records import Block
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish import parquet
from liberate.ledger.publish.parquet import SCHEMA, export_parquet
from tests.ledger.world import HOST, LOG_VKEY, PARTICIPANTS, create, write_history


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """A ledger with one of everything."""
    ledger = create(tmp_path / "ledger")
    write_history(ledger)
    yield ledger
    ledger.close()


def test_every_entry_is_a_row(ledger: SqliteLedger, tmp_path: Path) -> None:
    exported = export_parquet(ledger, tmp_path / "table")

    assert exported.path == tmp_path / "table" / "entries.parquet"
    rows: list[dict[str, Any]] = pq.read_table(exported.path).to_pylist()
    assert [(row["position"], row["entry"]) for row in rows] == list(ledger.entries())
    assert merkle.root([Digest(row["leaf_hash"]) for row in rows]) == exported.root
    assert exported.entry_count == len(rows)
    for row in rows:
        entry = decode_entry(row["entry"])
        record: dict[str, Any] = json.loads(msgspec.json.encode(entry.record))
        assert json.loads(row["record"]) == record
        assert row["record"].encode() == entry.body
        assert {name: row[name] for name in ("kind", "author", "seq")} == {
            name: record[name] for name in ("kind", "author", "seq")
        }
        public = ledger.state.author_key(entry.record, row["position"])
        verify_signature(public, signed_bytes(entry.body), entry.signature)
        assert row["key_id"] == key_id(public)
        assert row["subjects"] == list(entry.record.subjects())


def test_rows_have_height_and_time_of_their_block(ledger: SqliteLedger, tmp_path: Path) -> None:
    rows = pq.read_table(export_parquet(ledger, tmp_path).path).to_pylist()

    blocks = [(row["position"], decode_entry(row["entry"]).record) for row in rows if row["kind"] == "block"]
    for row in rows:
        block = next(block for position, block in blocks if position >= row["position"])
        assert isinstance(block, Block)
        assert row["height"] == block.seq
        assert row["time"] == datetime.fromtimestamp(block.time_us / 1_000_000, UTC)


def test_columns_can_be_queried(ledger: SqliteLedger, tmp_path: Path) -> None:
    table = pq.read_table(export_parquet(ledger, tmp_path).path)

    def where(kind: str) -> pa.Table:
        return table.filter(pc.field("kind") == kind)

    assert where("enrol")["role"].to_pylist() == ["coordinator", *["participant"] * 3, "host"]
    assert where("enrol")["number"].to_pylist() == [2, *PARTICIPANTS, HOST]
    assert where("round")["round"].to_pylist() == [1, 2, 3, 4]
    assert where("round")["run"].to_pylist() == [1, 1, 2, 2]
    assert where("model")["version"].to_pylist() == [1, 2, 3]
    assert where("aborted").select(["round", "reason"]).to_pylist() == [{"round": 3, "reason": "insufficient_cohort"}]
    updates = where("update").group_by("round").aggregate([("spend_nano", "sum"), ("account", "count_distinct")])
    assert updates.sort_by("round").to_pylist() == [
        {"round": number, "spend_nano_sum": total, "account_count_distinct": 1}
        for number, total in ((1, 6), (2, 2), (3, 2), (4, 4))
    ]
    assert where("update").filter(pc.field("author") == HOST)["subjects"].to_pylist() == [list(PARTICIPANTS)]


def test_the_table_carries_its_checkpoint(ledger: SqliteLedger, tmp_path: Path) -> None:
    exported = export_parquet(ledger, tmp_path)

    metadata = pq.read_schema(exported.path).metadata
    checkpoint = verify_checkpoint(metadata[b"liberate.checkpoint"].decode(), LOG_VKEY)
    assert (checkpoint.size, checkpoint.root) == (exported.entry_count, exported.root)
    assert metadata[b"liberate.log_vkey"].decode() == LOG_VKEY


@pytest.mark.parametrize(("name", "limit"), [("_ROW_GROUP", 10), ("_ROW_GROUP_BYTES", 3_000)])
def test_rows_are_written_in_groups(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(parquet, name, limit)

    file = pq.ParquetFile(export_parquet(ledger, tmp_path).path)

    assert file.num_row_groups > 3
    assert file.read().schema.equals(SCHEMA)
    assert file.read()["position"].to_pylist() == list(range(ledger.size))


def test_a_second_export_replaces_the_first(ledger: SqliteLedger, tmp_path: Path) -> None:
    (tmp_path / "entries.parquet").write_text("an older one")

    export_parquet(ledger, tmp_path)

    assert pq.read_metadata(tmp_path / "entries.parquet").num_rows == ledger.size
    assert not list(tmp_path.glob(".*"))


def test_a_table_of_a_damaged_ledger_is_not_written(ledger: SqliteLedger, tmp_path: Path) -> None:
    last = ledger.size - 1
    ledger.close()
    connection = tables.connect(tmp_path / "ledger", mode="rw")
    connection.execute("DELETE FROM entry WHERE position = ?", (last - 3,))
    connection.close()
    damaged = SqliteLedger.open(tmp_path / "ledger")

    with pytest.raises(LedgerError, match="missing"):
        export_parquet(damaged, tmp_path / "table")

    damaged.close()
    assert not (tmp_path / "table" / "entries.parquet").exists()

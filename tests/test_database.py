"""Stores in SQLite: all or nothing, private to their owner, and a failing disk is no refusal."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from liberate.database import SqliteStore
from liberate.errors import LiberateError

SCHEMA = "CREATE TABLE IF NOT EXISTS word (text TEXT PRIMARY KEY) STRICT;"


def words(store: SqliteStore) -> list[str]:
    return [text for (text,) in store._rows("SELECT text FROM word ORDER BY text")]


def test_a_transaction_that_breaks_off_changes_nothing(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "words.sqlite", SCHEMA) as store:
        store._execute("INSERT INTO word VALUES ('before')")

        with pytest.raises(OSError, match="UNIQUE"), store._transaction():
            store._execute_many("INSERT INTO word VALUES (?)", [("within",), ("before",)])

        store._execute("INSERT INTO word VALUES ('after')")
        assert words(store) == ["after", "before"]


def test_the_file_and_its_folder_are_their_owners_only(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "store" / "words.sqlite", SCHEMA).close()

    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "store" / "words.sqlite").stat().st_mode) == 0o600


def test_an_error_of_sqlite_names_the_file_and_what_to_try(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    with SqliteStore(path, SCHEMA) as store, SqliteStore(path, SCHEMA, wait_s=0) as other:
        store._execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match=r"locked \(another program holds the file") as caught:
            other._execute("INSERT INTO word VALUES ('other')")

    assert caught.value.filename == str(path)
    assert not isinstance(caught.value, LiberateError)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    path.write_bytes(b"no database " * 100)

    with pytest.raises(OSError, match="not a database"):
        SqliteStore(path, SCHEMA)


def test_a_damaged_file_is_released(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    path.write_bytes(b"no database " * 100)
    store = SqliteStore.__new__(SqliteStore)

    with pytest.raises(OSError, match="not a database"):
        store.__init__(path, SCHEMA)  # type: ignore[misc]

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        store._db.execute("SELECT 1")

"""Whatever is changed in a stored ledger is found, and named with its place."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liberate.crypto.merkle import CompactRange, leaf_hash, root
from liberate.crypto.note import Checkpoint, sign_checkpoint, verifier_key
from liberate.crypto.signing import SigningKey, key_id
from liberate.errors import InvalidRecord, LedgerError, RefusedEntry
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Block
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry
from liberate.ledger.verification.findings import Finding
from liberate.ledger.verification.verify import VerificationReport, verify_ledger
from liberate.randomness import SimulatedClock
from tests.ledger.world import LOG_KEY, LOG_VKEY, ORIGIN, World, create, genesis, key, write_history

KEYS = {
    "entry": ("position",),
    "node": ("position", "level"),
    "about": ("principal", "position"),
    "principal": ("number",),
    "evidence": ("author", "seq"),
    "checkpoint": ("number",),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed ledger with one of everything."""
    folder = tmp_path_factory.mktemp("sound")
    ledger = create(folder)
    write_history(ledger)
    ledger.close()
    return folder


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return copied(sound, tmp_path / "copy")


def copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    shutil.copy(folder / tables.LEDGER_FILE, to)
    return to


def damage(folder: Path, *statements: str) -> None:
    """Run SQL on the file, without any of the ledger's care."""
    with closing(sqlite3.connect(folder / tables.LEDGER_FILE)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, "the statement changes something"


def places(audit: VerificationReport) -> list[str]:
    return [finding.place for finding in audit.findings]


# --- sound ledgers ---------------------------------------------------------------------------------------------------


def test_a_sound_ledger_is_ok(sound: Path) -> None:
    with closing(SqliteLedger.open(sound)) as ledger:
        leaves = [leaf_hash(data) for _, data in ledger.entries()]

    audit = verify_ledger(sound)

    assert audit == VerificationReport(
        ok=True,
        trusted=False,
        distrust="simulated",
        simulated=True,
        entry_count=len(leaves),
        trusted_size=0,
        cosigned_size=None,
        root=root(leaves),
        origin=ORIGIN,
        key_id=key_id(LOG_KEY.public),
        findings=(),
    )


def test_every_checkpoint_that_was_ever_given_out_still_holds(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    notes = [sign_checkpoint(Checkpoint(ORIGIN, 0, root([])), LOG_KEY), ledger.checkpoint()]
    world = World(ledger).populate()
    notes.append(ledger.checkpoint())
    world.add(world.round())
    notes.append(ledger.checkpoint())

    assert all(verify_ledger(tmp_path, key=LOG_VKEY, checkpoint=note).ok for note in notes)
    ledger.close()


def test_a_ledger_in_use_can_be_checked(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    World(ledger).populate()

    assert verify_ledger(tmp_path).ok
    ledger.close()


def test_a_ledger_that_is_not_simulated_says_so(tmp_path: Path) -> None:
    entry = sign(genesis(simulated=False), key(0))
    SqliteLedger.create(tmp_path, entry, LOG_KEY, SimulatedClock()).close()

    assert verify_ledger(tmp_path).simulated is False


def test_a_folder_without_a_ledger_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        verify_ledger(tmp_path)


def test_a_key_that_is_none_is_an_error(sound: Path) -> None:
    with pytest.raises(InvalidRecord):
        verify_ledger(sound, key="no key")


# --- any bit of any cell ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One stored value, with the column types and key of its row."""

    table: str
    column: str
    keys: tuple[int, ...]
    value: int | str | bytes

    @property
    def n_bits(self) -> int:
        return 64 if isinstance(self.value, int) else 8 * len(self.value)

    def flipped(self, bit: int) -> int | str | bytes:
        match self.value:
            case int():
                unsigned = self.value % 2**64 ^ 1 << bit
                return unsigned - 2**64 if unsigned >= 2**63 else unsigned
            case str():
                return _flip(self.value.encode(), bit).decode("utf-8", "surrogateescape")
            case bytes():
                return _flip(self.value, bit)

    def write(self, folder: Path, value: int | str | bytes) -> None:
        """Store another value; a str may hold escaped bytes that are no UTF-8."""
        place = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
        stored = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        condition = " AND ".join(f"{name} = ?" for name in KEYS[self.table])
        statement = f"UPDATE {self.table} SET {self.column} = {place} WHERE {condition}"
        with closing(sqlite3.connect(folder / tables.LEDGER_FILE)) as connection, connection:
            assert connection.execute(statement, (stored, *self.keys)).rowcount == 1

    def places(self, value: int | str | bytes) -> set[str]:
        """How a finding may name the row: by its old key or by its new one."""
        new = [value if name == self.column else part for name, part in zip(KEYS[self.table], self.keys, strict=True)]
        return {f"{self.table} {'/'.join(map(str, parts))}" for parts in (self.keys, new)}


def _flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def cells(folder: Path) -> list[Cell]:
    """Every value of every row of every table."""
    found = []
    with closing(sqlite3.connect(folder / tables.LEDGER_FILE)) as connection:
        connection.row_factory = sqlite3.Row
        for table, keys in KEYS.items():
            for row in connection.execute(f"SELECT * FROM {table}"):
                found += [Cell(table, name, tuple(row[key] for key in keys), row[name]) for name in row.keys()]  # noqa: SIM118 - a Row iterates over values
    return found


def check_flip(sound: Path, folder: Path, cell: Cell, bit: int) -> None:
    value = cell.flipped(bit)
    try:
        cell.write(copied(sound, folder), value)
    except sqlite3.IntegrityError:
        return  # another row has this key: the file cannot hold such a change
    audit = verify_ledger(folder)

    assert not audit.ok
    assert cell.places(value) & set(places(audit)), audit.findings[:5]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_of_any_cell_is_found_with_its_place(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(KEYS)))
    cell = data.draw(st.sampled_from([cell for cell in cells(sound) if cell.table == table]))
    bit = data.draw(st.integers(0, cell.n_bits - 1))

    check_flip(sound, tmp_path / "copy", cell, bit)


@pytest.mark.soak
def test_a_flipped_bit_of_each_cell_is_found_with_its_place(sound: Path, tmp_path: Path) -> None:
    for cell in cells(sound):
        for bit in range(0, cell.n_bits, 7):
            check_flip(sound, tmp_path / "copy", cell, bit)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_of_the_file_is_found_unless_no_cell_changed(
    sound: Path, tmp_path: Path, data: st.DataObject
) -> None:
    folder = copied(sound, tmp_path / "copy")
    original = (folder / tables.LEDGER_FILE).read_bytes()
    offset = data.draw(st.integers(0, len(original) - 1))
    bit = data.draw(st.integers(0, 7))
    (folder / tables.LEDGER_FILE).write_bytes(_flip(original, 8 * offset + bit))

    audit = verify_ledger(folder)

    if audit.ok:
        assert cells(folder) == cells(sound)


@pytest.mark.parametrize("length", [0, 1, 100, 4096, 5000, 20_000])
def test_a_file_that_is_cut_short_is_found(copy: Path, length: int) -> None:
    path = copy / tables.LEDGER_FILE
    path.write_bytes(path.read_bytes()[:length])

    audit = verify_ledger(copy, key=LOG_VKEY)

    assert not audit.ok
    assert audit.findings


# --- whole rows and tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("DELETE FROM entry WHERE position = 9", "entry 9"),
        ("DELETE FROM entry WHERE position = 0", "entry 0"),
        ("DELETE FROM node WHERE position = 7 AND level = 2", "node 7/2"),
        ("DELETE FROM about WHERE principal = 6", "about 6/"),
        ("DELETE FROM principal WHERE number = 5", "principal 5"),
        ("DELETE FROM principal", "principal 0"),
        ("DELETE FROM checkpoint", "checkpoint 0"),
        ("DELETE FROM entry", "entry"),
        ("INSERT INTO entry VALUES (99, x'00', 'update', 3, 99)", "entry 99"),
        ("INSERT INTO node VALUES (6, 1, zeroblob(32))", "node 6/1"),
        ("INSERT INTO node VALUES (99, 1, zeroblob(32))", "node 99/1"),
        ("INSERT INTO node VALUES (-1, 1, zeroblob(32))", "node -1/1"),
        ("INSERT INTO about VALUES (99, 1)", "about 99/1"),
        ("INSERT INTO about VALUES (3, 0)", "about 3/0"),
        ("INSERT INTO about VALUES (-3, -1)", "about -3/-1"),
        ("INSERT INTO principal VALUES (7, zeroblob(130))", "principal 7"),
        ("INSERT INTO principal VALUES (-1, zeroblob(130))", "principal -1"),
        ("INSERT INTO checkpoint SELECT 1, note FROM checkpoint", "checkpoint 0"),
        ("UPDATE checkpoint SET note = CAST(note || note AS BLOB)", "checkpoint 0"),
        ("UPDATE principal SET leaf = substr(leaf, 2)", "principal 0"),
        ("CREATE TABLE extra (x)", "schema extra"),
        ("CREATE VIEW extra AS SELECT 1", "schema extra"),
        ("CREATE TRIGGER extra AFTER INSERT ON entry BEGIN SELECT 1; END", "schema extra"),
        ("ALTER TABLE entry ADD COLUMN extra INTEGER", "schema entry"),
        ("ALTER TABLE node ADD COLUMN extra INTEGER", "schema node"),
        ("DROP INDEX entry_kind", "schema entry_kind"),
        ("DROP TABLE about", "schema about"),
        ("DROP TABLE entry", "schema entry"),
        ("DROP TABLE checkpoint", "schema checkpoint"),
        (f"PRAGMA user_version = {tables.LAYOUT_VERSION + 1}", tables.LEDGER_FILE),
    ],
)
def test_rows_and_tables_that_should_not_be_so_are_found(copy: Path, statement: str, place: str) -> None:
    damage(copy, statement)

    audit = verify_ledger(copy)

    assert not audit.ok
    assert any(found.startswith(place) for found in places(audit)), audit.findings


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("entry", "entry = CAST(entry AS TEXT)"),
        ("entry", "entry = NULL"),
        ("entry", "entry = 1000000000000"),
        ("entry", "kind = CAST(kind AS BLOB)"),
        ("entry", "kind = NULL"),
        ("entry", "author = CAST(author AS REAL)"),
        ("entry", "seq = CAST(seq AS TEXT)"),
        ("node", "hash = CAST(hash AS TEXT)"),
        ("node", "hash = NULL"),
        ("node", "position = 'text'"),
        ("node", "level = 'text'"),
        ("about", "position = 'text'"),
        ("about", "principal = 1.5"),
        ("principal", "leaf = CAST(leaf AS TEXT)"),
        ("principal", "leaf = NULL"),
        ("checkpoint", "note = CAST(note AS TEXT)"),
        ("checkpoint", "note = NULL"),
    ],
)
def test_values_of_another_type_are_found(copy: Path, table: str, change: str) -> None:
    """The file's own definitions forbid them, so the definitions are loosened, and put back afterwards."""
    definition = tables.SCHEMA[table]
    loose = definition.replace(" NOT NULL", "").replace(" STRICT,", "").replace(" STRICT", "")
    loose = loose.replace("seq INTEGER", "seq").replace("author INTEGER", "author").replace("kind TEXT", "kind")
    redefine(copy, table, loose)
    row = ", ".join(KEYS[table])
    damage(copy, f"UPDATE {table} SET {change} WHERE ({row}) = (SELECT {row} FROM {table} LIMIT 1)")
    redefine(copy, table, definition)

    audit = verify_ledger(copy)

    assert any(found.startswith(table) for found in places(audit)), audit.findings


def redefine(folder: Path, table: str, definition: str) -> None:
    with closing(sqlite3.connect(folder / tables.LEDGER_FILE)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (definition, table))


def test_of_very_many_findings_a_thousand_are_listed(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    world = World(ledger)
    world.add(*(world.enrol(2 + i, "participant", seq=2 + i) for i in range(1_100)))
    ledger.close()
    damage(tmp_path, "UPDATE entry SET kind = 'update'")

    audit = verify_ledger(tmp_path)

    assert len(audit.findings) == 1_001
    assert audit.findings[-1].reason.endswith("more findings are not listed")


# --- a dishonest keeper, who writes everything derived anew ----------------------------------------------------------


def rewrite(folder: Path, entries: list[bytes]) -> None:
    """Put other entries into a ledger; all that can be derived is derived, and the checkpoint is signed by the log."""
    state, edge = State(), CompactRange()
    with closing(tables.connect(folder, mode="rw")) as connection:
        connection.execute("BEGIN")
        for table in KEYS:
            connection.execute(f"DELETE FROM {table}")
        for position, data in enumerate(entries):
            entry = decode_entry(data)
            with suppress(RefusedEntry, ValueError):
                apply_entry(state, entry, position)
            tables.insert(connection, "entry", [tables.entry_row(position, entry)], replace=True)
            tables.insert(connection, "node", tables.node_rows(position, edge.append(entry.leaf_hash)))
            tables.insert(connection, "about", tables.about_rows(position, entry.record))
        principals = [tables.principal_row(number, principal) for number, principal in enumerate(state.principals)]
        tables.insert(connection, "principal", principals)
        note = sign_checkpoint(Checkpoint(ORIGIN, edge.size, edge.root()), LOG_KEY)
        tables.insert(connection, "checkpoint", [tables.checkpoint_row(note)])
        connection.execute("COMMIT")


def entries_of(folder: Path) -> list[bytes]:
    with closing(SqliteLedger.open(folder)) as ledger:
        return [data for _, data in ledger.entries()]


def checkpoint_of(folder: Path) -> str:
    with closing(SqliteLedger.open(folder)) as ledger:
        return ledger.checkpoint()


def test_a_faithful_copy_is_ok(sound: Path, copy: Path) -> None:
    """So what the next tests find is what they changed."""
    rewrite(copy, entries_of(sound))

    assert verify_ledger(copy, key=LOG_VKEY, checkpoint=checkpoint_of(sound)).ok


@pytest.mark.parametrize("position", range(39))
def test_a_dropped_entry_is_found(sound: Path, copy: Path, position: int) -> None:
    entries = entries_of(sound)
    del entries[position]
    rewrite(copy, entries)

    audit = verify_ledger(copy, checkpoint=checkpoint_of(sound))

    assert "remembered checkpoint" in places(audit)
    if position != 38:
        assert len(audit.findings) > 1, "the rules notice it too"


@pytest.mark.parametrize("position", range(38))
def test_swapped_entries_are_found(sound: Path, copy: Path, position: int) -> None:
    entries = entries_of(sound)
    entries[position : position + 2] = entries[position : position + 2][::-1]
    rewrite(copy, entries)

    audit = verify_ledger(copy, checkpoint=checkpoint_of(sound))

    assert "remembered checkpoint" in places(audit)


@pytest.mark.parametrize("position", range(39))
def test_a_duplicated_entry_is_found(sound: Path, copy: Path, position: int) -> None:
    entries = entries_of(sound)
    entries.insert(position, entries[position])
    rewrite(copy, entries)

    assert not verify_ledger(copy).ok


def test_an_entry_by_another_key_is_found_and_so_are_later_ones(sound: Path, copy: Path) -> None:
    entries = entries_of(sound)
    for position in (9, 20):
        entries[position] = sign(decode_entry(entries[position]).record, key(99))
    rewrite(copy, entries)

    assert {"entry 9", "entry 20"} <= set(places(verify_ledger(copy)))


def test_a_log_that_is_cut_short_is_found_by_who_remembers_more(sound: Path, copy: Path) -> None:
    entries = entries_of(sound)
    ends = [position + 1 for position, data in enumerate(entries) if isinstance(decode_entry(data).record, Block)]
    rewrite(copy, entries[: ends[-2]])

    audit = verify_ledger(copy, key=LOG_VKEY, checkpoint=checkpoint_of(sound))

    assert verify_ledger(copy, key=LOG_VKEY).ok
    assert audit.findings == (
        Finding("remembered checkpoint", f"the ledger was cut short: {ends[-2]} entries are left of {ends[-1]}"),
    )


def test_a_log_that_ends_within_a_batch_is_found(sound: Path, copy: Path) -> None:
    entries = entries_of(sound)
    rewrite(copy, entries[:-1])

    assert places(verify_ledger(copy)) == [f"entry {len(entries) - 2}"]


def test_another_history_by_the_same_log_is_found_by_who_remembers(sound: Path, tmp_path: Path) -> None:
    size = len(entries_of(sound))
    ledger = create(tmp_path)
    world = World(ledger).populate()
    while ledger.size < size:
        world.add(world.dataset(3))
    ledger.close()

    audit = verify_ledger(tmp_path, key=LOG_VKEY, checkpoint=checkpoint_of(sound))

    assert verify_ledger(tmp_path, key=LOG_VKEY).ok
    assert [finding.reason for finding in audit.findings] == [f"the first {size} entries are not those of then"]


def test_a_ledger_signed_again_with_fresh_keys_is_found_by_who_knows_the_key(sound: Path, tmp_path: Path) -> None:
    fresh = SigningKey.from_seed(bytes(32))
    record = msgspec.structs.replace(genesis(), log_vkey=verifier_key(ORIGIN, fresh.public))
    SqliteLedger.create(tmp_path, sign(record, key(0)), fresh, SimulatedClock()).close()

    audit = verify_ledger(tmp_path, key=LOG_VKEY)

    assert verify_ledger(tmp_path).ok
    assert not verify_ledger(tmp_path).trusted
    assert not audit.ok
    assert not audit.trusted
    assert places(audit) == ["entry 0"]
    assert places(verify_ledger(tmp_path, checkpoint=checkpoint_of(sound))) == ["remembered checkpoint"]


@pytest.mark.parametrize("note", ["", "no note", "origin\n1\nAAAA\n\n"])
def test_a_remembered_checkpoint_that_is_none_is_found(sound: Path, note: str) -> None:
    assert places(verify_ledger(sound, checkpoint=note)) == ["remembered checkpoint"]


def test_a_stored_note_with_more_signatures_is_found(copy: Path) -> None:
    note = checkpoint_of(copy)
    signature = note.rpartition("\n\n")[2]
    with closing(sqlite3.connect(copy / tables.LEDGER_FILE)) as connection, connection:
        connection.execute("UPDATE checkpoint SET note = ?", ((note + signature).encode(),))

    assert places(verify_ledger(copy)) == ["checkpoint 0"]

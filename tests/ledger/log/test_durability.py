"""Many writers, many readers, full disks, read-only media: what was acknowledged stays, once, and verifies."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

import pytest

from liberate.errors import LedgerError, LedgerLocked, RefusedEntry
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Block, DatasetRecord
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.verify import verify_ledger
from liberate.randomness import SimulatedClock
from tests.ledger.log.test_sqlite import WRITER
from tests.ledger.rules.test_transition import snapshot
from tests.ledger.world import LOG_KEY, LOG_VKEY, ORIGIN, World, create, device_key, digest, reopen, write_history


def dataset(author: int, seq: int) -> bytes:
    return sign(
        DatasetRecord(origin=ORIGIN, author=author, seq=seq, commitment=digest((author, seq))), device_key(author)
    )


# --- many writers and readers ----------------------------------------------------------------------------------------


def test_calls_that_wait_share_a_block_and_get_their_own_outcomes(tmp_path: Path) -> None:
    """All calls but the first wait while that one holds the log; then one of them makes a block for all."""
    ledger = create(tmp_path)
    World(ledger).populate()
    height = ledger.height
    outcomes: dict[int, list[int | RefusedEntry]] = {}

    def append(author: int) -> None:
        outcomes[author] = ledger.append([dataset(author, 10), dataset(author, 5), dataset(author, 10)])

    writers = [Thread(target=append, args=(author,)) for author in (3, 4, 5)]
    with ledger._queue._appending:
        for writer in writers:
            writer.start()
        while len(ledger._queue._waiting) < len(writers):
            pass
    for writer in writers:
        writer.join()

    assert ledger.height == height + 1
    for author in (3, 4, 5):
        first, stale, again = outcomes[author]
        assert isinstance(first, int)
        assert ledger.entry(first) == dataset(author, 10)
        assert isinstance(stale, RefusedEntry)
        assert again == first
    ledger.close()
    assert verify_ledger(tmp_path).ok


def test_many_threads_append_and_nothing_is_lost_or_twice(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    World(ledger).populate()
    start = Barrier(3)
    acknowledged: dict[tuple[int, int], int | RefusedEntry] = {}

    def write(author: int) -> None:
        start.wait()
        for seq in range(10, 60):
            acknowledged[author, seq] = ledger.append([dataset(author, seq)])[0]

    writers = [Thread(target=write, args=(author,)) for author in (3, 4, 5)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        size, height = ledger.size, ledger.height
        assert isinstance(decode_entry(ledger.entry(size - 1)).record, Block)
        assert height <= ledger.height
        reader = SqliteLedger.open(tmp_path)
        assert reader.size == len(list(reader.entries()))
        reader.inclusion_proof(reader.size // 2)
        reader.close()
    for writer in writers:
        writer.join()

    assert {ledger.entry(position) for position in acknowledged.values() if isinstance(position, int)} == {
        dataset(author, seq) for author, seq in acknowledged
    }
    assert len(ledger.positions(kind="dataset")) == 3 + len(acknowledged)
    ledger.close()
    assert verify_ledger(tmp_path).ok


def test_a_block_that_cannot_be_stored_fails_every_call_in_it(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    World(ledger).populate()
    ledger._connection.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON node BEGIN SELECT RAISE(ABORT, 'no'); END")
    before, failures = snapshot(ledger.state), []

    def append(author: int) -> None:
        try:
            ledger.append([dataset(author, 10)])
        except LedgerError as error:
            failures.append(error.message)

    writers = [Thread(target=append, args=(author,)) for author in (3, 4, 5)]
    with ledger._queue._appending:
        for writer in writers:
            writer.start()
        while len(ledger._queue._waiting) < len(writers):
            pass
    for writer in writers:
        writer.join()

    assert len(failures) == 3
    assert all("nothing was appended" in failure for failure in failures)
    assert snapshot(ledger.state) == before
    ledger._connection.execute("DROP TRIGGER t")
    ledger.append([dataset(3, 10)])
    ledger.close()
    assert verify_ledger(tmp_path).ok


def test_a_reader_in_another_process_sees_whole_blocks(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        sizes = []
        for _ in range(10):
            writer.stdout.readline()
            reader = SqliteLedger.open(tmp_path)
            sizes.append(reader.size)
            assert len(list(reader.entries())) == reader.size
            assert isinstance(decode_entry(reader.entry(reader.size - 1)).record, Block)
            reader.close()
        writer.kill()

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_another_process_is_told_of_the_owner_until_that_one_is_killed(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()

        with pytest.raises(LedgerLocked, match="in use by another process"):
            reopen(tmp_path)

        writer.kill()
    reopen(tmp_path).close()


def append_until_refused(ledger: SqliteLedger, begin: int) -> tuple[list[bytes], bytes, LedgerError]:
    """Append one entry after another; give those acknowledged, the one that could not be stored, and why."""
    acknowledged: list[bytes] = []
    while True:
        entry = dataset(3, begin + len(acknowledged))
        try:
            ledger.append([entry])
        except LedgerError as error:
            return acknowledged, entry, error
        acknowledged.append(entry)


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_full_file_is_said_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """SQLite itself says that the disk is full, at every page that a block may need."""
    ledger = create(tmp_path)
    World(ledger).populate()
    pragma = ledger._connection.execute
    (pages,) = pragma("PRAGMA page_count").fetchone()
    pragma(f"PRAGMA max_page_count = {pages}")
    acknowledged, refused, error = append_until_refused(ledger, 10)

    assert "nothing was appended" in error.message
    assert "free some space" in error.hint
    assert verify_ledger(tmp_path).ok
    assert len(ledger.positions(kind="dataset")) == 3 + len(acknowledged)
    pragma("PRAGMA max_page_count = 1000000")
    (position,) = ledger.append([refused])
    assert position == ledger.size - 2
    ledger.close()
    assert verify_ledger(tmp_path).ok


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here: not permitted")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_and_the_log_goes_on_when_there_is_room(small_disk: Path) -> None:
    """ENOSPC from a real file system."""
    ledger = create(small_disk)
    World(ledger).populate()
    filler = small_disk / "filler"
    acknowledged: list[bytes] = []
    for round_of_filling in range(3):
        room = os.statvfs(small_disk)
        filler.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - 40_000 + 10_000 * round_of_filling)))
        stored, entry, error = append_until_refused(ledger, 1_000 * (round_of_filling + 1))
        acknowledged += stored
        assert "nothing was appended" in error.message
        assert "free" in error.hint
        assert len(ledger.positions(kind="dataset")) == 3 + len(acknowledged)
        filler.unlink()
        ledger.append([entry])
        acknowledged.append(entry)
    ledger.close()

    again = reopen(small_disk)
    assert {data for _, data in again.entries()} >= set(acknowledged)
    again.close()
    assert verify_ledger(small_disk).ok


def test_a_full_disk_at_the_beginning_leaves_a_folder_to_begin_in(small_disk: Path) -> None:
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - 8_192))

    with pytest.raises(LedgerError) as caught:
        create(small_disk / "ledger")

    assert caught.value.hint
    filler.unlink()
    create(small_disk / "ledger").close()
    assert verify_ledger(small_disk / "ledger").ok


def test_read_only_media_are_read_and_refuse_an_owner_clearly(small_disk: Path) -> None:
    ledger = create(small_disk)
    write_history(ledger)
    size = ledger.size
    ledger.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    reader = SqliteLedger.open(small_disk)

    assert reader.size == size
    reader.close()
    assert verify_ledger(small_disk).ok
    with pytest.raises(LedgerError, match="Read-only file system") as caught:
        reopen(small_disk)
    assert "writable" in caught.value.hint


def test_read_only_media_with_unfinished_files_are_not_read_without_them(small_disk: Path, tmp_path: Path) -> None:
    """Entries may stand in the write-ahead file alone: to leave it out would be to lose what was acknowledged."""
    ledger = create(tmp_path / "live")
    write_history(ledger)
    shutil.copy(tmp_path / "live" / "ledger.sqlite", small_disk)
    shutil.copy(tmp_path / "live" / "ledger.sqlite-wal", small_disk)
    size = ledger.size
    ledger.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(LedgerError, match="cannot be used") as caught:
        SqliteLedger.open(small_disk)

    assert "copy it" in caught.value.hint
    shutil.copytree(small_disk, tmp_path / "copy")
    reader = SqliteLedger.open(tmp_path / "copy")
    assert reader.size == size
    reader.close()


def test_a_folder_that_cannot_be_made_or_written_is_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LedgerError, match=os.strerror(errno.ENOTDIR)) as caught:
        create(tmp_path / "file" / "ledger")

    assert "writable" in caught.value.hint


def test_a_state_that_cannot_be_read_back_is_read_before_the_next_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = create(tmp_path)
    world = World(ledger).populate()
    expected = ledger.size

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("liberate.ledger.log.tables.insert", broken)
        patch.setattr("liberate.ledger.log.sqlite.restore", broken)
        for _ in range(2):
            with pytest.raises(LedgerError, match=r"nothing was appended.*disk I/O error"):
                ledger.append([dataset(3, 10)])

    assert ledger.size == expected
    assert ledger.append([dataset(3, 10)]) == [expected]
    world.add(world.round())
    ledger.close()
    assert verify_ledger(tmp_path).ok
    SqliteLedger.open(tmp_path, LOG_KEY, SimulatedClock()).close()


# --- faults at every call --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["kill", "tear", "power"])
def test_nothing_acknowledged_is_lost_at_whichever_call_the_disk_fails(
    tmp_path: Path, repository: Path, mode: str
) -> None:
    subprocess.run([sys.executable, "-m", "tests.ledger.log.faulty", str(tmp_path), mode], cwd=repository, check=True)
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(folders) > 60, "writes and synchronisations of blocks and checkpoints"

    for folder in folders:
        lines = (folder / "acknowledged").read_text().splitlines()
        acknowledged = {int(position): bytes.fromhex(data) for position, data in map(str.split, lines)}
        if not acknowledged and not is_begun(folder):
            create(folder).close()
        ledger = reopen(folder)
        stored = dict(ledger.entries())
        assert acknowledged.items() <= stored.items()
        assert len(set(stored.values())) == len(stored)
        World(ledger).add(World(ledger).enrol(len(ledger.state.principals), "host"))
        ledger.close()
        assert verify_ledger(folder, key=LOG_VKEY).ok


def is_begun(folder: Path) -> bool:
    file = folder / "ledger.sqlite"
    if not file.exists():
        return False
    with closing(tables.connect(folder, mode="rw")) as connection:
        return not tables.is_empty(connection)


def test_a_disk_that_is_full_at_whichever_call_leaves_a_log_that_goes_on(tmp_path: Path, repository: Path) -> None:
    """In a process of its own: two SQLites in one process would let go of one another's locks."""
    subprocess.run([sys.executable, "-m", "tests.ledger.log.faulty", str(tmp_path), "full"], cwd=repository, check=True)

    folders = list(tmp_path.iterdir())
    assert len(folders) > 20
    assert all(verify_ledger(folder, key=LOG_VKEY).ok for folder in folders)


@pytest.mark.parametrize("n_kills", [10, pytest.param(190, marks=pytest.mark.soak)])
def test_a_log_that_is_killed_again_and_again_keeps_everything_once(
    tmp_path: Path, repository: Path, n_kills: int
) -> None:
    """Kills at random moments under load; the next process goes on with the same ledger."""
    create(tmp_path).close()
    moments = random.Random(n_kills)
    acknowledged: dict[int, bytes] = {}
    for _ in range(n_kills):
        with subprocess.Popen(
            [sys.executable, "-c", LOADED_WRITER, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(moments.randrange(1, 40)):
                position, data = writer.stdout.readline().split()
                acknowledged[int(position)] = bytes.fromhex(data)
            writer.kill()
            lines = writer.stdout.read().splitlines()
        # a last line may have been cut off
        acknowledged |= {int(p): bytes.fromhex(data) for p, data in (line.split() for line in lines[:-1])}
        audit = verify_ledger(tmp_path, key=LOG_VKEY)
        assert audit.ok
        reader = SqliteLedger.open(tmp_path)
        stored = dict(reader.entries())
        reader.close()
        assert acknowledged.items() <= stored.items()
        assert len(set(stored.values())) == len(stored)


LOADED_WRITER = """
import sys
from pathlib import Path
from threading import Thread
from tests.ledger.log.test_durability import dataset
from tests.ledger.world import World, reopen

ledger = reopen(Path(sys.argv[1]))
if len(ledger.state.principals) < 6:
    World(ledger).populate()
first = {author: ledger.state.principals[author].sequence + 1 for author in (3, 4, 5)}

def write(author):
    seq = first[author]
    while True:
        entry = dataset(author, seq)
        (position,) = ledger.append([entry])
        sys.stdout.write(f"{position} {entry.hex()}\\n")
        sys.stdout.flush()
        seq += 1

for author in first:
    Thread(target=write, args=(author,)).start()
"""

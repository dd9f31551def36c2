"""The local log: durable blocks, one owner, readers beside it, and a state that is never ahead of the disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from liberate.errors import LedgerError, LedgerLocked, RefusedEntry
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Block
from liberate.ledger.log import sqlite as log_module
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry
from liberate.ledger.verification.verify import verify_ledger
from liberate.randomness import SimulatedClock
from liberate.timing import Stopwatch
from tests.ledger.rules.test_transition import snapshot
from tests.ledger.world import (
    COORDINATOR,
    FOUNDER,
    LOG_KEY,
    LOG_VKEY,
    PARTICIPANTS,
    World,
    create,
    device_key,
    genesis,
    key,
    reopen,
    write_history,
)


def replayed(ledger: SqliteLedger) -> State:
    """The state after all stored entries, from the rules alone."""
    state = State()
    for position, data in ledger.entries():
        apply_entry(state, decode_entry(data), position)
    return state


def steps(world: World) -> list[Any]:
    """A history, one append at a time."""
    return [
        lambda: world.add(world.round()),
        lambda: world.add(*(world.update(number) for number in PARTICIPANTS)),
        lambda: world.add(world.enrol(7, "participant")),
        lambda: world.add(world.model()),
        lambda: world.add(world.round()),
        lambda: world.add(world.update(3)),
        lambda: world.add(world.aborted()),
        lambda: world.add(world.round()),
        lambda: world.add(world.aborted()),
        lambda: world.add(world.round(run=2)),
        lambda: world.add(world.update(7)),
        lambda: world.add(world.model()),
        lambda: world.add(world.round(masked=True, account="epsilon")),
        lambda: world.add(world.round_set("advertised", 3, 4, parts=2)),
        lambda: world.add(world.round_set("advertised", 5, part=2, parts=2)),
        lambda: world.add(world.round_set("graph", *PARTICIPANTS), world.round_set("shared", *PARTICIPANTS, seq=99)),
        lambda: world.add(*(world.update(number) for number in PARTICIPANTS)),
        lambda: world.add(world.survivors(3, parts=2)),
        lambda: world.add(world.survivors(5, part=2, parts=2)),
        lambda: world.add(world.model(unused=tuple(world.open_round.updates)[1:2])),
        lambda: world.add(world.consent(3, COORDINATOR, 4, epsilon_nano=7), world.consent(5, 4, COORDINATOR)),
        lambda: world.add(world.share(3, 4, epsilon_nano=7), world.share(5, COORDINATOR)),
        lambda: world.add(world.share(3, COORDINATOR, epsilon_nano=7), world.receipt(4, 3)),
        lambda: world.add(world.receipt(COORDINATOR, 5)),
        lambda: world.add(world.round(spend=0)),
        lambda: world.add(world.pool(5)),
        lambda: world.add(world.update(4, (3, world.shares(3, 4)[0]))),
        lambda: world.add(world.withdrawal(3, world.consents(3)[0])),
        lambda: world.add(world.withdrawal(5)),
        lambda: world.add(world.model()),
        lambda: world.add(world.erasure(5)),
        lambda: world.add(world.erasure_report(5, notified=(4, COORDINATOR), confirmed=(4,), models=(1, 3))),
    ]


@pytest.mark.parametrize("n_steps", range(30))
def test_reopening_gives_the_state_of_a_replay(tmp_path: Path, n_steps: int) -> None:
    ledger = create(tmp_path, auditors=True)
    for step in steps(World(ledger).populate())[:n_steps]:
        step()
    expected = snapshot(ledger.state)
    assert snapshot(replayed(ledger)) == expected
    ledger.close()

    again = reopen(tmp_path)

    assert snapshot(again.state) == expected
    for step in steps(World(again))[n_steps:]:
        step()
    assert snapshot(replayed(again)) == snapshot(again.state)
    again.close()


def test_the_same_history_gives_the_same_checkpoint(tmp_path: Path) -> None:
    notes = []
    for name in ("a", "b"):
        ledger = create(tmp_path / name)
        write_history(ledger)
        notes.append(ledger.checkpoint())
        ledger.close()

    assert notes[0] == notes[1]


def test_what_was_acknowledged_is_there_after_a_crash(tmp_path: Path) -> None:
    """Another connection sees the block as soon as `append` returned; nothing waits for `close`."""
    ledger = create(tmp_path)
    write_history(ledger)

    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        assert other.execute("SELECT count(*) FROM entry").fetchone() == (ledger.size,)
    other.close()
    ledger.close()


def test_the_file_is_written_ahead_and_synchronised(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    pragma = ledger._connection.execute

    assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
    assert pragma("PRAGMA synchronous").fetchone() == (2,)
    ledger.close()


def test_a_second_owner_is_told(tmp_path: Path) -> None:
    ledger = create(tmp_path)

    with pytest.raises(LedgerLocked, match="in use by another process"):
        reopen(tmp_path)
    with pytest.raises(LedgerLocked):
        create(tmp_path)

    ledger.close()
    reopen(tmp_path).close()


def test_a_ledger_is_not_begun_twice(tmp_path: Path) -> None:
    create(tmp_path).close()

    with pytest.raises(LedgerError, match=r"a ledger in .* already"):
        create(tmp_path)

    reopen(tmp_path).close()


def test_a_refused_genesis_leaves_the_folder_usable(tmp_path: Path) -> None:
    with pytest.raises(RefusedEntry, match="bad_signature"):
        SqliteLedger.create(tmp_path, sign(genesis(), key(3)), LOG_KEY, SimulatedClock())

    create(tmp_path).close()


@pytest.mark.parametrize("about", [None, PARTICIPANTS[0]])
def test_finding_a_persons_entries_takes_no_longer_among_many_peoples(tmp_path: Path, about: int | None) -> None:
    """Counted in instructions of the database: else who asks for everybody's takes time by the square of the people."""
    ledger = create(tmp_path)
    world = World(ledger).populate()
    person, *others = PARTICIPANTS

    def instructions() -> tuple[list[int], int]:
        with ledger._read() as connection:
            count = 0

            def step() -> None:
                nonlocal count
                count += 1

            connection.set_progress_handler(step, 1)
        found = ledger.positions(kind="dataset", author=person, about=about)
        connection.set_progress_handler(None, 1)
        return found, count

    world.add(world.dataset(person))
    alone, before = instructions()
    for _ in range(100):
        world.add(*(world.dataset(number) for number in others))

    found, after = instructions()
    assert found == alone
    assert after < before + 100
    ledger.close()


def test_a_reader_sees_the_ledger_as_it_was(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    reader = SqliteLedger.open(tmp_path)
    size, note = ledger.size, ledger.checkpoint()

    write_history(ledger)

    assert reader.size == size == len(list(reader.entries()))
    assert reader.checkpoint() == note
    assert reader.positions(kind="update") == []
    later = SqliteLedger.open(tmp_path)
    assert later.size == ledger.size
    for each in (reader, later, ledger):
        each.close()


def test_a_reader_cannot_append(tmp_path: Path) -> None:
    create(tmp_path).close()
    reader = SqliteLedger.open(tmp_path)

    with pytest.raises(LedgerError, match="opened to read"):
        reader.append([])
    reader.close()


def test_only_the_logs_key_appends(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not the log's key"):
        SqliteLedger.create(tmp_path, sign(genesis(), key(FOUNDER)), key(3), SimulatedClock())
    create(tmp_path).close()

    with pytest.raises(LedgerError, match="not the log's key"):
        SqliteLedger.open(tmp_path, key(3), SimulatedClock())


def test_a_key_without_a_clock_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both"):
        SqliteLedger.open(tmp_path, LOG_KEY)


def test_a_folder_without_a_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger in"):
        SqliteLedger.open(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to look at" * 100])
def test_a_file_that_is_no_ledger_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(content)

    with pytest.raises(LedgerError):
        SqliteLedger.open(tmp_path)


def test_a_damaged_row_is_named_when_it_is_needed(tmp_path: Path) -> None:
    create(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("UPDATE principal SET leaf = x'00'")
    other.close()

    with pytest.raises(LedgerError, match="state leaf"):
        SqliteLedger.open(tmp_path)


@pytest.mark.parametrize("table", ["entry", "node", "about", "principal", "checkpoint"])
def test_a_block_that_cannot_be_stored_leaves_nothing(tmp_path: Path, table: str) -> None:
    ledger = create(tmp_path)
    world = World(ledger).populate()
    before, note = snapshot(ledger.state), ledger.checkpoint()
    ledger._connection.execute(
        f"CREATE TEMP TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )

    with pytest.raises(LedgerError, match=r"nothing was appended.*disk full"):
        world.add(world.round())

    assert snapshot(ledger.state) == before
    assert ledger.checkpoint() == note
    ledger._connection.execute("DROP TRIGGER full")
    world.add(world.round())
    assert snapshot(replayed(ledger)) == snapshot(ledger.state)
    ledger.close()


def test_an_interrupt_between_rules_and_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = create(tmp_path)
    world = World(ledger).populate()
    before = snapshot(ledger.state)

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(log_module, "sign_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.add(world.round())
    monkeypatch.undo()

    assert snapshot(ledger.state) == before
    world.add(world.round())
    assert snapshot(replayed(ledger)) == snapshot(ledger.state)
    ledger.close()


class BackwardClock:
    """A clock that was set back."""

    def time_us(self, height: int) -> int:
        return 1_000 - height


def test_block_times_never_go_back(tmp_path: Path) -> None:
    ledger = SqliteLedger.create(tmp_path, sign(genesis(), key(FOUNDER)), LOG_KEY, BackwardClock())
    World(ledger).populate()

    blocks = [decode_entry(ledger.entry(position)).record for position in ledger.positions(kind="block")]

    assert [block.time_us for block in blocks if isinstance(block, Block)] == [999, 999, 999]
    ledger.close()


def test_time_is_measured_by_part(tmp_path: Path) -> None:
    stopwatch = Stopwatch()

    with stopwatch.running():
        ledger = SqliteLedger.create(tmp_path, sign(genesis(), key(FOUNDER)), LOG_KEY, SimulatedClock())
        World(ledger).populate()
    ledger.close()

    assert set(stopwatch.seconds) == {"verify", "store"}


def test_large_batches_are_verified_on_two_threads_with_the_same_outcome(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    world = World(ledger)
    n = 200
    world.add(*(world.enrol(2 + i, "participant", seq=2 + i) for i in range(n)))
    entries = [sign(world.dataset(2 + i), device_key(2 + i if i % 7 else 0)) for i in range(n)]

    results = ledger.append(entries)

    assert [isinstance(result, RefusedEntry) for result in results] == [i % 7 == 0 for i in range(n)]
    ledger.close()


def test_a_page_that_cannot_be_read_is_a_ledger_error(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    write_history(ledger)
    ledger.close()
    reader = SqliteLedger.open(tmp_path)
    reader._connection.execute("COMMIT")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.executescript("DROP TABLE node; DROP TABLE checkpoint; DROP TABLE entry")
    other.close()

    for read in (
        reader.checkpoint,
        reader.positions,
        lambda: reader.inclusion_proof(0),
        lambda: list(reader.entries()),
    ):
        with pytest.raises(LedgerError, match="cannot be used"):
            read()
    reader.close()


WRITER = """
import sys
from pathlib import Path
from tests.ledger.world import World, create

world = World(create(Path(sys.argv[1]))).populate()
while True:
    print(*world.add(*(world.dataset(number) for number in (3, 4, 5))), flush=True)
"""


@pytest.mark.parametrize("n_blocks", [1, 4, 23])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, repository: Path, n_blocks: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(p) for _ in range(n_blocks) for p in writer.stdout.readline().split()]
        writer.kill()

    audit = verify_ledger(tmp_path, key=LOG_VKEY)

    assert audit.ok
    ledger = reopen(tmp_path)
    assert set(acknowledged) <= set(ledger.positions(kind="dataset"))
    World(ledger).add(World(ledger).round())
    ledger.close()
    assert verify_ledger(tmp_path).ok

"""A disk that fails: a SQLite file system whose n-th write, synchronisation, truncation or deletion goes wrong.

Run as a program it writes a small ledger again and again, each time in a process that ends at a later call, until one
comes to its end; FOLDER/N/acknowledged says what was acknowledged before the N-th call:

    python -m tests.ledger.log.faulty FOLDER kill|tear|power|full

`kill`: the process ends before the call. `tear`: half of what should be written is, then it ends. `power`: everything
that was not synchronised is lost, some of it but for the half of a write. `full`: the process goes on, and
after a refusal there is room again.

The standard library's sqlite3 cannot be given a file system, so these tests let the log use apsw, which brings a
SQLite of its own. The log's statements are the same.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from liberate.errors import LedgerError
from liberate.ledger.format.entries import sign
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.randomness import SimulatedClock
from tests.ledger.world import FOUNDER, LOG_KEY, World, genesis, key

ENDED = 9
NEVER = 10**9


class Fault:
    """Counts calls, and fails at the n-th.

    Attributes:
        left: How many calls go well before the failing one, plus 1; 0 or less: it has failed.
        mode: `kill`, `tear`, `power`, or `full`: no room at this call and later ones, until `left` is set.
    """

    def __init__(self, left: int, mode: str) -> None:
        self.left = left
        self.mode = mode
        self.unsynchronised: dict[str, tuple[bytes, list[tuple[int, bytes]]]] = {}

    def strike(self, path: str, data: bytes = b"", offset: int = 0) -> None:
        """Count a call; at the n-th, end the process or raise."""
        self.left -= 1
        if self.left > 0:
            return
        match self.mode:
            case "full":
                raise apsw.FullError("no space left on device")
            case "tear":
                with Path(path).open("r+b") as file:
                    file.seek(offset)
                    file.write(data[: len(data) // 2])
            case "power":
                self.lose_power()
            case _:
                pass
        if self.left == 0:
            os._exit(ENDED)

    def note(self, path: str, offset: int, data: bytes) -> None:
        """Remember a write, and what the file held when it was last synchronised."""
        if self.mode == "power":
            self.unsynchronised.setdefault(path, (Path(path).read_bytes(), []))[1].append((offset, data))

    def lose_power(self) -> None:
        """Bring each file back to what was synchronised, but for every second write since, torn."""
        for path, (durable, writes) in self.unsynchronised.items():
            if not Path(path).exists():
                continue
            content = bytearray(durable)
            for offset, data in writes[1::2]:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data) // 2] = data[: len(data) // 2]
            Path(path).write_bytes(content)


class FaultyFile(apsw.VFSFile):
    """A file of the failing disk."""

    def __init__(self, base: str, name: Any, flags: list[int], fault: Fault) -> None:
        super().__init__(base, name, flags)
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._fault = fault

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        content = bytes(data)
        self._fault.strike(self._path, content, offset)
        self._fault.note(self._path, offset, content)
        super().xWrite(content, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._fault.strike(self._path)
        super().xSync(flags)
        self._fault.unsynchronised.pop(self._path, None)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._fault.strike(self._path)
        super().xTruncate(size)


class FaultyDisk(apsw.VFS):
    """The failing disk, over the real one."""

    def __init__(self, fault: Fault) -> None:
        super().__init__("faulty", "")
        self._fault = fault

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:  # noqa: N802
        return FaultyFile("", name, flags, self._fault)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self._fault.strike(name)
        super().xDelete(name, sync)


class FaultyConnection:
    """The part of sqlite3.Connection that a ledger uses, over apsw."""

    def __init__(self, folder: Path, *, mode: str) -> None:
        flags = {
            "ro": apsw.SQLITE_OPEN_READONLY,
            "rw": apsw.SQLITE_OPEN_READWRITE,
            "rwc": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
        }
        try:
            self._connection = apsw.Connection(str(folder / tables.LEDGER_FILE), flags=flags[mode], vfs="faulty")
        except apsw.Error as error:
            raise _translated(error) from error

    def execute(self, statement: str, arguments: Sequence[Any] = ()) -> Any:
        try:
            return self._connection.execute(statement, arguments)
        except apsw.Error as error:
            raise _translated(error) from error

    def executemany(self, statement: str, rows: Sequence[Any]) -> None:
        try:
            self._connection.executemany(statement, rows)
        except apsw.Error as error:
            raise _translated(error) from error

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


def _translated(error: apsw.Error) -> sqlite3.Error:
    translated = sqlite3.OperationalError(str(error))
    translated.sqlite_errorcode = sqlite3.SQLITE_FULL if isinstance(error, apsw.FullError) else sqlite3.SQLITE_IOERR
    return translated


def use(fault: Fault) -> FaultyDisk:
    """Let every ledger of this process use the failing disk; the disk must be kept."""
    disk = FaultyDisk(fault)
    setattr(tables, "connect", FaultyConnection)  # noqa: B010  what mypy cannot follow is meant
    return disk


def work(folder: Path) -> None:
    """Write a small ledger whose write-ahead file is emptied now and then; say what was acknowledged."""
    folder.mkdir()
    with (folder / "acknowledged").open("w") as said:
        ledger = SqliteLedger.create(folder, sign(genesis(), key(FOUNDER)), LOG_KEY, SimulatedClock())

        def acknowledge(*positions: int) -> None:
            for position in positions:
                print(position, ledger.entry(position).hex(), file=said, flush=True)

        acknowledge(0)
        world = World(ledger).populate()
        for _ in range(3):
            acknowledge(*world.add(*(world.dataset(number) for number in (3, 4, 5))))
            ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        acknowledge(*world.add(world.dataset(3)))
        ledger.close()


def work_around(folder: Path, fault: Fault) -> bool:
    """Append through a disk that is full once; say whether it was."""
    folder.mkdir()
    left, fault.left = fault.left, NEVER
    ledger = SqliteLedger.create(folder, sign(genesis(), key(FOUNDER)), LOG_KEY, SimulatedClock())
    world = World(ledger).populate()
    fault.left = left
    for _ in range(3):
        record, n_datasets = world.dataset(3), len(ledger.positions(kind="dataset"))
        try:
            world.add(record)
        except LedgerError as error:
            if "free some space" not in error.hint:
                raise
            fault.left = NEVER
            # apsw also tells of a checkpoint that failed after its block was stored: then this gives the position
            world.add(record)
        assert ledger.size == ledger.state.size
        assert len(ledger.positions(kind="dataset")) == n_datasets + 1
        ledger._connection.execute("PRAGMA wal_autocheckpoint = 1").fetchall()
    was_full, fault.left = fault.left > left, NEVER
    ledger.close()
    return was_full


def main() -> None:
    """Let the fault strike at every call."""
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    for n in itertools.count(1):
        if mode == "full":
            fault = Fault(n, mode)
            disk = use(fault)
            was_full = work_around(folder / str(n), fault)
            del disk
            if not was_full:
                return
            continue
        child = os.fork()
        if child == 0:
            disk = use(Fault(n, mode))
            work(folder / str(n))
            del disk
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != ENDED:
            return


if __name__ == "__main__":
    main()

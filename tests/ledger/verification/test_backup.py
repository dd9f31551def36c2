"""A backup is one verified snapshot of a ledger in use, whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from liberate.errors import LedgerError
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.backup import backup
from liberate.ledger.verification.verify import verify_ledger
from tests.ledger.verification.test_verify import damage
from tests.ledger.world import LOG_VKEY, World, create, reopen, write_history


def test_a_backup_is_the_ledger_and_can_be_gone_on_with(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    write_history(ledger)
    note = ledger.checkpoint()

    audit = backup(tmp_path / "ledger", tmp_path / "copy", key=LOG_VKEY)

    assert audit.ok
    assert audit.distrust == "simulated"
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["ledger.sqlite"]
    again = reopen(tmp_path / "copy")
    assert again.checkpoint() == note
    World(again).add(World(again).dataset(3))
    again.close()
    assert verify_ledger(tmp_path / "copy", checkpoint=note).ok
    ledger.close()


def test_a_backup_of_a_ledger_that_grows_ends_with_a_block(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    world = World(ledger).populate()
    is_over = Event()

    def write() -> None:
        while not is_over.is_set():
            world.add(*(world.dataset(number) for number in (3, 4, 5)))

    writer = Thread(target=write)
    writer.start()
    sizes = [backup(tmp_path / "ledger", tmp_path / f"copy{number}").entry_count for number in range(5)]
    is_over.set()
    writer.join()

    assert sizes == sorted(sizes)
    assert verify_ledger(tmp_path / "ledger", checkpoint=checkpoint_of(tmp_path / "copy4")).ok
    ledger.close()


def checkpoint_of(folder: Path) -> str:
    ledger = SqliteLedger.open(folder)
    note = ledger.checkpoint()
    ledger.close()
    return note


def test_a_damaged_ledger_is_not_backed_up(tmp_path: Path) -> None:
    create(tmp_path / "ledger").close()
    damage(tmp_path / "ledger", "UPDATE principal SET leaf = x'00' WHERE number = 0")

    with pytest.raises(LedgerError, match="not backed up: principal 0"):
        backup(tmp_path / "ledger", tmp_path / "copy")

    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_a_backup_is_never_overwritten(tmp_path: Path) -> None:
    create(tmp_path / "ledger").close()
    (tmp_path / "copy").mkdir()

    with pytest.raises(LedgerError, match="exists already"):
        backup(tmp_path / "ledger", tmp_path / "copy")
    with pytest.raises(LedgerError, match="no ledger"):
        backup(tmp_path / "copy", tmp_path / "other")


KILLED = """
import os, sys
from pathlib import Path
from liberate.ledger.verification.backup import backup

folder, left = Path(sys.argv[1]), int(sys.argv[2])

def killing(call):
    def killed(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return call(*arguments, **options)
    return killed

os.fsync, os.rename = killing(os.fsync), killing(os.rename)
backup(folder / "ledger", folder / "copy")
"""


@pytest.mark.parametrize("n", range(1, 6))
def test_a_backup_that_is_killed_is_whole_or_absent(tmp_path: Path, n: int) -> None:
    ledger = create(tmp_path / "ledger")
    write_history(ledger)

    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(n)], check=False, env=dict(os.environ))

    assert done.returncode == (9 if n <= 4 else 0)
    assert (tmp_path / "copy").exists() == (n >= 4)
    if (tmp_path / "copy").exists():
        assert verify_ledger(tmp_path / "copy", checkpoint=ledger.checkpoint()).ok
    ledger.close()

"""An auditor who keeps what was verified checks only what came later, and finds the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from liberate.errors import LedgerError
from liberate.ledger.verification.resumption import load
from liberate.ledger.verification.verify import verify_ledger
from tests.ledger.log.test_sqlite import steps
from tests.ledger.rules.test_transition import snapshot
from tests.ledger.verification.test_verify import damage, places
from tests.ledger.world import LOG_VKEY, World, create, write_history


def test_after_every_block_a_resumed_check_ends_in_the_state_of_a_full_one(tmp_path: Path) -> None:
    ledger = create(tmp_path, auditors=True)
    kept, before = tmp_path / "kept", 0
    for step in [lambda: None, *steps(World(ledger).populate())]:
        step()

        resumed = verify_ledger(tmp_path, key=LOG_VKEY, resume=kept)
        full = verify_ledger(tmp_path, key=LOG_VKEY, resume=tmp_path / f"full{ledger.size}")

        assert resumed.ok
        assert (resumed.resumed_at, full.resumed_at) == (before, 0)
        assert (resumed.root, resumed.entry_count, resumed.distrust) == (full.root, full.entry_count, "simulated")
        mine, theirs = load(kept), load(tmp_path / f"full{ledger.size}")
        assert mine
        assert theirs
        assert mine.roots == theirs.roots
        assert snapshot(mine.state) == snapshot(theirs.state) == snapshot(ledger.state)
        before = ledger.size
    ledger.close()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """What an auditor kept of a ledger in `tmp_path / "ledger"` that has grown since."""
    ledger = create(tmp_path / "ledger")
    World(ledger).populate()
    assert verify_ledger(tmp_path / "ledger", resume=tmp_path / "kept").ok
    World(ledger).add(World(ledger).round())
    ledger.close()
    return tmp_path / "kept"


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE entry SET entry = (SELECT entry FROM entry WHERE kind = 'dataset') WHERE kind = 'round'", "entry "),
        ("DELETE FROM node WHERE position = (SELECT max(position) FROM node)", "node "),
        ("DELETE FROM about WHERE position = (SELECT max(position) FROM about)", "about "),
        ("UPDATE principal SET leaf = (SELECT leaf FROM principal WHERE number = 0) WHERE number = 3", "principal 3"),
        ("DELETE FROM entry WHERE position > 5", "entry"),
    ],
)
def test_what_was_changed_later_is_found_and_not_kept(kept: Path, statement: str, place: str) -> None:
    before = kept.read_bytes()
    damage(kept.parent / "ledger", statement)

    audit = verify_ledger(kept.parent / "ledger", resume=kept)

    assert any(found.startswith(place) for found in places(audit))
    assert kept.read_bytes() == before


def test_what_was_verified_is_not_read_again(kept: Path) -> None:
    damage(kept.parent / "ledger", "DELETE FROM entry WHERE position = 3")

    assert verify_ledger(kept.parent / "ledger", resume=kept).ok
    assert not verify_ledger(kept.parent / "ledger").ok


def test_another_history_does_not_follow_what_was_verified(kept: Path, tmp_path: Path) -> None:
    other = create(tmp_path / "other")
    write_history(other)
    other.close()
    ledger = create(tmp_path / "changed")
    World(ledger).add(World(ledger).enrol(2, "host"))
    World(ledger).add(World(ledger).enrol(3, "host"))
    ledger.close()

    assert not verify_ledger(tmp_path / "changed", resume=kept).ok


def test_an_older_checkpoint_is_checked_by_a_proof(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    first = ledger.checkpoint()
    World(ledger).populate()
    assert verify_ledger(tmp_path / "ledger", resume=tmp_path / "kept").ok
    same = ledger.checkpoint()
    World(ledger).add(World(ledger).round())
    other = create(tmp_path / "other")
    World(other).add(World(other).enrol(2, "host"))
    stranger = other.checkpoint()

    for note in (first, same, ledger.checkpoint()):
        assert verify_ledger(tmp_path / "ledger", resume=tmp_path / "kept", checkpoint=note).ok
    found = verify_ledger(tmp_path / "ledger", resume=tmp_path / "kept", checkpoint=stranger)

    assert places(found) == ["remembered checkpoint"]
    ledger.close()
    other.close()


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x84" * 100, b"\x81\xa6layout\xb3liberate/verified/0"])
def test_a_file_that_says_nothing_is_an_error(kept: Path, content: bytes) -> None:
    kept.write_bytes(content)

    with pytest.raises(LedgerError, match="does not say what was verified") as caught:
        verify_ledger(kept.parent / "ledger", resume=kept)

    assert "without the file" in caught.value.hint


@pytest.mark.parametrize("levels", [None, 5, {}, [], [1], ["x"]])
def test_a_tree_that_is_none_is_an_error(kept: Path, levels: object) -> None:
    verified = msgspec.msgpack.decode(kept.read_bytes())
    assert verified["state"]["_tree"]
    verified["state"]["_tree"] = levels
    kept.write_bytes(msgspec.msgpack.encode(verified))

    with pytest.raises(LedgerError, match="does not say what was verified"):
        verify_ledger(kept.parent / "ledger", resume=kept)


def test_progress_comes_to_its_end(kept: Path) -> None:
    seen: list[tuple[int, int]] = []

    audit = verify_ledger(kept.parent / "ledger", progress=lambda done, total: seen.append((done, total)))

    assert seen[-1] == (audit.entry_count, audit.entry_count)

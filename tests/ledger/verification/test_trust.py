"""How far a ledger is trusted: by its log's key, never in a simulation, and no further than its witnesses cosigned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey, key_id
from liberate.ledger.format.entries import sign
from liberate.ledger.format.parts import Witnesses
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.backup import backup
from liberate.ledger.verification.verify import verify_ledger
from liberate.randomness import SimulatedClock
from tests.ledger.publish.growing import cosigned, policy
from tests.ledger.verification.test_verify import damage, places
from tests.ledger.world import FOUNDER, LOG_KEY, LOG_VKEY, ORIGIN, World, create, genesis, key, reopen


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed ledger of a simulation."""
    folder = tmp_path_factory.mktemp("sound")
    create(folder).close()
    return folder


def test_with_the_logs_key_a_sound_ledger_is_trusted(tmp_path: Path) -> None:
    create(tmp_path, simulated=False).close()

    audit = verify_ledger(tmp_path, key=LOG_VKEY)

    assert (audit.trusted, audit.distrust, audit.trusted_size, audit.cosigned_size) == (True, None, 2, None)
    audit = verify_ledger(tmp_path)
    assert (audit.ok, audit.trusted, audit.distrust, audit.trusted_size) == (True, False, "no_key", 0)


def test_a_simulation_is_never_trusted(sound: Path) -> None:
    """Its keys follow from a seed that everybody knows: its own key says nothing about who has signed."""
    for given in (LOG_VKEY, None):
        audit = verify_ledger(sound, key=given)

        assert (audit.ok, audit.trusted, audit.distrust, audit.trusted_size) == (True, False, "simulated", 0)


def test_a_wrong_key_is_named_with_both_key_ids(sound: Path, tmp_path: Path) -> None:
    create(tmp_path, simulated=False).close()
    other = SigningKey.from_seed(bytes(32)).public

    for folder in (sound, tmp_path):
        audit = verify_ledger(folder, key=verifier_key(ORIGIN, other))

        assert (audit.ok, audit.trusted, audit.distrust) == (False, False, "wrong_key")
        wrong = f"wrong key: {key_id(other)} was given, the genesis names {key_id(LOG_KEY.public)}"
        assert [(finding.place, finding.reason) for finding in audit.findings] == [("entry 0", wrong)]
    assert "example/2+" in verify_ledger(sound, key=verifier_key("example/2", LOG_KEY.public)).findings[0].reason


def test_what_is_wrong_is_not_trusted(tmp_path: Path) -> None:
    create(tmp_path, simulated=False).close()
    damage(tmp_path, "UPDATE principal SET leaf = x'00'")

    audit = verify_ledger(tmp_path, key=LOG_VKEY)

    assert (audit.ok, audit.trusted, audit.distrust, audit.trusted_size) == (False, False, "findings", 0)


# --- published under witnesses ---------------------------------------------------------------------------------------


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[SqliteLedger]:
    """A real ledger that wants two of three witnesses, in the folder of a federation."""
    record = msgspec.structs.replace(genesis(simulated=False), witnesses=Witnesses(keys=policy(2).keys, threshold=2))
    ledger = SqliteLedger.create(tmp_path / "ledger", sign(record, key(FOUNDER)), LOG_KEY, SimulatedClock())
    yield ledger
    ledger.close()


def trust(
    folder: Path, *, checkpoint: str | None = None, published: str | None = None
) -> tuple[bool, bool, str | None, int, int | None]:
    audit = verify_ledger(folder, key=LOG_VKEY, checkpoint=checkpoint, published=published)
    return audit.ok, audit.trusted, audit.distrust, audit.trusted_size, audit.cosigned_size


def test_entries_beyond_the_quorum_are_not_trusted(watched: SqliteLedger, tmp_path: Path) -> None:
    """The owner goes on alone, in a fork that the witnesses have refused: what they cosigned ends before it."""
    folder, published = tmp_path / "ledger", tmp_path / "checkpoint"
    assert trust(folder) == (True, False, "not_cosigned", 0, 0)
    World(watched).populate()
    size, note = watched.size, watched.checkpoint()
    published.write_text(cosigned(note, 1), "utf-8")
    assert trust(folder) == (True, False, "not_cosigned", 0, 0)

    published.write_text(cosigned(note, 2), "utf-8")
    assert trust(folder) == (True, True, None, size, size)

    World(watched).add(World(watched).dataset(3))
    assert trust(folder) == (True, False, "not_cosigned", size, size)
    published.write_text(watched.checkpoint(), "utf-8")
    assert trust(folder) == (True, False, "not_cosigned", 0, 0)
    kept = cosigned(note, 3)
    assert trust(folder, checkpoint=kept) == (True, False, "not_cosigned", size, size)
    assert verify_ledger(folder, checkpoint=kept).distrust == "no_key"


def test_a_ledger_that_lacks_what_it_has_published_is_found(watched: SqliteLedger, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "ledger", tmp_path / "fork")
    World(watched).populate()
    published = cosigned(watched.checkpoint(), 2)
    fork = reopen(tmp_path / "fork")
    assert trust(tmp_path / "fork", published=published)[:3] == (False, False, "findings")
    while fork.size < watched.size:
        world = World(fork)
        world.add(world.enrol(len(world.state.principals), "host"))

    audit = verify_ledger(tmp_path / "fork", key=LOG_VKEY, published=published)

    assert (audit.trusted, audit.trusted_size, audit.cosigned_size) == (False, 0, 0)
    assert places(audit) == ["published checkpoint"]
    fork.close()


def test_a_backup_takes_what_was_published_along(watched: SqliteLedger, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(cosigned(watched.checkpoint(), 2), "utf-8")

    assert backup(tmp_path / "ledger", tmp_path / "copy", key=LOG_VKEY).trusted
    assert trust(tmp_path / "copy") == (True, True, None, 2, 2)

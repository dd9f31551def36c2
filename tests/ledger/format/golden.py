"""Makes tests/vectors/ledger-format-2*.json: two ledgers, byte for byte, and entries that they refuse.

The second one is of people who share. If this writes other files than those that are there, the format has changed:
until the first release that is done by running it, after that by a new version.

    python -m tests.ledger.format.golden
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from liberate.errors import RefusedEntry
from liberate.ledger.format.entries import decode_entry, new_key, sign
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.records import ZERO, Aborted, Record, RoundSet
from liberate.ledger.format.sharing_records import PoolRecord, Share
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import LARGEST_SEQUENCE_STEP, apply_entry
from tests.ledger.world import (
    COORDINATOR,
    FOUNDER,
    HOST,
    LOG_VKEY,
    ORIGIN,
    World,
    create,
    device_key,
    digest,
    genesis,
    key,
    next_key,
    write_history,
    write_masked_rounds,
    write_sharing,
)

FOLDER = Path(__file__).resolve().parents[2] / "vectors"
PATHS = (FOLDER / "ledger-format-2.json", FOLDER / "ledger-format-2-sharing.json")
"""Without and with an auditor, and people who share."""


def build(path: Path) -> dict[str, Any]:
    """Return the content of a file."""
    is_shared = path == PATHS[1]
    with TemporaryDirectory() as folder, closing(create(Path(folder), auditors=is_shared)) as ledger:
        if is_shared:
            write_sharing(ledger)
            World(ledger).add(World(ledger).round())
            described, refused = "people who share and leave", _bad_sharing(ledger)
        else:
            write_history(ledger)
            write_masked_rounds(ledger)
            described, refused = "one of everything", _bad_entries(ledger)
        return {
            "description": f"A ledger of format 2 with {described}, and entries that do not follow its last one.",
            "origin": ORIGIN,
            "log_vkey": LOG_VKEY,
            "entries": list(_entries(ledger)),
            "checkpoint": ledger.checkpoint(),
            "refused": list(_refused(ledger, refused)),
        }


def text(data: bytes) -> str:
    """Bytes as standard base64."""
    return b64encode(data).decode()


def _entries(ledger: SqliteLedger) -> Iterator[dict[str, Any]]:
    state = State()
    for position, data in ledger.entries():
        entry = decode_entry(data)
        apply_entry(state, entry, position)
        yield {
            "description": f"entry {position}: {entry.record.kind} by {entry.record.author}",
            "valid": True,
            "entry": text(data),
            "record": entry.body.decode(),
            "leaf_hash": text(entry.leaf_hash),
            "state_root": text(state.root()),
        }


def _refused(ledger: SqliteLedger, entries: Iterator[tuple[str, bytes]]) -> Iterator[dict[str, Any]]:
    for description, data in entries:
        try:
            apply_entry(ledger.state, decode_entry(data), ledger.size)
        except RefusedEntry as refused:
            yield {"description": description, "valid": False, "entry": text(data), "reason": refused.reason}
        else:
            raise AssertionError(f"{description} is accepted")


def _bad_entries(ledger: SqliteLedger) -> Iterator[tuple[str, bytes]]:
    world = World(ledger)
    change = msgspec.structs.replace
    good = world.dataset(3)
    data = sign(good, device_key(3))
    rotation, recovery = world.new_key(3), world.new_key(3, by=FOUNDER)
    records: list[tuple[str, Record]] = [
        ("replayed from another ledger", change(good, origin="example.org/other")),
        ("by nobody", change(good, author=99)),
        ("a data set of a host", world.dataset(HOST)),
        ("a sequence used before", change(good, seq=1, commitment=digest("other"))),
        ("a sequence far away", change(good, seq=good.seq + LARGEST_SEQUENCE_STEP)),
        ("a second genesis", change(genesis(), seq=world.seq(FOUNDER))),
        ("a number left out", world.enrol(9, "participant")),
        ("a role that nobody admits", world.enrol(7, "auditor")),
        ("an enrolled key", change(world.enrol(7, "participant"), key=key(5).public)),
        ("a key of small order", change(world.enrol(7, "participant"), key=bytes(32))),
        ("a rotation to a former key", change(rotation, key=new_key(key(5), ORIGIN, 3))),
        ("a rotation to a key that is not held", change(rotation, key=new_key(key(9), ORIGIN, 4))),
        ("a recovery by somebody who admits nobody", world.new_key(3, by=COORDINATOR)),
        ("a recovery of nobody", change(recovery, number=99)),
        ("a round left out", change(world.round(), number=9)),
        ("a round from another model", change(world.round(), base_digest=digest("other"))),
        ("a round under former terms", change(world.round(), terms=decode_entry(ledger.entry(0)).leaf_hash)),
        ("terms for fewer than there are", world.terms(max_participants=2)),
        ("terms under which one is alone", world.terms(min_honest=1)),
        ("an aborted round that is closed", _aborted(world)),
        ("a survivor set of a round that is closed", _survivors(world)),
    ]
    for description, record in records:
        yield description, world.sign(record)
    yield "a device's key rotated away", sign(world.dataset(4), device_key(4))
    yield "a data set by the person's key", sign(good, key(3))
    yield "a rotation signed by the new key", sign(rotation, next_key(key(3)))
    yield "another's signature", sign(good, device_key(4))
    yield "a block that ends no batch", sign(world.block(), key(1))
    yield "no entry", b"entry"
    for description, old, new in (
        ("white space", b'"author":3', b'"author": 3'),
        ("a float", b'"author":3', b'"author":3.0'),
        ("a member twice", b'"author":3', b'"author":3,"author":3'),
        ("a member left out", b'"author":3,', b""),
        ("an escape", b'"kind"', b'"k\\u0069nd"'),
        ("an unknown member", b'"v":2', b'"v":2,"w":1'),
        ("an integer out of range", b'"author":3', b'"author":9007199254740992'),
        ("another format", b'"v":2', b'"v":3'),
        ("an unknown kind", b'"dataset"', b'"unknown"'),
    ):
        assert old in data
        yield description, data.replace(old, new)
    yield "too large", data + bytes(65_536)


def _bad_sharing(ledger: SqliteLedger) -> Iterator[tuple[str, bytes]]:
    world = World(ledger)
    change = msgspec.structs.replace
    (share,) = world.shares(5, 3)
    withdrawn = next(entry for _, data in ledger.entries() if (entry := decode_entry(data)).record.kind == "share")
    assert isinstance(withdrawn.record, Share)
    records: list[tuple[str, Record]] = [
        ("a consent for oneself", change(world.consent(5, 3), recipients=to_ranges([5]))),
        ("a consent for who left", world.consent(5, 4)),
        ("a share without a consent", world.share(3, 5)),
        ("a share with whom no consent names", world.share(5, COORDINATOR)),
        ("a receipt of what was received", world.receipt(3, 5, share)),
        ("a receipt of what was withdrawn", change(world.receipt(3, 5, share), sender=3, share=withdrawn.leaf_hash)),
        ("a withdrawal of what was withdrawn", world.withdrawal(3, withdrawn.record.consent)),
        ("a consent of who left", world.consent(4, 3)),
        ("a second request to be forgotten", world.erasure(4)),
        ("the erasure of who did not ask", world.erasure_report(3)),
        ("an erasure from models to come", world.erasure_report(4, models=(3,))),
        ("a disclosure of nobody", world.disclosure()),
        ("a disclosure by a coordinator", change(world.disclosure(3), author=COORDINATOR, seq=99)),
        ("a pool of a round that is closed", _pool(world)),
        ("a private answer that names a copy", world.update(3, (5, share))),
    ]
    for description, record in records:
        yield description, world.sign(record)


def _pool(world: World) -> Record:
    seq = world.seq(COORDINATOR)
    participants = to_ranges([5])
    return PoolRecord(
        origin=ORIGIN, author=COORDINATOR, seq=seq, round=2, round_hash=digest("round"), participants=participants
    )


def _aborted(world: World) -> Record:
    return Aborted(origin=ORIGIN, author=COORDINATOR, seq=world.seq(COORDINATOR), round=1, reason="insufficient_cohort")


def _survivors(world: World) -> Record:
    return RoundSet(
        origin=ORIGIN,
        author=COORDINATOR,
        seq=world.seq(COORDINATOR),
        round=5,
        round_hash=digest("round"),
        phase="survivors",
        part=1,
        parts=1,
        participants=to_ranges([3]),
        root=ZERO,
    )


def written(path: Path) -> str:
    """A file as it should be."""
    return json.dumps(build(path), indent=1) + "\n"


if __name__ == "__main__":
    for each in PATHS:
        each.write_text(written(each), encoding="utf-8")

"""A run folder over a ledger on which people have shared, withdrawn and were forgotten."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from liberate.crypto.signing import save_key
from liberate.federation.devices import Devices
from liberate.federation.rows import Holding
from liberate.runs.folder import Run, load_run, write_run
from liberate.settings import Settings
from tests.ledger.world import FOUNDER, LOG_KEY, LOG_VKEY, ORIGIN, PARTICIPANTS, create, digest, key, write_sharing


def sharing_run(folder: Path) -> Run:
    """Write `write_sharing`'s ledger into a run folder; participant n is user `un` of the data set."""
    with closing(create(folder / "ledger", auditors=True)) as ledger:
        write_sharing(ledger)
    write_people(folder)
    (folder / "keys").mkdir()
    save_key(folder / "keys" / "founder.key", key(FOUNDER))
    save_key(folder / "keys" / "log.key", LOG_KEY)
    write_run(Run(folder, Settings(), {"origin": ORIGIN, "verifier_key": LOG_VKEY}))
    return load_run(folder)


def write_people(folder: Path) -> None:
    """Write the devices of the ledger's participants."""
    people = [
        (f"u{number}", Holding(signing_seed=digest(("key", number)), dataset_salt=bytes(32), ratings=bytes(4)))
        for number in PARTICIPANTS
    ]
    with Devices.create(folder / "devices", people) as devices:
        devices.enrolled(list(enumerate(PARTICIPANTS)), seq=1)

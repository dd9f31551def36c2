"""Run folders over ledgers on which people have shared: with everything that can become of it, or with real copies."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from liberate.crypto.signing import save_key
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.federation.session import FederationSession
from liberate.federation.sharing.acceptance import accept_copy
from liberate.federation.sharing.consents import ConsentTerms, give_consent
from liberate.federation.sharing.handover import HandedOverCopy, hand_over, handed_over_copies
from liberate.federation.store.device_rows import Device, DeviceData
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.format.entries import decode_entry
from liberate.randomness import SimulatedRandomness
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import CATALOGUE, Run, load_run, write_run
from liberate.runs.run_data import save_table
from liberate.runs.run_record import RunRecord
from liberate.settings import resolve
from tests.ledger.world import FOUNDER, LOG_KEY, LOG_VKEY, ORIGIN, PARTICIPANTS, create, digest, key, write_sharing
from tests.worlds import World, low_rank_ratings, stage

N_ITEMS = 400
RATINGS = low_rank_ratings(8, N_ITEMS)
SCALE = RatingScale(low=1.0, step=1.0, n_levels=5)
LAST_SEQUENCE = 1000
"""Above all that `write_sharing` signs."""

SENDERS, RECIPIENTS = (0, 1, 2), (3, 4, 5, 6)
"""Users of the data set: each of the first gives each of the second a copy, but the last sender not to the last one."""


def sharing_run(folder: Path) -> Run:
    """Write `write_sharing`'s ledger into a run folder; participant n is user `un` of the data set."""
    with closing(create(folder / "ledger", auditors=True)) as ledger:
        write_sharing(ledger)
        (folder / "checkpoint").write_text(ledger.checkpoint(), "utf-8")
    write_participants(folder)
    (folder / "keys").mkdir()
    save_key(folder / "keys" / "founder.key", key(FOUNDER))
    save_key(folder / "keys" / "log.key", LOG_KEY)
    _write_items(folder)
    write_run(Run(folder, resolve(None, [], environment={}), RunRecord(origin=ORIGIN, verifier_key=LOG_VKEY)))
    return load_run(folder)


def write_participants(folder: Path) -> None:
    """Write the devices of the ledger's participants."""
    participants = [
        (
            f"u{number}",
            DeviceData(
                person_seed=digest(("key", number)),
                device_seed=digest(("device key", number)),
                dataset_salt=bytes(32),
                ratings=bytes(4),
            ),
        )
        for number in PARTICIPANTS
    ]
    with DeviceStore.create(folder / "devices", participants) as devices:
        devices.record_numbers(list(enumerate(PARTICIPANTS)), seq=LAST_SEQUENCE)


def leaky_run(folder: Path, *, epsilon: float | None = None, senders: Iterable[int] = SENDERS) -> Run:
    """Let people hand out copies of ratings of 400 items; user n of the data set is `un`, item n is `in`."""
    with stage(folder, World(ratings=RATINGS)) as staged:
        vkey = staged.federation.policy.log_key
    settings = resolve(None, ["run.seed=7", "ledger.origin=test.invalid/world"], environment={})
    write_run(Run(folder, settings, RunRecord(origin="test.invalid/world", verifier_key=vkey)))
    _write_items(folder)
    run = load_run(folder)
    with open_run_federation(run) as standing:
        for sender in senders:
            _give(standing, sender, RECIPIENTS[: None if sender != SENDERS[-1] else -1], epsilon)
    return run


def copies_of(run: Run) -> dict[tuple[int, int], HandedOverCopy]:
    """What senders keep of their copies, by sender and recipient, as users of the data set."""
    with DeviceStore(run.devices_folder) as devices:
        user = {device.number: int(device.user_id[1:]) for device in devices.devices()}
        return {(user[each.sender], user[each.share.recipient]): each for each in handed_over_copies(devices)}


def rows_of(copy: bytes, user: str, n: int) -> list[str]:
    """Return the first rows of a copy as lines of a CSV file."""
    own = Ratings.from_user_bytes([copy], N_ITEMS)
    return [f"{user},i{item},{value:g}" for item, value in list(zip(own.items, own.values, strict=True))[:n]]


def write_leak(path: Path, rows: Iterable[str]) -> Path:
    """Write rows that leaked."""
    path.write_text("\n".join(["user,item,rating", *rows]) + "\n", "utf-8")
    return path


def _write_items(folder: Path) -> None:
    for place in (folder / CATALOGUE, folder / "items.parquet"):  # the run's, and the federation's
        save_table(place, pa.table({"item_id": [f"i{item}" for item in range(N_ITEMS)]}))


def _give(standing: FederationSession, sender: int, recipients: Iterable[int], epsilon: float | None) -> None:
    ledger, devices = standing.ledger, standing.devices
    participants = [_device(devices, user) for user in recipients]
    numbers = tuple(device.number for device in participants if device.number is not None)
    terms = ConsentTerms(recipients=numbers, expiry=1000, max_shares=9, epsilon=epsilon)
    random = SimulatedRandomness(7, b"leak")
    position = give_consent(ledger, devices, _device(devices, sender), terms, random)
    consent = decode_entry(ledger.entry(position)).leaf_hash
    for device, number in zip(participants, numbers, strict=True):
        sealed_copy = hand_over(ledger, devices, _device(devices, sender), consent, number, SCALE, random)[1]
        accept_copy(ledger, devices, _device(devices, int(device.user_id[1:])), sealed_copy, N_ITEMS)


def _device(devices: DeviceStore, user: int) -> Device:
    device = devices.find(user_id=f"u{user}")
    assert device is not None
    return device

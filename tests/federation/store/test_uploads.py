"""Uploads are kept for auditors, by their owner only, and forgotten for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from liberate.crypto.commitments import salted_commitment
from liberate.errors import InsufficientCohort
from liberate.federation.store.models import ModelStore
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.store.uploads import StoredUpload, UploadStore
from liberate.federation.wire.masked_round import masked_round
from liberate.federation.wire.secagg_messages import AdvertisedKeys
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import Update
from liberate.ledger.log.sqlite import SqliteLedger
from tests.federation.crashes import Crash, crash_at
from tests.federation.hostile import silent
from tests.worlds import Stage, World, low_rank_ratings, stage

PLAIN = World(ratings=low_rank_ratings())
KEYS = AdvertisedKeys(mask=b"m" * 32, seal=b"s" * 32, own=b"o" * 32, draw=b"d" * 32, signature=bytes(64))


def kept(number: int, position: int) -> StoredUpload:
    return StoredUpload(position, number, bytes([number]) * 32, bytes([number]) * 100)


def test_gives_what_was_kept_in_the_order_of_the_ledger(tmp_path: Path) -> None:
    with UploadStore(tmp_path / "uploads") as uploads:
        uploads.put(1, [kept(7, 30), kept(8, 20)])
        uploads.put(2, [kept(7, 40)])
        uploads.put(1, [kept(8, 20)])

        assert list(uploads.of_round(1)) == [kept(8, 20), kept(7, 30)]
        assert (uploads.count(1), uploads.count(2), uploads.count(3)) == (2, 1, 0)


def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    UploadStore(tmp_path / "uploads").close()

    assert (tmp_path / "uploads").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "uploads").iterdir()} == {0o600}


def test_nothing_is_left_of_what_is_forgotten(tmp_path: Path) -> None:
    with UploadStore(tmp_path) as uploads:
        secret = [
            StoredUpload(number, number, b"salt%d" % number * 6, b"upload of %d." % number * 9000) for number in (1, 2)
        ]
        uploads.put(1, secret)
        uploads.put_unmasking(
            1,
            {number: UnmaskingShares(keys=KEYS, seed=b"d" * 32, shares={1: b"share%d" % number}) for number in (1, 2)},
        )

        assert uploads.erase_participant(1) == 1

        assert list(uploads.of_round(1)) == secret[1:]
        assert set(uploads.unmasking(1)) == {2}
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for trace in (b"salt1", b"upload of 1", b"share1"):
        assert trace not in stored
    assert b"upload of 2" in stored


def learn_and_keep(scene: Stage, folder: Path, rounds: int) -> None:
    """Carry out rounds with a coordinator that keeps uploads, from where the ledger is."""
    with UploadStore(folder) as uploads:
        scene.coordinator._collector.uploads = uploads
        model = scene.first
        reached = scene.federation.ledger.state.model
        if reached is not None:
            model = scene.store.load(reached.version, reached.digest)
        while model.version < rounds:
            model = scene.round(model)


def check_all_kept(scene: Stage, folder: Path, rounds: int) -> None:
    ledger = scene.federation.ledger
    with UploadStore(folder) as uploads:
        found = {each.position: each for number in range(1, rounds + 1) for each in uploads.of_round(number)}
    assert sorted(found) == sorted(ledger.positions(kind="update"))
    for position, each in found.items():
        update = decode_entry(ledger.entry(position)).record
        assert isinstance(update, Update)
        assert update.author == each.number
        assert update.commitment == salted_commitment(each.salt, each.upload)


STEPS = ((SqliteLedger, "_commit"), (UploadStore, "put"), (ModelStore, "save"))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_at_any_step_leaves_no_upload_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    for at in range(1, 12):
        folder = tmp_path / str(at)
        with stage(folder, PLAIN) as scene, monkeypatch.context() as patched:
            crash_at(patched, STEPS, at, before=before)
            with pytest.raises(Crash):
                learn_and_keep(scene, folder / "uploads", 2)

        with stage(folder, PLAIN) as scene:
            learn_and_keep(scene, folder / "uploads", 2)
            check_all_kept(scene, folder / "uploads", 2)


def test_a_round_without_a_model_leaves_nothing(tmp_path: Path) -> None:
    absent = {number for number in range(3, 15) if number % 4}
    with stage(tmp_path, PLAIN, wrap=silent(absent)) as scene, pytest.raises(InsufficientCohort):
        learn_and_keep(scene, tmp_path / "uploads", 1)
    with UploadStore(tmp_path / "uploads") as uploads:
        assert uploads.count(1) == 0


def test_a_masked_round_keeps_what_undid_the_masks(tmp_path: Path) -> None:
    world = World(ratings=low_rank_ratings(), mode="distributed", rounds=1)
    with stage(tmp_path, world) as scene:
        learn_and_keep(scene, tmp_path / "uploads", 1)
        participants = [each.number for each in scene.federation.devices.devices()]
        (position,) = scene.federation.ledger.positions(kind="round")
        threshold = masked_round(scene.federation.ledger.entry(position)).threshold

    with UploadStore(tmp_path / "uploads") as uploads:
        assert sorted(uploads.unmasking(1)) == participants
        assert {len(each.shares) for each in uploads.unmasking(1).values()} == {threshold}

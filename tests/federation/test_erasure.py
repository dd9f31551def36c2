"""Whoever has withdrawn is not asked any more, and the federation goes on."""

from __future__ import annotations

from pathlib import Path

from liberate.crypto.signing import SigningKey
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.sharing_records import Withdrawal
from liberate.ledger.verification.verify import verify_ledger
from tests.worlds import World, low_rank_ratings, stage

WORLD = World(ratings=low_rank_ratings(6, 5), mode="local", epsilon=6.0, rounds=2, batch_size=3)


def test_a_round_goes_on_without_who_has_withdrawn(tmp_path: Path) -> None:
    with stage(tmp_path, WORLD) as scene:
        model = scene.learn(1)
        ledger, devices = scene.federation.ledger, scene.federation.devices
        device = devices.find(user_id="u2")
        assert device is not None
        assert device.number is not None
        key = SigningKey.from_seed(devices.data_of(device.slot).person_seed)
        leaving = Withdrawal(origin=ledger.origin, author=device.number, seq=device.last_seq + 1, consent=None)
        ledger.append([sign(leaving, key)])
        scene.round(model)

        updates = [decode_entry(ledger.entry(position)).record.author for position in ledger.positions(kind="update")]
        assert updates.count(device.number) == 1
        assert len(updates) == 11
        assert ledger.state.open_round is None
    assert verify_ledger(tmp_path / "ledger").ok

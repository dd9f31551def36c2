"""Whoever has withdrawn is not asked any more, and the federation goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, RefusedEntry
from liberate.federation.keys import revoke_key
from liberate.federation.sharing.consents import withdraw
from liberate.federation.store.device_rows import Device
from liberate.federation.wire.round_messages import RoundAnswer, RoundRefusal, decode_answer, encode_message
from liberate.federation.wire.transport import Request
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.refusals import refused
from liberate.ledger.format.sharing_records import Withdrawal
from liberate.ledger.verification.verify import verify_ledger
from tests.federation.participant.test_hostile import captured
from tests.worlds import Stage, World, low_rank_ratings, stage

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


def leave(scene: Stage, device: Device) -> None:
    withdraw(scene.federation.ledger, scene.federation.devices, device, None)


def revoke(scene: Stage, device: Device) -> None:
    revoke_key(scene.federation.ledger, scene.federation.devices, device, "device")


@pytest.mark.parametrize(("act", "reason"), [(leave, "withdrawn"), (revoke, "revoked")])
def test_a_device_that_has_withdrawn_answers_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Stage, Device], None], reason: str
) -> None:
    """Not even where the log refuses the withdrawal, or the revocation, and a coordinator asks all the same."""
    with stage(tmp_path, replace(WORLD, mode="plain", epsilon=None)) as scene:
        request = captured(scene)
        device = scene.federation.devices.find(user_id="u2")
        assert device is not None
        number = device.enrolled_number
        with monkeypatch.context() as patched:
            patched.setattr(type(scene.federation.ledger), "append", refusing)
            with pytest.raises(FederationError, match="the ledger refuses the"):
                act(scene, device)
        scene.host.reload()

        (reply,) = scene.host.answer([Request(number, "update", encode_message(request))])

        refusal = decode_answer(reply.body, RoundAnswer)
        assert isinstance(refusal, RoundRefusal)
        assert refusal.reason == reason


def refusing(_: object, entries: list[bytes]) -> list[RefusedEntry]:
    """Refuse whatever is offered, as a log that keeps people in."""
    return [refused("malformed", "not today") for _ in entries]

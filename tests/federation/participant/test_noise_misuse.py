"""An auditor who keeps what left the devices finds noise that protects less than its price says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liberate.arrays import FixedPointStatistics
from liberate.federation.coordinator.upload_validation import UploadValidator
from liberate.federation.participant.answers import AnswerInputs, RoundAnswers
from liberate.federation.participant.checks import RoundTask
from liberate.federation.store.device_rows import AnswerSecrets, Device, OutboxMessage
from liberate.federation.wire.round_messages import (
    RoundAnswer,
    RoundRequest,
    decode_answer,
    decode_message,
    decode_upload,
    encode_message,
)
from liberate.federation.wire.transport import Reply, Request
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import Round
from liberate.privacy.misuse import NoiseReuse, ObservedUpload, noise_misuse
from liberate.randomness import SimulatedRandomness
from tests.federation.hostile import editing
from tests.worlds import World, low_rank_ratings, stage

LAPLACE = World(ratings=low_rank_ratings(), mode="local", epsilon=6.0)
GAUSS = replace(LAPLACE, noise="gaussian", epsilon=1.0)
BOTH = pytest.mark.parametrize("world", [LAPLACE, GAUSS], ids=["laplace", "gaussian"])


def misuse(folder: Path, world: World) -> list[NoiseReuse]:
    """Run a federation whose coordinator asks everything twice; return what an auditor of its transcript finds."""
    transcript: list[ObservedUpload] = []
    clips: set[int] = set()

    def note(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if requests[0].phase == "history":
            return replies
        record = decode_entry(decode_message(requests[0].body, RoundRequest).entry).record
        assert isinstance(record, Round)
        clips.add(record.mechanism.parameters["clip_units"])
        transcript.extend(seen(reply, record) for reply in replies)
        return replies

    with stage(folder, world, wrap=editing(replies=note, deliveries=2)) as scene:
        scene.learn()
        participants = len(scene.host.numbers)
    assert len(transcript) == 2 * world.rounds * participants
    return noise_misuse(transcript, 2 * max(clips), 1 if world.noise == "laplace" else 2)


def seen(reply: Reply, record: Round) -> ObservedUpload:
    answer = decode_answer(reply.body, RoundAnswer)
    assert isinstance(answer, RoundAnswer)
    upload = decode_upload(answer.upload, shape=record.shape, is_dense=True)
    numbers = np.concatenate([upload.rows.ravel(), upload.tails.ravel()]).astype(np.int64)
    return ObservedUpload(participant=reply.sender, round=record.number, numbers=numbers)


@BOTH
def test_honest_devices_misuse_no_noise(tmp_path: Path, world: World) -> None:
    assert misuse(tmp_path, world) == []


@BOTH
def test_noise_key_that_forgets_the_round_is_caught(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    derive = SimulatedRandomness.secret

    def forgetful(self: SimulatedRandomness, name: str, *index: int) -> bytes:
        return derive(self, name, *index[1:]) if name == "noise" else derive(self, name, *index)

    monkeypatch.setattr(SimulatedRandomness, "secret", forgetful)

    reuses = misuse(tmp_path, world)

    assert {reuse.kind for reuse in reuses} == {"one noise for two rounds"}
    assert {reuse.participant for reuse in reuses} == set(range(3, 15))
    assert {reuse.rounds for reuse in reuses} == {(1, 2), (1, 3), (2, 3)}


@BOTH
def test_device_that_draws_again_when_asked_again_is_caught(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def redraw(self: RoundAnswers, task: RoundTask, stored: list[tuple[Device, OutboxMessage]]) -> list[Reply]:
        keys = [bytes([9]) * 31 + bytes([index + 1]) for index in range(len(stored))]
        inputs = [
            AnswerInputs(
                device=device,
                copies=(),
                secrets=AnswerSecrets(noise_key=key, upload_salt=b"", profile_salt=b""),
            )
            for key, (device, _) in zip(keys, stored, strict=True)
        ]
        uploads, _ = self._compute(task, inputs)

        return [
            Reply(
                device.enrolled_number,
                encode_message(RoundAnswer(entry=message.entry, upload=upload, salt=message.upload_salt)),
            )
            for upload, (device, message) in zip(uploads, stored, strict=True)
        ]

    def takes_anything(self: UploadValidator, sender: int, answer: RoundAnswer) -> FixedPointStatistics:
        return decode_upload(answer.upload, shape=self.record.shape, is_dense=self.is_dense)

    monkeypatch.setattr(RoundAnswers, "answer_again", redraw)
    # A coordinator that wants fresh noise takes what does not open its commitment.
    monkeypatch.setattr(UploadValidator, "check", takes_anything)

    reuses = misuse(tmp_path, world)

    assert {(reuse.kind, reuse.rounds[0] == reuse.rounds[1]) for reuse in reuses} >= {
        ("fresh noise for a repeated request", True)
    }
    assert {reuse.participant for reuse in reuses} == set(range(3, 15))

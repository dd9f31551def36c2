"""Rounds with parties who lie: each lie is refused, named, and harms nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.merkle import node_hash
from liberate.crypto.note import Checkpoint, sign_checkpoint
from liberate.crypto.signing import SigningKey, load_key
from liberate.errors import FederationError, InsufficientCohort, StaleModel
from liberate.federation.participant.own_history import OwnHistories
from liberate.federation.store.device_rows import Device
from liberate.federation.wire.round_messages import (
    RoundAnswer,
    RoundRefusal,
    RoundRequest,
    decode_answer,
    decode_message,
    encode_message,
)
from liberate.federation.wire.transport import Reply, Request
from liberate.identifiers import Digest
from liberate.ledger.evidence.split_view import verify_evidence
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Aborted, ModelRecord, Round, Update
from liberate.model.codec import encode_model, model_digest
from tests.federation.crashes import Crash
from tests.federation.hostile import dying, editing, lying, silent
from tests.worlds import Stage, World, low_rank_ratings, stage

PLAIN = World(ratings=low_rank_ratings())
LOCAL = World(ratings=low_rank_ratings(), mode="local", epsilon=6.0)

Edit = Callable[[RoundAnswer], RoundAnswer]


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def forged(answer: RoundAnswer, **changes: object) -> bytes:
    """Return the answer's entry with changed fields and the old signature."""
    entry = decode_entry(answer.entry)
    record = msgspec.structs.replace(entry.record, **changes)
    body = sign(record, SigningKey.from_seed(bytes(32)))[64:]
    return entry.signature + body


LIES: dict[str, Edit] = {
    "upload that does not open": lambda a: msgspec.structs.replace(a, upload=flip(a.upload, len(a.upload) - 1)),
    "salt that does not open": lambda a: msgspec.structs.replace(a, salt=flip(a.salt, 0)),
    "salt of no size": lambda a: msgspec.structs.replace(a, salt=b""),
    "broken signature": lambda a: msgspec.structs.replace(a, entry=flip(a.entry, 3)),
    "no entry": lambda a: msgspec.structs.replace(a, entry=b""),
    "entry of somebody else": lambda a: msgspec.structs.replace(a, entry=forged(a, author=6)),
    "another round": lambda a: msgspec.structs.replace(a, entry=forged(a, round=2)),
    "another spend": lambda a: msgspec.structs.replace(a, entry=forged(a, account="epsilon", spend_nano=1)),
    "another shape": lambda a: msgspec.structs.replace(
        a, upload=a.upload[:8], entry=forged(a, commitment=salted_commitment(a.salt, a.upload[:8]))
    ),
}


@pytest.mark.parametrize("lie", LIES, ids=[name.replace(" ", "-") for name in LIES])
def test_lie_is_left_out_and_the_rest_is_learned(tmp_path: Path, lie: str) -> None:
    liar = 5
    with stage(tmp_path / "a", PLAIN, wrap=lying(liar, RoundAnswer, LIES[lie])) as scene:
        model = scene.learn(1)
        ledger = scene.federation.ledger
        authors = {decode_entry(ledger.entry(p)).record.author for p in ledger.positions(kind="update")}
    assert liar not in authors
    assert len(authors) == PLAIN.ratings.n_users - 1

    with stage(tmp_path / "b", PLAIN, wrap=silent({liar})) as scene:
        without = scene.learn(1)
    assert encode_model(model) == encode_model(without)


NOISE = {
    "no message": b"\xc1",
    "no text": b"\x84\xa4type\xa7refusal\xa6reason\xa1\xff\xa6detail\xa0\xaaknown_size\x00",
    "endless nesting": b"\x85\xa4type\xa6answer\xa5entry\xc4\x00\xa6upload\xc4\x00\xa4salt\xc4\x00\xa1x"
    + b"\x91" * 10**5
    + b"\x00",
}


@pytest.mark.parametrize("noise", NOISE, ids=[name.replace(" ", "-") for name in NOISE])
def test_noise_instead_of_a_reply_harms_nobody_else(tmp_path: Path, noise: str) -> None:
    def edit(_: list[Request], replies: list[Reply]) -> list[Reply]:
        return [replace(reply, body=NOISE[noise]) if reply.sender == 5 else reply for reply in replies]

    with stage(tmp_path / "a", PLAIN, wrap=editing(replies=edit)) as scene:
        model = scene.learn(1)
    with stage(tmp_path / "b", PLAIN, wrap=silent({5})) as scene:
        without = scene.learn(1)

    assert encode_model(model) == encode_model(without)


def test_answer_given_twice_counts_once(tmp_path: Path) -> None:
    def insist(_: list[Request], replies: list[Reply]) -> list[Reply]:
        return replies + [reply for reply in replies if reply.sender == 5]

    with stage(tmp_path / "a", PLAIN, wrap=editing(replies=insist)) as scene:
        model = scene.learn(1)
    with stage(tmp_path / "b", PLAIN) as scene:
        honest = scene.learn(1)

    assert encode_model(model) == encode_model(honest)


def test_signed_update_of_wrong_shape_is_left_out(tmp_path: Path) -> None:
    """The liar signs honestly, but what it commits to has no meaning in this round."""
    with stage(tmp_path, PLAIN) as scene:
        liar = scene.host.numbers[2]
        key = scene.host._answers.keys[2]

        def edit(answer: RoundAnswer) -> RoundAnswer:
            upload = answer.upload + b"more"
            record = msgspec.structs.replace(
                decode_entry(answer.entry).record, commitment=salted_commitment(answer.salt, upload)
            )
            return RoundAnswer(entry=sign(record, key), upload=upload, salt=answer.salt)

        with scene.edited(lying(liar, RoundAnswer, edit)):
            scene.learn(1)
        ledger = scene.federation.ledger

        assert ledger.positions(kind="update", author=liar) == []


def test_too_few_answers_abort_the_round_and_the_next_one_can_be_opened(tmp_path: Path) -> None:
    world = replace(PLAIN, min_participation=1.0)
    with stage(tmp_path, world, wrap=silent({3})) as scene:
        with pytest.raises(InsufficientCohort, match="11 updates, 12 were needed"):
            scene.learn(1)

        ledger = scene.federation.ledger
        (position,) = ledger.positions(kind="aborted")
        assert decode_entry(ledger.entry(position)).record == Aborted(
            origin=ledger.origin,
            author=scene.federation.coordinator.number,
            seq=2,
            round=1,
            reason="insufficient_updates",
        )
        assert ledger.state.open_round is None

    with stage(tmp_path, world) as scene:
        assert scene.learn(1).version == 1
        assert scene.federation.ledger.state.round_number == 2


def captured(scene: Stage) -> RoundRequest:
    """Open a round and return the request that the coordinator sends, which nobody answers.

    From then on the devices ask for no history of theirs: what else they check is tried with logs that are made up.
    """
    bodies: list[bytes] = []

    def capture(requests: list[Request]) -> list[Request]:
        bodies.extend(request.body for request in requests if request.phase != "history")
        return []

    with scene.edited(editing(requests=capture)), pytest.raises(InsufficientCohort):
        scene.round(scene.first)
    scene.host._histories = Unasked()
    return decode_message(bodies[0], RoundRequest)


class Unasked(OwnHistories):
    """Histories of devices that ask for none."""

    def __init__(self) -> None:
        pass

    def require_proved(self, device: Device, record: Round, position: int) -> None:
        """Take every round."""


def answers(scene: Stage, request: RoundRequest) -> list[RoundAnswer | RoundRefusal]:
    """Let two participants answer a request."""
    body = encode_message(request)
    replies = scene.host.answer([Request(number, "update", body) for number in scene.host.numbers[:2]])
    return [decode_answer(reply.body, RoundAnswer) for reply in replies]


def reasons(scene: Stage, request: RoundRequest) -> set[str]:
    replies = answers(scene, request)
    refusals = {reply.reason for reply in replies if isinstance(reply, RoundRefusal)}
    assert all(isinstance(reply, RoundRefusal) for reply in replies)
    return refusals


def with_record(scene: Stage, request: RoundRequest, key: SigningKey, **changes: object) -> RoundRequest:
    """Return a request for an edited round, truly in the log of a coordinator who also has the log's key."""
    record = decode_entry(request.entry).record
    assert isinstance(record, Round)
    entry = sign(msgspec.structs.replace(record, **changes), key)
    log_key = load_key(scene.store._folder.parent / "keys" / "log.key")
    root = node_hash(Digest(bytes(32)), decode_entry(entry).leaf_hash)  # one leaf in place of everything before
    checkpoint = Checkpoint(scene.federation.ledger.origin, 2, root)
    return msgspec.structs.replace(
        request,
        entry=entry,
        position=1,
        checkpoint=sign_checkpoint(checkpoint, log_key),
        inclusion=[bytes(32)],
    )


def test_honest_request_is_answered(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN) as scene:
        assert all(isinstance(message, RoundAnswer) for message in answers(scene, captured(scene)))


def test_who_is_asked_twice_at_once_answers_once(tmp_path: Path) -> None:
    with stage(tmp_path, replace(LOCAL, is_simulated=False)) as scene:
        number, body = scene.host.numbers[0], encode_message(captured(scene))

        replies = scene.host.answer([Request(number, "update", body)] * 2)

        assert [type(decode_answer(reply.body, RoundAnswer)) for reply in replies] == [RoundAnswer]


def test_each_lie_of_a_coordinator_is_refused(tmp_path: Path) -> None:
    with stage(tmp_path, LOCAL) as scene:
        request = captured(scene)
        key = scene.federation.coordinator.key
        record = decode_entry(request.entry).record
        assert isinstance(record, Round)
        weaker = msgspec.structs.replace(record.mechanism, parameters={**record.mechanism.parameters, "scale_units": 1})
        plain = msgspec.structs.replace(record.mechanism, name="none", parameters={})
        unknown = msgspec.structs.replace(record.mechanism, name="gaussian")

        def edited(**changes: object) -> RoundRequest:
            return with_record(scene, request, key, **changes)

        assert reasons(scene, msgspec.structs.replace(request, model=request.model + b"x")) == {"model"}
        assert reasons(scene, msgspec.structs.replace(request, position=request.position - 1)) == {"inclusion"}
        assert reasons(scene, msgspec.structs.replace(request, inclusion=request.inclusion[1:])) == {"inclusion"}
        assert reasons(scene, msgspec.structs.replace(request, entry=b"nonsense")) == {"inclusion"}
        assert reasons(scene, msgspec.structs.replace(request, checkpoint="nonsense")) == {"record"}
        stranger = SigningKey.from_seed(bytes(32))
        assert reasons(scene, with_record(scene, request, stranger)) == {"record"}
        assert reasons(scene, edited(origin="other.invalid")) == {"record"}
        assert reasons(scene, edited(mechanism=weaker)) == {"policy"}, "less noise, the old price"
        assert reasons(scene, edited(mechanism=plain, account="none", spend_nano=0)) == {"policy"}, "no noise"
        assert reasons(scene, edited(mechanism=unknown)) == {"policy"}
        assert reasons(scene, edited(rounds=None)) == {"policy"}, "a private run without an end"
        assert reasons(scene, edited(statistic="telepathy")) == {"record"}
        assert reasons(scene, edited(statistic="normal")) == {"record"}
        assert reasons(scene, edited(shape=(9, 4, 0))) == {"record"}
        assert isinstance(answers(scene, edited())[0], RoundAnswer), "the edits, not the editing, are refused"


def test_who_rated_an_item_does_not_show_in_who_answers(tmp_path: Path) -> None:
    """A model may be such that only devices whose participants rated one item compute NaN or infinity."""
    with stage(tmp_path, LOCAL) as scene:
        request = captured(scene)
        means = scene.first.arrays["item_means"].copy()
        means[3] = 3e38
        crafted = encode_model(replace(scene.first, arrays={**scene.first.arrays, "item_means": means}))
        key = scene.federation.coordinator.key
        asked = with_record(scene, request, key, base_digest=model_digest(crafted))
        body = encode_message(msgspec.structs.replace(asked, model=crafted))

        replies = scene.host.answer([Request(number, "update", body) for number in scene.host.numbers])

        assert 0 < np.count_nonzero(LOCAL.ratings.items == 3) < len(replies)
        assert all(isinstance(decode_answer(reply.body, RoundAnswer), RoundAnswer) for reply in replies)


NO_MODELS = {
    "nonsense": b"x",
    "too large": b"liberate model 1\n" + b'{"arrays":[["a","<f4",[%d]]]}\n' % 2**70,
    "endless nesting": b"liberate model 1\n" + b"[" * 10**5 + b"\n",
}


@pytest.mark.parametrize("name", NO_MODELS, ids=[name.replace(" ", "-") for name in NO_MODELS])
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, name: str) -> None:
    with stage(tmp_path, LOCAL) as scene:
        request = captured(scene)
        key = scene.federation.coordinator.key
        asked = with_record(scene, request, key, base_digest=model_digest(NO_MODELS[name]))

        assert reasons(scene, msgspec.structs.replace(asked, model=NO_MODELS[name])) == {"model"}


@pytest.mark.parametrize(
    ("statistic", "shape", "arrays"),
    [
        ("moments", (6, 1, 0), {"user_precision": -np.eye(3)}),
        ("residuals", (9, 2, 0), {"directions": np.ones(1)}),
        ("residuals", (9, 3, 0), {"directions": np.ones((5, 2))}),
    ],
)
def test_a_model_that_nothing_follows_from_is_refused(
    tmp_path: Path, statistic: str, shape: tuple[int, int, int], arrays: dict[str, np.ndarray]
) -> None:
    with stage(tmp_path, LOCAL) as scene:
        request, key = captured(scene), scene.federation.coordinator.key
        crafted = encode_model(replace(scene.first, statistic=statistic, arrays={**scene.first.arrays, **arrays}))
        asked = with_record(scene, request, key, base_digest=model_digest(crafted), statistic=statistic, shape=shape)

        assert reasons(scene, msgspec.structs.replace(asked, model=crafted)) == {"record"}


def test_noise_on_the_sum_is_for_simulations(tmp_path: Path) -> None:
    with stage(tmp_path, replace(LOCAL, is_simulated=False)) as scene:
        request = captured(scene)
        key = scene.federation.coordinator.key

        assert reasons(scene, with_record(scene, request, key, noise_placement="on_sum")) == {"policy"}


def test_rolled_back_and_split_logs_are_refused(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN) as scene:
        request = captured(scene)
        answers(scene, request)
        log_key = load_key(tmp_path / "keys" / "log.key")
        origin = scene.federation.ledger.origin

        def at(size: int, known_size: int, proof: list[bytes]) -> RoundRequest:
            note = sign_checkpoint(Checkpoint(origin, size, Digest(b"\1" * 32)), log_key)
            return msgspec.structs.replace(request, checkpoint=note, known_size=known_size, consistency=proof)

        known = scene.host._checker.accepted
        assert known is not None
        assert reasons(scene, at(known.size - 1, known.size, [])) == {"rollback"}
        assert reasons(scene, at(known.size, known.size, [])) == {"split_view"}
        (file,) = (tmp_path / "devices" / "evidence").glob("*.json")
        conflict = verify_evidence(file.read_bytes(), scene.federation.policy.log_key)
        assert (conflict.first, conflict.second.size) == (known, known.size)
        assert reasons(scene, at(known.size + 5, known.size, [b"\2" * 32])) == {"split_view"}
        assert reasons(scene, at(known.size + 5, 0, [])) == {"consistency"}


def test_closed_round_is_not_answered_again(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN) as scene:
        bodies: list[bytes] = []

        def note(requests: list[Request]) -> list[Request]:
            bodies.append(requests[0].body)
            return requests

        with scene.edited(editing(requests=note)):
            scene.learn(2)
        first = decode_message(bodies[0], RoundRequest)
        latest = decode_message(bodies[-1], RoundRequest)
        late = msgspec.structs.replace(
            first,
            checkpoint=latest.checkpoint,
            known_size=latest.known_size,
            consistency=latest.consistency,
            inclusion=list(scene.federation.ledger.inclusion_proof(first.position, scene.host._checker.accepted.size)),  # type: ignore[union-attr]
        )

        assert reasons(scene, late) == {"answered"}


def test_nobody_pays_more_than_agreed(tmp_path: Path) -> None:
    """Three rounds of 2 each against an agreed 4: the third finds nobody who can pay."""
    world = replace(LOCAL, limit_nano=4 * 10**9)
    with stage(tmp_path, world) as scene:
        model = scene.learn(2)
        with pytest.raises(InsufficientCohort, match="budget: 12"):
            scene.round(model)

        spent = {device.epsilon_nano for device in scene.federation.devices.devices()}
        assert spent == {4 * 10**9}


def test_nobody_answers_for_a_run_not_agreed_to(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN) as scene:
        model = scene.learn(1)
        with pytest.raises(InsufficientCohort, match="not_agreed: 12"):
            scene.coordinator.run_round(model, scene.learning, run=2, rounds=None)


def test_lost_model_is_not_replaced_by_another(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN) as scene:
        model = scene.learn(1)
        path = scene.store.path(1)
        path.write_bytes(encode_model(scene.first))

        with pytest.raises(StaleModel, match="does not match"):
            scene.store.load(1, digest_of(scene))
        path.unlink()
        with pytest.raises(StaleModel, match="missing"):
            scene.store.load(model.version)


def digest_of(scene: Stage) -> bytes:
    ledger = scene.federation.ledger
    record = decode_entry(ledger.entry(ledger.positions(kind="model")[-1])).record
    assert isinstance(record, ModelRecord)
    return record.digest


def test_open_round_of_another_model_is_refused(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN, wrap=dying("update", delivered=0)) as scene, pytest.raises(Crash):
        scene.learn(1)

    with stage(tmp_path, PLAIN) as scene:
        other = replace(scene.first, arrays={**scene.first.arrays, "user_mean": np.ones(3)})
        with pytest.raises(FederationError, match="another model"):
            scene.round(other)


def test_updates_spend_what_the_round_says(tmp_path: Path) -> None:
    with stage(tmp_path, LOCAL) as scene:
        scene.learn(2)
        ledger = scene.federation.ledger
        records = [decode_entry(ledger.entry(p)).record for p in ledger.positions(kind="update")]
        spends = {(r.account, r.spend_nano) for r in records if isinstance(r, Update)}

        assert spends == {("epsilon", 2 * 10**9)}
        accounts = {p.epsilon_nano for p in ledger.state.principals if p.role == "participant"}
        assert accounts == {4 * 10**9}

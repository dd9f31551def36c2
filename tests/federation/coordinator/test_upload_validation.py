"""Answers of hostile participants: refused with a reason, counted, never on the ledger, and of no effect on the model.

The liar holds an enrolled key and signs what it sends: only what is sent gives it away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import FixedPointStatistics
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.signing import SigningKey
from liberate.errors import BadCommitment, FederationError, InsufficientCohort
from liberate.federation.wire.round_messages import (
    RoundAnswer,
    RoundRefusal,
    decode_upload,
    encode_message,
    encode_upload,
)
from liberate.federation.wire.transport import Reply
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Aborted, Round, Update
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.codec import encode_model
from liberate.model.model import Model
from liberate.model.solvers import AggregatedStatistics
from tests.federation.hostile import Wrap, editing, lying, silent
from tests.worlds import Stage, World, low_rank_ratings, stage

LIAR = 5

PLAIN = World(ratings=low_rank_ratings())
WORLDS = {
    "normal equations": PLAIN,
    "gradient": replace(PLAIN, statistic="gradient"),
    "trimmed": replace(PLAIN, statistic="gradient", trim=0.1),
    "laplace": replace(PLAIN, mode="local", epsilon=6.0),
    "laplace, trimmed": replace(PLAIN, mode="local", epsilon=6.0, trim=0.1),
    "gaussian": replace(PLAIN, mode="local", epsilon=6.0, noise="gaussian"),
    "noise on the sum": replace(PLAIN, mode="distributed", masks=False, noise_placement="on_sum", rounds=2),
    "noise on unmasked uploads": replace(PLAIN, mode="distributed", masks=False, rounds=2),
}
EVERYWHERE = pytest.mark.parametrize(
    "world", WORLDS.values(), ids=[name.replace(",", "").replace(" ", "-") for name in WORLDS]
)


def forging(scene: Stage, forge: Callable[[RoundAnswer, Round], RoundAnswer]) -> Wrap:
    """Let one participant's answers be forged on their way."""
    return lying(LIAR, RoundAnswer, lambda answer: forge(answer, open_round(scene)))


def open_round(scene: Stage) -> Round:
    current = scene.federation.ledger.state.open_round
    assert current is not None
    return current.record


def signed(scene: Stage, answer: RoundAnswer, **changes: object) -> bytes:
    """Return the answer's entry with changed fields, signed by the liar's own key."""
    record = msgspec.structs.replace(decode_entry(answer.entry).record, **changes)
    return sign(record, scene.host._answers.keys[scene.host.numbers.index(LIAR)])


def sending(scene: Stage, upload: bytes, answer: RoundAnswer) -> RoundAnswer:
    """Return an answer with another upload, committed to and signed as it should be."""
    entry = signed(scene, answer, commitment=salted_commitment(answer.salt, upload))
    return RoundAnswer(entry=entry, upload=upload, salt=answer.salt)


def numbers_of(answer: RoundAnswer, record: Round) -> FixedPointStatistics:
    is_dense = record.noise_placement == "per_upload" and record.mechanism.name != "none"
    return decode_upload(answer.upload, shape=record.shape, is_dense=is_dense)


def with_numbers(answer: RoundAnswer, record: Round, change: Callable[[np.ndarray, np.ndarray], None]) -> bytes:
    """Return the upload's bytes after its rows and its tail were changed in place."""
    upload = numbers_of(answer, record)
    rows, tails = upload.rows.astype(np.int64), upload.tails.copy()
    change(rows, tails)
    lying = replace(upload, rows=np.clip(rows, -(2**31), 2**31 - 1).astype(np.int32), tails=tails)
    return encode_upload(lying, 0, is_dense=record.noise_placement == "per_upload" and record.mechanism.name != "none")


def refused(folder: Path, world: World, forge: Callable[[Stage, RoundAnswer, Round], RoundAnswer]) -> tuple[Model, str]:
    """Learn two rounds beside a liar; give the last model and the one reason for which both answers were refused."""
    with stage(folder, world) as scene:
        with scene.edited(forging(scene, lambda answer, record: forge(scene, answer, record))):
            model = scene.learn(2)
        ledger = scene.federation.ledger
        assert ledger.positions(kind="update", author=LIAR) == []
        ((reason, count),) = scene.coordinator.refused.items()
        assert count == 2
        key = scene.federation.policy.log_key
    assert verify_ledger(folder / "ledger", key=key).ok
    return model, reason


def learned_without(folder: Path, world: World) -> Model:
    """Learn two rounds of which the liar's answers never arrive."""
    with stage(folder, world, wrap=silent({LIAR})) as scene:
        return scene.learn(2)


@EVERYWHERE
def test_an_oversized_upload_is_as_if_never_sent(tmp_path: Path, world: World) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        def enlarge(rows: np.ndarray, tails: np.ndarray) -> None:
            rows *= 1000

        return sending(scene, with_numbers(answer, record, enlarge), answer)

    model, reason = refused(tmp_path / "a", world, forge)

    assert reason == "oversized"
    assert encode_model(model) == encode_model(learned_without(tmp_path / "b", world))


@EVERYWHERE
def test_one_large_number_is_refused(tmp_path: Path, world: World) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        def enlarge(rows: np.ndarray, tails: np.ndarray) -> None:
            rows[0, -1] = 2**31 - 1

        return sending(scene, with_numbers(answer, record, enlarge), answer)

    assert refused(tmp_path, world, forge)[1] == "oversized"


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
@pytest.mark.parametrize("statistic", ["normal equations", "gradient"])
def test_a_tail_that_would_overflow_the_sum_is_refused(tmp_path: Path, statistic: str, number: int) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        def enlarge(rows: np.ndarray, tails: np.ndarray) -> None:
            tails[0, -1] = number

        return sending(scene, with_numbers(answer, record, enlarge), answer)

    assert refused(tmp_path, WORLDS[statistic], forge)[1] == "oversized"


def test_moments_that_would_leave_no_model_are_refused(tmp_path: Path) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        def negate(rows: np.ndarray, tails: np.ndarray) -> None:
            rows[:, :3] *= -1

        return sending(scene, with_numbers(answer, record, negate), answer)

    assert refused(tmp_path, PLAIN, forge)[1] == "no_moments"


SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda upload: b"",
    "cut": lambda upload: upload[:-1],
    "longer": lambda upload: upload + bytes(4),
    "another layout": lambda upload: b"\x02" + upload[1:],
    "more rows than there are": lambda upload: upload[:8] + b"\xff\xff\xff\xff" + upload[12:],
}


@EVERYWHERE
@pytest.mark.parametrize("shape", SHAPES, ids=[name.replace(" ", "-") for name in SHAPES])
def test_an_upload_of_another_shape_is_refused(tmp_path: Path, world: World, shape: str) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        return sending(scene, SHAPES[shape](answer.upload), answer)

    assert refused(tmp_path, world, forge)[1] == "wrong_shape"


def test_an_item_sent_twice_is_refused(tmp_path: Path) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        upload = numbers_of(answer, record)
        indices = upload.indices.copy()
        indices[1] = indices[0]
        return sending(scene, encode_upload(replace(upload, indices=indices), 0, is_dense=False), answer)

    assert refused(tmp_path, PLAIN, forge)[1] == "wrong_shape"


ENTRIES: dict[str, tuple[str, Callable[[Stage, RoundAnswer], bytes]]] = {
    "unsigned": ("bad_signature", lambda scene, answer: bytes(64) + answer.entry[64:]),
    "signed with another key": (
        "bad_signature",
        lambda scene, answer: sign(decode_entry(answer.entry).record, SigningKey.from_seed(bytes(32))),
    ),
    "no entry": ("malformed", lambda scene, answer: b"nothing"),
    "too long": ("too_large", lambda scene, answer: answer.entry + bytes(70_000)),
    "of somebody else": ("not_own", lambda scene, answer: signed(scene, answer, author=6)),
    "no update": ("not_own", lambda scene, answer: scene.federation.ledger.entry(0)),
    "for another ledger": ("wrong_origin", lambda scene, answer: signed(scene, answer, origin="other.invalid")),
    "to a round that is to come": ("replayed", lambda scene, answer: signed(scene, answer, round=9)),
    "of an old sequence": ("stale_sequence", lambda scene, answer: signed(scene, answer, seq=1)),
    "of another price": ("wrong_spend", lambda scene, answer: signed(scene, answer, account="rho", spend_nano=1)),
    "with shares nobody gave": (
        "share_without_consent",
        lambda scene, answer: signed(scene, answer, shares=(UsedCopy(sender=6, share=Digest(bytes(32))),)),
    ),
}


@pytest.mark.parametrize("name", ENTRIES, ids=[name.replace(" ", "-") for name in ENTRIES])
def test_an_entry_that_is_no_fresh_update_of_the_sender_is_refused(tmp_path: Path, name: str) -> None:
    expected, entry = ENTRIES[name]

    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        return msgspec.structs.replace(answer, entry=entry(scene, answer))

    assert refused(tmp_path, PLAIN, forge)[1] == expected


@pytest.mark.parametrize(
    ("change", "expected"), [({"salt": b""}, "bad_salt"), ({"salt": bytes(32)}, "not_opened")], ids=["none", "another"]
)
def test_an_upload_that_is_not_the_one_committed_to_is_refused(
    tmp_path: Path, change: dict[str, bytes], expected: str
) -> None:
    def forge(scene: Stage, answer: RoundAnswer, record: Round) -> RoundAnswer:
        return msgspec.structs.replace(answer, **change)

    assert refused(tmp_path, PLAIN, forge)[1] == expected


def test_an_answer_replayed_in_a_later_round_is_refused(tmp_path: Path) -> None:
    with stage(tmp_path, PLAIN) as scene:
        first: list[RoundAnswer] = []

        def forge(answer: RoundAnswer, record: Round) -> RoundAnswer:
            first.append(answer)
            return first[0]

        with scene.edited(forging(scene, forge)):
            scene.learn(3)

        assert scene.coordinator.refused == {"replayed": 2}
        assert len(scene.federation.ledger.positions(kind="update", author=LIAR)) == 1


def test_a_refusal_is_logged_and_the_reasons_stand_in_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stage(tmp_path, replace(PLAIN, min_participation=1.0)) as scene:
        without_salt = lying(LIAR, RoundAnswer, lambda answer: msgspec.structs.replace(answer, salt=b""))
        with (
            scene.edited(without_salt),
            caplog.at_level(logging.WARNING),
            pytest.raises(InsufficientCohort, match=r"11 updates, 12 were needed \(bad_salt: 1\)"),
        ):
            scene.learn(1)

    assert "an answer was refused as bad_salt" in caplog.text


@pytest.mark.parametrize("reason", ["x" * 33, "\x1b[2J", "Too Late", ""], ids=["long", "escape", "words", "none"])
def test_a_reason_that_is_no_code_is_not_repeated(tmp_path: Path, reason: str) -> None:
    words = encode_message(RoundRefusal(reason=reason, detail="", known_size=0))
    talking = editing(replies=lambda requests, _: [Reply(request.recipient, words) for request in requests])
    with (
        stage(tmp_path, PLAIN, wrap=talking) as scene,
        pytest.raises(InsufficientCohort, match=r"needed \(unreadable: 12\)$"),
    ):
        scene.learn(1)


def test_a_round_whose_sum_gives_no_model_is_closed_and_the_next_can_be_opened(tmp_path: Path) -> None:
    class Unsolvable:
        name = "unsolvable/1"

        def parameters(self) -> dict[str, int]:
            return {}

        def solve(self, model: Model, total: AggregatedStatistics) -> Model:
            raise FederationError("no model follows from the round's sum")

    with stage(tmp_path, PLAIN) as scene:
        solver, scene.learning = scene.learning.solver, replace(scene.learning, solver=Unsolvable())
        with pytest.raises(FederationError, match="no model follows"):
            scene.learn(1)
        scene.learning = replace(scene.learning, solver=solver)

        ledger = scene.federation.ledger
        record = decode_entry(ledger.entry(ledger.positions(kind="aborted")[0])).record
        assert isinstance(record, Aborted)
        assert record.reason == "no_model"
        assert scene.learn(1).version == 1


@given(data=st.binary(max_size=200))
def test_no_bytes_are_a_number_that_is_none(data: bytes) -> None:
    """Uploads are integers: whatever is sent is refused, or finite."""
    header = b"\x01\x00\x01\x00\x02\x00\x00\x00" + bytes([len(data) // 12 % 8]) + bytes(3)
    for upload in (data, header + data, header + data[: len(data) // 12 % 8 * 12] + bytes(8)):
        try:
            found = decode_upload(upload, shape=(9, 2, 1), is_dense=False)
        except BadCommitment:
            continue
        assert np.isfinite(found.rows).all()
        assert np.isfinite(found.tails).all()


@EVERYWHERE
def test_of_honest_people_nobody_is_refused(tmp_path: Path, world: World) -> None:
    with stage(tmp_path, world) as scene:
        scene.learn()

        assert scene.coordinator.refused == {}
        ledger = scene.federation.ledger
        updates = [decode_entry(ledger.entry(p)).record for p in ledger.positions(kind="update")]
        assert len(updates) == world.rounds * world.ratings.n_users
        assert all(isinstance(update, Update) for update in updates)


def test_a_trimmed_run_says_so_in_its_rounds(tmp_path: Path) -> None:
    world = WORLDS["trimmed"]
    with stage(tmp_path / "a", world) as scene:
        trimmed = scene.learn()
        ledger = scene.federation.ledger
        records = [decode_entry(ledger.entry(p)).record for p in ledger.positions(kind="round")]
        assert {r.mechanism.parameters["trimmed_nano"] for r in records if isinstance(r, Round)} == {10**8}
    with stage(tmp_path / "b", replace(world, trim=0.0)) as scene:
        assert encode_model(scene.learn()) != encode_model(trimmed)

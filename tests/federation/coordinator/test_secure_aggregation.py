"""Masked rounds from end to end: the sum is that of the uploads, whoever vanishes, lies or is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liberate.crypto.note import verify_checkpoint
from liberate.errors import FederationError, InsufficientCohort
from liberate.federation.coordinator.round_sets import set_parts
from liberate.federation.coordinator.secure_aggregation import SecureAggregation
from liberate.federation.keys import rotate_key
from liberate.federation.participant.refusals import Refused
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.models import ModelStore
from liberate.federation.wire.round_messages import RoundAnswer, RoundRefusal, decode_answer
from liberate.federation.wire.secagg_messages import AdvertisedKeys, EncryptedShares, RevealedSeed, RevealedShares
from liberate.federation.wire.transport import Reply, Request
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import numbers_in, to_ranges
from liberate.ledger.format.records import Aborted, ModelRecord, Round, RoundSet, SetPhase
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.lookup import entries
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.codec import encode_model
from tests.federation.crashes import Crash, crash_at
from tests.federation.hostile import dying, editing, lying, overhearing, silent, vanishing
from tests.ledger.world import TERMS as LEDGER_TERMS
from tests.worlds import Stage, World, low_rank_ratings, stage

TERMS = msgspec.structs.replace(
    LEDGER_TERMS, max_colluders=3, max_dropouts_permille=250, max_late_dropouts_permille=250, min_cohort=12
)
"""Of twelve participants three may collude and three vanish: of eleven neighbours four undo a mask."""

MASKED = World(ratings=low_rank_ratings(), mode="distributed", rounds=2, terms=TERMS)
PLAIN = replace(MASKED, masks=False)
PHASES = ("advertise", "choose", "share", "mask", "unmask")
FIRST = 3
"""Number of the first of twelve participants."""


def set_on(scene: Stage, phase: SetPhase) -> list[int]:
    sets = [recorded.record for recorded in entries(scene.federation.ledger, RoundSet)]
    return [number for record in sets if record.phase == phase for number in numbers_in(record.participants)]


def survivors_on(scene: Stage) -> list[int]:
    return set_on(scene, "survivors")


def abort_reason(scene: Stage) -> str:
    ledger = scene.federation.ledger
    record = decode_entry(ledger.entry(ledger.positions(kind="aborted")[-1])).record
    assert isinstance(record, Aborted)
    return record.reason


# --- the sum ----------------------------------------------------------------------------------------------------------


def test_masks_change_no_bit_of_a_model(tmp_path: Path) -> None:
    models = []
    for name, world in (("masked", MASKED), ("plain", PLAIN)):
        with stage(tmp_path / name, world) as scene:
            last = scene.learn(1)
            ledger = scene.federation.ledger
            (record,) = (decode_entry(ledger.entry(p)).record for p in ledger.positions(kind="model"))
            assert isinstance(record, ModelRecord)
            models.append((encode_model(last), record.sum_digest, record.digest))

    assert models[0] == models[1]


def test_masked_runs_go_on_and_their_ledger_is_sound(tmp_path: Path) -> None:
    with stage(tmp_path / "a", MASKED) as scene:
        last = scene.learn()
        ledger, log_key = scene.federation.ledger, scene.federation.policy.log_key
        record = decode_entry(ledger.entry(ledger.positions(kind="round")[0])).record
    with stage(tmp_path / "b", PLAIN) as scene:
        assert encode_model(scene.learn()) == encode_model(last)

    assert not verify_ledger(tmp_path / "a" / "ledger", key=log_key).findings
    assert isinstance(record, Round)
    assert record.is_masked
    assert list(numbers_in(record.cohort)) == list(range(FIRST, FIRST + 12))


def test_uploads_are_masked_on_their_way(tmp_path: Path) -> None:
    answers: dict[bool, list[RoundAnswer]] = {True: [], False: []}
    for world in (MASKED, PLAIN):
        with stage(tmp_path / str(world.masks), world, wrap=overhearing(answers[world.masks])) as scene:
            scene.learn(1)

    masked, plain = ({answer.upload for answer in answers[masks]} for masks in (True, False))
    assert len(masked) == len(plain) == 12
    assert not masked & plain


# --- who vanishes -----------------------------------------------------------------------------------------------------

participants: st.SearchStrategy[set[int]] = st.just(set()) | st.sets(st.integers(FIRST, FIRST + 11), max_size=4)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries(dict.fromkeys(PHASES, participants)))
def test_whoever_vanishes_the_sum_is_that_of_the_survivors_or_the_round_is_aborted(
    absent: dict[str, set[int]],
) -> None:
    """Three may vanish, in whatever phases."""
    before_upload = set().union(*(absent[phase] for phase in PHASES[:-1]))
    everybody = set().union(*absent.values())
    with TemporaryDirectory() as folder:
        with stage(Path(folder) / "a", MASKED, wrap=vanishing(absent, PHASES)) as scene:
            if len(before_upload) > 3:
                with pytest.raises(InsufficientCohort, match="were needed"):
                    scene.learn(1)
                assert abort_reason(scene).startswith(("too_few", "insufficient"))
                return
            masked = scene.learn(1)
            assert len(everybody) <= 8
            assert set(survivors_on(scene)) == set(range(FIRST, FIRST + 12)) - before_upload
        with stage(Path(folder) / "b", PLAIN, wrap=silent(before_upload)) as scene:
            assert encode_model(scene.learn(1)) == encode_model(masked)


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        ("advertise", "too_few_advertised"),
        ("choose", "too_few_graph"),
        ("share", "too_few_shared"),
        ("mask", "insufficient_updates"),
        ("unmask", "too_few_shares"),
    ],
)
def test_a_round_with_too_few_is_aborted_and_another_one_goes_on(tmp_path: Path, phase: str, reason: str) -> None:
    absent = {phase: set(range(FIRST, FIRST + 8))}
    with stage(tmp_path, MASKED, wrap=vanishing(absent, PHASES)) as scene:
        with pytest.raises(InsufficientCohort, match=r"round 1: .* needed"):
            scene.learn(1)
        assert abort_reason(scene) == reason
        absent.clear()

        scene.learn(1)


# --- who lies ---------------------------------------------------------------------------------------------------------


def other_keys(message: msgspec.Struct) -> msgspec.Struct:
    return msgspec.structs.replace(message, mask=bytes(31) + b"\x07")


def other_seed(message: msgspec.Struct) -> msgspec.Struct:
    return msgspec.structs.replace(message, seed=bytes(32))


def fewer_shares(message: msgspec.Struct) -> msgspec.Struct:
    assert isinstance(message, EncryptedShares)
    return EncryptedShares(sealed=message.sealed[:-1])


@pytest.mark.parametrize(
    ("phase", "kind", "lie"),
    [
        ("advertise", AdvertisedKeys, other_keys),
        ("choose", RevealedSeed, other_seed),
        ("share", EncryptedShares, fewer_shares),
    ],
)
def test_a_participant_that_lies_early_is_left_out(
    tmp_path: Path, phase: str, kind: type[msgspec.Struct], lie: Callable[[msgspec.Struct], msgspec.Struct]
) -> None:
    with stage(tmp_path / "a", MASKED, wrap=lying(FIRST, kind, lie, phase=phase)) as scene:
        masked = scene.learn(1)
        assert survivors_on(scene) == list(range(FIRST + 1, FIRST + 12))
    with stage(tmp_path / "b", PLAIN, wrap=silent({FIRST})) as scene:
        assert encode_model(scene.learn(1)) == encode_model(masked)


def test_a_false_share_is_found_where_one_is_to_spare(tmp_path: Path) -> None:
    def false(message: RevealedShares) -> RevealedShares:
        return RevealedShares(shares=[(owner, bytes(33)) for owner, _ in message.shares])

    with stage(tmp_path / "a", MASKED, wrap=lying(FIRST, RevealedShares, false, phase="unmask")) as scene:
        masked = scene.learn(1)
    with stage(tmp_path / "b", PLAIN) as scene:
        assert encode_model(scene.learn(1)) == encode_model(masked)


def test_false_shares_with_none_to_spare_abort_the_round(tmp_path: Path) -> None:
    def false(message: RevealedShares) -> RevealedShares:
        return RevealedShares(shares=[(owner, bytes(33)) for owner, _ in message.shares])

    none_to_spare = vanishing({"unmask": set(range(FIRST + 5, FIRST + 12))}, PHASES)
    liar = lying(FIRST, RevealedShares, false, phase="unmask")
    with stage(tmp_path, MASKED, wrap=lambda inner: liar(none_to_spare(inner))) as scene:
        with pytest.raises(InsufficientCohort, match="do not fit together"):
            scene.learn(1)
        assert abort_reason(scene) == "false_shares"


def test_nonsense_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    def edit(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if requests[0].phase != "share" or requests[0].recipient != FIRST:
            return replies
        return [Reply(FIRST, b"\xc1"), Reply(99, b""), *replies[1:]]

    with stage(tmp_path, MASKED, wrap=editing(replies=edit)) as scene:
        scene.learn(1)
        assert survivors_on(scene) == list(range(FIRST + 1, FIRST + 12))


def asked(scene: Stage, phase: str, body: bytes) -> str:
    (reply,) = scene.host.answer([Request(FIRST, phase, body)])
    answer = decode_answer(reply.body, RevealedShares)
    assert isinstance(answer, RoundRefusal)
    return answer.reason


def test_a_host_refuses_nonsense_in_every_phase(tmp_path: Path) -> None:
    with stage(tmp_path, MASKED) as scene:
        assert [asked(scene, phase, b"\xc1") for phase in (*PHASES, "update", "inputs", "close")] == ["unreadable"] * 8
        assert asked(scene, "confess", b"") == "phase"


def test_keys_are_advertised_once_though_asked_for_twice_at_once(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def note(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if requests[0].phase == "history":
            return replies
        bodies.append(requests[0].body)
        return []

    with stage(tmp_path, replace(MASKED, is_simulated=False), wrap=editing(replies=note)) as scene:
        with pytest.raises(InsufficientCohort):
            scene.learn(1)

        assert len(scene.host.answer([Request(FIRST, "advertise", bodies[0])] * 2)) == 1


def test_a_masked_round_is_not_answered_without_masks(tmp_path: Path) -> None:
    """The coordinator asks for the upload of a masked round as if it were a plain one."""
    with stage(tmp_path, MASKED, wrap=vanishing({"share": set(range(FIRST, FIRST + 12))}, PHASES)) as scene:
        with pytest.raises(InsufficientCohort):
            scene.learn(1)
        view, known = scene.coordinator._collector._checkpoint_view(), scene.host._checker.accepted
        assert known is not None
        (position,) = view.ledger.positions(kind="round")

        request = view.round_request(position, encode_model(scene.first), known.size)
        assert asked(scene, "update", request) == "phase"


def test_outside_a_simulation_sums_are_masked(tmp_path: Path) -> None:
    real = replace(MASKED, is_simulated=False)
    with stage(tmp_path / "a", real) as scene:
        assert scene.learn(1).version == 1


def test_outside_a_simulation_neither_ledger_nor_host_goes_without_masks(tmp_path: Path) -> None:
    with stage(tmp_path, replace(MASKED, is_simulated=False)) as scene:
        scene.learn(1)
        ledger = scene.federation.ledger
        record = decode_entry(ledger.entry(ledger.positions(kind="round")[0])).record
        assert isinstance(record, Round)
        bare = msgspec.structs.replace(
            record,
            mechanism=msgspec.structs.replace(
                record.mechanism, parameters=record.mechanism.parameters | {"masked": 0, "degree": 0, "threshold": 0}
            ),
        )
        with pytest.raises(Refused, match="without masks is for simulations"):
            scene.host._checker._check_policy(bare)
        for changes in ({"shape": (9, 3, 1)}, {"noise_placement": "on_sum"}):
            with pytest.raises(Refused, match=r"for uploads without|for simulations"):
                scene.host._checker._check_policy(msgspec.structs.replace(record, **changes))
        scene.host._checker._check_policy(record)
    real = replace(PLAIN, is_simulated=False)
    with stage(tmp_path / "bare", real) as scene, pytest.raises(FederationError, match="not_simulated"):
        scene.learn(1)


# --- who is killed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_delivered", [False, True])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("after", [0, 1])
def test_a_round_goes_on_after_a_kill_in_any_phase(tmp_path: Path, phase: str, is_delivered: bool, after: int) -> None:
    """Killed before or after the first or the second chunk of a phase was answered: nobody is told anything new."""
    killed = dying(phase, batch=after, delivered=None if is_delivered else 0)
    with pytest.raises(Crash), stage(tmp_path / "a", MASKED, wrap=killed) as scene:
        scene.learn(1)
    with stage(tmp_path / "a", MASKED) as scene:
        masked = scene.learn(1)
        rounds = scene.federation.ledger.positions(kind="round")
    with stage(tmp_path / "b", PLAIN) as scene:
        plain = scene.learn(1)

    assert len(rounds) == 1
    assert encode_model(masked) == encode_model(plain)


DURABLE_STEPS = (
    (SqliteLedger, "_commit"),
    (DeviceStore, "begin_secagg"),
    (DeviceStore, "put_secagg_states"),
    (DeviceStore, "put_answers"),
    (DeviceStore, "end_secagg"),
    (SecureAggregation, "_save"),
    (ModelStore, "save"),
)


def test_a_masked_round_that_is_killed_at_any_durable_step_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = replace(MASKED, batch_size=12)
    undisturbed = learned(tmp_path / "undisturbed", world)
    crashes = 0

    for at in range(1, 100):
        folder = tmp_path / str(at)
        try:
            with stage(folder, world) as scene, monkeypatch.context() as patched:
                crash_at(patched, DURABLE_STEPS, at, before=at % 2 == 0)
                scene.learn(1)
            break
        except Crash:
            crashes += 1

        assert learned(folder, world) == undisturbed

    assert crashes > 15


def learned(folder: Path, world: World) -> tuple[bytes, Digest, set[tuple[int, int]]]:
    """Carry out the first round, or finish it; return the model, the ledger's root, and what devices spent."""
    with stage(folder, world) as scene:
        ledger, devices = scene.federation.ledger, scene.federation.devices
        models = [recorded.record for recorded in entries(ledger, ModelRecord)]
        model = scene.store.load(models[0].version, models[0].digest) if models else scene.learn(1)
        root = verify_checkpoint(ledger.checkpoint(), scene.federation.policy.log_key).root
        spent = {(device.rho_nano, devices.key_phases(device.slot, 1)) for device in devices.devices()}
        return encode_model(model), root, spent


@pytest.mark.parametrize("phase", ["choose", "share", "mask", "unmask"])
@pytest.mark.parametrize("is_delivered", [False, True])
def test_a_round_goes_on_though_the_ledger_has_grown_and_a_key_has_changed(
    tmp_path: Path, phase: str, is_delivered: bool
) -> None:
    killed = dying(phase, delivered=2 if is_delivered else 1)
    with pytest.raises(Crash), stage(tmp_path / "a", MASKED, wrap=killed) as scene:
        scene.learn(1)
    with stage(tmp_path / "a", MASKED) as scene:
        ledger, devices = scene.federation.ledger, scene.federation.devices
        device = devices.find(number=FIRST + 4)
        assert device is not None
        rotate_key(ledger, devices, device, "device", b"r" * 32)
    with stage(tmp_path / "a", MASKED) as scene:
        masked = scene.learn(1)
    with stage(tmp_path / "b", PLAIN) as scene:
        plain = scene.learn(1)

    assert encode_model(masked) == encode_model(plain)


@pytest.mark.parametrize("steps", [0, 1], ids=["before", "between"])
def test_secrets_do_not_outlive_a_round_that_a_crash_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The model is recorded and the process dies: the next one tells the devices, of which some may know it already."""
    left = steps

    def die(requests: list[Request]) -> list[Request]:
        nonlocal left
        if requests[0].phase != "close":
            return requests
        left -= 1
        if left < 0:
            raise Crash
        return requests

    with pytest.raises(Crash), stage(tmp_path, MASKED, wrap=editing(requests=die)) as scene:
        scene.round(scene.first)

    with stage(tmp_path, MASKED) as scene:
        devices = scene.federation.devices
        assert scene.federation.ledger.state.open_round is None
        assert any(devices.secagg_state(device.slot, 1) for device in devices.devices()) == (steps == 0)

        scene.coordinator.close_last_round()

        assert not any(devices.secagg_state(device.slot, 1) for device in devices.devices())
        assert not scene.store.masks_path.exists()


def test_a_round_whose_survivors_lost_their_uploads_is_aborted(tmp_path: Path) -> None:
    """Killed after the survivor set, and one of the survivors does not come back."""
    with pytest.raises(Crash), stage(tmp_path, MASKED, wrap=dying("unmask", delivered=1)) as scene:
        scene.learn(1)
    with stage(tmp_path, MASKED, wrap=vanishing({"mask": {FIRST}}, PHASES)) as scene:
        with pytest.raises(InsufficientCohort, match="11 of 12 survivors"):
            scene.learn(1)
        assert abort_reason(scene) == "survivors_lost"


@pytest.mark.parametrize("damage", [b"", b"\xc1", None])
def test_a_lost_file_of_the_coordinator_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    with pytest.raises(Crash), stage(tmp_path, MASKED, wrap=dying("mask", delivered=1)) as scene:
        scene.learn(1)
    kept = tmp_path / "model" / "round.masks"
    kept.unlink() if damage is None else kept.write_bytes(damage)

    with stage(tmp_path, MASKED) as scene:
        assert scene.learn(1).version == 1


# --- survivor sets as records -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 300])
def test_a_large_survivor_set_spans_records_that_fit(step: int) -> None:
    participants = list(range(3, 3 + 5_000 * step, step))

    parts = list(set_parts(participants))

    assert [number for part in parts for number in numbers_in(part)] == participants
    assert all(len(msgspec.json.encode(part)) < 60_000 for part in parts)
    assert len(parts) == {1: 1, 7: 1, 300: 16}[step]
    assert list(set_parts(participants[:10])) == [to_ranges(participants[:10])]

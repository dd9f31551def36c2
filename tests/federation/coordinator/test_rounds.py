"""Rounds between honest parties: the same bits whatever the order, the batches and the crashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.crypto.note import verify_checkpoint
from liberate.data.ratings import Ratings
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.models import ModelStore
from liberate.federation.wire.round_messages import RoundAnswer, decode_answer
from liberate.federation.wire.transport import Reply, Request
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.codec import encode_model
from liberate.model.kernels.server import add_rows
from liberate.model.profiles import fit_devices, predict
from tests.federation.crashes import Crash, crash_at
from tests.federation.hostile import editing, overhearing
from tests.worlds import World, low_rank_ratings, stage

PLAIN = World(ratings=low_rank_ratings())
LOCAL = World(ratings=low_rank_ratings(), mode="local", epsilon=6.0)
DISTRIBUTED = World(ratings=low_rank_ratings(), mode="distributed", rounds=2)


def final_state(folder: Path, world: World) -> tuple[bytes, bytes]:
    """Train in a folder; give the last model's bytes and the ledger's root."""
    with stage(folder, world) as scene:
        model = encode_model(scene.learn())
        ledger = scene.federation.ledger
        return model, verify_checkpoint(ledger.checkpoint(), scene.federation.policy.log_key).root


def test_learns_what_hidden_factors_explain(tmp_path: Path) -> None:
    ratings = low_rank_ratings(n_users=60, n_items=30)
    with stage(tmp_path, World(ratings=ratings, rounds=12)) as scene:
        model = scene.learn()

    predicted = predict(model, fit_devices(model, ratings), ratings.users(), ratings.items)

    spread = float(np.std(ratings.values))
    assert float(np.sqrt(np.mean((predicted - ratings.values) ** 2))) < 0.5 * spread


@pytest.mark.parametrize("world", [PLAIN, LOCAL], ids=["plain", "local"])
def test_same_seed_gives_the_same_root_and_model(tmp_path: Path, world: World) -> None:
    assert final_state(tmp_path / "a", world) == final_state(tmp_path / "b", world)


@pytest.mark.parametrize("world", [PLAIN, LOCAL], ids=["plain", "local"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_change_the_model(tmp_path: Path, world: World, batch_size: int) -> None:
    assert (
        final_state(tmp_path / "a", world)[0] == final_state(tmp_path / "b", replace(world, batch_size=batch_size))[0]
    )


def test_order_of_replies_does_not_matter(tmp_path: Path) -> None:
    straight = final_state(tmp_path / "a", PLAIN)
    with stage(tmp_path / "b", PLAIN, wrap=editing(replies=lambda requests, replies: replies[::-1])) as scene:
        shuffled = encode_model(scene.learn())

    assert shuffled == straight[0]


def test_sums_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(3)
    uploads = []
    for _ in range(50):
        items = np.sort(rng.choice(9, 4, replace=False)).astype(np.int32)
        uploads.append((items, rng.integers(-(2**31), 2**31, (4, 3)).astype(np.int32)))

    totals = []
    for order in (range(50), rng.permutation(50)):
        total = np.zeros((9, 3), np.int64)
        for i in order:
            add_rows(total, *uploads[i])
        totals.append(total)

    assert np.array_equal(totals[0], totals[1])


@pytest.mark.parametrize("world", [PLAIN, LOCAL], ids=["plain", "local"])
def test_repeated_request_gets_the_same_bytes(tmp_path: Path, world: World) -> None:
    seen: list[dict[int, bytes]] = []

    def note(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if requests[0].phase != "history":
            seen.append({reply.sender: reply.body for reply in replies})
        return replies

    with stage(tmp_path, world, wrap=editing(replies=note, deliveries=2)) as scene:
        scene.learn(1)

    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert first == second
        assert all(isinstance(decode_answer(body, RoundAnswer), RoundAnswer) for body in first.values())


def test_noise_is_never_drawn_twice(tmp_path: Path) -> None:
    answers: list[RoundAnswer] = []
    silent = Ratings.from_triples(np.array([0]), np.array([0]), np.array([3.0]), 12, 9)
    with stage(tmp_path, replace(LOCAL, ratings=silent), wrap=overhearing(answers)) as scene:
        scene.learn()

    assert len(answers) == 36
    assert len({answer.upload for answer in answers}) == 36


DURABLE_STEPS = ((SqliteLedger, "_commit"), (DeviceStore, "put_answers"), (ModelStore, "save"))


@pytest.mark.parametrize("world", [PLAIN, LOCAL], ids=["plain", "local"])
def test_crash_at_every_durable_step_changes_nothing(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = replace(world, rounds=2, ratings=low_rank_ratings(6, 5), batch_size=3)
    undisturbed = final_state(tmp_path / "undisturbed", world)
    crashes = 0

    for before in (True, False):
        for at in range(1, 100):
            folder = tmp_path / f"{before}-{at}"
            with monkeypatch.context() as patched:
                crash_at(patched, DURABLE_STEPS, at, before=before)
                try:
                    final_state(folder, world)
                    break
                except Crash:
                    crashes += 1

            assert resumed(folder, world) == undisturbed
            assert verify_ledger(folder / "ledger").ok

    assert crashes > 30


def resumed(folder: Path, world: World) -> tuple[bytes, bytes]:
    """Go on with a broken-off training as `liberate train` does: from the models that the ledger names."""
    with stage(folder, world) as scene:
        ledger, model = scene.federation.ledger, scene.first
        for position in ledger.positions(kind="model"):
            record = decode_entry(ledger.entry(position)).record
            model = scene.store.load(record.version, record.digest)  # type: ignore[union-attr]  # a model by its kind
        while model.version < world.rounds:
            model = scene.round(model)
        return encode_model(model), verify_checkpoint(ledger.checkpoint(), scene.federation.policy.log_key).root


def replaced(ratings: Ratings, user: int) -> Ratings:
    """Return a world in which one person has rated something else."""
    own = slice(int(ratings.indptr[user]), int(ratings.indptr[user + 1]))
    values, items = ratings.values.copy(), ratings.items.copy()
    values[own] = 6 - values[own]
    items[own.stop - 1] = 8 if items[own.stop - 1] != 8 else items[own.stop - 1]
    return replace(ratings, values=values, items=items)


def left_out(ratings: Ratings, user: int) -> Ratings:
    """Return a world in which one person has rated nothing."""
    return ratings.where(ratings.users() != user)


@pytest.mark.parametrize("world", [PLAIN, LOCAL, DISTRIBUTED], ids=["plain", "local", "distributed"])
@pytest.mark.parametrize("change", [replaced, left_out], ids=["replaced", "left-out"])
def test_ledgers_of_two_worlds_differ_in_commitments_and_digests_alone(
    tmp_path: Path, world: World, change: Callable[[Ratings, int], Ratings]
) -> None:
    other = change(world.ratings, 3)
    may_differ = {
        "dataset": {"commitment"},
        "round": {"base_digest"},
        "update": {"commitment", "profile", "round_hash"},
        "round_set": {"round_hash", "root"},
        "model": {"parent", "digest", "updates_root", "sum_digest"},
        "block": {"parent", "state_root"},
    }

    entries = []
    for name, one in (("a", world), ("b", replace(world, ratings=other))):
        with stage(tmp_path / name, one) as scene:
            scene.learn()
            entries.append([decode_entry(data) for _, data in scene.federation.ledger.entries()])

    differing = set()
    for left, right in zip(*entries, strict=True):
        assert left.record.kind == right.record.kind
        assert len(left.data) == len(right.data)
        fields = msgspec.to_builtins(left.record), msgspec.to_builtins(right.record)
        changed = {name for name in fields[0] if fields[0][name] != fields[1][name]}
        assert changed <= may_differ.get(left.record.kind, set())
        differing |= {(left.record.kind, name) for name in changed}
    assert ("dataset", "commitment") in differing
    assert ("model", "digest") in differing


def test_crash_outside_a_simulation_charges_nobody_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and noise are the system's: a resumed run cannot be the same, but each person answers and pays once."""
    world = replace(LOCAL, rounds=2, ratings=low_rank_ratings(6, 5), batch_size=3, is_simulated=False)
    crashes = 0

    for at in range(1, 100):
        folder = tmp_path / f"{at}"
        with monkeypatch.context() as patched:
            crash_at(patched, DURABLE_STEPS, at, before=at % 2 == 0)
            try:
                final_state(folder, world)
                break
            except Crash:
                crashes += 1
        resumed(folder, world)

        audit = verify_ledger(folder / "ledger")
        assert audit.ok
        assert not audit.simulated
        with stage(folder, world) as scene:
            spend = 2 * scene.learning.mechanism.spend_nano
            participants = [p for p in scene.federation.ledger.state.principals if p.role == "participant"]
            assert {person.epsilon_nano for person in participants} == {spend}
            assert {device.epsilon_nano for device in scene.federation.devices.devices()} == {spend}

    assert crashes > 15

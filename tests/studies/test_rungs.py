"""The ladder's rungs: the ledger changes no bit of a model, and one place comes to the same as many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liberate.errors import LiberateError
from liberate.identifiers import Digest
from liberate_studies.rungs import Learned, centralised, federated, judge, ledgered, require_same
from liberate_studies.worlds import World, free, made_up

LOCAL = ("privacy.mode=local", "privacy.epsilon=8")
SMALL = ("federation.rounds=3", "model.n_factors=4")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made_up(tmp_path_factory.mktemp("world") / "ratings.parquet")


@pytest.mark.parametrize("mode", [("privacy.mode=plain",), LOCAL], ids=["plain", "local"])
def test_models_are_the_same_to_the_bit_without_and_with_the_ledger(
    world: World, mode: tuple[str, ...], tmp_path: Path
) -> None:
    job = world.job(*mode, *SMALL)

    recorded = ledgered(job, tmp_path)
    without = federated(job, recorded.first_root)

    assert recorded.rounds == 3
    assert without.digests == recorded.digests == recorded.recorded
    require_same(without, recorded.recorded)


def test_chunks_do_not_matter_to_a_model_without_ledger(world: World) -> None:
    one, many = (
        federated(world.job(*LOCAL, *SMALL, f"federation.batch_size={batch_size}")) for batch_size in (1000, 7)
    )

    assert one.digests == many.digests


def test_another_ledger_gives_other_noise(world: World) -> None:
    job = world.job(*LOCAL, *SMALL)

    assert federated(job, b"one root").digests[0] != federated(job, b"another root").digests[0]


def test_one_place_comes_to_what_a_federation_comes_to_but_for_the_grid(world: World) -> None:
    job = world.job("privacy.mode=plain", *SMALL)

    one, many = centralised(job), federated(job)

    assert one.rounds == many.rounds
    np.testing.assert_allclose(one.models[-1].item_means, many.models[-1].item_means, atol=1e-3)


def test_learning_stops_when_it_has_converged(world: World) -> None:
    job = world.job("privacy.mode=plain", "federation.rounds=500", "model.tolerance=0.02")

    assert centralised(job).rounds == federated(job).rounds < 30


def test_normal_equations_come_close_to_the_known_answer(world: World) -> None:
    job = world.job("privacy.mode=plain")
    known = free(world, job)

    error = judge(job, centralised(job).models[-1]).rmse

    assert known["the world's own truth"].rmse < error < 0.7 * known["damped biases"].rmse


def test_nothing_can_be_federated_where_nothing_leaves_a_device(world: World) -> None:
    with pytest.raises(ValueError, match="device"):
        federated(world.job("privacy.mode=device"))


def test_different_models_are_told_apart_by_round(world: World) -> None:
    found = federated(world.job("privacy.mode=plain", *SMALL))
    first, second, third = found.digests

    with pytest.raises(LiberateError, match="round 2: the model is"):
        require_same(found, (first, Digest(bytes(32)), third))
    with pytest.raises(LiberateError, match="3 rounds without the ledger, 2 on it"):
        require_same(found, (first, second))


def test_seconds_of_the_parts_lie_within_the_whole(world: World) -> None:
    found: Learned = federated(world.job(*LOCAL, *SMALL))

    assert set(found.parts) == {"fit", "noise", "sum", "solve"}
    assert 0 < sum(found.parts.values()) <= found.seconds

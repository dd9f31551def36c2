"""People who have withdrawn are forgotten by a further run that owes them nothing, or next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.errors import LiberateError, SettingsError
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.sharing import consents
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import includes, numbers_in
from liberate.ledger.format.records import Round
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.model import Model
from liberate.model.registry import aggregate_statistics, build_method
from liberate.runs import actions
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.runs.unlearn import unlearn
from liberate.settings import Settings, resolve
from tests.worlds import find_person, low_rank_ratings, write_csv

Configure = Callable[..., Settings]

WORLD = low_rank_ratings(n_users=40, n_items=25)
LEAVER = 7


def without_users(ratings: Ratings, *users: int) -> Ratings:
    return ratings.where(~np.isin(ratings.users(), users))


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def build(ratings: Ratings, *assignments: str) -> Settings:
        path = write_csv(tmp_path / f"{ratings.n_ratings}.csv", ratings)
        small = ["model.n_factors=2", "federation.rounds=5", "model.tolerance=0", "federation.batch_size=10"]
        return resolve(None, [f"data.source={path}", *small, *assignments], environment={})

    return build


def trained(folder: Path, settings: Settings, ledger: Path | None = None) -> Run:
    train(settings, folder, ledger=ledger)
    return load_run(folder)


def withdraw(run: Run, user: int) -> int:
    """Let somebody withdraw everything; give the number."""
    with open_run_federation(run) as standing:
        device = standing.devices.find(user_id=f"u{user:02}")
        assert device is not None
        assert device.number is not None
        consents.withdraw(standing.ledger, standing.devices, device, None)
        return device.number


def learned_without(run: Run, first: Model, rounds: int, *users: int) -> Model:
    """Learn in one place what the run did, without some users."""
    own = run.split(run.dataset()).train
    statistic, solver = build_method(run.settings.model, own.n_items, noisy=False)
    stayers, model = own.select(np.delete(np.arange(own.n_users), users)), first
    for _ in range(rounds):
        model = solver.solve(model, aggregate_statistics(statistic, model, stayers))
    return model


def cohorts(run: Run) -> list[Round]:
    """Return the rounds of a run."""
    with closing(run.open_ledger()) as ledger:
        records = [decode_entry(ledger.entry(position)).record for position in ledger.positions(kind="round")]
    return [record for record in records if isinstance(record, Round) and record.run == run.record.run]


def test_exact_way_learns_again_from_where_the_person_was_not_yet_in(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    number = withdraw(run, LEAVER)

    found = unlearn(run, tmp_path / "second", measure=True)

    new = load_run(tmp_path / "second")
    exact = learned_without(run, run.model(0), 5, LEAVER)
    assert (found.method, found.participants, found.models) == ("exact", (number,), (1, 2, 3, 4, 5))
    assert (found.started_from, found.proved) == (0, 5)
    assert found.distance_before is not None
    assert found.distance_before > 0.01
    assert found.distance_after == 0
    np.testing.assert_allclose(new.model().item_means, exact.item_means, atol=2e-3)
    assert not any(includes(record.cohort, number) for record in cohorts(new))
    assert not verify_ledger(new.ledger_folder).findings


def test_exact_way_keeps_what_was_learned_before_the_person_joined(tmp_path: Path, configure: Configure) -> None:
    everybody = f"federation.max_participants={WORLD.n_users}"
    first = trained(tmp_path / "first", configure(without_users(WORLD, LEAVER), everybody))
    second = trained(tmp_path / "second", configure(WORLD, "federation.rounds=2", everybody), first.folder)
    withdraw(second, LEAVER)

    found = unlearn(second, tmp_path / "third")

    assert found.models == (6, 7)
    assert found.started_from == 5
    assert found.proved == 7
    np.testing.assert_array_equal(load_run(tmp_path / "third").model(7).item_means, second.model(5).item_means)


def test_who_was_in_from_the_start_is_in_whatever_went_on(tmp_path: Path, configure: Configure) -> None:
    first = trained(tmp_path / "first", configure(WORLD))
    second = trained(tmp_path / "second", configure(WORLD, "federation.rounds=2"), first.folder)
    withdraw(second, LEAVER)

    found = unlearn(second, tmp_path / "third")

    assert found.models == (1, 2, 3, 4, 5, 6, 7)
    assert found.started_from == 0


def test_same_call_gives_the_same_again(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    withdraw(run, LEAVER)

    one, other = (unlearn(run, tmp_path / "second", method="fast", measure=True) for _ in range(2))

    assert replace(one, seconds=None) == replace(other, seconds=None)


def test_a_killed_run_is_gone_on_with(tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    withdraw(run, LEAVER)
    rounds = Coordinator.run_round

    def killed(self: Coordinator, base: Model, *args: Any, **named: Any) -> Model:
        if base.version >= 7:
            raise KeyboardInterrupt
        return rounds(self, base, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Coordinator, "run_round", killed)
        with pytest.raises(KeyboardInterrupt):
            unlearn(run, tmp_path / "second")
    found = unlearn(run, tmp_path / "second")

    assert found.proved == 5
    assert len(cohorts(load_run(tmp_path / "second"))) == 5


def test_nothing_is_done_twice(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    withdraw(run, LEAVER)
    unlearn(run, tmp_path / "second")

    again = unlearn(load_run(tmp_path / "second"), tmp_path / "third")

    assert again.method is None
    assert again.models == ()
    assert not (tmp_path / "third").exists()


def test_fast_way_comes_close_in_one_round(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    number = withdraw(run, LEAVER)

    found = unlearn(run, tmp_path / "second", method="fast", measure=True)

    assert found.distance_before is not None
    assert found.distance_after is not None
    assert 0 < found.distance_after <= 0.3 * found.distance_before
    assert (found.started_from, found.proved) == (5, None)
    (record,) = cohorts(load_run(tmp_path / "second"))
    assert not includes(record.cohort, number)


def test_what_was_forgotten_fast_is_still_to_be_forgotten(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    withdraw(run, LEAVER)
    unlearn(run, tmp_path / "second", method="fast")

    found = unlearn(load_run(tmp_path / "second"), tmp_path / "third")

    assert found.models == (1, 2, 3, 4, 5)
    assert found.started_from == 0


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (("model.statistic=gradient", "federation.rounds=2"), "gradient"),
        (("model.objective=implicit",), "gram"),
        (("federation.rounds=1",), "two rounds"),
    ],
)
def test_fast_way_is_refused_where_there_is_none(
    tmp_path: Path, configure: Configure, assignments: tuple[str, ...], words: str
) -> None:
    run = trained(tmp_path / "first", configure(WORLD, *assignments))
    withdraw(run, LEAVER)

    with pytest.raises(SettingsError, match=words):
        unlearn(run, tmp_path / "second", method="fast")

    assert not (tmp_path / "second").exists()


def test_lists_are_learned_again_in_their_one_round(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD, "model.objective=implicit"))
    withdraw(run, LEAVER)

    unlearn(run, tmp_path / "second")

    exact = learned_without(run, run.model(0), 1, LEAVER)
    np.testing.assert_allclose(
        load_run(tmp_path / "second").model().float64("item_weights"), exact.float64("item_weights"), atol=1e-3
    )


def test_private_run_says_what_its_guarantee_is_and_does_nothing(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD, "privacy.mode=local", "privacy.epsilon=4"))
    withdraw(run, LEAVER)

    found = unlearn(run, tmp_path / "second")

    assert "noised" in found.words
    assert found.epsilon == pytest.approx(4, rel=0.01)
    assert found.method is None
    assert not (tmp_path / "second").exists()


SHARED = ("sharing.user_fraction=0.5",)


def senders(run: Run) -> list[int]:
    """Return the users who have shared."""
    dataset = run.dataset()
    with closing(run.open_ledger()) as ledger, DeviceStore(run.devices_folder) as devices:
        authors = {decode_entry(ledger.entry(position)).record.author for position in ledger.positions(kind="share")}
        ids = {device.user_id for device in devices.devices() if device.number in authors}
    return [user for user, name in enumerate(dataset.user_ids) if name in ids]


@pytest.mark.parametrize("mode", ["plain", "device"])
def test_pool_is_learned_again_from_the_copies_that_are_left(tmp_path: Path, configure: Configure, mode: str) -> None:
    run = trained(tmp_path / "first", configure(WORLD, f"privacy.mode={mode}", *SHARED))
    leaver = senders(run)[0]
    number = withdraw(run, leaver)

    found = unlearn(run, tmp_path / "second")

    new = load_run(tmp_path / "second")
    assert found.models[0] == 1
    assert found.started_from == 0
    assert found.proved == new.result.rounds
    assert number not in {number for pool in pools(new) for number in numbers_in(pool.participants)}
    assert pools(new)


def pools(run: Run) -> list[PoolRecord]:
    """Return whose copies a run has learned from."""
    with closing(run.open_ledger()) as ledger:
        positions = [at for at in ledger.positions(kind="pool") if at >= run.record.first_position]
        records = [decode_entry(ledger.entry(at)).record for at in positions]
    return [record for record in records if isinstance(record, PoolRecord)]


def test_whose_copies_peers_have_used_is_forgotten_with_them(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD, *SHARED, "sharing.recipients=peers", "sharing.n_recipients=2"))
    number = withdraw(run, senders(run)[0])

    with pytest.raises(SettingsError, match="copies"):
        unlearn(run, tmp_path / "fast", method="fast")
    found = unlearn(run, tmp_path / "second")

    assert found.participants == (number,)
    assert found.proved == 5


def test_private_run_says_that_copies_are_not_covered(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD, "privacy.mode=local", "privacy.epsilon=4", *SHARED))
    withdraw(run, senders(run)[0])

    found = unlearn(run, tmp_path / "second")

    assert "copies they gave are not" in found.words
    assert found.models == (1,)
    assert found.method is None


def test_who_was_erased_is_forgotten_exactly(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))
    actions.erase(run, f"user:u{LEAVER:02}", wait=lambda: False)

    with pytest.raises(SettingsError, match="ratings on their devices"):
        unlearn(run, tmp_path / "fast", method="fast")
    found = unlearn(run, tmp_path / "second", measure=True)

    assert found.started_from == 0
    assert found.proved == 5
    assert found.distance_after == 0


def test_nobody_is_forgotten_who_has_not_left(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD))

    with pytest.raises(LiberateError, match="nobody has withdrawn"):
        unlearn(run, tmp_path / "second")


def test_device_mode_has_nothing_to_forget(tmp_path: Path, configure: Configure) -> None:
    run = trained(tmp_path / "first", configure(WORLD, "privacy.mode=device"))
    withdraw(run, LEAVER)
    assert find_person(run, f"user:u{LEAVER:02}").number

    assert "nothing leaves a device" in unlearn(run, tmp_path / "second").words

"""A federation lives: further runs on its ledger, with more people, ratings and items, and one account for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec import UNSET

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.crypto.commitments import salted_commitment
from liberate.data.ratings import Ratings
from liberate.data.splits import random_split
from liberate.errors import BudgetExceeded, FederationError, InsufficientCohort, SettingsError
from liberate.federation.coordinator.collection import CollectedRound, RoundCollector
from liberate.federation.coordinator.exchange import RoundExchange
from liberate.federation.store.device_rows import Device, OutboxMessage
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_ratings
from liberate.federation.wire.round_messages import RoundAnswer
from liberate.federation.wire.transport import InProcessTransport
from liberate.identifiers import PricedAccount
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Aborted, DatasetRecord, Genesis, Round, Update
from liberate.ledger.rules.state import State
from liberate.ledger.verification.verify import verify_ledger
from liberate.privacy.gaussian_tradeoff import rho_nano_limit
from liberate.runs import actions, prepare
from liberate.runs import train as training
from liberate.runs.evaluate import evaluate_run, recommend
from liberate.runs.folder import Run, load_run
from liberate.runs.keys import change_key
from liberate.runs.privacy_forecast import forecast
from liberate.runs.privacy_report import privacy_report
from liberate.runs.snapshot import FederationSnapshot, read_snapshot
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.tracing.traces import trace_participant
from tests.worlds import find_person, low_rank_ratings

Configure = Callable[..., Settings]
Rows = list[tuple[str, str, int]]

WORLD = low_rank_ratings(n_users=40, n_items=25)
ALL: Rows = [
    (f"u{user:02}", f"i{item:02}", int(value))
    for user, item, value in zip(WORLD.users(), WORLD.items, WORLD.values, strict=True)
]
FIRST = [row for row in ALL if row[0] < "u30" and "i03" <= row[1] < "i20"]
"""Thirty people and seventeen items in the middle of the alphabet."""
SECOND = [(user, item, value % 5 + 1 if (user, item) == ALL[100][:2] else value) for user, item, value in ALL]
SECOND = [row for row in SECOND if row[0] >= "u02"]
"""Two people less, ten more, eight items more, and one rating changed."""
LOCAL = ("privacy.mode=local", "privacy.epsilon=4")


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def build(rows: Rows, *assignments: str) -> Settings:
        path = tmp_path / f"{len(rows)}-{rows[0][0]}.csv"
        path.write_text("user,item,rating\n" + "".join(f"{user},{item},{value}\n" for user, item, value in rows))
        small = ["model.n_factors=2", "federation.rounds=3", "federation.batch_size=10"]
        small += ["federation.max_participants=40", "federation.min_cohort=20"]
        return resolve(None, [f"data.source={path}", *small, *assignments], environment={})

    return build


def held(run: Run, person: str) -> dict[str, float]:
    """Return what a person's device holds, by original item id."""
    ids = pq.read_table(run.home / "items.parquet")["item_id"].to_pylist()
    with DeviceStore(run.devices_folder) as devices:
        own = held_ratings(devices, [person], len(ids))
    return {ids[item]: float(value) for item, value in zip(own.items, own.values, strict=True)}


def held_out(run: Run, seed: int, fraction: float) -> Ratings:
    return random_split(run.dataset(), seed, fraction).test


def records(run: Run, kind: str) -> list[object]:
    with closing(run.open_ledger()) as ledger:
        return [decode_entry(ledger.entry(position)).record for position in ledger.positions(kind=kind)]


def device(run: Run, person: str) -> Device:
    with DeviceStore(run.devices_folder) as devices:
        found = devices.find(user_id=person)
    assert found is not None
    return found


@pytest.fixture
def runs(tmp_path: Path, configure: Configure) -> tuple[Run, Run]:
    train(configure(FIRST), tmp_path / "first")
    train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first")
    return load_run(tmp_path / "first"), load_run(tmp_path / "second")


# --- people, ratings, items ------------------------------------------------------------------------------------------


def test_further_run_goes_on_with_numbers_versions_and_one_valid_ledger(runs: tuple[Run, Run]) -> None:
    first, second = runs

    rounds = [record for record in records(second, "round") if isinstance(record, Round)]

    assert not (second.folder / "ledger").exists()
    assert second.record.federation == "../first"
    assert verify_ledger(second.ledger_folder, key=first.verifier_key).ok
    n = first.result.rounds
    assert [record.run for record in rounds] == [1] * n + [2] * second.result.rounds
    assert [record.base_version for record in rounds] == list(range(len(rounds)))
    assert second.record.first_version == n
    assert pq.read_table(second.folder / "metrics.parquet")["version"].to_pylist()[0] == n
    assert second.model().version == n + second.result.rounds


def test_people_are_found_by_their_original_ids(runs: tuple[Run, Run]) -> None:
    first, second = runs

    before, after = (find_person(run, "user:u05") for run in runs)

    assert before == after
    assert len(records(second, "enrol")) == 41, "thirty, ten and the coordinator, each once"
    with DeviceStore(first.devices_folder) as devices:
        assert [d.user_id for d in devices.devices()] == [f"u{user:02}" for user in range(40)]


def test_people_outside_the_data_set_stay_and_do_not_answer(runs: tuple[Run, Run]) -> None:
    _, second = runs
    absent = {find_person(second, name).number for name in ("u00", "u01")}

    rounds = [record for record in records(second, "round") if isinstance(record, Round) and record.run == 2]
    answered = {
        u.author for u in records(second, "update") if isinstance(u, Update) and u.round > second.record.first_version
    }

    cohort = set(numbers_in(rounds[0].cohort))
    assert len(cohort) == 38
    assert cohort == answered
    assert not absent & cohort
    assert len(held(second, "u00")) > 0
    assert len(trace_participant(second, "user:u00").updates) == second.record.first_version


def test_devices_hold_new_and_changed_ratings_and_commit_to_them_once(runs: tuple[Run, Run]) -> None:
    _, second = runs
    changed_user, changed_item = ALL[100][:2]
    split = second.split(second.dataset())

    entries = [record for record in records(second, "dataset") if isinstance(record, DatasetRecord)]

    for person in ("u05", "u35", changed_user):
        user = second.dataset().user_ids.index(person)
        own = split.train.select(np.array([user]))
        ids = second.dataset().item_ids
        assert held(second, person) == {ids[i]: float(v) for i, v in zip(own.items, own.values, strict=True)}
    assert held(second, changed_user)[changed_item] == ALL[100][2] % 5 + 1
    number = find_person(second, changed_user).number
    first_entry, second_entry = (record for record in entries if record.author == number)
    assert second_entry.seq == first_entry.seq + second.record.first_version + 1, "after the updates of the first run"
    with DeviceStore(second.devices_folder) as devices:
        holding = devices.data_of(device(second, changed_user).slot)
    assert second_entry.commitment == salted_commitment(holding.dataset_salt, holding.ratings)
    assert len({record.commitment for record in entries}) == len(entries)
    assert sum(record.author == find_person(second, "u00").number for record in entries) == 1


def test_nothing_that_was_learned_from_is_held_out_later(runs: tuple[Run, Run]) -> None:
    splits = []
    for run in runs:
        dataset = run.dataset()
        split = run.split(dataset)
        sides = [
            {(dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(side.users(), side.items, strict=True)}
            for side in (split.train, split.test)
        ]
        splits.append(sides)
    (learned, _), (_, held_out) = splits

    assert held_out
    assert not learned & held_out


def test_items_keep_their_places(runs: tuple[Run, Run]) -> None:
    first, second = runs

    before, after = first.catalogue()["item_id"].to_pylist(), second.catalogue()["item_id"].to_pylist()

    assert after[: len(before)] == before == sorted(before)
    assert len(after) == 25
    assert set(after[len(before) :]) == {"i00", "i01", "i02", *(f"i{item}" for item in range(20, 25))}


def test_both_runs_answer_all_questions(runs: tuple[Run, Run]) -> None:
    for run in runs:
        found = evaluate_run(run)
        assert found.metrics.rmse == pytest.approx(run.result.rmse)
        person, items = recommend(run, "user:u05", 3)
        own = {item.item_id for item in items}
        assert len(own) == 3
        assert not own & set(held(run, "u05"))
        assert trace_participant(run, str(person.number)).complete is True
        assert privacy_report(run).rounds_joined_most == sum(each.result.rounds for each in runs)
        assert privacy_report(run).this_run.rounds_joined_most == run.result.rounds


def test_federation_and_runs_move_together(runs: tuple[Run, Run], tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    for path in [*tmp_path.glob("*.csv"), *(run.folder for run in runs)]:
        path.rename(tmp_path / "moved" / path.name)

    again = load_run(tmp_path / "moved" / "second")

    assert evaluate_run(again).metrics.rmse == pytest.approx(again.result.rmse)
    assert trace_participant(again, "user:u35").complete is True


def test_data_set_of_new_ratings_alone_adds_to_what_devices_hold(tmp_path: Path, configure: Configure) -> None:
    newer = [row for row in ALL if row[0] < "u30" and row[1] < "i03"]
    train(configure(FIRST), tmp_path / "first")
    before = held(load_run(tmp_path / "first"), "u05")

    train(configure(newer), tmp_path / "second", ledger=tmp_path / "first")

    run = load_run(tmp_path / "second")
    after = held(run, "u05")
    assert before.items() < after.items()
    assert set(after) - set(before) <= {"i00", "i01", "i02"}
    assert evaluate_run(run).metrics.rmse == pytest.approx(run.result.rmse)
    assert run.split(run.dataset()).train.n_ratings > len(newer)


def test_same_data_again_holds_out_the_same_and_commits_to_nothing(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    before = len(records(load_run(tmp_path / "first"), "dataset"))

    train(configure(FIRST, *LOCAL), tmp_path / "second", ledger=tmp_path / "first")

    first, second = (load_run(tmp_path / name) for name in ("first", "second"))
    assert len(records(second, "dataset")) == before
    assert np.array_equal(first.split(first.dataset()).test.items, second.split(second.dataset()).test.items)
    one, kept = 1 / len(FIRST), first.split(first.dataset()).test
    seed = next(seed for seed in range(20) if not kept.rated_in(held_out(first, seed, one)).any())
    with pytest.raises(SettingsError, match="nothing is left to hold out"):
        train(
            configure(FIRST, f"data.test_fraction={one}", f"data.split_seed={seed}"),
            tmp_path / "third",
            ledger=tmp_path / "first",
        )


# --- what a run starts from ------------------------------------------------------------------------------------------


def test_plain_run_starts_from_the_last_model_and_private_ones_afresh(tmp_path: Path, configure: Configure) -> None:
    said: list[str] = []
    train(configure(FIRST), tmp_path / "first")
    train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first", progress=said.append)
    train(configure(SECOND, *LOCAL), tmp_path / "third", ledger=tmp_path / "first", progress=said.append)
    first, second, third = (load_run(tmp_path / name) for name in ("first", "second", "third"))

    last, warm = first.model(), second.model(second.record.first_version)
    cold = third.model(third.record.first_version)

    assert [text for text in said if text.startswith("starting")] == [
        "starting from the last model, at version 3",
        "starting afresh, at version 6",
    ]
    assert np.array_equal(warm.item_means[: last.n_items], last.item_means)
    assert np.array_equal(warm.arrays["user_precision"], last.arrays["user_precision"])
    assert warm.n_items == 25
    assert np.abs(warm.item_means[last.n_items :, :-1]).min() > 0, "new items begin as in a fresh model"
    assert not np.array_equal(cold.item_means, second.model().item_means)


def test_run_that_is_killed_as_it_begins_starts_from_the_same_model(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("liberate.runs.start.write_run", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first")
    begun = (tmp_path / "second" / "model" / "00003.model").read_bytes()

    train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first")

    assert (tmp_path / "second" / "model" / "00003.model").read_bytes() == begun
    first, second = (load_run(tmp_path / name) for name in ("first", "second"))
    assert np.array_equal(second.model(3).item_means[:17], first.model().item_means)


def test_setting_decides_whether_to_start_from_the_last_model(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    train(configure(FIRST, "model.warm_start=false"), tmp_path / "cold", ledger=tmp_path / "first")
    train(configure(FIRST, *LOCAL, "ledger.epsilon_limit=8"), tmp_path / "local")
    train(configure(FIRST, *LOCAL, "model.warm_start=true"), tmp_path / "warm", ledger=tmp_path / "local")
    cold, local, warm = (load_run(tmp_path / name) for name in ("cold", "local", "warm"))

    assert not np.array_equal(cold.model(3).item_means, load_run(tmp_path / "first").model().item_means)
    assert np.array_equal(warm.model(warm.record.first_version).item_means, local.model().item_means)


def test_fresh_run_on_an_old_ledger_steps_as_the_first_one_does(tmp_path: Path, configure: Configure) -> None:
    """The optimizer counts its own steps, not the versions of the ledger."""
    settings = configure(FIRST, "model.statistic=gradient", "model.warm_start=false", "model.tolerance=0")
    train(settings, tmp_path / "first")
    train(settings, tmp_path / "second", ledger=tmp_path / "first")
    both = [load_run(tmp_path / name) for name in ("first", "second")]

    steps = [
        run.model(run.record.first_version + 1).item_means - run.model(run.record.first_version).item_means
        for run in both
    ]

    assert np.abs(steps[1]).mean() == pytest.approx(np.abs(steps[0]).mean(), rel=0.2)


def test_noise_and_salts_never_repeat(tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of one seed, settings and data on one ledger: no commitment and no noise key is the same."""
    keys: list[bytes] = []
    original = DeviceStore.put_answers

    def spy(
        self: DeviceStore, round_number: int, answers: Sequence[tuple[int, int, OutboxMessage]], **rest: Any
    ) -> None:
        keys.extend(secret for *_, sent in answers for secret in (sent.noise_key, sent.upload_salt, sent.profile_salt))
        original(self, round_number, answers, **rest)

    monkeypatch.setattr(DeviceStore, "put_answers", spy)
    train(configure(FIRST, *LOCAL, "ledger.epsilon_limit=8"), tmp_path / "first")
    train(configure(FIRST, *LOCAL), tmp_path / "second", ledger=tmp_path / "first")

    updates = [record for record in records(load_run(tmp_path / "second"), "update") if isinstance(record, Update)]
    assert len(updates) == 2 * 3 * 30
    assert len({record.commitment for record in updates}) == len(updates)
    assert len(set(keys)) == len(keys) == 3 * len(updates)


# --- accounts --------------------------------------------------------------------------------------------------------


def test_accounts_add_up_over_runs(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST, *LOCAL, "ledger.epsilon_limit=6"), tmp_path / "first")
    train(configure(SECOND, "privacy.mode=local", "privacy.epsilon=2"), tmp_path / "second", ledger=tmp_path / "first")
    run = load_run(tmp_path / "second")

    everybody, old, new = privacy_report(run), privacy_report(run, "user:u05"), privacy_report(run, "user:u35")

    assert everybody.epsilon_basic == old.epsilon_basic == pytest.approx(6)
    assert old.epsilon_pld is not None
    assert old.epsilon_pld <= 6
    assert everybody.this_run.epsilon_basic == new.epsilon_basic == pytest.approx(2)
    assert [(charge.run, charge.epsilon) for charge in old.by_run] == [(1, pytest.approx(4)), (2, pytest.approx(2))]
    assert [(charge.run, charge.epsilon) for charge in new.by_run] == [(1, 0), (2, pytest.approx(2))]
    assert everybody.ledger_epsilon_nano_most == pytest.approx(6 * 10**9)
    assert new.user_id == "u35"


def test_run_that_an_account_does_not_allow_is_refused_before_anything_is_sent(
    tmp_path: Path, configure: Configure
) -> None:
    train(configure(FIRST, *LOCAL, "ledger.epsilon_limit=6"), tmp_path / "first")
    size = load_run(tmp_path / "first").result.entry_count

    with pytest.raises(BudgetExceeded, match=r"takes 4 from the epsilon account.*4 of 6 is spent.* worth epsilon 2"):
        train(configure(FIRST, *LOCAL), tmp_path / "second", ledger=tmp_path / "first")

    assert not (tmp_path / "second").exists()
    with closing(load_run(tmp_path / "first").open_ledger()) as ledger:
        assert ledger.size == size
    train(configure(FIRST, "privacy.mode=local", "privacy.epsilon=2"), tmp_path / "second", ledger=tmp_path / "first")


@pytest.fixture
def impolite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not look at accounts, and people who agree to anything."""
    no_limit: dict[PricedAccount, int] = {"epsilon": 10**15, "rho": 10**15}
    read = read_snapshot
    monkeypatch.setattr(prepare, "read_snapshot", lambda home, dataset: replace(read(home, dataset), limits=no_limit))
    agree = DeviceStore.record_agreement

    def agree_to_anything(
        self: DeviceStore, run: int, slots: Sequence[int], *, cost: tuple[int, int], limits: tuple[int, int]
    ) -> None:
        agree(self, run, slots, cost=cost, limits=(10**15, 10**15))

    monkeypatch.setattr(DeviceStore, "record_agreement", agree_to_anything)


def test_rules_refuse_two_local_runs_of_4_with_a_limit_of_6(
    tmp_path: Path, configure: Configure, impolite: None
) -> None:
    train(configure(FIRST, *LOCAL, "ledger.epsilon_limit=6"), tmp_path / "first")

    with pytest.raises(InsufficientCohort, match="over_budget: 30"):
        train(configure(FIRST, *LOCAL), tmp_path / "second", ledger=tmp_path / "first")

    assert verify_ledger(tmp_path / "first" / "ledger").ok
    spent = privacy_report(load_run(tmp_path / "first"))
    assert 4 * 10**9 < spent.ledger_epsilon_nano_most <= 6 * 10**9, "one round of three was still allowed"


def test_run_left_short_by_an_aborted_round_says_what_to_do(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, first = configure(FIRST, *LOCAL, "ledger.epsilon_limit=8"), tmp_path / "first"
    with monkeypatch.context() as patch:
        patch.setattr(InProcessTransport, "exchange", lambda self, requests: [])
        with pytest.raises(InsufficientCohort) as aborted:
            train(settings, first)
    with pytest.raises(FederationError, match="announced 3 rounds, and 1 of them were aborted") as caught:
        train(settings, first)

    assert "counts as one" in aborted.value.hint
    assert f"remove {first / 'run.toml'}" in caught.value.hint
    assert f"--ledger {first}" in caught.value.hint
    with closing(load_run(first).open_ledger()) as ledger:
        assert ledger.state.round_number == 1, "nobody pays for rounds of a run that cannot end"
    (first / "run.toml").unlink()
    assert train(settings, tmp_path / "second", ledger=first).rounds == 3
    assert verify_ledger(first / "ledger").ok


DISTRIBUTED = ("privacy.mode=distributed", "privacy.epsilon=4")


def test_limit_is_worth_the_same_in_both_accounts(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST, *DISTRIBUTED, "ledger.epsilon_limit=5"), tmp_path / "first")

    spent = privacy_report(load_run(tmp_path / "first"))

    assert spent.ledger_epsilon_nano_limit == 5 * 10**9
    assert spent.ledger_rho_nano_limit == rho_nano_limit(5, 1e-5)
    assert 0 < spent.ledger_rho_nano_most < spent.ledger_rho_nano_limit < 2 * spent.ledger_rho_nano_most
    with pytest.raises(BudgetExceeded, match=r"rho account.* worth epsilon [12].*at delta 1e-05"):
        train(configure(FIRST, *DISTRIBUTED), tmp_path / "second", ledger=tmp_path / "first")


def test_rules_refuse_the_second_of_two_distributed_runs_of_4_with_a_limit_of_5(
    tmp_path: Path, configure: Configure, impolite: None
) -> None:
    train(configure(FIRST, *DISTRIBUTED, "ledger.epsilon_limit=5"), tmp_path / "first")

    with pytest.raises(InsufficientCohort, match="over_budget: 30"):
        train(configure(FIRST, *DISTRIBUTED), tmp_path / "second", ledger=tmp_path / "first")

    assert verify_ledger(tmp_path / "first" / "ledger").ok


def test_run_of_all_that_is_allowed_is_allowed(tmp_path: Path, configure: Configure) -> None:
    for mode in ("local", "distributed"):
        settings = configure(FIRST, f"privacy.mode={mode}", "privacy.epsilon=5", "ledger.epsilon_limit=5")
        assert train(settings, tmp_path / mode).epsilon is not None


EIGHT = ("privacy.mode=local", "privacy.epsilon=8")


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger and a coordinator that have forgotten every limit."""
    monkeypatch.setattr(Genesis, "has_limit", property(lambda self: False))
    monkeypatch.setattr(State, "limit", lambda self, account: LARGEST_INTEGER)
    monkeypatch.setattr(FederationSnapshot, "limit", lambda self, account, user: LARGEST_INTEGER)
    monkeypatch.setattr(FederationSnapshot, "is_limited", lambda self, user: False)
    original = DeviceStore.record_agreement

    def agree_without_limits(
        self: DeviceStore, run: int, slots: Sequence[int], *, cost: tuple[int, int], limits: object
    ) -> None:
        original(self, run, slots, cost=cost, limits=(None, None))

    monkeypatch.setattr(DeviceStore, "record_agreement", agree_without_limits)


def test_three_runs_of_eight_do_not_add_up_beyond_what_was_first_agreed(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST, *EIGHT), tmp_path / "first")

    for name in ("second", "third"):
        with pytest.raises(BudgetExceeded, match="8 of 8 is spent"):
            train(configure(FIRST, *EIGHT), tmp_path / name, ledger=tmp_path / "first")

    assert privacy_report(load_run(tmp_path / "first")).epsilon_basic == pytest.approx(8)


def test_what_the_first_run_promises_stands_in_the_genesis(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST, *EIGHT), tmp_path / "first")

    spent = privacy_report(load_run(tmp_path / "first"))

    assert spent.ledger_epsilon_nano_limit == 8 * 10**9
    assert spent.ledger_rho_nano_limit == rho_nano_limit(8, 1e-5)


def test_a_device_keeps_to_its_limit_when_ledger_and_coordinator_forget_it(
    tmp_path: Path, configure: Configure, request: pytest.FixtureRequest
) -> None:
    train(configure(FIRST, *EIGHT), tmp_path / "first")
    request.getfixturevalue("forgetful")

    with pytest.raises(InsufficientCohort, match="budget: 30"):
        train(configure(FIRST, *EIGHT), tmp_path / "second", ledger=tmp_path / "first")


def test_what_was_agreed_to_first_is_the_limit_where_the_genesis_has_none(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    train(configure(FIRST, *EIGHT), tmp_path / "second", ledger=tmp_path / "first")

    with pytest.raises(BudgetExceeded, match="8 of 8 is spent"):
        train(configure(FIRST, *EIGHT), tmp_path / "third", ledger=tmp_path / "first")


def test_plan_says_what_is_left_for_how_many_people(tmp_path: Path, configure: Configure) -> None:
    few = [row for row in FIRST if row[0] < "u25"]
    train(configure(few, "privacy.mode=local", "privacy.epsilon=2", "ledger.epsilon_limit=5"), tmp_path / "first")

    foreseen = forecast(configure(few, "privacy.mode=local", "privacy.epsilon=2"), ledger=tmp_path / "first")

    assert foreseen.accounts
    rows = [(row.account, round(row.left or 0, 5), row.people) for row in foreseen.accounts]
    assert rows == [("epsilon", 3, 25), ("rho", 0, 25)]
    assert forecast(configure(few)).accounts is UNSET


def test_one_account_is_for_life_under_a_limit(tmp_path: Path, configure: Configure) -> None:
    """The other account is empty still, and both together would be worth more than the limit."""
    train(configure(FIRST, "privacy.mode=local", "privacy.epsilon=2", "ledger.epsilon_limit=5"), tmp_path / "first")

    with pytest.raises(BudgetExceeded, match="from the rho account, which 30 of 30"):
        train(configure(FIRST, *DISTRIBUTED), tmp_path / "second", ledger=tmp_path / "first")


def test_a_limit_beside_plain_is_refused(tmp_path: Path, configure: Configure) -> None:
    with pytest.raises(SettingsError, match="an answer in mode plain has none"):
        train(configure(FIRST, "ledger.epsilon_limit=8"), tmp_path / "first")

    assert not (tmp_path / "first").exists()


def test_plain_is_refused_where_a_limit_holds(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST, *EIGHT), tmp_path / "first")

    with pytest.raises(BudgetExceeded, match="30 of 30 people have a limit for life"):
        train(configure(FIRST), tmp_path / "second", ledger=tmp_path / "first")


def test_nobody_with_a_limit_answers_without_a_price(
    tmp_path: Path, configure: Configure, request: pytest.FixtureRequest
) -> None:
    train(configure(FIRST, *EIGHT), tmp_path / "first")
    request.getfixturevalue("forgetful")

    with pytest.raises(InsufficientCohort, match="budget: 30"):
        train(configure(FIRST), tmp_path / "second", ledger=tmp_path / "first")


def test_who_has_spent_stays_out_and_the_others_go_on(tmp_path: Path, configure: Configure) -> None:
    few = [row for row in FIRST if row[0] < "u10"]
    train(configure(few, *LOCAL, "ledger.epsilon_limit=6"), tmp_path / "first")

    train(configure(FIRST, *LOCAL), tmp_path / "second", ledger=tmp_path / "first")

    run = load_run(tmp_path / "second")
    assert run.record.left_out == tuple(f"u0{user}" for user in range(10))
    rounds = [record for record in records(run, "round") if isinstance(record, Round) and record.run == 2]
    assert all(len(list(numbers_in(record.cohort))) == 20 for record in rounds)
    assert privacy_report(run, "user:u05").epsilon_basic == pytest.approx(4)
    assert privacy_report(run, "user:u15").epsilon_basic == pytest.approx(4)
    with pytest.raises(BudgetExceeded, match="30 of 30 people"):
        train(configure(FIRST, *LOCAL), tmp_path / "third", ledger=tmp_path / "first")


def test_recovered_key_goes_on_with_the_same_number_and_account(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST, *LOCAL, "ledger.epsilon_limit=6"), tmp_path / "first")
    first = load_run(tmp_path / "first")
    before = find_person(first, "user:u05")
    change_key(first, "user:u05", "revocation", "person")

    newer = configure(SECOND, "privacy.mode=local", "privacy.epsilon=1")
    train(newer, tmp_path / "second", ledger=first.folder)
    second = load_run(tmp_path / "second")
    assert second.record.left_out == ("u05",)
    assert count_commitments(second, before.number) == 1, "a revoked key signs nothing"
    change_key(second, "user:u05", "recovery", "person")
    train(newer, tmp_path / "third", ledger=first.folder)

    third = load_run(tmp_path / "third")
    after = find_person(third, "user:u05")
    assert after.number == before.number
    assert after.key_id != before.key_id
    assert count_commitments(third, before.number) == 2, "what the person rated meanwhile"
    assert privacy_report(third, "user:u05").epsilon_basic == pytest.approx(5), "no fresh budget"
    assert privacy_report(third, "user:u06").epsilon_basic == pytest.approx(6)
    assert verify_ledger(third.ledger_folder).ok


def count_commitments(run: Run, number: int) -> int:
    return sum(isinstance(record, DatasetRecord) and record.author == number for record in records(run, "dataset"))


def test_who_has_withdrawn_is_left_alone(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    first = load_run(tmp_path / "first")
    person = device(first, "u05")
    assert person.number is not None
    actions.withdraw(first, "user:u05")

    train(configure(SECOND), tmp_path / "second", ledger=first.folder)

    second = load_run(tmp_path / "second")
    assert second.record.left_out == ("u05",)
    assert count_commitments(second, person.number) == 1
    assert len(trace_participant(second, "user:u05").updates) == first.result.rounds


def test_genesis_is_not_changed_by_a_further_run(tmp_path: Path, configure: Configure) -> None:
    small = ("privacy.mode=local", "privacy.epsilon=2", "data.rating_min=1", "data.rating_max=5")
    train(configure(FIRST, *small, "ledger.epsilon_limit=6"), tmp_path / "first")

    for wanted, found in (
        ("ledger.epsilon_limit=9", "epsilon_limit: 6, not 9"),
        ("ledger.origin=example.org/other", "origin: liberate"),
        ("run.simulated=false", "real keys"),
    ):
        with pytest.raises(FederationError, match=found):
            train(configure(FIRST, *small, wanted), tmp_path / "second", ledger=tmp_path / "first")
    train(configure(FIRST, *small, "ledger.epsilon_limit=6"), tmp_path / "second", ledger=tmp_path / "first")


# --- one run at a time -----------------------------------------------------------------------------------------------


def stop_in_round(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next training be killed when a round has been opened and half answered."""
    original = RoundCollector._record

    def stop(
        self: RoundCollector,
        answers: Sequence[tuple[int, RoundAnswer]],
        collected: CollectedRound,
        exchange: RoundExchange,
    ) -> None:
        original(self, answers, collected, exchange)
        if collected.record.number == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(RoundCollector, "_record", stop)


def test_unfinished_run_has_the_ledger_to_itself_until_it_is_given_up(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    with pytest.MonkeyPatch.context() as patched:
        stop_in_round(5, patched)
        with pytest.raises(KeyboardInterrupt):
            train(configure(SECOND, *LOCAL), tmp_path / "second", ledger=tmp_path / "first")

    with pytest.raises(FederationError, match="second is not finished"):
        train(configure(SECOND), tmp_path / "third", ledger=tmp_path / "first")
    (tmp_path / "second").rename(tmp_path / "given-up")

    # Of an epsilon of 4 for life two rounds of three are spent.
    left = ("privacy.mode=local", "privacy.epsilon=1")
    train(configure(SECOND, *left), tmp_path / "third", ledger=tmp_path / "first")

    run = load_run(tmp_path / "third")
    assert [r.reason for r in records(run, "aborted") if isinstance(r, Aborted)] == ["given_up"]
    assert verify_ledger(run.ledger_folder).ok
    assert run.record.run == 3
    assert privacy_report(run, "user:u05").by_run[1].epsilon > 0, "what was spent stays spent"
    with pytest.raises(FederationError, match="has continued"):
        train(configure(SECOND, *LOCAL), tmp_path / "given-up", ledger=tmp_path / "first")


def test_run_that_was_prepared_before_another_began_changes_nothing(tmp_path: Path, configure: Configure) -> None:
    """Two commands at once: the second to get the ledger finds that the federation is not what it has read."""
    train(configure(FIRST), tmp_path / "first")
    late = prepare.prepare(configure([*FIRST, ("u00", "another", 3)]), tmp_path / "late", tmp_path / "first")
    train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first")
    before = [(tmp_path / "first" / name).read_bytes() for name in ("items.parquet", "federation.toml", "checkpoint")]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "prepare", lambda *arguments: late)
        with pytest.raises(FederationError, match="continued meanwhile"):
            train(configure([*FIRST, ("u00", "another", 3)]), tmp_path / "late", ledger=tmp_path / "first")

    assert not (tmp_path / "late" / "run.toml").exists()
    after = [(tmp_path / "first" / name).read_bytes() for name in ("items.parquet", "federation.toml", "checkpoint")]
    assert before == after
    assert len(records(load_run(tmp_path / "second"), "enrol")) == 41


def test_set_up_that_was_killed_goes_on_with_other_ratings(tmp_path: Path, configure: Configure) -> None:
    """Nothing was learned yet: whoever was enrolled stays, and items keep their places."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "begin_run", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(configure(FIRST), tmp_path / "run")

    train(configure(SECOND), tmp_path / "run")

    run = load_run(tmp_path / "run")
    assert run.record.run == 1
    assert run.catalogue()["item_id"].to_pylist()[0] == "i03"
    assert len(records(run, "enrol")) == 41
    assert evaluate_run(run).metrics.rmse == pytest.approx(run.result.rmse)


def stopped(*arguments: object) -> Run:
    raise KeyboardInterrupt


def test_folders_that_are_no_federation_are_refused(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    train(configure(FIRST), tmp_path / "other")

    with pytest.raises(SettingsError, match="is no federation"):
        train(configure(FIRST), tmp_path / "second", ledger=tmp_path / "nothing")
    with pytest.raises(SettingsError, match="one folder"):
        train(configure(FIRST), tmp_path / "first", ledger=tmp_path / "first")
    result = train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first")
    with pytest.raises(SettingsError, match="a run of the federation in"):
        train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "other")
    assert train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first") == result


def test_federation_without_its_first_run_is_not_founded_again(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    train(configure(SECOND), tmp_path / "second", ledger=tmp_path / "first")
    (tmp_path / "first" / "run.toml").unlink()

    with pytest.raises(SettingsError, match="is a federation with other runs"):
        train(configure(FIRST), tmp_path / "first")
    train(configure(FIRST), tmp_path / "third", ledger=tmp_path / "first")

    assert verify_ledger(tmp_path / "first" / "ledger").ok


def test_further_run_in_which_nothing_leaves_a_device(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")

    result = train(configure(SECOND, "privacy.mode=device"), tmp_path / "second", ledger=tmp_path / "first")

    run = load_run(tmp_path / "second")
    assert result.rounds == 0
    assert evaluate_run(run).metrics.rmse == pytest.approx(result.rmse)
    assert privacy_report(run).this_run.epsilon_basic == 0
    assert privacy_report(run).epsilon_basic is None, "the first run was not private"
    assert len(recommend(run, "user:u35", 3)[1]) == 3


def test_further_run_may_be_named_by_any_run_of_its_federation(tmp_path: Path, configure: Configure) -> None:
    train(configure(FIRST), tmp_path / "first")
    train(configure(FIRST), tmp_path / "second", ledger=tmp_path / "first")

    train(configure(SECOND), tmp_path / "third", ledger=tmp_path / "second")

    assert load_run(tmp_path / "third").record.federation == "../first"
    assert load_run(tmp_path / "third").record.run == 3

"""A run taken again from the uploads it kept: what is honest follows, and what is not is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.arrays import RealStatistics
from liberate.crypto.signing import SigningKey
from liberate.data.ratings import Ratings
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.models import ModelStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.store.uploads import UploadStore
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.sharing_records import Erasure, Withdrawal
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.codec import encode_model
from liberate.model.item_solvers import Ease
from liberate.model.model import Model
from liberate.model.pool_learner import PoolLearner
from liberate.model.solvers import AggregatedStatistics, VariationalBayes
from liberate.model.statistics import NormalEquations
from liberate.model.upload_bounds import _FactorLimits
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate.settings import DataConfig, resolve
from liberate.tracing.recompute import RecomputeReport, recompute
from tests.worlds import low_rank_ratings, write_csv

Train = Callable[..., Path]

MASKED = ("privacy.mode=distributed", "privacy.epsilon=2", "privacy.secure_aggregation=true")


@pytest.fixture
def trained(tmp_path: Path) -> Train:
    """Trains on 40 people's ratings (16 where uploads are masked) and keeps all uploads; gives the run folder."""

    def build(*assignments: str, keep: bool = True) -> Path:
        n_users = 16 if "privacy.secure_aggregation=true" in assignments else 40
        data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=n_users, n_items=12))
        fixed = [
            f"data.source={data}",
            "data.rating_min=1",
            "data.rating_max=5",
            "model.n_factors=2",
            "federation.rounds=3",
        ]
        kept = [f"ledger.keep_uploads={str(keep).lower()}"]
        train(resolve(None, [*fixed, *kept, *assignments], environment={}), tmp_path / "run")
        return tmp_path / "run"

    return build


def again(folder: Path) -> RecomputeReport:
    return recompute(load_run(folder))


def places(found: RecomputeReport) -> list[str]:
    return [finding.place for finding in found.findings]


def outcomes(found: RecomputeReport) -> list[str]:
    return [each.outcome for each in found.rounds]


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "uploads" / "uploads.sqlite")) as database, database:
        assert database.execute(statement, values).rowcount == 1


def an_upload(folder: Path, round_number: int) -> int:
    """Return the position of an upload in the middle of a round."""
    with UploadStore(folder / "uploads") as uploads:
        return [each.position for each in uploads.of_round(round_number)][7]


@pytest.mark.parametrize(
    "assignments",
    [
        ("model.tolerance=0",),
        ("model.statistic=gradient",),
        ("model.statistic=gradient", "model.optimizer=momentum"),
        ("model.tolerance=0", "federation.trimmed_fraction=0.1"),
        ("model.objective=implicit",),
        ("model.objective=implicit", "model.statistic=normal"),
        ("privacy.mode=local", "privacy.epsilon=50"),
        ("privacy.mode=local", "privacy.epsilon=50", "privacy.mechanism=gaussian"),
        ("privacy.mode=distributed", "privacy.epsilon=100"),
        ("privacy.mode=distributed", "privacy.epsilon=100", "run.noise_placement=per_upload"),
        ("privacy.mode=distributed", "privacy.epsilon=100", "model.objective=implicit"),
        MASKED,
    ],
    ids=lambda assignments: " ".join(each.partition(".")[2] for each in assignments),
)
def test_every_round_of_an_honest_run_follows(trained: Train, assignments: tuple[str, ...]) -> None:
    folder = trained(*assignments)

    found = again(folder)

    assert found.findings == ()
    assert outcomes(found) == ["follows"] * load_run(folder).result.rounds
    assert {each.difference for each in found.rounds} == {0.0}
    everybody = 16 if assignments == MASKED else 40
    assert {(each.updates, each.kept) for each in found.rounds} == {(everybody, everybody)}


def test_people_who_stay_out_of_a_masked_round_leave_it_whole(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from liberate.federation.wire.transport import InProcessTransport, Reply, Request

    original = InProcessTransport.exchange

    def vanishing(self: InProcessTransport, requests: list[Request]) -> list[Reply]:
        return original(self, [r for r in requests if not (r.phase == "mask" and r.recipient == 9)])

    monkeypatch.setattr(InProcessTransport, "exchange", vanishing)
    folder = trained(*MASKED, "privacy.max_dropouts=0.2")

    found = again(folder)

    assert found.findings == ()
    assert {each.updates for each in found.rounds} == {15}


def test_each_run_of_a_federation_is_taken_again_from_its_own_folder(trained: Train, tmp_path: Path) -> None:
    folder = trained()
    settings = replace(
        load_run(folder).settings, data=DataConfig(source=str(tmp_path / "ratings.csv"), rating_min=1, rating_max=5)
    )

    train(settings, tmp_path / "further", ledger=folder)

    runs = [again(folder), again(tmp_path / "further")]
    rounds = [each.round for found in runs for each in found.rounds]
    assert rounds == list(range(1, len(rounds) + 1))
    assert all(found.rounds and found.findings == () for found in runs)
    assert {outcome for found in runs for outcome in outcomes(found)} == {"follows"}


def test_a_run_that_kept_nothing_says_so(trained: Train) -> None:
    found = again(trained(keep=False))

    assert found.findings == ()
    assert set(outcomes(found)) == {"not_kept"}
    assert {each.difference for each in found.rounds} == {None}


# --- what is stored was changed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["upload", "salt"])
def test_a_changed_upload_or_salt_is_named(trained: Train, column: str) -> None:
    folder = trained("model.tolerance=0")
    position = an_upload(folder, 2)
    change(folder, f"UPDATE upload SET {column} = zeroblob(length({column})) WHERE position = ?", position)

    found = again(folder)

    assert places(found) == [f"upload {position}"]
    assert outcomes(found) == ["follows", "fault", "follows"]


def test_an_upload_under_another_name_is_named(trained: Train) -> None:
    folder = trained()
    position = an_upload(folder, 1)
    change(folder, "UPDATE upload SET participant = participant + 1 WHERE position = ?", position)

    assert places(again(folder)) == [f"upload {position}"]


def test_an_upload_that_nobody_sent_is_named(trained: Train) -> None:
    folder = trained()
    change(folder, "INSERT INTO upload VALUES (1, 1, 5, zeroblob(32), zeroblob(9))")

    assert places(again(folder)) == ["upload 1"]


def test_a_missing_upload_is_named(trained: Train) -> None:
    folder = trained()
    position = an_upload(folder, 1)
    change(folder, "DELETE FROM upload WHERE position = ?", position)

    found = again(folder)

    assert places(found) == [f"upload {position}"]
    assert found.rounds[0].kept == found.rounds[0].updates - 1


def test_a_changed_model_file_is_named_and_the_chain_goes_on(trained: Train) -> None:
    folder = trained("model.tolerance=0")
    path = ModelStore(folder / "model").path(2)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")

    found = again(folder)

    assert places(found) == ["model 2"]
    assert outcomes(found) == ["follows", "fault", "follows"]


def test_a_changed_first_model_is_named(trained: Train) -> None:
    folder = trained("model.tolerance=0")
    path = ModelStore(folder / "model").path(0)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")

    found = again(folder)

    assert places(found) == ["model 0"]
    assert outcomes(found) == ["fault", "follows", "follows"]


def change_unmasking(folder: Path, edit: Callable[[UnmaskingShares], UnmaskingShares]) -> int:
    """Change what undoes the masks of one person in round 2."""
    with UploadStore(folder / "uploads") as uploads:
        number, kept = sorted(uploads.unmasking(2).items())[3]
        uploads.put_unmasking(2, {number: edit(kept)})
    return number


def other_share(kept: UnmaskingShares) -> UnmaskingShares:
    (index, share), *rest = kept.shares.items()
    return msgspec.structs.replace(kept, shares={index: share[:-1] + bytes([share[-1] ^ 1]), **dict(rest)})


def other_keys(kept: UnmaskingShares) -> UnmaskingShares:
    return msgspec.structs.replace(kept, keys=msgspec.structs.replace(kept.keys, own=bytes(32)))


@pytest.mark.parametrize("edit", [other_share, other_keys])
def test_a_changed_share_or_key_is_named(trained: Train, edit: Callable[[UnmaskingShares], UnmaskingShares]) -> None:
    folder = trained(*MASKED)
    number = change_unmasking(folder, edit)

    found = again(folder)

    assert places(found) == [f"shares of participant {number}"]
    assert [each.round for each in found.rounds if each.outcome == "fault"] == [2]


# --- the coordinator lied ---------------------------------------------------------------------------------------------


def test_a_false_sum_is_named(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = UploadAggregate.digest, 0

    def with_a_wish(self: UploadAggregate) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 2:
            self.rows[0, 0] += 1
        return original(self)

    with monkeypatch.context() as patched:
        patched.setattr(UploadAggregate, "digest", with_a_wish)
        folder = trained("model.tolerance=0")

    found = again(folder)

    assert verify_ledger(folder / "ledger").ok
    assert places(found) == ["round 2"]
    assert outcomes(found) == ["follows", "fault", "follows"]


def test_a_false_model_is_named_and_the_chain_goes_on_from_it(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    original = VariationalBayes.solve

    def with_a_wish(self: VariationalBayes, model: Model, total: AggregatedStatistics) -> Model:
        solved = original(self, model, total)
        if solved.version != 2:
            return solved
        means = solved.item_means.copy()
        means[3, -1] += np.float32(1e-6)
        return Model.of(2, solved.statistic, solved.low, solved.high, {**solved.arrays, "item_means": means})

    with monkeypatch.context() as patched:
        patched.setattr(VariationalBayes, "solve", with_a_wish)
        folder = trained("model.tolerance=0")

    found = again(folder)

    assert verify_ledger(folder / "ledger").ok
    assert places(found) == ["model 2"]
    assert outcomes(found) == ["follows", "fault", "follows"]


@pytest.mark.parametrize(("error", "outcome"), [(5e-5, "follows"), (5e-4, "fault")])
def test_a_solve_by_lapack_follows_within_the_tolerance_it_states(
    trained: Train, monkeypatch: pytest.MonkeyPatch, error: float, outcome: str
) -> None:
    original = Ease.solve

    def elsewhere(self: Ease, model: Model, total: AggregatedStatistics) -> Model:
        solved = original(self, model, total)
        weights = solved.arrays["item_weights"].copy()
        weights[1, 2] += np.float32(error)
        return Model.of(solved.version, "gram", solved.low, solved.high, {**solved.arrays, "item_weights": weights})

    with monkeypatch.context() as patched:
        patched.setattr(Ease, "solve", elsewhere)
        folder = trained("model.objective=implicit")

    found = again(folder)

    assert outcomes(found) == [outcome]
    if outcome == "follows":
        assert found.rounds[0].difference == pytest.approx(error, rel=1e-2)


def test_an_upload_that_no_ratings_give_is_named_though_the_coordinator_summed_it(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = NormalEquations.compute

    def loud(self: NormalEquations, model: Model, ratings: Ratings) -> RealStatistics:
        computed = original(self, model, ratings)
        if not ratings.n_ratings:
            return computed
        rows = computed.rows.copy()
        rows[0] *= 100
        return replace(computed, rows=rows)

    with monkeypatch.context() as patched:
        patched.setattr(NormalEquations, "compute", loud)
        patched.setattr(_FactorLimits, "check", lambda *_: None)
        folder = trained("federation.rounds=1", "federation.batch_size=100")

    (place,) = places(again(folder))
    assert place.startswith("upload ")


# --- people left ------------------------------------------------------------------------------------------------------


def erase(folder: Path, user: str) -> int:
    """Let a person withdraw and ask to be forgotten, on the ledger, and forget the uploads; give the number."""
    run = load_run(folder)
    with open_run_federation(run) as standing:
        device = standing.devices.find(user_id=user)
        assert device is not None
        assert device.number is not None
        key = SigningKey.from_seed(standing.devices.data_of(device.slot).person_seed)
        state = standing.ledger.state
        origin, author, seq = state.origin, device.number, state.principals[device.number].sequence
        entries = [
            sign(Withdrawal(origin=origin, author=author, seq=seq + 1, consent=None), key),
            sign(Erasure(origin=origin, author=author, seq=seq + 2, number=author, report=None), key),
        ]
        assert all(isinstance(outcome, int) for outcome in standing.ledger.append(entries))
    with UploadStore(folder / "uploads") as uploads:
        assert uploads.erase_participant(device.number) > 0
    return device.number


@pytest.mark.parametrize("assignments", [("model.tolerance=0",), MASKED], ids=["plain", "masked"])
def test_rounds_of_somebody_erased_are_reported_as_such(trained: Train, assignments: tuple[str, ...]) -> None:
    folder = trained(*assignments)
    erase(folder, "u05")

    found = again(folder)

    assert found.findings == ()
    assert set(outcomes(found)) == {"erased"}
    assert {each.updates - each.kept for each in found.rounds} == {1}


def test_the_rest_of_a_round_with_somebody_erased_is_still_opened(trained: Train) -> None:
    folder = trained()
    erase(folder, "u05")
    position = an_upload(folder, 2)
    change(folder, "UPDATE upload SET salt = zeroblob(32) WHERE position = ?", position)

    assert places(again(folder)) == [f"upload {position}"]


def test_devices_are_not_read(trained: Train) -> None:
    """Who recomputes has what the coordinator has: the ledger, models and uploads."""
    folder = trained()
    assert DeviceStore.exists(folder / "devices")
    for path in (folder / "devices").iterdir():
        path.unlink()

    assert again(folder).findings == ()


def test_models_derived_again_have_the_bytes_of_the_first_time(trained: Train) -> None:
    folder = trained("model.tolerance=0")
    last = load_run(folder).model()

    for version in (1, 2):
        ModelStore(folder / "model").path(version).unlink()

    found = again(folder)
    assert places(found) == ["model 1", "model 2"]
    assert encode_model(last) == ModelStore(folder / "model").path(3).read_bytes()
    assert outcomes(found) == ["fault", "fault", "follows"]


# --- what people have shared ------------------------------------------------------------------------------------------

POOLED = ("sharing.user_fraction=0.5", "model.tolerance=0")


@pytest.mark.parametrize(
    "assignments",
    [
        POOLED,
        (*POOLED, "sharing.epsilon=2"),
        (*POOLED, "privacy.mode=device"),
        (*POOLED, "privacy.mode=local", "privacy.epsilon=50"),
        (*POOLED, "privacy.mode=distributed", "privacy.epsilon=100"),
        (*POOLED, "sharing.recipients=peers", "sharing.n_recipients=2"),
        (*POOLED, "sharing.recipients=peers", "sharing.n_recipients=2", "model.statistic=gradient"),
    ],
    ids=lambda assignments: " ".join(each.partition(".")[2] for each in assignments[2:]),
)
def test_models_learned_from_copies_follow(trained: Train, assignments: tuple[str, ...]) -> None:
    folder = trained(*assignments)

    found = again(folder)

    assert found.findings == ()
    assert outcomes(found) == ["follows"] * load_run(folder).result.rounds
    assert {each.difference for each in found.rounds} == {0.0}
    if "sharing.recipients=peers" not in assignments:
        assert (found.rounds[0].updates, found.rounds[0].kept) == (20, 20)


def change_copy(folder: Path, edit: Callable[[ReceivedCopy], ReceivedCopy]) -> int:
    """Change a copy in the pool; give the position of its share."""
    run = load_run(folder)
    with closing(run.open_ledger()) as ledger, PoolStore(folder / "pool") as pool:
        position = ledger.positions(kind="share")[3]
        share = decode_entry(ledger.entry(position)).leaf_hash
        (received,) = pool.copies([share])
        pool.put([(share, edit(received))])
    return position


@pytest.mark.parametrize("name", ["copy", "salt"])
def test_a_changed_copy_is_named(trained: Train, name: str) -> None:
    folder = trained(*POOLED)

    def edit(received: ReceivedCopy) -> ReceivedCopy:
        data = getattr(received, name)
        return msgspec.structs.replace(received, **{name: data[:-1] + bytes([data[-1] ^ 1])})

    position = change_copy(folder, edit)

    found = again(folder)

    assert places(found) == [f"copy {position}"]
    assert outcomes(found) == ["fault", *["follows"] * (len(found.rounds) - 1)]


def test_a_false_sum_of_copies_is_named(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("liberate.federation.coordinator.pool_round.copies_digest", lambda copies: bytes(32))
        folder = trained(*POOLED)

    assert places(again(folder)) == ["round 1"]


def test_a_model_that_the_pool_does_not_give_is_named(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    original = PoolLearner.learn

    def with_a_wish(self: PoolLearner, base: Model, copies: Ratings, epsilons: Sequence[int]) -> Model:
        learned = original(self, base, copies, epsilons)
        means = learned.item_means.copy()
        means[3, -1] += np.float32(0.1)
        return Model.of(1, learned.statistic, learned.low, learned.high, {**learned.arrays, "item_means": means})

    with monkeypatch.context() as patched:
        patched.setattr(PoolLearner, "learn", with_a_wish)
        folder = trained(*POOLED)

    assert places(again(folder)) == ["model 1"]


def test_a_missing_copy_is_named_and_one_of_somebody_erased_is_not(trained: Train) -> None:
    folder = trained(*POOLED)
    run = load_run(folder)
    with closing(run.open_ledger()) as ledger:
        position = ledger.positions(kind="share")[3]
        sender = decode_entry(ledger.entry(position)).record.author
    with PoolStore(folder / "pool") as pool:
        assert pool.erase_sender(sender)

    assert places(again(folder)) == [f"copy {position}"]
    with DeviceStore(folder / "devices") as devices:
        device = devices.find(number=sender)
    assert device is not None
    erase(folder, device.user_id)

    found = again(folder)
    assert found.findings == ()
    assert set(outcomes(found)) == {"erased"}

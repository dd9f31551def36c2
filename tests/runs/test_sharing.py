"""Runs in which people share: with the pool, from which the run starts, and with peers, who answer for copies."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liberate.arrays import FixedPointStatistics
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.errors import InsufficientCohort, LiberateError, SettingsError
from liberate.federation.coordinator import upload_validation
from liberate.federation.sharing.consents import ConsentTerms, give_consent
from liberate.federation.sharing.handover import hand_over, handed_over_copies
from liberate.federation.sharing.simulation import SharingSimulation
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import ModelRecord, Record, Round, Update
from liberate.ledger.format.sharing_records import Consent, PoolRecord, Share
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.trace.participant import trace_participant
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.model import Model
from liberate.model.personal_fit import fit_with_copies
from liberate.randomness import SimulatedRandomness
from liberate.runs import evaluate
from liberate.runs.actions import consent, set_copy_quota, share, withdraw
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.tracing.recompute import recompute
from tests.federation.crashes import Crash, crash_at
from tests.worlds import find_person, low_rank_ratings, write_csv

N_USERS, N_ITEMS = 30, 20
Configure = Callable[..., Settings]

POOL = ["sharing.user_fraction=0.3"]
PEERS = ["sharing.user_fraction=0.3", "sharing.recipients=peers", "sharing.n_recipients=4"]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(N_USERS, N_ITEMS))

    def build(*assignments: str) -> Settings:
        small = ["model.n_factors=2", "federation.rounds=3", "federation.batch_size=10", "ledger.keep_uploads=true"]
        return resolve(None, [f"data.source={data}", *small, *assignments], environment={})

    return build


def records(run: Run, kind: str) -> list[Record]:
    with closing(run.open_ledger()) as ledger:
        return [decode_entry(ledger.entry(position)).record for position in ledger.positions(kind=kind)]


def digests(run: Run) -> list[bytes]:
    return [record.digest for record in records(run, "model") if isinstance(record, ModelRecord)]


@pytest.mark.parametrize(
    ("mode", "follows", "rounds"),
    [
        (["privacy.mode=device"], "nothing", 1),
        (["privacy.mode=plain"], "normal", 4),
        (["privacy.mode=plain", "model.statistic=gradient"], "gradient", 4),
        (["privacy.mode=local", "privacy.epsilon=6"], "gradient", 4),
        (["privacy.mode=distributed", "privacy.epsilon=8"], "", 0),
    ],
)
def test_run_starts_from_what_the_pool_teaches(
    tmp_path: Path, configure: Configure, mode: list[str], follows: str, rounds: int
) -> None:
    result = train(configure(*POOL, *mode), tmp_path / "run")

    run = load_run(tmp_path / "run")
    opened = [record for record in records(run, "round") if isinstance(record, Round)]
    closed = [record for record in records(run, "model") if isinstance(record, ModelRecord)]
    assert (opened[0].statistic, opened[0].account, opened[0].spend_nano) == ("pool", "none", 0)
    assert "pool" not in {record.statistic for record in opened[1:]}
    assert result.rounds == len(opened) == len(closed) == (rounds or len(opened))
    assert closed[0].solver.startswith(f"pool_for_{follows}")
    (named,) = records(run, "pool")
    assert isinstance(named, PoolRecord)
    senders = list(numbers_in(named.participants))
    assert len(senders) == round(0.3 * N_USERS)
    assert len(records(run, "consent")) == len(records(run, "share")) == len(records(run, "receipt")) == len(senders)
    assert all(record.round > 1 for record in records(run, "update") if isinstance(record, Update))
    assert verify_ledger(run.folder / "ledger").ok
    with closing(run.open_ledger()) as ledger:
        trace = trace_participant(ledger, senders[0])
        other = trace_participant(ledger, min(set(range(3, 3 + N_USERS)) - set(senders)))
    (use,) = trace.uses
    assert use.contribution.model is not None
    assert len(use.contribution.descendants) == result.rounds - 1
    assert other.uses == other.copies == ()
    found = recompute(run)
    assert not found.findings
    assert [each.outcome for each in found.rounds] == ["follows"] * result.rounds


def test_peers_answer_for_the_copies_they_hold(tmp_path: Path, configure: Configure) -> None:
    alone = train(configure("privacy.mode=plain"), tmp_path / "alone")
    result = train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "run")

    run = load_run(tmp_path / "run")
    shares, updates = records(run, "share"), records(run, "update")
    assert len(shares) == len(records(run, "receipt")) == 9 * 4
    used = [len(update.shares) for update in updates if isinstance(update, Update)]
    assert sum(used) == len(shares) * result.rounds
    assert digests(run)[-1] != digests(load_run(tmp_path / "alone"))[-1]
    assert abs(result.rmse - alone.rmse) < 0.1, "a person weighs no more than one person more"
    found = recompute(run)
    assert [each.outcome for each in found.rounds] == ["follows"] * result.rounds
    with DeviceStore(run.devices_folder) as devices, closing(run.open_ledger()) as ledger:
        sender = next(handed_over_copies(devices)).sender
        assert len(list(devices.sharing_rows(ReceivedCopy))) == len(shares)
        trace = trace_participant(ledger, sender)
    assert len(trace.copies) == 4
    assert len(trace.uses) == 4 * result.rounds


def test_an_answer_may_be_as_large_as_its_copies_weigh(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of four copies counts a quarter of a person: who holds many has no room to send more than they give."""
    seen: list[float] = []

    class Noting:
        def check(self, upload: FixedPointStatistics, fraction_bits: int, n_participants: float) -> None:
            seen.append(n_participants)

    monkeypatch.setattr(upload_validation, "rating_bounds", lambda base: Noting())
    train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "run")

    used = [
        len(record.shares) for record in records(load_run(tmp_path / "run"), "update") if isinstance(record, Update)
    ]
    assert max(used) > 1
    assert sorted(seen) == sorted(1 + n / 4 for n in used)


def test_a_sender_weighs_one_person_however_many_consents_there_are(tmp_path: Path, configure: Configure) -> None:
    train(configure("privacy.mode=plain"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    friends = [f"user:u{user:02}" for user in (3, 5, 7)]
    for friend in friends:
        consent(run, "user:u01", recipients=[friend], max_shares=1)
        assert share(run, "user:u01", recipient=friend).received

    result = train(configure("privacy.mode=plain"), tmp_path / "next", ledger=run.folder)

    used = [record for record in records(run, "update") if isinstance(record, Update) and record.shares]
    newest = find_person(run, friends[-1]).number
    assert [record.author for record in used] == [newest] * result.rounds


def test_copies_are_learned_from_in_chunks_of_as_many_people_and_copies(tmp_path: Path, configure: Configure) -> None:
    """A block of a round has the answers of one batch: with their copies no more than `federation.batch_size`."""
    result = train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "run")

    run = load_run(tmp_path / "run")
    with closing(run.open_ledger()) as ledger:
        blocks = ledger.positions(kind="block")
        counts: Counter[int] = Counter()
        for position in ledger.positions(kind="update"):
            record = decode_entry(ledger.entry(position)).record
            assert isinstance(record, Update)
            counts[bisect_left(blocks, position)] += 1 + len(record.shares)
    assert max(counts.values()) <= 10
    assert len(counts) < N_USERS * result.rounds


def test_no_answer_is_lost_to_a_consent_that_expires_within_the_round(tmp_path: Path, configure: Configure) -> None:
    """A round of 30 people in chunks of 10 takes three blocks: a copy that lives for two of them is not used."""
    train(configure("privacy.mode=plain"), tmp_path / "run")
    run, sender, friend = load_run(tmp_path / "run"), "user:u01", "user:u29"
    # after the consent come the share, the receipt and the round
    consent(run, sender, recipients=[friend], max_shares=1, blocks=6)
    assert share(run, sender, recipient=friend).received

    result = train(configure("privacy.mode=plain", "federation.rounds=1"), tmp_path / "next", ledger=run.folder)

    after = [record for record in records(run, "update") if isinstance(record, Update)]
    assert len(after[-N_USERS * result.rounds :]) == N_USERS * result.rounds
    per_round = Counter(record.round for record in after)
    assert set(per_round.values()) == {N_USERS}
    assert not any(record.shares for record in after)


@pytest.mark.parametrize(
    "mode", [["privacy.mode=local", "privacy.epsilon=6"], ["privacy.mode=distributed", "privacy.epsilon=8"]]
)
def test_private_answers_are_made_of_the_persons_ratings_alone(
    tmp_path: Path, configure: Configure, mode: list[str]
) -> None:
    """Copies are handed over and received, and no private upload has anything of them."""
    train(configure(*PEERS, *mode), tmp_path / "run")

    run = load_run(tmp_path / "run")
    assert len(records(run, "receipt")) == 9 * 4
    assert not any(update.shares for update in records(run, "update") if isinstance(update, Update))
    assert all(each.outcome == "follows" for each in recompute(run).rounds)


_STEPS: list[tuple[type, str]] = [
    (DeviceStore, "put_pending_entries"),
    (DeviceStore, "settle_pending_entries"),
    (DeviceStore, "put_answers"),
    (PoolStore, "put"),
    (SqliteLedger, "_commit"),
]


@pytest.mark.parametrize("sharing", [POOL, PEERS], ids=["pool", "peers"])
@pytest.mark.parametrize("at", range(4, 30, 5))
def test_killed_anywhere_the_run_goes_on_to_the_same_models(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, at: int, sharing: list[str]
) -> None:
    settings = configure(*sharing, "federation.rounds=2")
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patched:
        crash_at(patched, _STEPS, at, before=bool(at % 2))
        with pytest.raises(Crash):
            train(settings, tmp_path / "killed")

    train(settings, tmp_path / "killed")

    whole, killed = load_run(tmp_path / "whole"), load_run(tmp_path / "killed")
    assert verify_ledger(killed.folder / "ledger").ok
    assert len(digests(killed)) == len(digests(whole))
    assert [len(records(killed, kind)) for kind in ("consent", "share", "receipt", "pool")] == [
        len(records(whole, kind)) for kind in ("consent", "share", "receipt", "pool")
    ]
    with DeviceStore(killed.devices_folder) as devices:
        assert devices.pending_entries() == []


def test_whoever_has_withdrawn_is_in_no_later_pool(tmp_path: Path, configure: Configure) -> None:
    settings = configure(*POOL, "privacy.mode=device")
    train(settings, tmp_path / "one")
    first = records(load_run(tmp_path / "one"), "pool")[0]
    assert isinstance(first, PoolRecord)
    gone, *others = numbers_in(first.participants)
    withdraw(load_run(tmp_path / "one"), str(gone), consent=None, wait=lambda: False)

    train(
        replace(settings, sharing=replace(settings.sharing, user_fraction=0.0)),
        tmp_path / "two",
        ledger=tmp_path / "one",
    )

    second = records(load_run(tmp_path / "two"), "pool")[1]
    assert isinstance(second, PoolRecord)
    assert list(numbers_in(second.participants)) == others
    with closing(load_run(tmp_path / "two").open_ledger()) as ledger:
        assert trace_participant(ledger, gone).used_after_withdrawal() == ()


def test_changed_ratings_or_terms_replace_the_copies(tmp_path: Path, configure: Configure) -> None:
    train(configure(*POOL, "privacy.mode=device"), tmp_path / "one")
    train(configure(*POOL, "privacy.mode=device"), tmp_path / "two", ledger=tmp_path / "one")
    assert len(records(load_run(tmp_path / "two"), "share")) == 9, "nobody shares twice what is there"
    perturbed = configure(*POOL, "privacy.mode=device", "sharing.epsilon=2")
    train(perturbed, tmp_path / "three", ledger=tmp_path / "one")

    run = load_run(tmp_path / "three")
    with closing(run.open_ledger()) as ledger:
        live = ledger.state.sharing.shares.values()
        assert {share.record.epsilon_nano for share in live} == {2 * 10**9}
        assert len(live) == 9
    assert len(records(run, "withdrawal")) == 9


def test_copies_that_can_arrive_no_more_stop_no_further_run(tmp_path: Path, configure: Configure) -> None:
    train(configure("privacy.mode=plain"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    with open_run_federation(run) as standing:
        ledger, devices, random = standing.ledger, standing.devices, SimulatedRandomness(1, b"copies")
        sender, leaver, late = (devices.devices()[slot] for slot in (0, 1, 2))
        recipients = (leaver.number or 0, late.number or 0)
        terms = ConsentTerms(recipients=recipients, expiry=ledger.height + 4, max_shares=2)
        consent = decode_entry(ledger.entry(give_consent(ledger, devices, sender, terms, random))).leaf_hash
        for recipient in recipients:
            sender = devices.devices()[0]
            hand_over(ledger, devices, sender, consent, recipient, RatingScale(low=1.0, step=0.5, n_levels=9), random)
    withdraw(run, str(leaver.number))

    train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "next", ledger=run.folder)

    shares, receipts = records(run, "share"), records(run, "receipt")
    assert len(shares) == len(receipts) + 2
    assert verify_ledger(run.folder / "ledger").ok


def test_when_a_recipient_leaves_another_one_takes_its_place(tmp_path: Path, configure: Configure) -> None:
    """Of the others nobody gets a second copy, and a copy weighs no more than before."""
    train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    given = [(share.author, share.recipient) for share in records(run, "share") if isinstance(share, Share)]
    leaver = min({recipient for _, recipient in given} - {sender for sender, _ in given})
    lost = [pair for pair in given if pair[1] == leaver]
    withdraw(run, str(leaver))

    train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "next", ledger=run.folder)

    after = [(share.author, share.recipient) for share in records(run, "share") if isinstance(share, Share)]
    assert len(after) == len(set(after)) == len(given) + len(lost)
    assert {consent.max_shares for consent in records(run, "consent") if isinstance(consent, Consent)} == {4}


def test_a_copy_that_was_lost_stops_no_pool(tmp_path: Path, configure: Configure) -> None:
    train(configure(*POOL, "privacy.mode=device"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    with closing(sqlite3.connect(run.home / "pool" / "copies.sqlite")) as db, db:
        db.execute("DELETE FROM copy WHERE sender = (SELECT min(sender) FROM copy)")

    train(configure(*POOL, "privacy.mode=plain"), tmp_path / "next", ledger=run.folder)

    first, second = (
        set(numbers_in(pool.participants)) for pool in records(run, "pool") if isinstance(pool, PoolRecord)
    )
    assert second == first - {min(first)}
    assert not records(run, "aborted")


def test_run_whose_pool_has_nothing_left_says_so(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharingSimulation, "run", lambda *_: None)

    with pytest.raises(InsufficientCohort, match="no copies in the pool"):
        train(configure(*POOL, "privacy.mode=device"), tmp_path / "run")
    monkeypatch.undo()
    train(configure(*POOL, "privacy.mode=device"), tmp_path / "run")

    assert verify_ledger(tmp_path / "run" / "ledger").ok


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ([*PEERS, "privacy.mode=device"], "no round in which they would answer"),
        ([*POOL, "model.objective=implicit"], "teach how items are rated"),
        ([*POOL, "run.simulated=false"], "in simulations only"),
        (["sharing.user_fraction=1.5"], "sharing.user_fraction"),
        (["sharing.rating_fraction=0"], "sharing.rating_fraction"),
    ],
)
def test_sharing_without_effect_is_refused(
    tmp_path: Path, configure: Configure, assignments: list[str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        train(configure(*assignments), tmp_path / "run")


def test_declined_copies_are_shared_and_never_used(tmp_path: Path, configure: Configure) -> None:
    train(configure("privacy.mode=plain"), tmp_path / "one")
    for number in range(3, 3 + N_USERS):
        set_copy_quota(load_run(tmp_path / "one"), str(number), limit=0)

    train(configure(*PEERS, "privacy.mode=plain"), tmp_path / "two", ledger=tmp_path / "one")

    run = load_run(tmp_path / "two")
    assert len(records(run, "share")) == 9 * 4
    assert records(run, "receipt") == []
    assert not any(update.shares for update in records(run, "update") if isinstance(update, Update))


def test_what_a_person_has_shared_by_the_own_decision_stays(tmp_path: Path, configure: Configure) -> None:
    train(configure("privacy.mode=plain"), tmp_path / "one")
    run = load_run(tmp_path / "one")
    for number in range(3, 3 + N_USERS):
        consent(run, str(number), items=["i03", "i05"], purpose="mine")
    share(run, "3")

    train(configure("sharing.user_fraction=1", "privacy.mode=device"), tmp_path / "two", ledger=tmp_path / "one")

    assert len(records(load_run(tmp_path / "two"), "share")) == N_USERS
    assert records(load_run(tmp_path / "two"), "withdrawal") == []
    with PoolStore(run.home / "pool") as pool, closing(run.open_ledger()) as ledger:
        (mine,) = [hash for hash, each in ledger.state.sharing.shares.items() if each.sender == 3]
        (copy,) = pool.copies([mine])
    assert {3, 5} >= set(Ratings.from_user_bytes([copy.copy], N_ITEMS).items.tolist())


@pytest.mark.parametrize("mode", [["privacy.mode=plain"], ["privacy.mode=local", "privacy.epsilon=6"]])
def test_recommendations_use_the_copies_that_a_consent_covers(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    """On the recipient's device alone: withdrawn copies are not used any more, expired ones neither."""
    train(configure(*mode), tmp_path / "run")
    run, seen = load_run(tmp_path / "run"), []
    original = fit_with_copies

    def noting(model: Model, own: Ratings, copies: Ratings, weights: np.ndarray) -> np.ndarray:
        seen.append((copies.n_users, weights.tolist()))
        return original(model, own, copies, weights)

    monkeypatch.setattr(evaluate, "fit_with_copies", noting)
    size = len(records(run, "update"))
    given = consent(run, "user:u01", recipients=["user:u02"], max_shares=2)
    assert share(run, "user:u01", recipient="user:u02").received
    consent(run, "user:u03", recipients=["user:u02"], max_shares=1, blocks=4)
    assert share(run, "user:u03", recipient="user:u02").received

    evaluate.recommend(run, "user:u02")
    evaluate.recommend(run, "user:u04")
    withdraw(run, "user:u01", consent=given.entry)
    consent(run, "user:u05", recipients=["user:u06"], max_shares=1)
    evaluate.recommend(run, "user:u02")

    both, nobody, neither = seen
    assert (both[0], sorted(both[1])) == (2, [0.5, 1.0])
    assert nobody == neither == (0, [])
    assert len(records(run, "update")) == size, "nothing of it leaves the device"


def test_an_item_that_is_none_is_refused(tmp_path: Path, configure: Configure) -> None:
    train(configure("privacy.mode=device"), tmp_path / "one")

    with pytest.raises(LiberateError, match="no item 'i99'"):
        consent(load_run(tmp_path / "one"), "3", items=["i99"])

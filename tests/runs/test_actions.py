"""What participants decide about their data, on a finished and on a living federation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError, LiberateError
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.erasure import answer_request
from liberate.federation.session import FederationSession
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.requests import QueuedRequest
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy, ReceivedCopy
from liberate.federation.store.uploads import UploadStore
from liberate.ledger.format.entries import Entry, decode_entry, decode_included, sign
from liberate.ledger.format.records import DatasetRecord, Round, Update
from liberate.ledger.format.sharing_records import Consent, Erasure, Share, Withdrawal
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs import actions, request_submission
from liberate.runs.evaluate import evaluate_run, recommend
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, load_run
from liberate.runs.keys import change_key
from liberate.runs.pending_requests import request_processor
from liberate.runs.privacy_report import privacy_report
from liberate.runs.request_submission import ErasureOutcome, RequestOutcome
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.tracing.entries import read_entries
from liberate.tracing.traces import trace_participant
from tests.federation.crashes import Crash, crash_at
from tests.worlds import find_person, low_rank_ratings, write_csv

PERSON, FRIEND = "user:u03", "user:u05"

Configure = Callable[..., Settings]


def now() -> bool:
    """Do not wait for anybody."""
    return False


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=8, n_items=6))

    def build(*assignments: str) -> Settings:
        small = ["model.n_factors=2", "federation.rounds=2", "model.tolerance=0", "run.simulated=false"]
        scale = ["data.rating_min=1", "data.rating_max=5"]
        return resolve(None, [f"data.source={data}", *scale, *small, *assignments], environment={})

    return build


@pytest.fixture
def run(tmp_path: Path, configure: Configure) -> Run:
    train(configure(), tmp_path / "run")
    return load_run(tmp_path / "run")


def entries(run: Run, kind: str) -> list[Entry]:
    with closing(run.open_ledger()) as ledger:
        return [decode_entry(ledger.entry(position)) for position in ledger.positions(kind=kind)]


def consent(run: Run, *to: str, sender: str = PERSON, **changes: Any) -> RequestOutcome:
    terms: dict[str, Any] = {"max_shares": 3, "blocks": 100, "epsilon": None, "rating_fraction": 1.0, "purpose": ""}
    return actions.consent(run, sender, recipients=list(to), **terms | changes, wait=now)


def erased(run: Run, name: str = PERSON) -> ErasureOutcome:
    outcome = actions.erase(run, name, wait=now)
    assert isinstance(outcome, ErasureOutcome)
    return outcome


def received(run: Run, name: str) -> list[ReceivedCopy]:
    with DeviceStore(run.devices_folder) as devices:
        device = devices.find(number=find_person(run, name).number)
        assert device is not None
        return [copy for _, _, copy in devices.sharing_rows(ReceivedCopy, device.slot)]


ACTS = ("consent", "withdrawal", "share", "receipt", "erasure", "key")


def acts_on_the_ledger(run: Run) -> dict[int, bytes]:
    """Return the acts of participants by their positions."""
    with closing(run.open_ledger()) as ledger, DeviceStore(run.devices_folder) as devices:
        people = {device.number for device in devices.devices()}
        found = {position: ledger.entry(position) for kind in ACTS for position in ledger.positions(kind=kind)}
        return {
            position: data for position, data in sorted(found.items()) if decode_entry(data).record.author in people
        }


def acts_on_devices(run: Run) -> dict[int, bytes]:
    """Return the acts that devices have the log's proof of, each checked under its own checkpoint."""
    with DeviceStore(run.devices_folder) as devices:
        acts = {act.position: act for _, act in devices.acts()}
    for act in acts.values():
        decode_included(act.data, act.position, act.proof, verify_checkpoint(act.note, run.verifier_key))
    return {position: act.data for position, act in acts.items()}


# --- on a finished federation ----------------------------------------------------------------------------------------


def test_a_copy_is_handed_over_received_and_traced(run: Run) -> None:
    granted = consent(run, FRIEND, "pool", purpose="films")

    shared = [actions.share(run, PERSON, recipient=to, consent=None, wait=now) for to in (FRIEND, "pool")]

    me, friend = find_person(run, PERSON).number, find_person(run, FRIEND).number
    assert (granted.act, granted.under_way, granted.published) == ("consent", False, True)
    (copy,) = received(run, FRIEND)
    assert copy.sender == me
    traced = trace_participant(run, PERSON)
    assert [each.position for each in traced.shares] == [each.entry for each in shared]
    assert {each.number for each in traced.recipients} == {friend, 2}
    assert len(entries(run, "receipt")) == 2
    assert [each.received for each in shared] == [True, True]
    with PoolStore(run.home / "pool") as pool:
        (pooled,) = pool.copies([decode_entry_at(run, shared[1].entry).leaf_hash])
    assert pooled.sender == me
    assert verify_ledger(run.ledger_folder).ok


def decode_entry_at(run: Run, position: int | None) -> Entry:
    assert position is not None
    with closing(run.open_ledger()) as ledger:
        return decode_entry(ledger.entry(position))


def test_what_is_outside_a_consent_is_refused_and_said(run: Run) -> None:
    with pytest.raises(LiberateError, match="no valid consent"):
        actions.share(run, PERSON, recipient=FRIEND, consent=None, wait=now)
    granted = consent(run, FRIEND, max_shares=1)
    for recipient, position in (("pool", granted.entry), (FRIEND, 1)):
        with pytest.raises(FederationError):
            actions.share(run, PERSON, recipient=recipient, consent=position, wait=now)
    actions.share(run, PERSON, recipient=FRIEND, consent=granted.entry, wait=now)
    with pytest.raises(FederationError, match="consent_used_up"):
        actions.share(run, PERSON, recipient=FRIEND, consent=granted.entry, wait=now)
    with pytest.raises(LiberateError, match="no participant"):
        consent(run, "user:nobody")
    with pytest.raises(LiberateError, match="wanted"):
        consent(run, FRIEND, rating_fraction=0.0)
    with pytest.raises(LiberateError, match="wanted"):
        consent(run, FRIEND, epsilon=0.0)
    with pytest.raises(LiberateError, match="wanted"):
        consent(run, FRIEND, epsilon=float("inf"))


def test_a_wish_with_impossible_terms_stands_in_nobodys_way(run: Run) -> None:
    """It was put on the device; the ledger has grown since, or somebody put it past the command."""
    with pytest.raises(FederationError, match=r"expiry is .* wanted"):
        consent(run, FRIEND, blocks=2**53 - 1)

    assert consent(run, FRIEND, sender="user:u04").entry is not None


def test_a_recipient_who_cannot_open_a_copy_takes_none(run: Run) -> None:
    """The device has lost its key."""
    consent(run, FRIEND)
    with DeviceStore(run.devices_folder) as devices:
        device = devices.find(number=find_person(run, FRIEND).number)
        assert device is not None
        holding = devices.data_of(device.slot)
        devices.replace_data([(device.slot, msgspec.structs.replace(holding, person_seed=bytes(32)))])

    shared = actions.share(run, PERSON, recipient=FRIEND, consent=None, wait=now)

    assert shared.entry is not None
    assert not shared.received
    assert received(run, FRIEND) == []


def test_whoever_has_no_valid_key_is_told_to_recover_it_first(run: Run) -> None:
    change_key(run, PERSON, "revocation", "person")

    for act in (actions.withdraw, actions.erase):
        with pytest.raises(FederationError, match=r"revoked_author.*keys recover"):
            act(run, PERSON)

    change_key(run, PERSON, "recovery", "person")
    assert erased(run).record


def test_withdrawn_consent_covers_nothing_any_more(run: Run) -> None:
    first, second = consent(run, FRIEND), consent(run, FRIEND)

    withdrawn = actions.withdraw(run, PERSON, consent=first.entry, wait=now)

    assert withdrawn.act == "withdrawal"
    with pytest.raises(FederationError, match="no_consent"):
        actions.share(run, PERSON, recipient=FRIEND, consent=first.entry, wait=now)
    assert actions.share(run, PERSON, recipient=FRIEND, consent=None, wait=now).entry
    everything = actions.withdraw(run, PERSON, consent=None, wait=now)
    assert (everything.entry or 0) > (withdrawn.entry or 0)
    assert actions.withdraw(run, PERSON, consent=None, wait=now).entry == everything.entry, "done once"
    with pytest.raises(FederationError, match="withdrawn"):
        consent(run, FRIEND)
    with pytest.raises(FederationError, match="withdrawn"):
        actions.withdraw(run, PERSON, consent=second.entry, wait=now)


def test_a_further_run_goes_on_without_who_has_withdrawn(tmp_path: Path, run: Run, configure: Configure) -> None:
    actions.withdraw(run, PERSON, consent=None, wait=now)
    before = len(entries(run, "update"))

    train(configure(), tmp_path / "second", ledger=run.home)

    authors = {entry.record.author for entry in entries(run, "update")[before:]}
    assert find_person(run, PERSON).number not in authors
    assert len(authors) == 7


def test_a_command_opens_the_ledger_and_the_devices_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(kind: type) -> None:
        begin = kind.__init__  # type: ignore[misc]  # of this very class

        def init(self: object, *arguments: Any, **options: Any) -> None:
            opened.append(kind.__name__)
            begin(self, *arguments, **options)

        monkeypatch.setattr(kind, "__init__", init)

    counted(SqliteLedger)
    counted(DeviceStore)

    commands: list[Callable[[], object]] = [
        lambda: actions.consent(run, PERSON, recipients=[FRIEND]),
        lambda: actions.share(run, PERSON, recipient=FRIEND),
        lambda: actions.withdraw(run, PERSON),
        lambda: actions.erase(run, PERSON),
        lambda: actions.erase(run, PERSON),
    ]
    for command in commands:
        opened.clear()
        command()
        assert sorted(opened) == ["DeviceStore", "SqliteLedger"]


# --- on a living federation ------------------------------------------------------------------------------------------


def test_a_training_carries_out_what_is_wanted_before_its_next_round(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_round = Coordinator.run_round
    found: list[RequestOutcome] = []

    def act_meanwhile(*arguments: Any, **options: Any) -> Any:
        model = run_round(*arguments, **options)
        if not found:
            living = load_run(tmp_path / "run")
            found.append(consent(living, FRIEND))
            found.append(actions.withdraw(living, FRIEND, consent=None, wait=now))
            found.append(actions.erase(living, "user:u01", wait=now))
        return model

    monkeypatch.setattr(Coordinator, "run_round", act_meanwhile)
    result = train(configure("privacy.mode=local", "privacy.epsilon=8"), tmp_path / "run")

    run = load_run(tmp_path / "run")
    assert [each.under_way for each in found] == [True] * 3
    assert [each.entry for each in found] == [None] * 3
    authors = [entry.record.author for entry in entries(run, "update")]
    participants = {name: find_person(run, name).number for name in (PERSON, FRIEND, "user:u01")}
    assert [authors.count(participants[name]) for name in (PERSON, FRIEND, "user:u01")] == [2, 1, 1]
    assert len(entries(run, "consent")) == 1
    assert len(entries(run, "erasure")) == 2
    assert erased(run, "user:u01").models == (1,)
    assert verify_ledger(run.ledger_folder, key=result.verifier_key).ok


@pytest.mark.parametrize("simulated", ["true", "false"])
def test_a_private_run_goes_on_within_its_promise_when_people_leave(
    tmp_path: Path,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    simulated: str,
    replaying_witness: list[str],
) -> None:
    """The others add the noise of those who have left: none is asked for more than was agreed, or pays more.

    One of the eight may collude, whose noise never counts.
    """
    run_round = Coordinator.run_round
    n_rounds = 0

    def leave_meanwhile(*arguments: Any, **options: Any) -> Any:
        nonlocal n_rounds
        model = run_round(*arguments, **options)
        if n_rounds == 0:
            actions.withdraw(load_run(tmp_path / "run"), FRIEND, consent=None, wait=now)
            actions.erase(load_run(tmp_path / "run"), PERSON, wait=now)
        n_rounds += 1
        return model

    monkeypatch.setattr(Coordinator, "run_round", leave_meanwhile)
    mode = ["privacy.mode=distributed", "privacy.epsilon=16", f"run.simulated={simulated}", "federation.min_cohort=5"]
    data = resolve(
        None,
        [f"data.source={configure().data.source}", "data.rating_min=1", "data.rating_max=5", *mode, *replaying_witness],
        environment={},
    )
    train(data, tmp_path / "run")

    run = load_run(tmp_path / "run")
    rounds = [record for entry in entries(run, "round") if isinstance(record := entry.record, Round)]
    assert [each.mechanism.parameters["honest"] for each in rounds] == [7, *[5] * (n_rounds - 1)]
    assert n_rounds > 1
    assert trace_participant(run, "user:u00").rho == pytest.approx(sum(each.spend_nano for each in rounds) / 10**9)
    spent = privacy_report(run).epsilon_pld
    assert spent is not None
    assert spent <= 16
    assert verify_ledger(run.ledger_folder).ok


@pytest.mark.parametrize("recipients", ["peers", "pool"])
def test_a_run_that_learns_from_copies_goes_on_without_those_of_who_was_forgotten(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, recipients: str
) -> None:
    run_round = Coordinator.run_round
    senders: list[int] = []

    def forget_the_first_sender(*arguments: Any, **options: Any) -> Any:
        model = run_round(*arguments, **options)
        if not senders:
            run = load_run(tmp_path / "run")
            senders.append(entries(run, "share")[0].record.author)
            actions.erase(run, str(senders[0]))
        return model

    monkeypatch.setattr(Coordinator, "run_round", forget_the_first_sender)
    sharing = ["sharing.user_fraction=0.5", f"sharing.recipients={recipients}", "sharing.n_recipients=3"]
    train(configure("run.simulated=true", "federation.rounds=3", *sharing), tmp_path / "run")

    run, (sender,) = load_run(tmp_path / "run"), senders
    done = erased(run, str(sender))
    n_models = len(entries(run, "model"))
    assert done.notified == done.confirmed
    assert (done.notified == (2,)) == (recipients == "pool")
    assert done.models == ((1,) if recipients == "peers" else (1, 2))
    assert n_models > 2
    with DeviceStore(run.devices_folder) as devices:
        assert {copy.sender for _, _, copy in devices.sharing_rows(ReceivedCopy)}.isdisjoint({sender})
    with PoolStore(run.home / "pool") as pool, closing(run.open_ledger()) as ledger:
        usable = [hash for hash, share in ledger.state.usable_shares() if share.record.recipient == 2]
        assert sender not in {copy.sender for copy in pool.copies(usable)}
    assert verify_ledger(run.ledger_folder).ok


def test_acts_wait_for_an_answer_on_its_way_and_leaving_does_not(
    tmp_path: Path, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(run, FRIEND)
    with monkeypatch.context() as patched:
        crash_at(patched, [(DeviceStore, "put_answers")], 1, before=False)
        with pytest.raises(Crash):
            train(configure(), tmp_path / "second", ledger=run.home)

    waiting = [consent(run, "pool"), actions.share(run, PERSON, recipient=FRIEND, consent=None, wait=now)]
    left = actions.withdraw(run, "user:u00", consent=None, wait=now)

    assert [each.under_way for each in waiting] == [True, True]
    assert not left.under_way
    assert [len(entries(run, kind)) for kind in ("consent", "share")] == [1, 0]
    train(configure(), tmp_path / "second", ledger=run.home)
    assert [len(entries(run, kind)) for kind in ("consent", "share", "receipt")] == [2, 1, 1]
    assert verify_ledger(run.ledger_folder).ok


@contextmanager
def owning(run: Run) -> Iterator[FederationSession]:
    """Another process that owns the ledger, as a training does."""
    with open_run_federation(run) as standing:
        yield standing


def test_a_command_waits_until_the_owner_has_carried_out_its_wish(run: Run) -> None:
    with owning(run) as standing:
        looked = 0

        def wait() -> bool:
            nonlocal looked
            looked += 1
            request_processor(standing, run.dataset).process_pending()
            return True

        found = actions.withdraw(run, PERSON, consent=None, wait=wait)

    assert looked == 1
    assert decode_entry_at(run, found.entry).record.kind == "withdrawal"
    assert not found.under_way


def test_a_command_carries_out_its_wish_itself_once_the_owner_has_gone(run: Run) -> None:
    owner = owning(run)
    owner.__enter__()

    def wait() -> bool:
        owner.__exit__(None, None, None)
        return True

    found = actions.withdraw(run, PERSON, consent=None, wait=wait)

    assert decode_entry_at(run, found.entry).record.kind == "withdrawal"


def test_a_wish_that_is_refused_later_is_told_when_it_is_asked_for(run: Run) -> None:
    def wait() -> bool:
        request_processor(standing, run.dataset).process_pending()
        return True

    with owning(run) as standing, pytest.raises(FederationError, match="no consent of participant"):
        actions.withdraw(run, PERSON, consent=1, wait=wait)


def test_a_request_that_failed_is_not_carried_out_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where nobody owns the ledger, nor beside an owner who has gone in the meantime."""

    def failing(*_: object) -> None:
        raise LiberateError("no coordinator")

    def queue() -> list[QueuedRequest]:
        with DeviceStore(run.devices_folder) as devices:
            return devices.requests()

    with monkeypatch.context() as patched:
        patched.setattr(request_submission, "request_processor", failing)
        with pytest.raises(LiberateError, match="no coordinator"):
            actions.withdraw(run, PERSON, consent=None, wait=now)
        assert queue() == []

        owner = owning(run)
        owner.__enter__()

        def wait() -> bool:
            assert len(queue()) == 1
            owner.__exit__(None, None, None)
            return True

        with pytest.raises(LiberateError, match="no coordinator"):
            actions.withdraw(run, PERSON, consent=None, wait=wait)
        assert queue() == []

    consent(run, FRIEND)
    assert [len(entries(run, kind)) for kind in ("consent", "withdrawal")] == [1, 0]


DURABLE_STEPS = (
    (DeviceStore, "put_request"),
    (DeviceStore, "reserve_sequence"),
    (DeviceStore, "put_pending_entries"),
    (SqliteLedger, "_commit"),
    (DeviceStore, "settle_pending_entries"),
    (PoolStore, "put"),
    (DeviceStore, "close_request"),
)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("to", [FRIEND, "pool"])
def test_broken_off_acts_are_ended_by_the_next_owner_and_done_once(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, to: str, *, before: bool
) -> None:
    """Whatever the step: the next command finds the consent, the share and the receipt once each, or not begun.

    So it is when the person signs something else before the next request is carried out.
    """
    consent(run, FRIEND, "pool")
    shutil.copytree(run.folder, tmp_path / "as-it-was")
    for at in range(1, 10):
        shutil.rmtree(run.folder)
        shutil.copytree(tmp_path / "as-it-was", run.folder)
        with monkeypatch.context() as patched:
            crash_at(patched, DURABLE_STEPS, at, before=before)
            try:
                actions.share(run, PERSON, recipient=to, consent=None, wait=now)
            except Crash:
                is_broken_off = True
            else:
                is_broken_off = False
        is_wanted = not (at == 1 and before)

        change_key(run, PERSON, "rotation", "person")
        change_key(run, FRIEND, "rotation", "person")
        actions.withdraw(run, "user:u00", consent=None, wait=now)

        assert [len(entries(run, kind)) for kind in ("consent", "share", "receipt")] == [1, is_wanted, is_wanted], at
        with DeviceStore(run.devices_folder) as devices:
            assert devices.requests() == []
            assert devices.pending_entries() == []
        assert acts_on_devices(run) == acts_on_the_ledger(run), at
        if not is_broken_off:
            break
    assert at > 6
    assert verify_ledger(run.ledger_folder).ok


# --- being forgotten -------------------------------------------------------------------------------------------------


def test_who_is_forgotten_is_named_by_number_and_nothing_else_is_left(run: Run) -> None:
    granted = consent(run, FRIEND, "pool", "user:u06")
    for to in (FRIEND, "pool", "user:u06"):
        actions.share(run, PERSON, recipient=to, consent=granted.entry, wait=now)
    actions.erase(run, "user:u06", wait=now)

    found = erased(run)

    me, friend, silent = (find_person(run, name).number for name in (PERSON, FRIEND, "user:u06"))
    assert found.notified == (2, friend, silent)
    assert found.confirmed == (2, friend)
    assert found.silent == (silent,)
    assert found.models == (1, 2)
    assert found.destroyed == ("device", "pool", "uploads")
    assert received(run, FRIEND) == []
    assert actions.erase(run, PERSON, wait=now) == found, "asked again, it is told again"
    traced = trace_participant(run, PERSON)
    assert len(traced.erasures) == 2
    kinds = [entry.kind for entry in traced.entries]
    assert kinds[-3:] == ["withdrawal", "erasure", "erasure"]
    assert [found.user_id, traced.user_id] == [None, None]
    assert not any(entry.user_id == "u03" for entry in read_entries(run, kind=None, author=None, limit=1000))
    assert find_person(run, PERSON).number == me, "the id still tells whom it was"
    assert verify_ledger(run.ledger_folder).ok
    with pytest.raises(LiberateError, match="was erased"):
        actions.withdraw(run, PERSON, consent=None, wait=now)
    with pytest.raises(LiberateError, match="was erased"):
        recommend(run, str(me))


def test_nobody_else_has_somebodys_copies_destroyed(run: Run) -> None:
    consent(run, FRIEND)
    actions.share(run, PERSON, recipient=FRIEND, consent=None)
    me, stranger = find_person(run, PERSON).number, SigningKey.from_seed(bytes(32))
    with closing(run.open_ledger()) as ledger, DeviceStore(run.devices_folder) as devices:
        device = devices.find(number=find_person(run, FRIEND).number)
        assert device is not None
        own_key = ledger.state.principals[me].key
        forged = Erasure(origin=ledger.origin, author=me, seq=99, number=me, report=None)
        other = Withdrawal(origin=ledger.origin, author=me, seq=99, consent=None)
        for record in (forged, other):
            with pytest.raises(LiberateError):
                answer_request(devices, device, decode_entry(sign(record, stranger)), own_key)

    assert len(received(run, FRIEND)) == 1


def test_recipients_take_a_request_for_signed_whose_key_was_replaced_since(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(run, FRIEND)
    actions.share(run, PERSON, recipient=FRIEND, consent=None, wait=now)
    with monkeypatch.context() as patched:
        crash_at(patched, [(DeviceStore, "erase")], 1, before=True)
        with pytest.raises(Crash):
            actions.erase(run, PERSON, wait=now)
    change_key(run, PERSON, "recovery", "person")

    done = erased(run)

    assert done.confirmed == (find_person(run, FRIEND).number,)
    assert received(run, FRIEND) == []


def test_every_reader_copes_with_somebody_who_was_forgotten(tmp_path: Path, configure: Configure) -> None:
    train(configure("run.simulated=true"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    actions.erase(run, PERSON, wait=now)

    again = load_run(run.folder)
    found = evaluate_run(again)
    assert found.metrics.rmse > 0
    has_list = (found.top[:, 0] >= 0).tolist()
    assert [name for name, has in zip(again.dataset().user_ids, has_list, strict=True) if not has] == ["u03"]
    assert privacy_report(again).mode == "plain"
    assert len(recommend(again, FRIEND, 3)[1]) > 0
    with pytest.raises(LiberateError, match="was erased"):
        change_key(again, PERSON, "rotation", "person")
    for mode in (["privacy.mode=device"], [], ["privacy.mode=local", "privacy.epsilon=8"]):
        out = tmp_path / f"further-{len(list(tmp_path.iterdir()))}"
        train(configure("run.simulated=true", *mode), out, ledger=run.home)
        further = load_run(out)
        split = further.split(further.dataset())
        user = further.dataset().user_ids.index("u03")
        assert len(split.train.user_bytes(user)) == len(split.test.user_bytes(user)) == 4, "the data set has ratings"
        assert evaluate_run(further).metrics.rmse == pytest.approx(further.result.rmse)
        with DeviceStore(run.devices_folder) as devices:
            (device,) = [device for device in devices.devices() if device.user_id == "u03"]
        assert device.is_erased
    assert verify_ledger(run.ledger_folder).ok


ERASING_STEPS = (
    (DeviceStore, "put_request"),
    (SqliteLedger, "_commit"),
    (DeviceStore, "erase"),
    (PoolStore, "erase_sender"),
    (DeviceStore, "delete_sharing_rows"),
)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("is_training", [False, True], ids=["act", "train"])
def test_broken_off_erasure_is_ended_by_the_next_owner(
    tmp_path: Path,
    run: Run,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: bool,
    is_training: bool,
) -> None:
    granted = consent(run, FRIEND, "pool")
    for to in (FRIEND, "pool"):
        actions.share(run, PERSON, recipient=to, consent=granted.entry, wait=now)
    consent(run, "pool", sender=FRIEND)
    actions.share(run, FRIEND, recipient="pool", consent=None, wait=now)
    shutil.copytree(run.folder, tmp_path / "as-it-was")
    done: RequestOutcome | None = None
    for at in range(1, 20):
        shutil.rmtree(run.folder)
        shutil.copytree(tmp_path / "as-it-was", run.folder)
        with monkeypatch.context() as patched:
            crash_at(patched, ERASING_STEPS, at, before=before)
            with suppress(Crash):
                done = erased(run)
        is_wanted = not (at == 1 and before)
        if is_training:
            shutil.rmtree(tmp_path / "further", ignore_errors=True)
            train(configure(), tmp_path / "further", ledger=run.home)
        else:
            actions.withdraw(run, "user:u00", consent=None, wait=now)

        assert len(entries(run, "erasure")) == 2 * is_wanted, at
        with DeviceStore(run.devices_folder) as devices:
            assert [device.user_id for device in devices.devices() if device.is_erased] == ["u03"] * is_wanted
        assert acts_on_devices(run) == acts_on_the_ledger(run), at
        if is_wanted:
            told = erased(run)
            assert told.confirmed == told.notified
            assert received(run, FRIEND) == []
        if done is not None:
            break
    assert at > 6
    assert verify_ledger(run.ledger_folder).ok


def test_erasure_waits_for_the_end_of_an_open_round(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others count on what a device may be asked for; the withdrawal does not wait."""
    settings = configure()
    with monkeypatch.context() as patched:
        crash_at(patched, [(Coordinator, "_close")], 1, before=True)
        with pytest.raises(Crash):
            train(settings, tmp_path / "run")
    run = load_run(tmp_path / "run")

    found = actions.erase(run, PERSON, wait=now)

    assert found.under_way
    assert len(entries(run, "withdrawal")) == 1
    assert entries(run, "erasure") == []
    train(settings, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert erased(run).models == (), "a round that goes on does not ask who has withdrawn"
    assert verify_ledger(run.ledger_folder).ok


@pytest.mark.parametrize("simulated", ["true", "false"])
def test_nothing_that_is_stored_opens_the_commitments_of_somebody_who_was_forgotten(
    tmp_path: Path, configure: Configure, simulated: str
) -> None:
    """Every 32 bytes that lie anywhere are tried as salt, with all that was ever committed to; and as a secret."""
    settings = configure("ledger.keep_uploads=true", "federation.rounds=1", f"run.simulated={simulated}")
    train(settings, tmp_path / "run")
    run = load_run(tmp_path / "run")
    granted = consent(run, FRIEND, "pool", purpose="films")
    for to in (FRIEND, "pool"):
        actions.share(run, PERSON, recipient=to, consent=granted.entry, wait=now)
    me = find_person(run, PERSON).number
    wanted = {
        commitment
        for kind in ("dataset", "update", "consent", "share")
        for entry in entries(run, kind)
        if entry.record.author == me
        for commitment in _commitments(entry.record)
    }
    known, secrets = _held(run, me)
    assert len(_opened(secrets, known, wanted)) >= 6, "the search finds what there is"

    actions.erase(run, PERSON, wait=now)

    stored = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    windows = {data[i : i + 32] for data in stored.values() for i in range(len(data) - 31)}
    assert not _opened(windows, known, wanted)
    assert not secrets & windows
    for plain in known:
        assert not any(plain in data for data in stored.values())


def _held(run: Run, number: int) -> tuple[list[bytes], set[bytes]]:
    """Return what somebody has committed to, and all secrets of the device and of who was sent something."""
    with DeviceStore(run.devices_folder) as devices, UploadStore(run.uploads_folder) as uploads:
        device = devices.find(number=number)
        assert device is not None
        slot, holding = device.slot, devices.data_of(device.slot)
        sent = devices.outbox_message(slot, device.last_round)
        assert sent is not None
        upload = next(each for each in uploads.of_round(device.last_round) if each.number == number)
        copies = [copy for _, _, copy in devices.sharing_rows(ReceivedCopy) if copy.sender == number]
        bases = [base for _, _, base in devices.sharing_rows(BaseCopy, slot)]
        grants = [granted for _, _, granted in devices.sharing_rows(GivenConsent, slot)]
        given = [each for _, _, each in devices.sharing_rows(GivenCopy, slot)]
    known = [
        holding.ratings,
        upload.upload,
        *(each.copy for each in copies),
        *(each.ratings for each in bases),
        *(each.scope for each in grants),
    ]
    secrets = [
        holding.person_seed,
        holding.device_seed,
        holding.dataset_salt,
        sent.noise_key,
        sent.upload_salt,
        sent.profile_salt,
    ]
    secrets += [copy.salt for copy in copies] + [each.salt for each in grants] + [each.salt for each in given]
    secrets += [secret for base in bases for secret in (base.key, base.salt)]
    return known, {*secrets, upload.salt}


def _commitments(record: object) -> list[bytes]:
    match record:
        case DatasetRecord():
            return [record.commitment]
        case Update():
            return [record.commitment, record.profile]
        case Consent():
            return [record.terms]
        case Share():
            return [record.base, record.copy]
        case _:
            return []


def _opened(salts: set[bytes], known: list[bytes], wanted: set[bytes]) -> list[bytes]:
    return [salt for salt in salts for each in known if sha256(salt + each).digest() in wanted]

"""Rows that leaked name their source, after the ledger has said that it is looked up; nobody else is accused."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import verify_signature
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.errors import DataError, FederationError, LedgerLocked, LiberateError, NoQuorum
from liberate.federation.sharing.copies import fingerprinted_copy
from liberate.federation.sharing.handover import HandedOverCopy, handed_over_copies
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import BaseCopy
from liberate.ledger.format.entries import decode_entry, signed_bytes
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.sharing_records import Disclosure, Share
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.checkpoints import Publisher
from liberate.ledger.verification.verify import verify_ledger
from liberate.privacy.fingerprinting import score_recipient
from liberate.runs import actions
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, load_run
from liberate.tracing.leak import attribution
from liberate.tracing.leak.attribution import BaseCopyIndex, LeakedRows, match, rank_candidates, read_leak
from liberate.tracing.leak.lookup import trace_leak
from liberate.tracing.traces import trace_participant, trace_recipient, trace_share
from tests.runs.sharing import N_ITEMS, RATINGS, SENDERS, copies_of, leaky_run, rows_of, sharing_run, write_leak
from tests.tracing.asking import asked
from tests.worlds import find_person


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return leaky_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(founded: Run, tmp_path: Path) -> Run:
    shutil.copytree(founded.folder, tmp_path / "run")
    return load_run(tmp_path / "run")


def leak_of(
    run: Run, path: Path, recipient: int, *, senders: Sequence[int] = SENDERS, n: int = 80, name: str = "u"
) -> Path:
    """Write rows of somebody's copies, of each sender as many; users are called by name and number."""
    copies = copies_of(run)
    return write_leak(path, [row for g in senders for row in rows_of(copies[g, recipient].copy, f"{name}{g}", n)])


def accused(found: dict[str, Any]) -> list[str]:
    return [each["user_id"] for each in found["candidates"] if each["accused"]]


def disclosures(run: Run) -> list[tuple[int, list[int]]]:
    """Position of each disclosure, and whom it names."""
    with closing(run.open_ledger()) as ledger:
        records = [(at, decode_entry(ledger.entry(at)).record) for at in ledger.positions(kind="disclosure")]
    return [(at, list(numbers_in(record.participants))) for at, record in records if isinstance(record, Disclosure)]


def number(run: Run, user: int) -> int:
    return find_person(run, f"user:u{user}").number


def test_the_source_of_a_leak_is_named_and_nobody_else(run: Run, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    found = asked(trace_leak, run, leak_of(run, tmp_path / "leak.csv", 4), announce=lambda at, n: told.append((at, n)))

    assert accused(found) == ["u4"]
    first, *others = found["candidates"]
    assert first["bound"] <= 0.001
    assert first["log10_likelihood"] > 3
    assert sorted(each["user_id"] for each in others) == ["u3", "u5", "u6"]
    assert all(each["bound"] > 0.01 and each["evidence"] == [] for each in others)
    assert found["leak"] | {"sha256": ""} == {"sha256": "", "rows": 240, "users": 3, "matched": 240}
    assert sorted((each["user_id"], each["rows"]) for each in found["owners"]) == [("u0", 80), ("u1", 80), ("u2", 80)]
    assert told == [(each["position"], 3) for each in found["disclosures"]]
    json.dumps(found)


def test_a_disclosure_by_an_auditor_stands_on_the_ledger_before_the_answer(run: Run, tmp_path: Path) -> None:
    seen: list[list[tuple[int, list[int]]]] = []

    found = asked(
        trace_leak, run, leak_of(run, tmp_path / "leak.csv", 4), announce=lambda at, n: seen.append(disclosures(run))
    )

    (entry,) = disclosures(run)
    assert seen == [[entry]]
    (told,) = found["disclosures"]
    assert entry == (told["position"], sorted(number(run, user) for user in SENDERS))
    with closing(run.open_ledger()) as ledger:
        record = decode_entry(ledger.entry(entry[0])).record
        assert isinstance(record, Disclosure)
        assert ledger.state.principals[record.author].role == "auditor"
        assert record.reason == salted_commitment(b64decode(told["salt"]), told["reason"].encode())
    assert found["leak"]["sha256"] in told["reason"]
    assert (run.folder / "keys" / "auditor.key").stat().st_mode & 0o777 == 0o600
    assert verify_ledger(run.ledger_folder, key=run.verifier_key).ok


def test_nothing_is_opened_before_the_witnesses_have_seen_the_disclosure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 4)

    def refuse(publisher: Publisher) -> str:
        raise NoQuorum("no witness answers")

    monkeypatch.setattr(Publisher, "publish", refuse)
    monkeypatch.setattr("liberate.tracing.leak.lookup.handed_over_copies", lambda *_: pytest.fail("copies were opened"))
    with pytest.raises(NoQuorum):
        asked(trace_leak, run, leak)
    assert len(disclosures(run)) == 1


def test_a_second_look_is_a_second_entry_of_the_same_auditor(run: Run, tmp_path: Path) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 5)

    first, second = asked(trace_leak, run, leak), asked(trace_leak, run, leak)

    assert len(disclosures(run)) == 2
    assert first["disclosures"][0]["salt"] != second["disclosures"][0]["salt"]
    with closing(run.open_ledger()) as ledger:
        assert [principal.role for principal in ledger.state.principals].count("auditor") == 1


def test_ids_that_were_changed_or_swapped_hide_nobody(run: Run, tmp_path: Path) -> None:
    """Unknown ids, and those of people who share but whose rows these are not: everybody is looked at, and said so."""
    strange = leak_of(run, tmp_path / "strange.csv", 6, senders=(0, 1), name="somebody ")
    rows = leak_of(run, tmp_path / "swapped.csv", 6, senders=(0, 1)).read_text("utf-8")
    swapped = tmp_path / "swapped.csv"
    swapped.write_text(rows.replace("u0,", "x,").replace("u1,", "u0,").replace("x,", "u1,"), "utf-8")
    everybody = sorted(number(run, user) for user in SENDERS)

    found = [asked(trace_leak, run, leak) for leak in (strange, swapped)]

    assert [accused(each) for each in found] == [["u6"], ["u6"]]
    assert [each["leak"]["matched"] for each in found] == [160, 160]
    named = [[one["participants"] for one in each["disclosures"]] for each in found]
    assert named == [[everybody], [everybody[:2], everybody[2:]]]


def test_only_those_whom_the_rows_name_are_looked_up(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 3, senders=(1,), n=200)
    opened: list[int | None] = []

    def opening(devices: DeviceStore, slot: int | None = None) -> Iterator[HandedOverCopy]:
        opened.append(slot)
        return handed_over_copies(devices, slot)

    monkeypatch.setattr("liberate.tracing.leak.lookup.handed_over_copies", opening)

    found = asked(trace_leak, run, leak)

    assert opened == [1], "the device of u1"

    assert [each["participants"] for each in found["disclosures"]] == [[number(run, 1)]]
    assert accused(found) == ["u3"]
    assert {sender for each in found["candidates"] for sender in each["senders"]} == {number(run, 1)}


def test_altered_mixed_and_padded_rows_still_name_a_source(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    copies = copies_of(run)
    rows = [row for sender in SENDERS for row in rows_of(copies[sender, 5].copy, f"u{sender}", 200)]
    altered = [row if rng.random() > 0.3 else row[:-1] + str(rng.integers(1, 6)) for row in rows]
    mixed = [
        row
        for sender in SENDERS
        for pair in zip(*(rows_of(copies[sender, r].copy, f"u{sender}", 200) for r in (3, 4)), strict=True)
        for row in [pair[int(rng.integers(2))]]
    ]
    padding = [f"u0,no such item {i},3" for i in range(50)] + ["u7,i3,5", "nobody,i5,1"]

    assert accused(asked(trace_leak, run, write_leak(tmp_path / "altered.csv", altered + padding + altered[:40]))) == [
        "u5"
    ]
    found = accused(asked(trace_leak, run, write_leak(tmp_path / "mixed.csv", mixed)))
    assert found
    assert set(found) <= {"u3", "u4"}


def test_raw_ratings_and_base_copies_accuse_nobody(run: Run, tmp_path: Path) -> None:
    copies = copies_of(run)
    raw = [row for sender in SENDERS for row in rows_of(RATINGS.user_bytes(sender), f"u{sender}", 300)]
    base = [row for sender in SENDERS for row in rows_of(copies[sender, 3].base.ratings, f"u{sender}", 300)]

    for name, rows in (("raw", raw), ("base", base)):
        assert accused(asked(trace_leak, run, write_leak(tmp_path / f"{name}.csv", rows))) == []


def test_copies_of_others_accuse_nobody(run: Run) -> None:
    """200 leaks, each of all rows of copies that somebody who is no candidate might have got of the same senders."""
    copies = list(copies_of(run).values())
    held = {each.share.base: each.base for each in copies}
    bases = BaseCopyIndex(list(held.values()), N_ITEMS)
    named = []
    for outsider in range(1000, 1200):
        rows = [Ratings.from_user_bytes([fingerprinted_copy(base, outsider)], N_ITEMS) for base in held.values()]
        leak = LeakedRows(
            digest="",
            n_rows=sum(each.n_ratings for each in rows),
            n_items=N_ITEMS,
            user_ids=("a", "b", "c"),
            users=np.repeat(np.arange(3, dtype=np.int32), [each.n_ratings for each in rows]),
            items=np.concatenate([each.items for each in rows]),
            values=np.concatenate([each.values for each in rows]).astype(np.float64),
        )
        chosen = [int(bases.near(leak, user).argmax()) for user in range(3)]
        assert chosen == [0, 1, 2], "each copy fits its own base copy best"
        named += [each for each in rank_candidates(match(leak, bases, chosen), copies) if each.is_accused]

    assert named == []


def test_perturbed_copies_name_their_source(tmp_path: Path) -> None:
    run = leaky_run(tmp_path / "run", epsilon=2.0)

    found = asked(trace_leak, run, leak_of(run, tmp_path / "leak.csv", 4, n=200))

    assert accused(found) == ["u4"]
    assert [each["epsilon"] for each in found["owners"]] == [2.0] * 3


def test_who_holds_the_same_rows_is_named(run: Run, tmp_path: Path) -> None:
    """One row that nobody's mark has changed lies in every copy."""
    copies = [copies_of(run)[0, recipient].copy for recipient in (3, 4, 5, 6)]
    held = [Ratings.from_user_bytes([copy], N_ITEMS) for copy in copies]
    same = np.flatnonzero(np.ptp(np.stack([each.values for each in held]), axis=0) == 0)[0]
    row = f"u0,i{held[0].items[same]},{held[0].values[same]:g}"

    found = asked(trace_leak, run, write_leak(tmp_path / "leak.csv", [row]))

    assert accused(found) == []
    everybody = {each["number"] for each in found["candidates"]}
    assert len(everybody) == 4
    assert all({each["number"], *each["also_held_by"]} == everybody for each in found["candidates"])


def test_evidence_is_checked_offline_with_the_logs_key_alone(run: Run, tmp_path: Path) -> None:
    """The share entries stand under the signed tree, their commitments open, and the copies give the same verdict."""
    path = leak_of(run, tmp_path / "leak.csv", 4)

    found = json.loads(json.dumps(asked(trace_leak, run, path)))

    users = {f"u{user}": number(run, user) for user in SENDERS}
    with closing(run.open_ledger()) as ledger:
        keys = {sender: ledger.state.principals[sender].key for sender in users.values()}
    checkpoint = verify_checkpoint(found["checkpoint"], run.verifier_key)
    evidence = found["candidates"][0]["evidence"]
    assert len(evidence) == len(SENDERS)
    leak = read_leak(path, [f"i{item}" for item in range(N_ITEMS)])
    levels: dict[str, list[int]] = {"leaked": [], "base": [], "copy": []}
    for each in evidence:
        data = b64decode(each["entry"])
        entry = decode_entry(data)
        proof = tuple(map(b64decode, each["proof"]))
        verify_inclusion(leaf_hash(data), each["position"], checkpoint.size, proof, checkpoint.root)
        verify_signature(keys[each["sender"]], signed_bytes(entry.body), entry.signature)
        assert isinstance(entry.record, Share)
        assert entry.record.recipient == found["candidates"][0]["number"]
        assert salted_commitment(b64decode(each["salt"]), b64decode(each["copy"])) == entry.record.copy
        assert salted_commitment(b64decode(each["base_salt"]), b64decode(each["base"])) == entry.record.base
        assert each["receipt"]["kind"] == "receipt"
        scale = RatingScale(low=each["scale"]["low"], step=each["scale"]["step"], n_levels=each["scale"]["levels"])
        mine = leak.users == [users[name] for name in leak.user_ids].index(each["sender"])
        for name in ("base", "copy"):
            own = Ratings.from_user_bytes([b64decode(each[name])], N_ITEMS)
            levels[name] += scale.places(own.values[np.searchsorted(own.items, leak.items[mine])]).tolist()
        levels["leaked"] += scale.places(leak.values[mine].astype(np.float32)).tolist()
    leaked, base, copy = (np.array(each, np.int32) for each in levels.values())
    again = score_recipient(leaked, base, copy[None], 5)
    assert again.log10_likelihood[0] == pytest.approx(found["candidates"][0]["log10_likelihood"])
    assert again.bound[0] * len(found["candidates"]) == pytest.approx(found["candidates"][0]["bound"])


def test_copies_that_do_not_open_their_commitments_are_left_out_and_named(run: Run, tmp_path: Path) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 4)
    with DeviceStore(run.devices_folder) as devices:
        slot, _, base = next(devices.sharing_rows(BaseCopy))
        devices.put_pending_entries([], [(slot, msgspec.structs.replace(base, key=bytes(32)))])

    found = asked(trace_leak, run, leak)

    assert len(found["unopened"]) == 4
    assert len(found["owners"]) == 2
    assert accused(found) == ["u4"]


def test_the_verdict_does_not_depend_on_how_many_are_weighed_at_a_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak = read_leak(leak_of(run, tmp_path / "leak.csv", 4), [f"i{item}" for item in range(N_ITEMS)])
    copies = list(copies_of(run).values())
    by_sender = {each.sender: each.base for each in copies}
    matched = match(leak, BaseCopyIndex(list(by_sender.values()), N_ITEMS), range(3))

    whole = rank_candidates(matched, copies)
    monkeypatch.setattr(attribution, "_CELLS", 2 * len(matched.items))
    parts = rank_candidates(matched, copies)

    assert [each.number for each in parts] == [each.number for each in whole]
    assert [each.bound for each in parts] == pytest.approx([each.bound for each in whole])


def test_rows_of_a_leak_count_once_for_each_rating(run: Run, tmp_path: Path) -> None:
    """A mark that is counted twice would make an innocent look guilty."""
    rows = rows_of(copies_of(run)[0, 4].copy, "u0", 100)
    twice = [row.replace("u0,", "again,") for row in rows]

    once, found = (
        asked(trace_leak, run, write_leak(tmp_path / "leak.csv", each)) for each in (rows, rows + rows + twice)
    )

    assert found["leak"]["matched"] == once["leak"]["matched"] == 100
    assert found["candidates"][0]["bound"] == pytest.approx(once["candidates"][0]["bound"])


def test_whoever_was_forgotten_is_not_looked_up(run: Run, tmp_path: Path) -> None:
    leak, gone = leak_of(run, tmp_path / "leak.csv", 4), number(run, 1)
    actions.erase(run, "user:u1", wait=lambda: False)

    found = asked(trace_leak, run, leak)

    assert gone not in {person for each in found["disclosures"] for person in each["participants"]}
    assert gone not in {each["number"] for each in found["owners"]}
    assert accused(found) == ["u4"], "from the rows of the others"
    assert number(run, 1) == gone
    assert gone not in {person for _, participants in disclosures(run) for person in participants}


def test_a_leak_is_not_looked_up_beside_a_training(run: Run, tmp_path: Path) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 4)

    with open_run_federation(run), pytest.raises(LedgerLocked):
        asked(trace_leak, run, leak)


def test_all_other_questions_are_answered_beside_a_training(run: Run) -> None:
    person = str(number(run, 0))

    with open_run_federation(run):
        share = asked(trace_participant, run, person)["shares"][0]
        received = asked(trace_recipient, run, str(share["recipient"]))

        assert asked(trace_share, run, share["position"])["shares"] == [share]
        assert len(received["senders"]) == len(SENDERS)


def test_what_cannot_be_looked_up_leaves_no_disclosure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("user,item,rating\nu0,i1,many\n", "utf-8")
    with pytest.raises(DataError, match="is not a number"):
        asked(trace_leak, run, tmp_path / "bad.csv")
    with pytest.raises(DataError, match="no row is of an item of this run"):
        asked(trace_leak, run, write_leak(tmp_path / "foreign.csv", ["u0,of-another-world,3"]))

    assert disclosures(run) == []


def test_a_leak_without_users_names_its_source(run: Run, tmp_path: Path) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 4, senders=SENDERS[:1])
    leak.write_text("".join(line.partition(",")[2] for line in leak.read_text("utf-8").splitlines(True)), "utf-8")

    found = asked(trace_leak, run, leak)

    assert accused(found) == ["u4"]
    assert found["leak"] | {"sha256": ""} == {"sha256": "", "rows": 80, "users": 1, "matched": 80}


def test_copies_of_nobody_are_not_looked_up(tmp_path: Path) -> None:
    run = leaky_run(tmp_path / "run", senders=())

    with pytest.raises(LiberateError, match="nobody has handed out copies"):
        asked(trace_leak, run, write_leak(tmp_path / "leak.csv", ["u0,i1,3"]))
    assert disclosures(run) == []


def test_a_ledger_whose_genesis_admits_no_auditor_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak = leak_of(run, tmp_path / "leak.csv", 4)
    opened = SqliteLedger.open

    def without_auditors(*arguments: Any) -> SqliteLedger:
        ledger = opened(*arguments)
        ledger.state.founding.enrolment_policy.pop("auditor")
        return ledger

    monkeypatch.setattr(SqliteLedger, "open", without_auditors)
    with pytest.raises(FederationError, match="admits no auditor"):
        asked(trace_leak, run, leak)


def test_senders_who_keep_nothing_cannot_open_copies(tmp_path: Path) -> None:
    """The devices of this ledger have no copies, and its shares commit to nothing that exists."""
    run = sharing_run(tmp_path / "run")

    with pytest.raises(LiberateError, match="no sender keeps the salts"):
        asked(trace_leak, run, write_leak(tmp_path / "leak.csv", ["u3,i1,3"]))

"""Each question about data and models is answered from the ledger, with what proves it."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from liberate.crypto.merkle import verify_inclusion
from liberate.crypto.note import verifier_key, verify_checkpoint
from liberate.errors import InvalidRecord, LedgerError, LiberateError
from liberate.ledger.trace.completeness import Completeness, verify_completeness
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.settings import resolve
from liberate.tracing.model_trace import trace_model
from liberate.tracing.traces import trace_participant, trace_recipient, trace_share
from tests.ledger.world import COORDINATOR, HOST, LOG_VKEY, ORIGIN, World, key, reopen
from tests.runs.sharing import sharing_run
from tests.tracing.asking import asked
from tests.worlds import low_rank_ratings, write_csv


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sharing_run(tmp_path_factory.mktemp("run"))


def numbers(found: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(each[name] for name in names) for each in found]


def shares(run: Run, sender: int) -> dict[int, int]:
    """Positions of somebody's shares by recipient."""
    return {each["recipient"]: each["position"] for each in asked(trace_participant, run, str(sender))["shares"]}


def assert_proved(found: dict[str, Any], *entries: dict[str, Any]) -> None:
    """Check proofs with nothing but the answer and the log's key."""
    checkpoint = verify_checkpoint(found["checkpoint"], LOG_VKEY)
    for each in entries:
        proof = [b64decode(step) for step in each["proof"]]
        leaf = b64decode(each["leaf_hash"])
        verify_inclusion(leaf, each["position"], checkpoint.size, proof, checkpoint.root)  # type: ignore[arg-type]  # digests


def assert_complete(found: dict[str, Any], number: int) -> None:
    """Check the proof of completeness with nothing but the answer and the log's key."""
    proof = found["completeness"]
    verify_completeness(
        Completeness(
            number=number,
            checkpoint=found["checkpoint"],
            entries=tuple(map(b64decode, proof["entries"])),
            block=b64decode(proof["block"]),
            block_proof=tuple(map(b64decode, proof["block_proof"])),  # type: ignore[arg-type]  # digests
            principal_count=proof["principal_count"],
            state_proof=tuple(map(b64decode, proof["state_proof"])),  # type: ignore[arg-type]  # digests
        ),
        LOG_VKEY,
    )


def test_a_person_sees_copies_recipients_uses_and_models(run: Run) -> None:
    """4 and 5 and the pool used 3's copies for model 1; 3 answered for both models, and received a copy of 5."""
    found = asked(trace_participant, run, "user:u3")

    assert numbers(found["shares"], "recipient", "epsilon", "is_active") == [
        (4, 2, False),
        (5, 2, False),
        (2, 2, False),
    ]
    assert numbers(found["recipients"], "number", "role", "user_id", "accepted", "models") == [
        (2, "coordinator", None, 1, [1]),
        (4, "participant", "u4", 1, [1]),
        (5, "participant", "u5", 1, [1]),
    ]
    assert numbers(found["uses"], "by", "kind", "round", "version") == [
        (2, "pool", 1, 1),
        (4, "update", 1, 1),
        (5, "update", 1, 1),
    ]
    assert numbers(found["models"], "version", "directly", "through") == [(1, True, [2, 4, 5]), (2, True, [])]
    assert numbers(found["received"], "sender", "recipient", "epsilon") == [(5, 3, None)]
    assert [base["epsilon"] for base in found["bases"]] == [2]
    assert found["spent"] == [], "answers that use copies are open"
    assert found["complete"] is True
    json.dumps(found)


def test_a_model_that_only_recipients_made_is_not_direct(run: Run) -> None:
    found = asked(trace_participant, run, "5")

    assert numbers(found["models"], "version", "directly", "through") == [(1, True, [3]), (2, True, [3])]
    assert numbers(asked(trace_participant, run, "4")["models"], "directly", "through") == [(True, [2]), (True, [2])]


def test_what_was_used_after_leaving_is_told(run: Run) -> None:
    four, three = asked(trace_participant, run, "4"), asked(trace_participant, run, "3")

    assert numbers(four["used_after_withdrawal"], "kind", "round", "version") == [("update", 2, 2), ("pool", 2, 2)]
    assert all(each["position"] < four["withdrawal"] for each in four["used_after_withdrawal"])
    assert numbers(four["erasures"], "destroyed", "notified", "confirmed", "models") == [
        (None, None, None, None),
        (["salts", "sealed_ratings"], [2, 3], [2], [1, 2]),
    ]
    assert (three["withdrawal"], three["used_after_withdrawal"]) == (None, [])
    assert [len(each["disclosures"]) for each in (three, four)] == [1, 1]


def test_all_entries_of_a_person_are_proved_to_whoever_has_the_key(run: Run) -> None:
    found = asked(trace_participant, run, "3")

    proved = [each for name in ("entries", "updates", "shares", "consents", "uses", "models") for each in found[name]]
    assert len(proved) > 30
    assert_proved(found, *proved)
    assert_complete(found, 3)


def test_a_share_is_followed_to_its_recipient_and_models(run: Run) -> None:
    to_four, to_five, to_pool = (shares(run, 3)[number] for number in (4, 5, COORDINATOR))

    found = asked(trace_share, run, to_four)

    assert (found["sender"]["number"], found["sender"]["user_id"]) == (3, "u3")
    assert numbers(found["shares"], "position", "recipient") == [(to_four, 4)]
    assert numbers(found["recipients"], "number", "accepted", "models") == [(4, 1, [1])]
    assert numbers(found["uses"], "by", "version") == [(4, 1)]
    assert numbers(found["models"], "version", "directly", "through") == [(1, False, [4])]
    assert numbers(found["descendants"], "version") == [(2,)]
    assert numbers(found["same_base"], "position") == [(to_five,), (to_pool,)]
    assert [each["is_active"] for each in found["consents"]] == [False]
    assert len(found["updates"]) == 1
    assert asked(trace_share, run, to_pool)["updates"] == []
    assert_proved(found, *found["shares"], *found["consents"], found["receipt"], *found["uses"], *found["models"])
    assert_complete(found, 3)


def test_a_share_without_receipt_is_told(tmp_path: Path) -> None:
    run = sharing_run(tmp_path)
    with closing(reopen(run.ledger_folder)) as ledger:
        (position,) = World(ledger).add(World(ledger).share(5, 3))

    found = asked(trace_share, run, position)

    assert (found["receipt"], found["uses"], found["models"]) == (None, [], [])
    assert found["recipients"][0]["accepted"] == 0


def test_what_is_no_share_is_refused(run: Run) -> None:
    with pytest.raises(LiberateError, match="of kind genesis, not of kind share"):
        asked(trace_share, run, 0)
    with pytest.raises(LiberateError, match="beyond the ledger's 73 entries"):
        asked(trace_share, run, 73)


def test_what_somebody_received_is_told_with_the_consents(run: Run) -> None:
    pool, three = asked(trace_recipient, run, str(COORDINATOR)), asked(trace_recipient, run, "user:u3")

    assert (pool["role"], pool["user_id"]) == ("coordinator", None)
    assert numbers(pool["senders"], "number", "user_id") == [(3, "u3"), (4, "u4")]
    assert numbers(pool["shares"], "sender", "recipient") == [(3, COORDINATOR), (4, COORDINATOR)]
    assert numbers(pool["consents"], "author", "is_active") == [(3, False), (4, False)]
    assert numbers(three["shares"], "sender", "epsilon") == [(5, None)]
    assert three["user_id"] == "u3"
    for found in (pool, three):
        assert_proved(found, *found["shares"], *found["consents"])
        assert_complete(found, found["number"])
        assert found["proofs"] > len(found["shares"]) + len(found["consents"])


@pytest.mark.parametrize("name", [str(HOST), "99", "user:nobody"])
def test_who_receives_nothing_is_refused(run: Run, name: str) -> None:
    with pytest.raises(LiberateError, match="no participant"):
        asked(trace_recipient, run, name)


def test_who_shaped_a_model_is_told_step_by_step(run: Run) -> None:
    found = asked(trace_model, run, 2)

    assert numbers(found["models"], "version", "round", "participants", "pooled") == [
        (2, 2, [3, 4, 5], [4]),
        (1, 1, [3, 4, 5], [3, 4]),
    ]
    assert numbers(found["participants"], "number", "answers", "copies", "pooled") == [
        (3, [1, 2], [1], [1]),
        (4, [1, 2], [], [1, 2]),
        (5, [1, 2], [1, 2], []),
    ]
    assert numbers(found["recipients"], "number") == [(2,), (3,), (4,), (5,)]
    pooled = {shares(run, sender)[COORDINATOR] for sender in (3, 4)}
    assert set(found["shares"]) == {shares(run, 3)[4], shares(run, 3)[5], shares(run, 5)[3], *pooled}
    assert found["updates"] == sorted(at for step in found["models"] for at in step["updates"])
    assert_proved(found, *found["models"])
    with pytest.raises(LedgerError, match="there is no model 3"):
        asked(trace_model, run, 3)


@pytest.mark.parametrize("recipients", ["pool", "peers"])
def test_answers_about_a_training_say_what_its_settings_say(tmp_path: Path, recipients: str) -> None:
    """A third of 30 people share; the copies of each are used in every round, or in the pool's alone."""
    data = write_csv(tmp_path / "small.csv", low_rank_ratings(n_users=30, n_items=20))
    more = ["model.n_factors=2", "model.tolerance=0", "federation.rounds=3", "sharing.n_recipients=3"]
    sharing = ["sharing.user_fraction=0.34", f"sharing.recipients={recipients}"]
    result = train(resolve(None, [f"data.source={data}", *more, *sharing], environment={}), tmp_path / "run")
    run = load_run(tmp_path / "run")

    model = asked(trace_model, run, result.rounds)
    kind = "pooled" if recipients == "pool" else "copies"
    senders = [person["number"] for person in model["participants"] if person[kind]]
    found = [asked(trace_participant, run, str(sender)) for sender in senders]

    assert len(senders) == 10
    assert [step["version"] for step in model["models"]] == list(range(result.rounds, 0, -1))
    for each in found:
        uses = numbers(each["uses"], "by", "round", "outcome")
        if recipients == "pool":
            assert uses == [(each["recipients"][0]["number"], 1, "used")]
        else:
            takers = [one["number"] for one in each["recipients"]]
            assert len(takers) == 3
            assert uses == [(taker, n, "used") for n in range(1, result.rounds + 1) for taker in takers]
            assert [one["through"] for one in each["models"]] == [takers] * result.rounds
        for share in each["shares"]:
            answer = asked(trace_share, run, share["position"])
            assert answer["shares"] == [share]
            assert numbers(answer["uses"], "by") == [(by,) for by, *_ in uses if by == share["recipient"]]
            got = asked(trace_recipient, run, str(share["recipient"]))
            assert share["position"] in [one["position"] for one in got["shares"]]


def test_an_answer_under_another_log_key_is_refused(run: Run) -> None:
    other = replace(run, record=msgspec.structs.replace(run.record, verifier_key=verifier_key(ORIGIN, key(99).public)))
    position = shares(run, 3)[4]

    asks: list[Callable[[], object]] = [
        lambda: asked(trace_participant, other, "3"),
        lambda: asked(trace_share, other, position),
        lambda: asked(trace_recipient, other, "3"),
        lambda: asked(trace_model, other, 1),
    ]
    for ask in asks:
        with pytest.raises(InvalidRecord):
            ask()


def test_a_damaged_receipt_stops_every_answer_about_the_share(tmp_path: Path) -> None:
    run = sharing_run(tmp_path)
    position = shares(run, 3)[4]
    with closing(sqlite3.connect(run.ledger_folder / "ledger.sqlite")) as other, other:
        rows = other.execute("SELECT position, entry FROM entry WHERE kind = 'receipt'").fetchall()
        damaged = [(bytes([data[0] ^ 1]) + data[1:], at) for at, data in rows]
        other.executemany("UPDATE entry SET entry = ? WHERE position = ?", damaged)

    asks: list[Callable[[], object]] = [
        lambda: asked(trace_participant, run, "3"),
        lambda: asked(trace_share, run, position),
        lambda: asked(trace_recipient, run, "4"),
    ]
    for ask in asks:
        with pytest.raises(LedgerError):
            ask()

"""A witness cosigns one view of a log and no other, wherever it is killed."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liberate.crypto.merkle import EMPTY_ROOT, leaf_hash, root
from liberate.crypto.note import Checkpoint, WitnessPolicy, sign_checkpoint, verify_cosigned_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, NoQuorum, SettingsError
from liberate.ledger.evidence.split_view import verify_evidence
from liberate.ledger.format.entries import decode_entry, sign
from liberate.ledger.format.records import Block
from liberate.ledger.publish.tile_replay import entries_in_tiles
from liberate.ledger.publish.tiles import export_tiles
from liberate.ledger.witness.follower import Follower, entries_in_folder
from liberate.ledger.witness.protocol import MAX_BODY_BYTES, AddCheckpointRequest, AddCheckpointResponse
from liberate.ledger.witness.witness import Witness
from tests.ledger.publish.views import KEY, ORIGIN, VKEY, View
from tests.ledger.world import LOG_KEY, LOG_VKEY, World, create, write_history
from tests.ledger.world import ORIGIN as WORLD_ORIGIN

HONEST = View()
OTHER = View("other", fork=3)
TIME_S = 1_700_000_000


def new_witness(folder: Path, number: int = 0, followers: dict[str, Follower] | None = None) -> Witness:
    key, name = SigningKey.from_seed(bytes([number] * 32)), f"witness.example/{number}"
    if followers:
        return Witness(f"{name}/replay", key, [LOG_VKEY], folder, lambda: TIME_S, followers)
    return Witness(name, key, [VKEY, LOG_VKEY], folder, lambda: TIME_S)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    found = new_witness(tmp_path)
    yield found
    found.close()


def check_cosigned(answer: AddCheckpointResponse, witness: Witness, note: str, vkey: str = VKEY) -> Checkpoint:
    assert answer.status == 200, answer
    return verify_cosigned_checkpoint(note + answer.body, vkey, WitnessPolicy((witness.verifier_key,), 1))


def test_a_growing_log_is_cosigned(witness: Witness) -> None:
    for old, new in itertools.pairwise((0, 1, 2, 7, 8, 8, 33, 64)):
        answer = witness.add_checkpoint(HONEST.submission(old, new))

        assert check_cosigned(answer, witness, HONEST.note(new)) == HONEST.checkpoint(new)


def test_an_empty_log_is_cosigned_once_it_is_known_as_such(witness: Witness) -> None:
    empty = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), KEY)
    check_cosigned(witness.add_checkpoint(AddCheckpointRequest(0, [], empty).encode()), witness, empty)
    check_cosigned(witness.add_checkpoint(HONEST.submission(0, 5)), witness, HONEST.note(5))

    false = sign_checkpoint(Checkpoint(WORLD_ORIGIN, 0, HONEST.checkpoint(1).root), LOG_KEY)
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], false).encode()).status == 422


def test_a_wrong_old_size_is_told_the_right_one(witness: Witness) -> None:
    witness.add_checkpoint(HONEST.submission(0, 9))

    for old, new in ((0, 9), (0, 12), (3, 9), (10, 12)):
        assert witness.add_checkpoint(HONEST.submission(old, new)) == AddCheckpointResponse(
            409, "9\n", "text/x.tlog.size"
        )


def test_a_smaller_tree_is_refused(witness: Witness) -> None:
    witness.add_checkpoint(HONEST.submission(0, 9))

    assert witness.add_checkpoint(HONEST.submission(0, 8)).status == 409
    assert witness.add_checkpoint(AddCheckpointRequest(9, [], HONEST.note(8)).encode()).status == 400


def test_another_root_for_a_cosigned_size_is_refused_and_kept_as_evidence(witness: Witness, tmp_path: Path) -> None:
    for old, new in ((0, 5), (5, 9), (9, 20)):
        witness.add_checkpoint(HONEST.submission(old, new))

    for size in (5, 9, 20):
        answer = witness.add_checkpoint(AddCheckpointRequest(20 if size == 20 else 0, [], OTHER.note(size)).encode())
        assert answer == AddCheckpointResponse(409, "20\n", "text/x.tlog.size")
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], OTHER.note(4)).encode()).status == 409

    files = sorted((tmp_path / "evidence").glob("*.json"))
    conflicts = [verify_evidence(file.read_bytes(), VKEY) for file in files]
    assert sorted(conflict.second.size for conflict in conflicts) == [5, 9, 20]


def test_a_fork_is_never_cosigned_whatever_the_proof(witness: Witness) -> None:
    witness.add_checkpoint(HONEST.submission(0, 9))

    for proof in (OTHER.proof(9, 12), HONEST.proof(9, 12), [], HONEST.proof(9, 12)[1:]):
        assert witness.add_checkpoint(AddCheckpointRequest(9, proof, OTHER.note(12)).encode()).status == 422


def test_anybody_may_read_what_was_cosigned_last(witness: Witness) -> None:
    assert witness.newest(ORIGIN).status == 404
    for old, new in ((0, 5), (5, 9)):
        witness.add_checkpoint(HONEST.submission(old, new))
    witness.add_checkpoint(OTHER.submission(9, 12))

    answer = witness.newest(ORIGIN)

    assert answer.status == 200
    policy = WitnessPolicy((witness.verifier_key,), 1)
    assert verify_cosigned_checkpoint(answer.body, VKEY, policy) == HONEST.checkpoint(9)
    assert witness.newest("example.org/other").status == 404


def test_what_is_read_can_be_submitted_and_read_again(witness: Witness) -> None:
    witness.add_checkpoint(HONEST.submission(0, 5))

    again = AddCheckpointRequest(5, [], witness.newest(ORIGIN).body).encode()

    check_cosigned(witness.add_checkpoint(again), witness, HONEST.note(5))
    assert (
        verify_cosigned_checkpoint(witness.newest(ORIGIN).body, VKEY, WitnessPolicy((witness.verifier_key,), 1)).size
        == 5
    )


def test_a_proof_from_nothing_is_empty(witness: Witness) -> None:
    assert witness.add_checkpoint(AddCheckpointRequest(0, HONEST.proof(3, 9), HONEST.note(9)).encode()).status == 422


def test_unknown_logs_and_keys_are_refused(witness: Witness) -> None:
    stranger = sign_checkpoint(Checkpoint("example.org/stranger", 1, HONEST.checkpoint(1).root), KEY)
    forged = sign_checkpoint(HONEST.checkpoint(1), SigningKey.from_seed(bytes(32)))
    bad_signature = HONEST.note(1).replace("\n1\n", "\n2\n")

    assert witness.add_checkpoint(AddCheckpointRequest(0, [], stranger).encode()).status == 404
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], forged).encode()).status == 403
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], bad_signature).encode()).status == 403
    both = HONEST.note(1) + forged.partition("\n\n")[2]
    check_cosigned(witness.add_checkpoint(AddCheckpointRequest(0, [], both).encode()), witness, HONEST.note(1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"old 0\n",
        b"old -1\n\n" + HONEST.note(1).encode(),
        b"old 01\n\n" + HONEST.note(1).encode(),
        b"old 0\nAAAA\n\n" + HONEST.note(1).encode(),
        b"old 0\n%%%\n\n" + HONEST.note(1).encode(),
        b"old 0\n" + b"A" * 43 + b"=\n" * 1 + (b"A" * 43 + b"=\n") * 63 + b"\n" + HONEST.note(1).encode(),
        b"old 0\n\nnonsense",
        b"old 0\n\n" + HONEST.note(1).encode().rstrip(b"\n"),
        b"old 0\n\n" + b"x" * MAX_BODY_BYTES,
    ],
)
def test_what_is_no_request_is_refused(witness: Witness, body: bytes) -> None:
    assert witness.add_checkpoint(body).status == 400


@given(st.binary(max_size=400))
def test_a_body_is_read_in_its_one_form_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRecord):
        assert AddCheckpointRequest.decode(b"old 3\n" + body).encode() == b"old 3\n" + body


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 64), st.integers(1, 64)), max_size=12))
def test_whatever_is_asked_all_cosigned_checkpoints_agree(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[bool, int, int]]
) -> None:
    witness = new_witness(tmp_path_factory.mktemp("witness"))
    cosigned = []
    for is_honest, old, new in requests:
        view = HONEST if is_honest else OTHER
        if witness.add_checkpoint(view.submission(min(old, new), new)).status == 200:
            cosigned.append(view.checkpoint(new))
    witness.close()

    assert any(all(view.checkpoint(c.size) == c for c in cosigned) for view in (HONEST, OTHER))
    assert [c.size for c in cosigned] == sorted(c.size for c in cosigned)


# --- killed anywhere -------------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
import sqlite3
from tests.ledger.witness.test_witness import HONEST, new_witness
from liberate.ledger.witness import witness as module

folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
steps = 0

def step():
    global steps
    steps += 1
    if steps == fatal:
        os._exit(9)  # as kill -9: nothing is flushed, closed or rolled back

class Dying(sqlite3.Connection):
    def execute(self, *arguments):
        step()
        found = super().execute(*arguments)
        step()
        return found

def connect(*arguments, **options):
    return real(*arguments, factory=Dying, **options)

real = sqlite3.connect
sqlite3.connect = connect
cosign = module.cosign
def dying_cosign(*arguments):
    step()
    line = cosign(*arguments)
    step()
    return line
module.cosign = dying_cosign
witness = new_witness(folder)
for old, new in ((0, 5), (5, 9)):
    answer = witness.add_checkpoint(HONEST.submission(old, new))
    if answer.status == 200:
        os.write(1, f"{new}\\n".encode())
    step()
os.write(1, b"end\\n")
"""


def left_by_a_witness_killed_at(folder: Path, step: int, repository: Path) -> list[str]:
    """Return the sizes that a witness cosigned before it was killed at a step, and `end` if it lived so long."""
    command = [sys.executable, "-c", KILLED, str(folder), str(step)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 9), done.stderr
    return done.stdout.split()


def test_a_witness_killed_at_any_step_never_contradicts_itself(tmp_path: Path, repository: Path) -> None:
    """Kill it at each statement and each signature, start it again, and offer it the other view at every size."""
    cosigned: list[str] = []
    fatal = 0
    while "end" not in cosigned:
        fatal += 1
        folder = tmp_path / str(fatal)
        cosigned = left_by_a_witness_killed_at(folder, fatal, repository)
        witness = new_witness(folder)
        sizes = [int(size) for size in cosigned if size != "end"]

        others = [
            witness.add_checkpoint(OTHER.submission(min(old, new), new)) for new in range(4, 12) for old in (0, 5, 9)
        ]
        assert not sizes or 200 not in {answer.status for answer in others}, f"killed at step {fatal}: {sizes}"
        witness.close()
        assert_rows_agree(folder)
    assert fatal > 10


def assert_rows_agree(folder: Path) -> None:
    connection = sqlite3.connect(folder / "witness.sqlite")
    rows = connection.execute("SELECT size, root FROM cosigned").fetchall()
    connection.close()
    assert any(all(view.checkpoint(size).root == root for size, root in rows) for view in (HONEST, OTHER))


def test_two_processes_on_one_folder_exclude_each_other(tmp_path: Path) -> None:
    one, two = new_witness(tmp_path), new_witness(tmp_path)
    known = two._cosigned.latest(ORIGIN)
    one.add_checkpoint(HONEST.submission(0, 5))

    assert not two._cosigned.advance(known, OTHER.checkpoint(9), OTHER.note(9)), "what it knew is no longer so"
    assert two.add_checkpoint(OTHER.submission(0, 9)) == AddCheckpointResponse(409, "5\n", "text/x.tlog.size")
    one.close()
    two.close()


# --- replay ----------------------------------------------------------------------------------------------------------


def replaying(folder: Path, copy: Path) -> Witness:
    return new_witness(folder, followers={WORLD_ORIGIN: Follower(LOG_VKEY, entries_in_folder(copy))})


def test_a_replaying_witness_follows_the_entries(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    witness = replaying(tmp_path / "witness", tmp_path / "ledger")
    first = ledger.checkpoint()
    check_cosigned(witness.add_checkpoint(AddCheckpointRequest(0, [], first).encode()), witness, first, LOG_VKEY)
    write_history(ledger)

    note, proof = ledger.checkpoint(), ledger.consistency_proof(2, ledger.size)

    check_cosigned(witness.add_checkpoint(AddCheckpointRequest(2, proof, note).encode()), witness, note, LOG_VKEY)
    witness.close()
    ledger.close()


@pytest.mark.parametrize("n_more", [1, 250, 256, 600])
def test_a_replaying_witness_reads_published_tiles(tmp_path: Path, n_more: int) -> None:
    ledger = create(tmp_path / "ledger")
    world = World(ledger)
    export_tiles(ledger, tmp_path / "tiles")
    first = ledger.checkpoint()
    witness = new_witness(
        tmp_path / "witness", followers={WORLD_ORIGIN: Follower(LOG_VKEY, entries_in_tiles(tmp_path / "tiles"))}
    )
    check_cosigned(witness.add_checkpoint(AddCheckpointRequest(0, [], first).encode()), witness, first, LOG_VKEY)
    world.add(*(world.enrol(2 + i, "participant", seq=2 + i) for i in range(n_more)))
    note, proof = ledger.checkpoint(), ledger.consistency_proof(2, ledger.size)
    body = AddCheckpointRequest(2, proof, note).encode()

    assert witness.add_checkpoint(body).status == 503, "the tiles are behind"
    export_tiles(ledger, tmp_path / "tiles")
    check_cosigned(witness.add_checkpoint(body), witness, note, LOG_VKEY)
    witness.close()
    ledger.close()


def test_a_replaying_witness_refuses_a_root_that_the_entries_do_not_lead_to(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    write_history(ledger)
    witness = replaying(tmp_path / "witness", tmp_path / "ledger")
    other_root = sign_checkpoint(Checkpoint(WORLD_ORIGIN, ledger.size, HONEST.checkpoint(1).root), LOG_KEY)
    empty = sign_checkpoint(Checkpoint(WORLD_ORIGIN, 0, EMPTY_ROOT), LOG_KEY)
    inside_a_block = sign_checkpoint(Checkpoint(WORLD_ORIGIN, 1, HONEST.checkpoint(1).root), LOG_KEY)
    ahead = sign_checkpoint(Checkpoint(WORLD_ORIGIN, ledger.size + 1, HONEST.checkpoint(1).root), LOG_KEY)

    assert witness.add_checkpoint(AddCheckpointRequest(0, [], other_root).encode()).status == 422
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], empty).encode()).status == 422
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], inside_a_block).encode()).status == 422
    assert witness.add_checkpoint(AddCheckpointRequest(0, [], ahead).encode()).status == 503
    note = ledger.checkpoint()
    check_cosigned(witness.add_checkpoint(AddCheckpointRequest(0, [], note).encode()), witness, note, LOG_VKEY)
    witness.close()
    ledger.close()


def test_a_made_up_state_root_is_never_cosigned_by_a_replaying_witness(tmp_path: Path) -> None:
    """The log signs a block with a made-up state root, and a checkpoint over it: the tree alone looks right."""
    ledger = create(tmp_path / "ledger")
    entries = [entry for _, entry in ledger.entries()]
    ledger.close()
    block = decode_entry(entries[-1]).record
    assert isinstance(block, Block)
    entries[-1] = sign(msgspec.structs.replace(block, state_root=leaf_hash(b"made up")), LOG_KEY)
    note = sign_checkpoint(Checkpoint(WORLD_ORIGIN, 2, root([leaf_hash(entry) for entry in entries])), LOG_KEY)
    follower = Follower(LOG_VKEY, lambda begin, end: (entry for entry in entries[begin:end]))
    trusting, witness = new_witness(tmp_path / "a"), new_witness(tmp_path / "b", followers={WORLD_ORIGIN: follower})

    check_cosigned(trusting.add_checkpoint(AddCheckpointRequest(0, [], note).encode()), trusting, note, LOG_VKEY)
    answer = witness.add_checkpoint(AddCheckpointRequest(0, [], note).encode())

    assert answer.status == 422
    assert "wrong_state" in answer.body
    trusting.close()
    witness.close()


def test_a_replaying_witness_wants_the_log_that_the_genesis_names(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    note = ledger.checkpoint()
    follower = Follower(VKEY, entries_in_folder(tmp_path / "ledger"))
    witness = new_witness(tmp_path / "witness", followers={WORLD_ORIGIN: follower})

    assert witness.add_checkpoint(AddCheckpointRequest(0, [], note).encode()).status == 422
    witness.close()
    ledger.close()


def test_a_name_says_whether_a_witness_replays(tmp_path: Path) -> None:
    key = SigningKey.from_seed(bytes(32))
    followers = {WORLD_ORIGIN: Follower(LOG_VKEY, entries_in_folder(tmp_path / "ledger"))}

    def named(name: str, logs: list[str], followers: dict[str, Follower]) -> None:
        Witness(name, key, logs, tmp_path / "state", lambda: TIME_S, followers).close()

    named("w.example", [LOG_VKEY], {})
    named("w.example/replay", [LOG_VKEY], followers)
    for logs, replayed in (([LOG_VKEY], {}), ([LOG_VKEY, VKEY], followers)):
        with pytest.raises(SettingsError, match="promises to replay each log"):
            named("w.example/replay", logs, replayed)
    with pytest.raises(SettingsError, match="has a name that says so"):
        named("w.example", [LOG_VKEY], followers)


# --- two views -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (5, 4)])
def test_two_views_never_both_reach_a_majority(tmp_path: Path, n: int, k: int) -> None:
    """A log splits the witnesses in every possible way; colluding ones cosign both views."""
    for number, split in enumerate(itertools.product("AB", repeat=n)):
        witnesses = [new_witness(tmp_path / f"{number}-{i}", i) for i in range(n)]
        notes = {"A": HONEST.note(9), "B": OTHER.note(9)}
        for witness, first in zip(witnesses, split, strict=True):
            for view in sorted(notes, reverse=first == "B"):
                submission = AddCheckpointRequest(
                    0, [], notes[view].partition("\n\n")[0] + "\n\n" + signature_line(notes[view])
                )
                answer = witness.add_checkpoint(submission.encode())
                notes[view] += answer.body if answer.status == 200 else ""
            witness.close()
        policy = WitnessPolicy(tuple(witness.verifier_key for witness in witnesses), k)

        accepted = [view for view in notes if is_accepted(notes[view], policy)]

        assert accepted == [view for view in "AB" if split.count(view) >= k]
        assert len(accepted) < 2


def signature_line(note: str) -> str:
    return note.partition("\n\n")[2].split("\n")[0] + "\n"


def is_accepted(note: str, policy: WitnessPolicy) -> bool:
    try:
        verify_cosigned_checkpoint(note, VKEY, policy)
    except NoQuorum:
        return False
    return True


@pytest.mark.parametrize(("n", "k", "colluding", "deceived"), [(3, 2, 0, False), (3, 2, 1, True), (5, 4, 2, False)])
def test_fewer_colluding_witnesses_than_needed_deceive_nobody(
    tmp_path: Path, n: int, k: int, colluding: int, deceived: bool
) -> None:
    """Two views need 2k cosignatures; honest witnesses give one each, so 2k - n must collude."""
    assert deceived == (colluding >= 2 * k - n)
    notes = {"A": HONEST.note(9), "B": OTHER.note(9)}
    keys = []
    for number in range(n):
        # a colluding witness forgets what it has cosigned
        witness = new_witness(tmp_path / f"{number}", number)
        keys.append(witness.verifier_key)
        preferred = "AB"[number % 2]
        for view in (preferred, "BA"[number % 2]):
            if number < colluding:
                witness.close()
                witness = new_witness(tmp_path / f"{number}-{view}", number)
            submission = AddCheckpointRequest(0, [], (HONEST if view == "A" else OTHER).note(9))
            answer = witness.add_checkpoint(submission.encode())
            notes[view] += answer.body if answer.status == 200 else ""
        witness.close()

    accepted = [view for view in notes if is_accepted(notes[view], WitnessPolicy(tuple(keys), k))]

    assert (len(accepted) == 2) == deceived

"""`liberate witness` as a real process: what it answers, what it prints, how it ends, and kill -9."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from liberate.crypto.note import WitnessPolicy, verify_cosigned_checkpoint
from liberate.errors import LedgerError
from liberate.ledger.publish.witness_http import newest, submit
from liberate.ledger.witness.protocol import MAX_BODY_BYTES
from tests.ledger.publish.views import ORIGIN, VKEY, View
from tests.ledger.world import LOG_VKEY, create
from tests.service.witnesses import Running, new_key, running, start

HONEST = View()
OTHER = View("other", fork=3)
NAME = "witness.example/1"


def cosigned(witness: Running, view: View, old: int, new: int) -> int:
    """Return the size that the witness has cosigned, or 0."""
    answer = submit(witness.url, view.submission(old, new))
    if answer.status != 200:
        return 0
    policy = WitnessPolicy((witness.key,), 1)
    return verify_cosigned_checkpoint(view.note(new) + answer.body, VKEY, policy).size


def test_witness_answers_over_http_and_ends_cleanly(tmp_path: Path) -> None:
    witness = start(tmp_path / "witness", NAME, [VKEY])
    try:
        assert cosigned(witness, HONEST, 0, 5) == 5
        assert cosigned(witness, HONEST, 5, 9) == 9
        conflict = submit(witness.url, HONEST.submission(5, 12))
        assert (conflict.status, conflict.body, conflict.content_type) == (409, "9\n", "text/x.tlog.size")
        assert submit(witness.url, b"x" * (MAX_BODY_BYTES + 1)).status == 400
        policy = WitnessPolicy((witness.key,), 1)
        assert verify_cosigned_checkpoint(newest(witness.url, ORIGIN), VKEY, policy) == HONEST.checkpoint(9)
        assert get(witness, "/checkpoint/example.org/other") == 404
        assert get(witness, "/add-checkpoint") == 405
        assert get(witness, "/") == 404
    finally:
        code, out, err = witness.end()

    assert (code, out) == (0, "")
    seed = (tmp_path / "witness" / "witness.key").read_text().strip()
    assert "rejected: 409" in err
    assert seed not in err
    assert base64.b64decode(seed).hex() not in err


def get(witness: Running, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(witness.url).netloc)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    new_key(tmp_path / "key", NAME)
    with running(tmp_path / "witness", NAME, [VKEY]) as witness:
        cosigned(witness, HONEST, 0, 5)

        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    new_key(tmp_path / "key", NAME)

    with pytest.raises(subprocess.CalledProcessError) as failed:
        new_key(tmp_path / "key", NAME)
    assert "exists already" in failed.value.stderr


@pytest.mark.parametrize(
    ("flags", "reason", "code"),
    [
        (["--log", "nonsense"], "not a log's verifier key", 1),
        (["--log", VKEY, "--replay", "absent"], "there is no ledger", 1),
        (["--log", VKEY, "--key", "absent"], "there is no key file", 1),
        (["--log", VKEY, "--name", f"{NAME}/replay"], "promises to replay each log", 2),
    ],
)
def test_witness_that_cannot_start_says_why(tmp_path: Path, flags: list[str], reason: str, code: int) -> None:
    new_key(tmp_path / "key", NAME)
    command = [sys.executable, "-m", "liberate", "witness", "state", "--name", NAME, "--key", "key", "--port", "0"]

    done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr


def test_a_key_beside_the_ledger_is_no_witnesses(tmp_path: Path) -> None:
    create(tmp_path / "run" / "ledger").close()
    new_key(tmp_path / "run" / "key", f"{NAME}/replay")
    flags = ["--name", f"{NAME}/replay", "--key", "run/key", "--log", LOG_VKEY, "--replay", "run", "--port", "0"]

    done = subprocess.run(
        [sys.executable, "-m", "liberate", "witness", "state", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "run/key lies in run, the folder of the federation" in done.stderr


def test_copy_of_another_log_is_not_replayed(tmp_path: Path) -> None:
    create(tmp_path / "ledger").close()
    new_key(tmp_path / "key", NAME)
    command = [sys.executable, "-m", "liberate", "witness", "state", "--name", NAME, "--key", "key", "--port", "0"]

    done = subprocess.run(
        [*command, "--log", VKEY, "--replay", "ledger"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "none of the logs" in done.stderr


def test_replaying_witness_cosigns_what_the_entries_lead_to(tmp_path: Path) -> None:
    ledger = create(tmp_path / "ledger")
    note = ledger.checkpoint()
    with running(tmp_path / "witness", f"{NAME}/replay", [LOG_VKEY], replay=[tmp_path / "ledger"]) as witness:
        answer = submit(witness.url, f"old 0\n\n{note}".encode())

        assert verify_cosigned_checkpoint(note + answer.body, LOG_VKEY, WitnessPolicy((witness.key,), 1)).size == 2
    ledger.close()


def test_witness_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(LedgerError, match="no answer"):
        submit(f"http://127.0.0.1:{port}", b"")


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.soak)])
def test_witness_killed_under_load_cosigns_one_view_only(tmp_path: Path, kills: int) -> None:
    """Two clients offer it two views at once; it is killed after a random answer, and started again."""
    rng = random.Random(kills)
    given: dict[str, set[int]] = {"honest": set(), "other": set()}
    for _ in range(kills):
        witness = start(tmp_path / "witness", NAME, [VKEY])
        last = rng.randrange(8, 20)
        clients = [
            Thread(target=offer, args=(witness, view, given[name], last))
            for name, view in {"honest": HONEST, "other": OTHER}.items()
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        witness.process.communicate()

    beyond_the_fork = [name for name, sizes in given.items() if max(sizes, default=0) > 3]
    assert len(beyond_the_fork) == 1, given


def offer(witness: Running, view: View, given: set[int], last: int) -> None:
    """Offer a view from where the witness stands, and kill the witness while it answers the last request."""
    old = 0
    for turn in range(last + 1):
        if turn == last:
            witness.process.kill()
        try:
            new = min(old + 2, 64)
            answer = submit(witness.url, view.submission(min(old, new), new))
        except LedgerError:
            return
        if answer.status == 200:
            given.add(new)
            old = new
        elif answer.status == 409 and answer.body:
            old = int(answer.body)


def test_ready_witness_prints_one_line_of_json(tmp_path: Path) -> None:
    with running(tmp_path / "witness", NAME, [VKEY]) as witness:
        assert witness.url.startswith("http://127.0.0.1:")
        assert witness.key.startswith(f"{NAME}+")
        assert json.dumps(witness.address)

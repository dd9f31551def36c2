"""Training under three real witnesses: one may be missing, two may not; a log put back whole is caught by them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from liberate.crypto.note import WitnessPolicy, verifier_key, verify_cosigned_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.ledger.verification.verify import verify_ledger
from liberate.randomness import SimulatedRandomness
from tests.service.witnesses import Running, running, start
from tests.worlds import low_rank_ratings, write_csv

ORIGIN = "test.invalid/watched"
SEED = 11
LOG_KEY = verifier_key(ORIGIN, SigningKey.from_seed(SimulatedRandomness(SEED).secret("log key")).public)


def train(data: Path, out: Path, witnesses: list[Running], rounds: int) -> tuple[int, dict[str, Any], str]:
    settings = {
        "run.seed": SEED,
        "ledger.origin": json.dumps(ORIGIN),
        "ledger.witnesses": json.dumps([witness.address for witness in witnesses]),
        "federation.rounds": rounds,
        "model.n_factors": 2,
        "model.tolerance": 0,
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "liberate", "train", "--data", str(data), "--out", str(out), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_training_under_witnesses(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=20, n_items=12)), tmp_path / "run"
    with ExitStack() as end:
        names = [f"witness.example/{number}" for number in range(3)]
        folders = [tmp_path / f"witness-{number}" for number in range(3)]
        witnesses = [end.enter_context(running(f, n, [LOG_KEY])) for f, n in zip(folders, names, strict=True)]
        policy = WitnessPolicy(tuple(witness.key for witness in witnesses), 2)

        for witness in witnesses[:2]:
            witness.kill()
        code, _, said = train(data, out, witnesses, 2)
        assert code == 1
        assert "1 of 3 witnesses have cosigned, 2 are wanted" in said
        assert (out / "checkpoint").read_text("utf-8") == ""

        port = int(witnesses[0].url.rpartition(":")[2])
        again = start(folders[0], names[0], [LOG_KEY], port=port)
        end.callback(again.kill)
        code, found, said = train(data, out, witnesses, 2)
        assert code == 0, said
        note = (out / "checkpoint").read_text("utf-8")
        assert verify_cosigned_checkpoint(note, found["verifier_key"], policy).size == found["entry_count"]
        assert found["verifier_key"] == LOG_KEY
        assert verify_ledger(out / "ledger", key=LOG_KEY, checkpoint=note).ok

        # a run of the same seed begins the same log again, from an empty folder
        shutil.rmtree(out)
        code, _, said = train(data, out, witnesses, 3)
        assert code == 1
        assert "has cosigned another history of this log: the ledger has" in said
        assert f"but {found['entry_count']} were published" in said
        assert list((out / "evidence").iterdir())

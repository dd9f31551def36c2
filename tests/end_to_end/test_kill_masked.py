"""kill -9 masked runs before random steps, simulated and real: the same bytes, and nothing is spent or said twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from liberate.federation.store.devices import DeviceStore
from liberate.ledger.format.records import Update
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.log.tables import LEDGER_FILE
from liberate.ledger.lookup import entries
from tests.service.replaying import replaying
from tests.worlds import low_rank_ratings, write_csv

KILLED_AT = Path(__file__).with_name("killed_at")
N_PEOPLE, ROUNDS = 12, 2
MASKED = (
    f"federation.rounds={ROUNDS}",
    "federation.batch_size=8",
    "model.n_factors=2",
    "model.tolerance=0",
    "privacy.mode=distributed",
    "privacy.epsilon=8",
    "privacy.secure_aggregation=true",
)
REAL = ("run.simulated=false", "data.rating_min=1", "data.rating_max=5")
KILLS = [3, pytest.param(100, marks=pytest.mark.soak)]

Answers = dict[tuple[int, int], bytes]
"""The signed answer of each participant to each round."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A training that can be killed before a chosen step.

    Attributes:
        data: The ratings.
        settings: Settings besides those of a masked run.
        has_fixed_entropy: Whether what a real run draws is fixed by its purpose, and the time as well.
    """

    data: Path
    settings: tuple[str, ...] = ()
    has_fixed_entropy: bool = False

    def run(self, out: Path, witness: list[str], at: int = 0) -> subprocess.CompletedProcess[str]:
        """Run until the end, or be killed before a step; 0: live."""
        flags = [flag for setting in (*MASKED, *self.settings, *witness) for flag in ("--set", setting)]
        added = {
            "PYTHONPATH": os.pathsep.join([str(KILLED_AT), *sys.path]),
            "KILL_AT": str(at),
            "STEPS_FILE": str(steps_file(out)),
            "FIXED_ENTROPY": str(int(self.has_fixed_entropy)),
        }
        command = [sys.executable, "-m", "liberate", "train", "--data", str(self.data), "--out", str(out), "--json"]
        return subprocess.run([*command, *flags], env=os.environ | added, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Reached:
    """What a finished run came to: size and root of its ledger, and its models by name."""

    figures: dict[str, Any]
    models: dict[str, bytes]


@dataclass
class Killings:
    """Kills a run again and again, and looks at what its devices have said so far after each kill."""

    command: Command
    rng: random.Random
    done: int = 0
    answers: Answers = field(default_factory=dict)

    def train(self, out: Path, steps: int, most: int) -> Reached:
        """Kill one run until it ends, or so many kills are done; then let it end."""
        self.answers = {}
        is_real = "run.simulated=false" in self.command.settings
        witness: AbstractContextManager[list[str]] = replaying(out) if is_real else nullcontext([])
        with witness as settings:
            while self.done < most:
                ended = self.command.run(out, settings, self.rng.randint(1, steps))
                self.look(out)
                if ended.returncode == 0:
                    break
                assert ended.returncode == -9, ended.stderr
                self.done += 1
            ended = self.command.run(out, settings)
            assert ended.returncode == 0, ended.stderr
            self.look(out)
        return reached(out, json.loads(ended.stdout))

    def look(self, out: Path) -> None:
        """Check that no participant has ever given two answers to a round, to the ledger or in its outbox."""
        for place, entry in [*on_ledger(out).items(), *in_outboxes(out).items()]:
            assert self.answers.setdefault(place, entry) == entry, place


def steps_file(out: Path) -> Path:
    return out.with_name(f"{out.name}-steps")


def reached(out: Path, printed: dict[str, Any]) -> Reached:
    same = ("rounds", "epsilon", "entry_count", "root", "verifier_key")
    models = {path.name: path.read_bytes() for path in (out / "model").glob("*.model")}
    return Reached({key: printed[key] for key in same}, models)


def on_ledger(out: Path) -> Answers:
    if not (out / "ledger" / LEDGER_FILE).exists():
        return {}
    with closing(SqliteLedger.open(out / "ledger")) as ledger:
        found = [(each.record.author, each.record.round, each.entry.data) for each in entries(ledger, Update)]
    assert len({(author, number) for author, number, _ in found}) == len(found)
    return {(author, number): entry for author, number, entry in found}


def in_outboxes(out: Path) -> Answers:
    if not DeviceStore.exists(out / "devices"):
        return {}
    with DeviceStore(out / "devices") as devices:
        kept = [
            (device.number, number, devices.outbox_message(device.slot, number))
            for device in devices.devices()
            for number in range(1, ROUNDS + 1)
        ]
    return {(who, number): message.entry for who, number, message in kept if who is not None and message is not None}


def check_spent_once(out: Path, verifier_key: str) -> None:
    """Check the ledger, and that each person was charged for each round once, on the device as on the ledger."""
    verify = [sys.executable, "-m", "liberate", "ledger", "verify", str(out), "--key", verifier_key]
    checked = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    with closing(SqliteLedger.open(out / "ledger")) as ledger, DeviceStore(out / "devices") as devices:
        updates = [each.record for each in entries(ledger, Update)]
        charged: Counter[int] = Counter()
        for update in updates:
            charged[update.author] += update.spend_nano
        assert len(updates) == N_PEOPLE * ROUNDS
        for device in devices.devices():
            principal = ledger.state.principals[device.enrolled_number]
            assert device.rho_nano == principal.rho_nano == charged[device.enrolled_number] > 0
            assert device.epsilon_nano == principal.epsilon_nano == 0
            assert devices.key_phases(device.slot, 1) == ROUNDS
            kept = [devices.secagg_state(device.slot, number) for number in range(1, ROUNDS + 1)]
            assert kept == [None] * ROUNDS, "secrets outlived their round"
    assert not (out / "model" / "round.masks").exists()


def kill_and_compare(folder: Path, command: Command, kills: int) -> tuple[Reached, list[Reached]]:
    """Return what a run comes to that is never killed, and what those do that are killed so often in all."""
    killings = Killings(command, random.Random(kills))
    undisturbed = killings.train(folder / "undisturbed", 0, 0)
    steps = int(steps_file(folder / "undisturbed").read_text("utf-8"))

    runs: list[Reached] = []
    while killings.done < kills:
        out = folder / f"killed-{len(runs)}"
        runs.append(killings.train(out, steps, kills))
        check_spent_once(out, runs[-1].figures["verifier_key"])
    return undisturbed, runs


@pytest.fixture
def ratings_file(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=N_PEOPLE, n_items=12))


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("settings", [(), REAL], ids=["simulated", "real"])
def test_a_masked_run_killed_before_random_steps_ends_with_the_same_bytes(
    tmp_path: Path, ratings_file: Path, settings: tuple[str, ...], kills: int
) -> None:
    """A real run draws by purpose here, so that what a kill makes it draw again is the same."""
    command = Command(data=ratings_file, settings=settings, has_fixed_entropy=bool(settings))

    undisturbed, runs = kill_and_compare(tmp_path, command, kills)

    assert undisturbed.models
    assert [each == undisturbed for each in runs] == [True] * len(runs)


@pytest.mark.parametrize("kills", KILLS)
def test_a_real_masked_run_killed_before_random_steps_spends_and_says_nothing_twice(
    tmp_path: Path, ratings_file: Path, kills: int
) -> None:
    """With the system's entropy, where whatever is drawn a second time is another: only what was stored is the same."""
    undisturbed, runs = kill_and_compare(tmp_path, Command(data=ratings_file, settings=REAL), kills)

    assert all(each.figures["root"] != undisturbed.figures["root"] for each in runs)
    assert {each.figures["entry_count"] for each in runs} == {undisturbed.figures["entry_count"]}

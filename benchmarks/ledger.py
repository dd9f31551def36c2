"""What the ledger costs: appending, opening, proving, reading a history, verifying; beside bare Ed25519 verification.

Every participant answers every round: signed updates in durable blocks, rules and state tree included. Then the ledger
is opened, read and verified as others would. A million entries, beside ten thousand; CPU seconds include those of
helper processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from benchmarks.figures import Figure, show
from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey, verify_signature
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign, signed_bytes
from liberate.ledger.format.parts import EnrolmentPolicy, MechanismSpec, Terms, Witnesses
from liberate.ledger.format.records import ZERO, Enrol, Genesis, ModelRecord, Round, Update
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.randomness import SimulatedClock

N_PARTICIPANTS, ROUNDS, BLOCK = 10_000, (1, 100), 1_000
ORIGIN = "benchmark.example/ledger"
FOUNDER, LOG, COORDINATOR = (SigningKey.from_seed(bytes([number] * 32)) for number in (1, 2, 3))


class Cost:
    """CPU and wall-clock seconds of a part of the benchmark."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.wall = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the cost of the block, helper processes that ended in it included."""
        cpu, wall = _cpu_s(), time.perf_counter()
        yield
        self.cpu += _cpu_s() - cpu
        self.wall += time.perf_counter() - wall


def measure() -> Iterator[Figure]:
    """Build a small ledger and a large one, and use them."""
    participants = [SigningKey.from_seed(b"person" + number.to_bytes(26, "big")) for number in range(N_PARTICIPANTS)]
    per_entry = []
    for rounds in ROUNDS:
        name = f"{N_PARTICIPANTS * rounds:,} entries"
        with tempfile.TemporaryDirectory() as folder:
            built = _build(Path(folder), participants, rounds)
            per_entry.append(built.last_entry_cpu_s)
            yield Figure(name=f"{name}, Ed25519 verifications", value=built.ed25519_rate, unit="1/CPU s")
            yield Figure(name=f"{name}, appended", value=built.append_rate, unit="1/CPU s", at_least=8000)
            yield from _read(name, Path(folder), participants)
            yield from _verify(name, Path(folder), built.ed25519_rate)
    growth = per_entry[-1] / per_entry[0]
    yield Figure(name="cost per entry of the last rounds, large over small", value=growth, at_most=1.3)


@dataclass(frozen=True, slots=True)
class _Built:
    """Entries appended and bare signatures verified in a CPU second, and the CPU seconds of a late entry."""

    append_rate: float
    ed25519_rate: float
    last_entry_cpu_s: float


def _build(folder: Path, participants: list[SigningKey], rounds: int) -> _Built:
    """Append a whole ledger; bare verification is measured between its rounds."""
    ledger = SqliteLedger.create(folder, genesis(), LOG, SimulatedClock())
    _append(ledger, enrolments(participants), Cost())
    costs, bare = [], []
    for number in range(1, rounds + 1):
        first = opening(number, seq=2 * number, base=ZERO)
        _append(ledger, [first], Cost())
        updates = [_update(key, 3 + i, number, first) for i, key in enumerate(participants)]
        costs.append(Cost())
        _append(ledger, updates, costs[-1])
        _append(ledger, [_model(number, updates)], Cost())
        if number % 10 == 1:
            bare.append(_ed25519(participants, updates))
    ledger.close()

    n, last = len(participants), costs[-3:]
    return _Built(
        append_rate=n * rounds / sum(cost.cpu for cost in costs),
        ed25519_rate=mean(bare),
        last_entry_cpu_s=sum(cost.cpu for cost in last) / (n * len(last)),
    )


def _read(name: str, folder: Path, participants: list[SigningKey]) -> Iterator[Figure]:
    """Open the ledger, prove an entry, and read a participant's complete history with its state leaf."""
    opening = Cost()
    with opening.measure():
        ledger = SqliteLedger.open(folder)
    yield Figure(name=f"{name}, open", value=opening.wall, unit="s", at_most=0.5)

    proving, reading = [], []
    for step in range(200):
        cost = Cost()
        with cost.measure():
            ledger.inclusion_proof((step * 7_919 + 1) % ledger.size)
        proving.append(1000 * cost.wall)
        cost = Cost()
        with cost.measure():
            positions = ledger.positions(about=3 + (step * 31) % len(participants))
            entries = [ledger.entry(position) for position in positions]
        reading.append(1000 * cost.wall)
    size = ledger.size
    ledger.close()

    yield Figure(name=f"{name}, inclusion proof", value=median(proving), unit="ms", at_most=1)
    yield Figure(name=f"{name}, a history of {len(entries)} entries", value=median(reading), unit="ms", at_most=10)
    stored = (folder / "ledger.sqlite").stat().st_size / size
    yield Figure(name=f"{name}, bytes per entry", value=stored, unit="B", at_most=1200)


def _verify(name: str, folder: Path, bare: float) -> Iterator[Figure]:
    """Verify the ledger in a process of its own, on all cores and on one, and then again from where that ended."""
    cores, resume = sorted(os.sched_getaffinity(0)), str(folder / "verified")
    walls = {}
    for how, used, arguments in (
        ("on all cores", cores, []),
        ("on one core", cores[:1], [resume]),
        ("again, from where it ended", cores, [resume]),
    ):
        command = [sys.executable, "-c", _VERIFY, str(folder), ",".join(map(str, used)), *arguments]
        cost = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        walls[how] = cost["wall"]
        yield Figure(name=f"{name}, verify {how}", value=cost["wall"], unit="s")
        if not how.startswith("again"):
            share = cost["entries"] / cost["cpu"] / bare
            yield Figure(name=f"{name}, verify {how}, share of Ed25519", value=share, at_least=0.65)
            yield Figure(name=f"{name}, verify {how}, memory", value=cost["peak_mb"], unit="MB", at_most=300)
    if len(cores) == 2:
        speed = walls["on one core"] / walls["on all cores"]
        yield Figure(name=f"{name}, verify on one core over two", value=speed, at_least=1.8)


_VERIFY = """
import json, os, resource, sys, time
from pathlib import Path
os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
from liberate.ledger.verification.verify import verify_ledger
wall, cpu = time.perf_counter(), time.process_time()
audit = verify_ledger(Path(sys.argv[1]), resume=Path(sys.argv[3]) if len(sys.argv) > 3 else None)
assert audit.ok, audit.findings
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu + children.ru_utime + children.ru_stime,
    "entries": audit.entry_count,
    "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 2 * children.ru_maxrss) // 1024,
}))
"""


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _append(ledger: SqliteLedger, entries: list[bytes], cost: Cost) -> None:
    for begin in range(0, len(entries), BLOCK):
        with cost.measure():
            results = ledger.append(entries[begin : begin + BLOCK])
        refused = [result for result in results if not isinstance(result, int)]
        if refused:
            raise refused[0]


def _ed25519(participants: list[SigningKey], entries: list[bytes]) -> float:
    claims = [
        (device_of(key).public, signed_bytes(entry[64:]), entry[:64])
        for key, entry in zip(participants, entries, strict=True)
    ]
    cost = Cost()
    with cost.measure():
        for public, message, signature in claims:
            verify_signature(public, message, signature)
    return len(claims) / cost.cpu


def genesis() -> bytes:
    """Return the first entry of a benchmark's ledger."""
    everyone = EnrolmentPolicy(registrars=(0,), threshold=1)
    record = Genesis(
        origin=ORIGIN,
        author=0,
        seq=1,
        registrars=(FOUNDER.public,),
        enrolment_policy={"participant": everyone, "coordinator": everyone},
        log_vkey=verifier_key(ORIGIN, LOG.public),
        simulated=True,
        unit="user",
        relation="zero-out",
        epsilon_nano_limit=None,
        rho_nano_limit=None,
        terms=Terms(
            max_participants=10**6,
            max_colluders=0,
            max_dropouts_permille=0,
            max_late_dropouts_permille=0,
            min_cohort=1,
            min_honest=2,
            max_attempts=64,
        ),
        witnesses=Witnesses(keys=(), threshold=0),
    )

    return sign(record, FOUNDER)


def enrolments(participants: list[SigningKey]) -> list[bytes]:
    """Return the entries that enrol the coordinator, number 2, and people."""
    return [
        sign(
            Enrol(
                origin=ORIGIN,
                author=0,
                seq=number,
                number=number,
                key=key.public,
                device_key=None if key is COORDINATOR else device_of(key).public,
                custody="own",
                role="coordinator" if key is COORDINATOR else "participant",
                approvals=(),
            ),
            FOUNDER,
        )
        for number, key in enumerate([COORDINATOR, *participants], start=2)
    ]


def device_of(person: SigningKey) -> SigningKey:
    """Return the key of somebody's device."""
    return SigningKey.from_seed(person.public)


def opening(number: int, *, seq: int, base: Digest, spend_nano: int = 10**9) -> bytes:
    """Return the entry that opens a round, of which each update costs so much."""
    record = Round(
        origin=ORIGIN,
        author=2,
        seq=seq,
        number=number,
        run=1,
        rounds=None,
        base_version=number - 1,
        base_digest=base,
        terms=leaf_hash(genesis()),
        cohort=(),
        statistic="normal",
        shape=(3_706, 32, 1),
        mechanism=MechanismSpec(name="none", parameters={}),
        noise_placement="per_upload",
        fraction_bits=16,
        account="epsilon" if spend_nano else "none",
        spend_nano=spend_nano,
        minimum=1,
        deadline=10**9,
    )

    return sign(record, COORDINATOR)


def _update(key: SigningKey, author: int, number: int, opening: bytes) -> bytes:
    record = Update(
        origin=ORIGIN,
        author=author,
        seq=number,
        round=number,
        round_hash=leaf_hash(opening),
        commitment=leaf_hash(key.public),
        profile=leaf_hash(opening),
        shares=(),
        account="epsilon",
        spend_nano=10**9,
        participants=(),
    )
    return sign(record, device_of(key))


def _model(number: int, updates: list[bytes]) -> bytes:
    record = ModelRecord(
        origin=ORIGIN,
        author=2,
        seq=2 * number + 1,
        round=number,
        version=number,
        parent=ZERO,
        digest=ZERO,
        updates_root=root([leaf_hash(update) for update in updates]),
        unused=(),
        sum_digest=ZERO,
        solver="normal/1",
        parameters={},
    )

    return sign(record, COORDINATOR)


if __name__ == "__main__":
    show(measure())

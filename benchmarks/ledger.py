"""What the ledger costs: appending, opening, proving, reading a history, verifying; beside bare Ed25519 verification.

Every participant answers every round: signed updates in durable blocks, rules and state tree included. Then the ledger
is opened, read and verified as others would. Prints one JSON object; CPU seconds include those of helper processes.

    python benchmarks/ledger.py [--people 6040] [--rounds 8] [--block 1000]
    python benchmarks/ledger.py --people 10000 --rounds 100 --small 1     # a million entries, beside ten thousand
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey, verify_signature
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign, signed_bytes
from liberate.ledger.format.parts import EnrolmentPolicy, MechanismSpec, Witnesses
from liberate.ledger.format.records import ZERO, Enrol, Genesis, ModelRecord, Round, Update
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.randomness import SimulatedClock

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


def main() -> None:
    """Build ledgers, use them, and print what it cost."""
    arguments = _arguments()
    participants = [
        SigningKey.from_seed(b"person" + number.to_bytes(26, "big")) for number in range(arguments.participants)
    ]
    all_figures = []
    for rounds in [*arguments.small, arguments.rounds]:
        with tempfile.TemporaryDirectory() as folder:
            bare, cost = _build(Path(folder), participants, rounds, arguments.block)
            found = {"rounds": rounds, **cost, **_read(Path(folder), participants), **_verify(Path(folder), bare)}
        all_figures.append(found)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    print(
        json.dumps(
            {"people": arguments.participants, "block": arguments.block, **machine, "ledgers": all_figures}, indent=1
        )
    )


def _build(folder: Path, participants: list[SigningKey], rounds: int, block: int) -> tuple[float, dict[str, float]]:
    """Append a whole ledger; give the rate of bare verification measured between its rounds, and the figures."""
    ledger = SqliteLedger.create(folder, genesis(), LOG, SimulatedClock())
    _append(ledger, enrolments(participants), block, Cost())
    costs, bare = [], []
    for number in range(1, rounds + 1):
        first = opening(number, seq=2 * number, base=ZERO)
        _append(ledger, [first], 1, Cost())
        updates = [_update(key, 3 + i, number, first) for i, key in enumerate(participants)]
        costs.append(Cost())
        _append(ledger, updates, block, costs[-1])
        _append(ledger, [_model(number, updates)], 1, Cost())
        if number % 10 == 1:
            bare.append(_ed25519(participants, updates))
    ledger.close()
    n, limit = len(participants), sum(bare) / len(bare)
    cpu, last = sum(cost.cpu for cost in costs), costs[-3:]
    return limit, {
        "entries": n * rounds,
        "entries_per_cpu_s": round(n * rounds / cpu),
        "entries_per_s": round(n * rounds / sum(cost.wall for cost in costs)),
        "last_rounds_entries_per_cpu_s": round(n * len(last) / sum(cost.cpu for cost in last)),
        "ed25519_per_cpu_s": round(limit),
        "append_share_of_ed25519": round(n * rounds / cpu / limit, 3),
    }


def _read(folder: Path, participants: list[SigningKey]) -> dict[str, float]:
    """Open the ledger, prove an entry, and read a participant's complete history with its state leaf."""
    opening = Cost()
    with opening.measure():
        ledger = SqliteLedger.open(folder)
    proving, history = [], []
    for step in range(200):
        cost = Cost()
        with cost.measure():
            ledger.inclusion_proof((step * 7_919 + 1) % ledger.size)
        proving.append(cost.wall)
        cost = Cost()
        with cost.measure():
            positions = ledger.positions(about=3 + (step * 31) % len(participants))
            entries = [ledger.entry(position) for position in positions]
        history.append(cost.wall)
    size = ledger.size
    ledger.close()
    return {
        "open_s": round(opening.wall, 4),
        "inclusion_proof_ms": round(1_000 * sorted(proving)[100], 3),
        "history_entries": len(entries),
        "history_ms": round(1_000 * sorted(history)[100], 3),
        "bytes_per_entry": round((folder / "ledger.sqlite").stat().st_size / size),
    }


def _verify(folder: Path, bare: float) -> dict[str, float]:
    """Verify the ledger in a process of its own, on all cores and on one, and then again from where that ended."""
    figures: dict[str, float] = {}
    resume = folder / "verified"
    for name, cores, arguments in (
        ("verify", sorted(os.sched_getaffinity(0)), []),
        ("verify_one_core", [min(os.sched_getaffinity(0))], [str(resume)]),
        ("verify_resumed", sorted(os.sched_getaffinity(0)), [str(resume)]),
    ):
        command = [sys.executable, "-c", _VERIFY, str(folder), ",".join(map(str, cores)), *arguments]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        figures |= {f"{name}_s": round(found["wall"], 2), f"{name}_cpu_s": round(found["cpu"], 2)}
        figures |= {f"{name}_peak_mb": found["peak_mb"]}
        size = found["entries"]
    figures["verify_share_of_ed25519"] = round(size / figures["verify_cpu_s"] / bare, 3)
    figures["verify_one_core_share_of_ed25519"] = round(size / figures["verify_one_core_cpu_s"] / bare, 3)
    figures["verify_two_cores_over_one"] = round(figures["verify_one_core_s"] / figures["verify_s"], 2)
    return figures


_VERIFY = """
import json, os, resource, sys, time
from pathlib import Path
os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
from liberate.ledger.verification.verify import verify
wall, cpu = time.perf_counter(), time.process_time()
audit = verify(Path(sys.argv[1]), resume=Path(sys.argv[3]) if len(sys.argv) > 3 else None)
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=6_040)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--block", type=int, default=1_000)
    parser.add_argument("--small", type=int, nargs="*", default=[], help="rounds of smaller ledgers to compare with")
    return parser.parse_args()


def _append(ledger: SqliteLedger, entries: list[bytes], block: int, cost: Cost) -> None:
    for begin in range(0, len(entries), block):
        with cost.measure():
            results = ledger.append(entries[begin : begin + block])
        refused = [result for result in results if not isinstance(result, int)]
        if refused:
            raise refused[0]


def _ed25519(participants: list[SigningKey], entries: list[bytes]) -> float:
    claims = [
        (key.public, signed_bytes(entry[64:]), entry[:64]) for key, entry in zip(participants, entries, strict=True)
    ]
    cost = Cost()
    with cost.measure():
        for public, message, signature in claims:
            verify_signature(public, message, signature)
    return len(claims) / cost.cpu


def genesis() -> bytes:
    """Give the first entry of a benchmark's ledger."""
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
        witnesses=Witnesses(keys=(), threshold=0),
    )
    return sign(record, FOUNDER)


def enrolments(participants: list[SigningKey]) -> list[bytes]:
    """Give the entries that enrol the coordinator, number 2, and people."""
    return [
        sign(
            Enrol(
                origin=ORIGIN,
                author=0,
                seq=number,
                number=number,
                key=key.public,
                role="coordinator" if key is COORDINATOR else "participant",
            ),
            FOUNDER,
        )
        for number, key in enumerate([COORDINATOR, *participants], start=2)
    ]


def opening(number: int, *, seq: int, base: Digest) -> bytes:
    """Give the entry that opens a round."""
    record = Round(
        origin=ORIGIN,
        author=2,
        seq=seq,
        number=number,
        run=1,
        rounds=None,
        base_version=number - 1,
        base_digest=base,
        cohort=(),
        statistic="normal",
        shape=(3_706, 32, 1),
        mechanism=MechanismSpec(name="none", parameters={}),
        noise_placement="per_upload",
        fraction_bits=16,
        account="epsilon",
        spend_nano=10**9,
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
    return sign(record, key)


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
    main()

"""How many entries per CPU second the ledger takes in, beside the rate of bare Ed25519 verification.

Appends signed updates in durable blocks, rules and state tree included. Prints one JSON object.

    python benchmarks/ledger.py [--people 6040] [--rounds 8] [--block 1000]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey, verify
from liberate.ledger.log import SqliteLedger
from liberate.ledger.records import (
    ZERO,
    Admission,
    Enrol,
    Genesis,
    Mechanism,
    Model,
    Round,
    Update,
    Witnesses,
    sign,
    signed_bytes,
)
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
        """Add the cost of the block."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall


def main() -> None:
    """Build a ledger and print what each entry cost."""
    arguments = _arguments()
    people = [SigningKey.from_seed(b"person" + number.to_bytes(26, "big")) for number in range(arguments.people)]
    with tempfile.TemporaryDirectory() as folder:
        ledger = SqliteLedger.create(Path(folder), _genesis(), LOG, SimulatedClock())
        _append(ledger, _enrolments(people), arguments.block, Cost())
        cost, last = Cost(), []
        for number in range(1, arguments.rounds + 1):
            opening = _round(number)
            _append(ledger, [opening], 1, Cost())
            last = [_update(key, 3 + i, number, opening) for i, key in enumerate(people)]
            _append(ledger, last, arguments.block, cost)
            _append(ledger, [_model(number, last)], 1, Cost())
        size = ledger.size
        ledger.close()
        file_size = (Path(folder) / "ledger.sqlite").stat().st_size
        reopening = Cost()
        with reopening.measure():
            ledger = SqliteLedger.open(Path(folder), LOG, SimulatedClock())
        ledger.close()
    entries = arguments.people * arguments.rounds
    bare = _ed25519(people, last)
    print(
        json.dumps(
            {
                "entries": entries,
                "entries_per_cpu_s": round(entries / cost.cpu),
                "entries_per_s": round(entries / cost.wall),
                "ed25519_per_cpu_s": round(bare),
                "share_of_ed25519": round(entries / cost.cpu / bare, 3),
                "bytes_per_entry": round(file_size / size),
                "open_s": round(reopening.wall, 4),
                "people": arguments.people,
                "block": arguments.block,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "machine": platform.machine(),
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
            }
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=6_040)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--block", type=int, default=1_000)
    return parser.parse_args()


def _append(ledger: SqliteLedger, entries: list[bytes], block: int, cost: Cost) -> None:
    for begin in range(0, len(entries), block):
        with cost.measure():
            results = ledger.append(entries[begin : begin + block])
        refused = [result for result in results if not isinstance(result, int)]
        if refused:
            raise refused[0]


def _ed25519(people: list[SigningKey], entries: list[bytes]) -> float:
    claims = [(key.public, signed_bytes(entry[64:]), entry[:64]) for key, entry in zip(people, entries, strict=True)]
    cost = Cost()
    with cost.measure():
        for public, message, signature in claims:
            verify(public, message, signature)
    return len(claims) / cost.cpu


def _genesis() -> bytes:
    everyone = Admission(admitters=(0,), threshold=1)
    genesis = Genesis(
        origin=ORIGIN,
        author=0,
        seq=1,
        admitters=(FOUNDER.public,),
        admission={"participant": everyone, "coordinator": everyone},
        log_vkey=verifier_key(ORIGIN, LOG.public),
        simulated=True,
        unit="user",
        relation="zero-out",
        epsilon_nano_limit=None,
        rho_nano_limit=None,
        witnesses=Witnesses(keys=(), threshold=0),
    )
    return sign(genesis, FOUNDER)


def _enrolments(people: list[SigningKey]) -> list[bytes]:
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
        for number, key in enumerate([COORDINATOR, *people], start=2)
    ]


def _round(number: int) -> bytes:
    record = Round(
        origin=ORIGIN,
        author=2,
        seq=2 * number,
        number=number,
        run=1,
        rounds=None,
        base_version=number - 1,
        base_digest=ZERO,
        cohort=(),
        statistic="normal",
        shape=(3_706, 32, 1),
        mechanism=Mechanism(name="none", parameters={}),
        fidelity="uploads",
        grid_bits=16,
        modulus_bits=64,
        account="epsilon",
        spend=10**9,
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
        spend=10**9,
        people=(),
    )
    return sign(record, key)


def _model(number: int, updates: list[bytes]) -> bytes:
    record = Model(
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

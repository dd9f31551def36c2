"""What it costs to trace one participant, with proofs, on a ledger where people answer rounds, share and pool.

Everybody answers every round; one person in ten has given copies to three others, who use them in every answer, and one
in twenty to the pool, which every round uses. Prints one JSON object; the ledger is kept if a folder is given.

    python -m benchmarks.trace [--people 10000] [--rounds 99] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.ledger import COORDINATOR, LOG, ORIGIN, enrolments, genesis, opening
from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.signing import SigningKey
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.records import ZERO, ModelRecord, Update
from liberate.ledger.format.sharing_records import Consent, PoolRecord, Receipt, Share, UsedCopy
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.trace.model_ancestry import model_ancestry
from liberate.ledger.trace.participant import ParticipantTrace, trace_participant, trace_received
from liberate.randomness import SimulatedClock

FIRST = 3
"""Number of the first person."""

SHARED = 3
"""How many others get a copy."""


def main() -> None:
    """Build the ledger if there is none, trace, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=99)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "ledger.sqlite").exists():
            _build(folder, arguments.participants, arguments.rounds)
        print(json.dumps(_measure(folder, arguments.participants) | {"load": os.getloadavg()[0]}, indent=1))


def _measure(folder: Path, n_participants: int) -> dict[str, object]:
    ledger = SqliteLedger.open(folder)
    figures: dict[str, object] = {}
    sharers = range(FIRST, FIRST + n_participants, 20)
    others = range(FIRST + 5, FIRST + n_participants, 20)

    def trace(number: int) -> ParticipantTrace:
        return trace_participant(ledger, number, with_memberships=False)

    first = _milliseconds(trace, sharers[:1])
    for name, numbers in (("sharer", sharers), ("other", others)):
        found = trace(numbers[1])
        figures[name] = {
            "history": len(found.history),
            "contributions": len(found.contributions),
            "uses": len(found.uses),
            "proofs": found.proof_count,
            **_milliseconds(trace, numbers[2:32]),
        }
    received = _milliseconds(lambda number: trace_received(ledger, number), range(FIRST + 1, FIRST + 101, 10))
    memberships = _milliseconds(lambda number: trace_participant(ledger, number), sharers[-1:])
    model = _milliseconds(lambda version: next(model_ancestry(ledger, version)), range(1, 4))
    size = ledger.size
    ledger.close()
    return {
        "entries": size,
        "people": n_participants,
        "first_trace_after_opening": first,
        **figures,
        "received": received,
        "with_memberships": memberships,
        "who_shaped_a_model": model,
    }


def _milliseconds(act: Callable[[int], object], arguments: Sequence[int]) -> dict[str, float]:
    """Give the median wall-clock time and the least CPU time of an act, over some arguments, in milliseconds."""
    walls, cpus = [], []
    for argument in arguments:
        wall, cpu = time.perf_counter(), time.process_time()
        act(argument)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"median_ms": round(1_000 * sorted(walls)[len(walls) // 2], 1), "least_cpu_ms": round(1_000 * min(cpus), 1)}


class _Writer:
    """Signs records of people in ledger order."""

    def __init__(self, folder: Path, n_participants: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger = SqliteLedger.create(folder, genesis(), LOG, SimulatedClock())
        self.keys = [SigningKey.from_seed(b"person" + number.to_bytes(26, "big")) for number in range(n_participants)]
        self.append(enrolments(self.keys))
        self._seqs: dict[int, int] = {}

    def append(self, entries: list[bytes]) -> None:
        for begin in range(0, len(entries), 1_000):
            for result in self.ledger.append(entries[begin : begin + 1_000]):
                if not isinstance(result, int):
                    raise result

    def key(self, number: int) -> SigningKey:
        return COORDINATOR if number == 2 else self.keys[number - FIRST]

    def next(self, number: int) -> int:
        self._seqs[number] = self._seqs.get(number, 0) + 1
        return self._seqs[number]


def _build(folder: Path, n_participants: int, rounds: int) -> None:
    writer = _Writer(folder, n_participants)
    inputs: dict[int, list[UsedCopy]] = {}
    participants = range(FIRST, FIRST + n_participants)
    pooled = participants[::20]
    for sender in participants[::10]:
        recipients = [FIRST + (sender - FIRST + step) % n_participants for step in range(1, SHARED + 1)]
        _share(writer, sender, [*recipients, *([2] if sender in pooled else [])], inputs)
    base = ZERO
    for number in range(1, rounds + 1):
        base = _round(writer, number, base, participants, inputs, pooled)
    writer.ledger.close()


def _share(writer: _Writer, sender: int, recipients: list[int], inputs: dict[int, list[UsedCopy]]) -> None:
    consent = Consent(
        origin=ORIGIN,
        author=sender,
        seq=writer.next(sender),
        recipients=to_ranges(recipients),
        expiry=10**9,
        max_shares=9,
        epsilon_nano=None,
        terms=ZERO,
    )
    entries = [sign(consent, writer.key(sender))]
    under = leaf_hash(entries[0])
    for recipient in recipients:
        copy = leaf_hash(recipient.to_bytes(4, "big"))
        share = Share(
            origin=ORIGIN,
            author=sender,
            seq=writer.next(sender),
            consent=under,
            recipient=recipient,
            base=ZERO,
            epsilon_nano=None,
            copy=copy,
        )
        entries.append(sign(share, writer.key(sender)))
        hash = leaf_hash(entries[-1])
        inputs.setdefault(recipient, []).append(UsedCopy(sender=sender, share=hash))
        seq = writer.next(recipient)
        receipt = Receipt(origin=ORIGIN, author=recipient, seq=seq, sender=sender, share=hash, copy=copy)
        entries.append(sign(receipt, writer.key(recipient)))
    writer.append(entries)


def _round(
    writer: _Writer, number: int, base: Digest, participants: range, inputs: dict[int, list[UsedCopy]], pooled: range
) -> Digest:
    first = opening(number, seq=writer.next(2), base=base)
    pool = PoolRecord(
        origin=ORIGIN,
        author=2,
        seq=writer.next(2),
        round=number,
        round_hash=leaf_hash(first),
        participants=to_ranges(pooled),
    )
    writer.append([first, sign(pool, COORDINATOR)])
    updates = []
    for author in participants:
        update = Update(
            origin=ORIGIN,
            author=author,
            seq=writer.next(author),
            round=number,
            round_hash=leaf_hash(first),
            commitment=leaf_hash(first),
            profile=leaf_hash(first),
            shares=tuple(sorted(inputs.get(author, []), key=lambda each: (each.sender, each.share))),
            account="epsilon",
            spend_nano=10**9,
            participants=(),
        )
        updates.append(sign(update, writer.key(author)))
    writer.append(updates)
    digest = leaf_hash(number.to_bytes(4, "big"))
    model = ModelRecord(
        origin=ORIGIN,
        author=2,
        seq=writer.next(2),
        round=number,
        version=number,
        parent=base,
        digest=digest,
        updates_root=root([leaf_hash(update) for update in updates]),
        unused=(),
        sum_digest=ZERO,
        solver="normal/1",
        parameters={},
    )
    writer.append([sign(model, COORDINATOR)])
    return digest


if __name__ == "__main__":
    main()

"""What it costs to trace one participant, with proofs, on a ledger where people answer rounds, share and pool.

Everybody answers every round; one person in ten has given copies to three others, who use them in every answer, and one
in twenty to the pool, which every round uses. CPU times are of all threads, the least of up to 30 traces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.figures import Figure, show
from benchmarks.ledger import COORDINATOR, LOG, ORIGIN, device_of, enrolments, genesis, opening
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

N_PARTICIPANTS, ROUNDS = 10_000, 99

FIRST = 3
"""Number of the first person."""

SHARED = 3
"""How many others get a copy."""


def measure() -> Iterator[Figure]:
    """Build the ledger, and trace."""
    with TemporaryDirectory() as folder:
        _build(Path(folder), N_PARTICIPANTS, ROUNDS)
        with closing(SqliteLedger.open(Path(folder))) as ledger:
            yield from _measure(ledger, N_PARTICIPANTS)


def _measure(ledger: SqliteLedger, n_participants: int) -> Iterator[Figure]:
    def trace(number: int) -> ParticipantTrace:
        return trace_participant(ledger, number, with_memberships=False)

    sharers = range(FIRST, FIRST + n_participants, 20)
    others = range(FIRST + 5, FIRST + n_participants, 20)
    yield Figure(name="entries", value=ledger.size)
    yield from _figures("the first trace after opening", trace, sharers[:1])
    for name, numbers in (("a participant who shares nothing", others), ("a participant who shares", sharers)):
        traced = trace(numbers[1])
        yield Figure(name=f"{name}: proofs", value=traced.proof_count)
        yield Figure(name=f"{name}: uses by others", value=len(traced.uses))
        yield from _figures(name, trace, numbers[2:32], at_most=50)

    received = partial(trace_received, ledger)
    yield from _figures("what a recipient received", received, range(FIRST + 1, FIRST + 101, 10))
    with_memberships = partial(trace_participant, ledger)
    yield from _figures("a participant who shares, with memberships", with_memberships, sharers[-1:])
    yield from _figures("who shaped one model", lambda number: next(model_ancestry(ledger, number)), range(1, 4))


def _figures(
    name: str, act: Callable[[int], object], arguments: Sequence[int], at_most: float | None = None
) -> Iterator[Figure]:
    """Return the least CPU time and the median wall-clock time of an act, over some arguments, in milliseconds."""
    walls, cpus = [], []
    for argument in arguments:
        wall, cpu = time.perf_counter(), time.process_time()
        act(argument)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    yield Figure(name=f"{name}: CPU", value=min(cpus), unit="ms", at_most=at_most)
    yield Figure(name=f"{name}: wall clock", value=median(walls), unit="ms")


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
    first = opening(number, seq=writer.next(2), base=base, spend_nano=0)  # only open updates use copies
    pool = PoolRecord(
        origin=ORIGIN,
        author=2,
        seq=writer.next(2),
        round=number,
        round_hash=leaf_hash(first),
        participants=to_ranges(pooled),
    )
    writer.append([first, sign(pool, COORDINATOR)])

    updates = [_update(writer, number, leaf_hash(first), author, inputs.get(author, [])) for author in participants]
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


def _update(writer: _Writer, number: int, round_hash: Digest, author: int, copies: list[UsedCopy]) -> bytes:
    record = Update(
        origin=ORIGIN,
        author=author,
        seq=writer.next(author),
        round=number,
        round_hash=round_hash,
        commitment=round_hash,
        profile=round_hash,
        shares=tuple(sorted(copies, key=lambda copy: (copy.sender, copy.share))),
        account="none",
        spend_nano=0,
        participants=(),
    )
    return sign(record, device_of(writer.key(author)))


if __name__ == "__main__":
    show(measure())

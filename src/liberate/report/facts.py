"""What the report says about a run's ledger, its time and one participant's way, read from the run folder."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from liberate.crypto.note import verify_checkpoint
from liberate.ledger.format.records import KINDS, Block
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.lookup import entries, entry_at
from liberate.ledger.verification.verify import VerificationReport, verify_ledger
from liberate.report.charts import EntryTrack
from liberate.runs.folder import Run
from liberate.tracing.answers import ParticipantAnswer
from liberate.tracing.entry_answers import ContributionAnswer, EntryAnswer, UseAnswer

_PARTS = {
    "fit": "devices fit their own side and compute their statistic",
    "noise": "devices clip, round to the grid and, where the mode says so, add noise",
    "agree": "devices advertise keys and share secrets with their neighbours",
    "mask": "devices add masks to their uploads",
    "unmask": "survivors reveal shares, and the coordinator takes the masks out of the sum",
    "keep": "the coordinator keeps the uploads of the round",
    "hash": "devices commit to their uploads, the coordinator checks it",
    "sign": "everybody signs their entries",
    "verify": "the ledger verifies signatures",
    "store": "entries, trees and blocks are written to the ledger, answers to the outboxes",
    "sum": "the coordinator adds up integers",
    "solve": "the coordinator computes the next model from the sum",
}

_STEPS = {
    "enrol": ("enrolled", "enrolled"),
    "dataset": ("ratings committed", ""),
    "key": ("key changed", "key recovered"),
    "consent": ("consented", "consent by {}"),
    "withdrawal": ("consent withdrawn", ""),
    "share": ("copy handed over", "copy from {}"),
    "receipt": ("copy accepted", "copy accepted by {}"),
    "erasure": ("erasure requested", "erased"),
    "disclosure": ("", "looked up by auditor {}"),
}
"""What an entry of a kind is to a participant, by that participant and by somebody else, whose number is filled in."""

_OTHER = "messages, keys, reading and all that is not measured separately"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFacts:
    """A run's ledger as it is when the report is written.

    Attributes:
        origin: Its name.
        kinds: How many entries of each kind, in the order in which they first appear.
        blocks: Positions of the block entries.
        size: Entries, blocks included.
        root: Of the tree, base64.
        checkpoint: The newest one, as a signed note.
        traced: A participant whose trace tells most: the first who shared, else the one with the lowest number.
        time: Of the last block, by the ledger's clock.
        audit: What a full check of every stored byte found.
    """

    origin: str
    kinds: dict[str, int]
    blocks: list[int]
    size: int
    root: str
    checkpoint: str
    traced: int
    time: datetime
    audit: VerificationReport


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the work.

    Attributes:
        name: As the stopwatch calls it.
        words: What is done.
        seconds: How long it took.
        share: Of the whole time, 0 to 1.
    """

    name: str
    words: str
    seconds: float
    share: float


def ledger_facts(run: Run) -> LedgerFacts:
    """Read and check a run's ledger."""
    with closing(run.open_ledger()) as ledger:
        note = ledger.checkpoint()
        positions = {kind: ledger.positions(kind=kind) for kind in KINDS}
        first = next(i for i, principal in enumerate(ledger.state.principals) if principal.role == "participant")
        sharers = [share.record.author for share in islice(entries(ledger, Share), 1)]
        last = entry_at(ledger, positions["block"][-1], Block).record
    checkpoint = verify_checkpoint(note, run.verifier_key)
    return LedgerFacts(
        origin=checkpoint.origin,
        kinds={kind: len(found) for kind, found in sorted(positions.items(), key=lambda each: each[1][:1]) if found},
        blocks=positions["block"],
        size=checkpoint.size,
        root=b64encode(checkpoint.root).decode(),
        checkpoint=note,
        traced=(*sharers, first)[0],
        time=_EPOCH + timedelta(microseconds=last.time_us),
        audit=verify_ledger(run.ledger_folder, key=run.verifier_key),
    )


def ways(trace: ParticipantAnswer, blocks: Sequence[int]) -> list[EntryTrack]:
    """Return the places of each of a participant's entries, its block and the model it entered.

    Args:
        trace: The participant's trace.
        blocks: Positions of the ledger's blocks, by height from 1.
    """
    versions = {entry.position: entry.version for entry in (*trace.updates, *trace.uses)}
    models: dict[int | None, int] = {model.version: model.position for model in trace.models}
    entered = [(entry, versions.get(entry.position)) for entry in trace.entries]
    return [
        EntryTrack(entry.position, blocks[entry.block - 1], models.get(version), f"v{version}")
        for entry, version in entered
    ]


def step(entry: EntryAnswer, number: int, contribution: ContributionAnswer | None) -> str:
    """Say what an entry is to a participant whose history it is in.

    Args:
        entry: The entry.
        number: The participant's number.
        contribution: What became of the entry, if it is an update or a use of the participant's copies.
    """
    if isinstance(contribution, UseAnswer):
        where = "in the pool" if entry.kind == "pool" else f"used by {contribution.by}"
        return f"copy {where}, round {contribution.round}"
    if contribution is not None:
        return f"answered round {contribution.round}"
    by_them, by_others = _STEPS.get(entry.kind, (entry.kind, entry.kind))
    return by_them if entry.author == number else by_others.format(entry.author)


def time_parts(seconds: Mapping[str, float], total: float) -> list[Part]:
    """Return the parts of a run's time, and what is left of the whole as `other`.

    Args:
        seconds: By name of the part.
        total: From the beginning of the run to its end.
    """
    known = {name: value for name, value in seconds.items() if value > 0}
    measured = sum(known.values())
    other = {"other": total - measured} if total > measured else {}
    whole = max(total, measured)
    ordered = sorted(known.items(), key=lambda part: -part[1])
    return [
        Part(
            name,
            _PARTS.get(name, "messages, keys, reading and all that is not measured separately"),
            value,
            value / whole,
        )
        for name, value in [*ordered, *other.items()]
    ]

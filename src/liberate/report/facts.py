"""What the report says about a run's ledger, its time and one participant's way, read from the run folder."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from liberate.crypto.note import verify_checkpoint
from liberate.ledger.format.records import KINDS, Block
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.lookup import entries, entry_at
from liberate.ledger.verification.verify import VerificationReport, verify_ledger
from liberate.report.charts import EntryTrack
from liberate.runs.folder import Run

_PARTS = {
    "fit": "devices fit their own side and compute their statistic",
    "noise": "devices clip, round to the grid and, where the mode says so, add noise",
    "agree": "devices advertise keys and share secrets with their neighbours",
    "mask": "devices add masks to their uploads",
    "unmask": "survivors give shares away, and the coordinator takes the masks out of the sum",
    "keep": "the coordinator keeps the uploads of the round",
    "hash": "devices commit to their uploads, the coordinator checks it",
    "sign": "everybody signs the own entries",
    "verify": "the ledger verifies signatures",
    "store": "entries, trees and blocks are written to the ledger, answers to the outboxes",
    "sum": "the coordinator adds up integers",
    "solve": "the coordinator makes the next model of the sum",
}

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


def ways(trace: Mapping[str, Any], blocks: Sequence[int]) -> list[EntryTrack]:
    """Give the places of each of a participant's entries, its block and the model it entered.

    Args:
        trace: From `trace_person`.
        blocks: Positions of the ledger's blocks, by height from 1.
    """
    versions = {each["position"]: each["version"] for each in (*trace["updates"], *trace["uses"])}
    models = {model["version"]: model["position"] for model in trace["models"]}
    entered = [(each, versions.get(each["position"])) for each in trace["entries"]]
    return [
        EntryTrack(each["position"], blocks[each["block"] - 1], models.get(version), f"v{version}")
        for each, version in entered
    ]


def time_parts(seconds: Mapping[str, float], total: float) -> list[Part]:
    """Give the parts of a run's time, and what is left of the whole as `other`.

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
        Part(name, _PARTS.get(name, "messages, keys, reading and all that is not measured apart"), value, value / whole)
        for name, value in [*ordered, *other.items()]
    ]

"""`liberate ledger`: look at a ledger, verify all of it, and back it up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs, print_result, print_table, progress_lines
from liberate.cli.run import Folder
from liberate.timing import Progress

if TYPE_CHECKING:
    from liberate.crypto.note import WitnessPolicy
    from liberate.ledger.verification.findings import Finding
    from liberate.tracing.recompute import RecomputedRound, RecomputeReport

Published = Annotated[
    Path | None,
    typer.Option(
        help="A checkpoint with the cosignatures that the ledger requires; by default the newest published one."
    ),
]
LogKey = Annotated[str, typer.Option(help="The log's verifier key.")]
OwnLogKey = Annotated[str | None, typer.Option(help="The log's verifier key, kept since the run began.")]
Witness = Annotated[
    list[str] | None, typer.Option(help="Verifier key of a witness that must have cosigned; repeatable.")
]
Threshold = Annotated[int | None, typer.Option(min=1, help="How many of the witnesses must have.  [default: all]")]
KeptCheckpoint = Annotated[
    Path | None, typer.Option(help="A checkpoint you have kept: the ledger must contain all that it covered.")
]
Resume = Annotated[
    Path | None,
    typer.Option(
        help="A file of yours that says what was verified earlier; that is not read again. Updated if nothing is wrong."
    ),
]
Recompute = Annotated[
    bool,
    typer.Option(
        "--recompute",
        help="Also recompute the run's rounds from its kept uploads (ledger.keep_uploads): commitments, sums, models.",
    ),
]

app = typer.Typer(help="Look at a ledger, verify it, prove parts of it, publish it.", no_args_is_help=True)


@app.command()
def show(
    folder: Folder,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    author: Annotated[str | None, typer.Option(help="Only entries of this author: number, key id or user:ID.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many entries at most, the newest ones.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show entries, field by field."""
    from liberate.runs.folder import load_run
    from liberate.tracing.entries import read_entries

    names = ("position", "kind", "author", "key_id", "user_id")
    entries = []
    for entry in read_entries(load_run(folder), kind=kind, author=author, limit=limit):
        fields = fields_of(entry)
        record = fields.pop("record")
        entries.append({name: fields.get(name, record.get(name)) for name in names} | record)

    if as_json:
        print_json({"entries": entries})
        return
    rows = [[*(entry[name] for name in names), record_line(entry, {*names, "v", "origin"})] for entry in entries]
    print_table([*names, "fields"], rows)


def record_line(record: dict[str, Any], hidden: set[str]) -> str:
    """Write a record in a line, without some fields."""
    return " ".join(f"{name}={_short(value)}" for name, value in record.items() if name not in hidden)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:20] + "..."


@app.command()
def verify(
    folder: Folder,
    key: Annotated[
        str | None,
        typer.Option(help="The log's verifier key, kept since the run began; without it nobody is trusted."),
    ] = None,
    checkpoint: KeptCheckpoint = None,
    resume: Resume = None,
    again: Recompute = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify the whole ledger from its bytes and keys; exit 1 if anything is wrong."""
    from liberate.ledger.verification.verify import verify_ledger
    from liberate.report import words

    note = read_note(checkpoint)
    with progress_lines() as progress:
        progress("verifying")
        report = verify_ledger(
            ledger_folder(folder), key=key, checkpoint=note, resume=resume, progress=_by_tenths(progress)
        )
        recomputed = _recompute(folder, progress) if again and report.ok else None

    findings = report.findings + (recomputed.findings if recomputed else ())
    fields = fields_of(report) | {"ok": not findings, "findings": findings}
    if again:
        fields["rounds"] = recomputed.rounds if recomputed else None
    print_report(fields, findings, as_json=as_json)
    if not as_json:
        _print_rounds(recomputed.rounds if recomputed else None, again)
        if report.resumed_at:
            print(f"note: entries before {report.resumed_at} were verified earlier and not read again")
        print(f"note: {words.trust(report)}")
    if findings:
        sys.exit(1)


def print_report(report: object, findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print what a check found: its figures, then a line for each finding."""
    if as_json:
        print_json(report)
        return
    fields = fields_of(report)
    print_pairs({name: value for name, value in fields.items() if name not in ("findings", "rounds", "distrust")})
    for finding in findings:
        print(f"FOUND {finding.place}: {finding.reason}")


def _recompute(folder: Path, progress: Progress) -> RecomputeReport:
    from liberate.runs.folder import load_run
    from liberate.tracing.recompute import recompute

    return recompute(load_run(folder), progress)


def _print_rounds(rounds: Sequence[RecomputedRound] | None, is_wanted: bool) -> None:
    """Print what became of each round that was recomputed."""
    if rounds is None:
        if is_wanted:
            print("note: no round was recomputed, because the ledger itself is not sound")
        return
    columns = ("round", "version", "position", "updates", "kept", "outcome", "difference")
    print_table(columns, [[getattr(row, column) for column in columns] for row in rounds])
    if any(row.outcome in ("erased", "not_kept") for row in rounds):
        print(
            "note: erased: participants of the round were erased, and their uploads with them; not_kept: none are here"
        )


@app.command()
def backup(
    folder: Folder,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the copy.")],
    key: OwnLogKey = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy the ledger, in use or not, and verify the copy before it gets its name."""
    from liberate.ledger.verification.backup import backup as back_up

    with progress_lines() as progress:
        progress("copying")
        report = back_up(ledger_folder(folder), to, key=key, progress=_by_tenths(progress))
    print_result({"path": to, "entry_count": report.entry_count, "root": report.root or b""}, as_json=as_json)


def _by_tenths(progress: Progress) -> Callable[[int, int], None]:
    """Return what shows how many entries are verified, ten times in all."""
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if done == total or done - shown >= total / 10:
            shown = done
            progress(f"verified {done} of {total} entries")

    return show


def ledger_folder(folder: Path) -> Path:
    """Return the folder of a run's ledger; a ledger's folder is returned as it is."""
    from liberate.runs.federation_folder import ledger_folder_of

    return ledger_folder_of(folder)


def witness_policy(witnesses: list[str] | None, threshold: int | None) -> WitnessPolicy:
    """Return what is required of a checkpoint; by default the cosignatures of all named witnesses."""
    from liberate.crypto.note import WitnessPolicy

    keys = tuple(witnesses or ())
    wanted = len(keys) if threshold is None else threshold
    if wanted > len(keys):
        raise typer.BadParameter(f"{wanted} of {len(keys)} witnesses cannot have cosigned")
    return WitnessPolicy(keys, wanted)


def read_note(file: Path | None) -> str | None:
    """Read a signed text, None without a file; what is not text is left to fail its check."""
    return None if file is None else file.read_bytes().decode(errors="replace")

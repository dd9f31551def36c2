"""`liberate ledger`: look at a ledger, check all of it, prove parts of it, publish it."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, print_table, progress_lines
from liberate.cli.run import Folder
from liberate.timing import Progress

if TYPE_CHECKING:
    from liberate.crypto.note import WitnessPolicy
    from liberate.tracing.proofs import ProofAnswer
    from liberate.tracing.recompute import RecomputedRound, RecomputeReport

Published = Annotated[
    Path | None,
    typer.Option(help="A checkpoint, with the cosignatures that the ledger wants; else the newest published one."),
]
Witness = Annotated[
    list[str] | None, typer.Option(help="Verifier key of a witness who must have cosigned; several times for several.")
]
Threshold = Annotated[int | None, typer.Option(min=1, help="How many of the witnesses must have.  [default: all]")]

app = typer.Typer(help="Look at a ledger, check all of it, prove parts of it, publish it.", no_args_is_help=True)


@app.command()
def show(
    folder: Folder,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    author: Annotated[str | None, typer.Option(help="Only entries of this author: number, key id or user:ID.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show entries, field by field."""
    from liberate.json_edge import to_json
    from liberate.runs.folder import load_run
    from liberate.tracing.entries import read_entries

    names = ("position", "kind", "author", "key_id", "user_id")
    entries = []
    for entry in read_entries(load_run(folder), kind=kind, author=author, limit=limit):
        fields = to_json(entry)
        record = fields.pop("record")
        entries.append({name: fields.get(name, record.get(name)) for name in names} | record)

    if as_json:
        print_json({"entries": entries})
        return
    rows = [[*(entry[name] for name in names), _rest(entry, {*names, "v", "origin"})] for entry in entries]
    print_table([*names, "fields"], rows)


def _rest(entry: dict[str, Any], shown: set[str]) -> str:
    return " ".join(f"{name}={_short(value)}" for name, value in entry.items() if name not in shown)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:20] + "..."


@app.command()
def verify(
    folder: Folder,
    key: Annotated[
        str | None, typer.Option(help="The log's verifier key, kept since the run began; without it nobody is trusted.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint you have kept: the ledger must hold everything it held then.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="A file of yours: what it says was verified is not read again; written when all is well."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Also take the run's rounds again from the uploads it kept (ledger.keep_uploads): commitments, sums,"
            " models.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check the whole ledger again from its bytes and keys; exit 1 if anything is wrong."""
    from liberate.ledger.verification.verify import verify_ledger

    note = _read(checkpoint) if checkpoint else None
    with progress_lines() as progress:
        progress("verifying")
        audit = verify_ledger(_place(folder), key=key, checkpoint=note, resume=resume, progress=_by_tenths(progress))
        taken = _recompute(folder, progress) if again and audit.ok else None
    findings = audit.findings + (taken.findings if taken else ())
    found = asdict(audit) | {"root": b64encode(audit.root).decode() if audit.root else None, "ok": not findings}
    if again:
        found |= {"findings": [asdict(each) for each in findings]}
        found |= {"rounds": [asdict(each) for each in taken.rounds] if taken else None}
    if as_json:
        print_json(found)
    else:
        print_pairs({name: value for name, value in found.items() if name not in ("findings", "rounds")})
        for finding in findings:
            print(f"FOUND {finding.place}: {finding.reason}")
        if taken:
            _print_rounds(taken.rounds)
        elif again:
            print("note: no round was taken again: the ledger itself is not sound")
        if audit.resumed_at:
            print(f"note: entries before {audit.resumed_at} and their rows were verified earlier and not read again")
        if not audit.trusted:
            print("note: no --key was given: whoever wrote this ledger may have signed all of it again")
    if findings:
        sys.exit(1)


def _recompute(folder: Path, progress: Progress) -> RecomputeReport:
    from liberate.runs.folder import load_run
    from liberate.tracing.recompute import recompute

    return recompute(load_run(folder), progress)


def _print_rounds(rounds: Sequence[RecomputedRound]) -> None:
    """Print what became of each round that was taken again."""
    columns = ("round", "version", "position", "updates", "kept", "outcome", "difference")
    print_table(columns, [[getattr(each, column) for column in columns] for each in rounds])
    if any(each.outcome in ("erased", "not_kept") for each in rounds):
        print("note: erased: people of the round were erased, and their uploads with them; not_kept: none are here")


@app.command()
def prove(
    folder: Folder,
    entry: Annotated[int | None, typer.Option(min=0, help="Prove that the entry at this position is there.")] = None,
    since: Annotated[
        Path | None, typer.Option(help="Prove that the ledger continues this checkpoint, which you have kept.")
    ] = None,
    participant: Annotated[
        str | None, typer.Option(help="Prove which entries are all that name this one: number, key id or user:ID.")
    ] = None,
    checkpoint: Published = None,
    out: Annotated[Path | None, typer.Option(help="Write the proof to this file; verify-proof checks it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Prove something about the ledger; the proof is checked before it is given out."""
    from liberate.runs.folder import load_run
    from liberate.tracing.proofs import prove_completeness, prove_consistency, prove_entry

    if [entry, since, participant].count(None) != 2:
        raise typer.BadParameter("one of --entry, --since and --participant is wanted")
    run, note = load_run(folder), _read(checkpoint) if checkpoint else None
    answer: ProofAnswer
    if entry is not None:
        answer = prove_entry(run, entry, note, out)
    elif since is not None:
        answer = prove_consistency(run, _read(since), note, out)
    else:
        answer = prove_completeness(run, participant or "", note, out)

    proved = _fields_of(answer, besides="record")
    if as_json:
        print_json({"ok": True, "path": out, **proved})
        return
    _print_proof(proved, is_whole=out is None)
    if out:
        print(f"written to {out}")


@app.command()
def verify_proof(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A proof that prove has written.", exists=True, dir_okay=False)
    ],
    key: Annotated[str, typer.Option(help="The log's verifier key.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="For a proof of consistency: the checkpoint you have kept.")
    ] = None,
    witness: Witness = None,
    threshold: Threshold = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a proof without the ledger; exit 1 if it proves nothing."""
    from liberate.errors import LedgerError
    from liberate.tracing.proofs import open_proof

    try:
        answer = open_proof(_read(file), key, _read(checkpoint) if checkpoint else None, _policy(witness, threshold))
    except LedgerError as error:
        if not as_json:
            raise
        print_json({"ok": False, "reason": error.message})
        sys.exit(1)

    proved = {"proves": answer.proves} | _fields_of(answer, besides="kind")
    if as_json:
        print_json({"ok": True, **proved})
        return
    _print_proof(proved, is_whole=False)


def _fields_of(answer: ProofAnswer, *, besides: str) -> dict[str, Any]:
    """Return what a proof shows. Whoever asks for a proof knows the entry; whoever checks one is shown all of it."""
    from liberate.json_edge import to_json

    return {name: value for name, value in to_json(answer).items() if name != besides}


def _print_proof(found: dict[str, Any], *, is_whole: bool) -> None:
    """Print what a proof shows, and, if whole, by which hashes and checkpoint."""
    lists = ("record", "entries", "proof", "checkpoint")
    print_pairs({name: value for name, value in found.items() if name not in lists})
    records = [found["record"]] if "record" in found else found.get("entries", [])
    for record in records:
        print("  " + _rest(record, {"v", "origin"}))
    if is_whole:
        print("proof\n  " + "\n  ".join(found.get("proof", [])))
        print("checkpoint\n  " + found["checkpoint"].replace("\n", "\n  ").rstrip())


@app.command()
def export(
    folder: Folder,
    tiles: Annotated[
        Path | None, typer.Option(help="Into this folder, as C2SP tiles; an earlier export there grows.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Into this folder, as entries.parquet with one row per entry.")
    ] = None,
    checkpoint: Published = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the ledger as files for others: tiles to check it, a table to query it."""
    from contextlib import closing

    from liberate.ledger.log.sqlite import SqliteLedger
    from liberate.ledger.publish.tiles import export_tiles
    from liberate.runs.federation_folder import federation_folder_of
    from liberate.tracing.proofs import published_checkpoint

    target = tiles or parquet
    if target is None or (tiles and parquet):
        raise typer.BadParameter("one of --tiles and --parquet is wanted")
    with closing(SqliteLedger.open(_place(folder))) as ledger, progress_lines() as progress:
        note = _read(checkpoint) if checkpoint else published_checkpoint(federation_folder_of(folder), ledger)
        progress(f"exporting {ledger.size} entries")
        if tiles:
            exported = export_tiles(ledger, tiles, note)
        else:
            from liberate.ledger.publish.parquet import export_parquet

            exported = export_parquet(ledger, target, note)
    found = asdict(exported) | {"root": b64encode(exported.root).decode()}
    if as_json:
        print_json(found)
    else:
        print_pairs(found)


@app.command()
def verify_tiles(
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="The folder of an export, or the http address where it is served.")
    ],
    key: Annotated[str, typer.Option(help="The log's verifier key.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint you have kept: the export must hold everything it held then.")
    ] = None,
    witness: Witness = None,
    threshold: Threshold = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Also replay all entries: signatures, rules, and the state roots of blocks."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check exported tiles against all their entries and the signed root; exit 1 if anything is wrong."""
    from liberate.ledger.publish.tile_reader import verify_tiles as verify

    with progress_lines() as progress:
        progress("verifying")
        kept = _read(checkpoint) if checkpoint else None
        audit = verify(place, key, kept=kept, policy=_policy(witness, threshold))
        if replay:
            from liberate.ledger.publish.tile_replay import replay_tiles

            progress(f"replaying {audit.entry_count} entries")
            audit = replay_tiles(place, key, audit)
    found = asdict(audit) | {"root": b64encode(audit.root).decode() if audit.root else None}
    if as_json:
        print_json(found)
    else:
        print_pairs({name: value for name, value in found.items() if name != "findings"})
        for finding in audit.findings:
            print(f"FOUND {finding.place}: {finding.reason}")
    if not audit.ok:
        sys.exit(1)


@app.command()
def backup(
    folder: Folder,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the copy.")],
    key: Annotated[str | None, typer.Option(help="The log's verifier key, kept since the run began.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy the ledger, in use or not, and verify the copy before it gets its name."""
    from liberate.ledger.verification.backup import backup as back_up

    with progress_lines() as progress:
        progress("copying")
        audit = back_up(_place(folder), to, key=key, progress=_by_tenths(progress))
    found = {"path": str(to), "entry_count": audit.entry_count, "root": b64encode(audit.root or b"").decode()}
    if as_json:
        print_json(found)
    else:
        print_pairs(found)


def _by_tenths(progress: Progress) -> Callable[[int, int], None]:
    """Show how many entries are verified, ten times in all."""
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if done == total or done - shown >= total / 10:
            shown = done
            progress(f"verified {done} of {total} entries")

    return show


def _place(folder: Path) -> Path:
    """Give the folder of a run's ledger, or the ledger's own."""
    from liberate.runs.federation_folder import ledger_folder_of

    return ledger_folder_of(folder)


def _policy(witnesses: list[str] | None, threshold: int | None) -> WitnessPolicy:
    """Give what is demanded of a checkpoint; by default the cosignatures of all named witnesses."""
    from liberate.crypto.note import WitnessPolicy

    keys = tuple(witnesses or ())
    wanted = len(keys) if threshold is None else threshold
    if wanted > len(keys):
        raise typer.BadParameter(f"{wanted} of {len(keys)} witnesses cannot have cosigned")
    return WitnessPolicy(keys, wanted)


def _read(file: Path) -> str:
    """Read a signed text; what is no text is left to fail its check."""
    return file.read_bytes().decode(errors="replace")

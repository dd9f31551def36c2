"""`liberate ledger`: look at a ledger, check all of it, prove an entry."""

from __future__ import annotations

import sys
from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, print_table, progress_lines
from liberate.cli.run import Folder

app = typer.Typer(help="Look at a ledger, check all of it, prove an entry.", no_args_is_help=True)


@app.command()
def show(
    folder: Folder,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    author: Annotated[str | None, typer.Option(help="Only entries of this author: number, key id or user:ID.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show entries, field by field."""
    from liberate.runs.entries import read_entries
    from liberate.runs.folder import load_run

    found = read_entries(load_run(folder), kind=kind, author=author, limit=limit)
    if as_json:
        print_json({"entries": found})
        return
    columns = ("position", "kind", "author", "key_id", "user_id")
    rows = [[*(e[c] for c in columns), _rest(e, {*columns, "v", "origin"})] for e in found]
    print_table([*columns, "fields"], rows)


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
    as_json: JsonFlag = False,
) -> None:
    """Check the whole ledger again from its bytes and keys; exit 1 if anything is wrong."""
    from liberate.ledger.audit import verify as verify_ledger

    place = folder / "ledger" if (folder / "ledger").is_dir() else folder
    with progress_lines() as progress:
        progress("verifying")
        audit = verify_ledger(place, key=key, checkpoint=checkpoint.read_text("utf-8") if checkpoint else None)
    found = asdict(audit) | {"root": b64encode(audit.root).decode() if audit.root else None}
    if as_json:
        print_json(found)
    else:
        print_pairs({name: value for name, value in found.items() if name != "findings"})
        for finding in audit.findings:
            print(f"FOUND {finding.place}: {finding.reason}")
        if not audit.trusted:
            print("note: no --key was given: whoever wrote this ledger may have signed all of it again")
    if not audit.ok:
        sys.exit(1)


@app.command()
def prove(
    folder: Folder,
    entry: Annotated[int, typer.Option(min=0, help="Position of the entry.")],
    as_json: JsonFlag = False,
) -> None:
    """Prove that an entry is in the ledger; the proof is checked before it is printed."""
    from liberate.runs.entries import prove_entry
    from liberate.runs.folder import load_run

    found = prove_entry(load_run(folder), entry)
    if as_json:
        print_json({"ok": True, **found})
        return
    print_pairs({name: value for name, value in found.items() if name not in ("proof", "checkpoint")})
    print("proof\n  " + "\n  ".join(found["proof"]))
    print("checkpoint\n  " + found["checkpoint"].replace("\n", "\n  ").rstrip())

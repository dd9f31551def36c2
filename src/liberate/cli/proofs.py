"""`liberate ledger prove` and `verify-proof`: what a ledger holds, proved to whoever has only its key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liberate.cli.ledger import LogKey, Published, Threshold, Witness, read_note, record_line, witness_policy
from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs
from liberate.cli.run import Folder

if TYPE_CHECKING:
    from liberate.runs.folder import Run
    from liberate.tracing.proofs import ProofAnswer

EntryToProve = Annotated[
    int | None, typer.Option(min=0, help="Prove that the entry at this position is in the ledger.")
]
Since = Annotated[
    Path | None, typer.Option(help="Prove that the ledger continues this checkpoint, which you have kept.")
]
WhoseEntries = Annotated[
    str | None,
    typer.Option(
        help="Prove which entries concern this participant, and that there are no others: number, key id or user:ID."
    ),
]


def prove(
    folder: Folder,
    entry: EntryToProve = None,
    since: Since = None,
    participant: WhoseEntries = None,
    checkpoint: Published = None,
    out: Annotated[Path | None, typer.Option(help="Write the proof to this file; verify-proof checks it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Prove something about the ledger; the proof is checked before it is printed."""
    from liberate.runs.folder import load_run

    if [entry, since, participant].count(None) != 2:
        raise typer.BadParameter("exactly one of --entry, --since and --participant is needed")

    answer = _prove(load_run(folder), entry, since, participant, read_note(checkpoint), out)
    # Whoever asks for an entry's proof knows the entry.
    proved = {name: value for name, value in fields_of(answer).items() if name != "record"}
    if as_json:
        print_json({"ok": True, "path": out, **proved})
        return

    _print_proof(proved)
    if out:
        print(f"written to {out}")
    else:
        print("proof\n  " + "\n  ".join(proved.get("proof", [])))
        print("checkpoint\n  " + proved["checkpoint"].replace("\n", "\n  ").rstrip())


def _prove(
    run: Run, entry: int | None, since: Path | None, participant: str | None, note: str | None, out: Path | None
) -> ProofAnswer:
    from liberate.tracing.proofs import prove_completeness, prove_consistency, prove_entry

    if entry is not None:
        return prove_entry(run, entry, note, out)
    if (kept := read_note(since)) is not None:
        return prove_consistency(run, kept, note, out)
    return prove_completeness(run, participant or "", note, out)


def verify_proof(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A proof that prove has written.", exists=True, dir_okay=False)
    ],
    key: LogKey,
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
        answer = open_proof(read_note(file) or "", key, read_note(checkpoint), witness_policy(witness, threshold))
    except LedgerError as error:
        if not as_json:
            raise
        print_json({"ok": False, "reason": error.message})
        sys.exit(1)

    # The kind is in the record.
    proved = {"proves": answer.proves} | {n: value for n, value in fields_of(answer).items() if n != "kind"}
    if as_json:
        print_json({"ok": True, **proved})
    else:
        _print_proof(proved)


def _print_proof(proved: dict[str, Any]) -> None:
    """Print what a proof shows, without its hashes and checkpoint."""
    lists = ("record", "entries", "proof", "checkpoint")
    print_pairs({name: value for name, value in proved.items() if name not in lists})
    for record in [proved["record"]] if "record" in proved else proved.get("entries", []):
        print("  " + record_line(record, {"v", "origin"}))

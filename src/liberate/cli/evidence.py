"""`liberate ledger verify-evidence`, `evidence` and `compare`: proof against a log, an author, or a leak's source."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from liberate.cli.output import JsonFlag, print_result, tell_folder

Key = Annotated[str, typer.Option(metavar="VKEY", help="The log's verifier key, obtained independently.")]
OptionalKey = Annotated[
    str | None,
    typer.Option(
        metavar="VKEY", help="The log's verifier key, obtained independently; not needed for evidence against authors."
    ),
]
AnyLedger = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, or a ledger's folder.", callback=tell_folder)
]


def verify_evidence(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Evidence from a witness, a host, `compare`, `evidence` or `trace --leak --json`."
        ),
    ],
    key: OptionalKey = None,
    as_json: JsonFlag = False,
) -> None:
    """Check evidence against a log, an author, or the source of a leak; exit 1 if it proves nothing."""
    from liberate.errors import InvalidRecord, ProofMismatch, RefusedEntry
    from liberate.ledger.evidence.equivocation import is_equivocation
    from liberate.ledger.evidence.split_view import read_evidence
    from liberate.tracing.leak.evidence import check_accusations, is_accusation

    data = read_evidence(file)
    try:
        if is_equivocation(data):
            proved = _against_author(data)
        elif key is None:
            raise typer.BadParameter("the log's verifier key is needed to check this evidence", param_hint="--key")
        elif is_accusation(data):
            proved = {"accusations": check_accusations(data, key)}
        else:
            proved = _against_log(data, key)
    except (InvalidRecord, ProofMismatch, RefusedEntry) as error:
        print_result({"ok": False, "reason": error.message}, as_json=as_json)
        sys.exit(1)
    print_result({"ok": True} | proved, as_json=as_json)


def evidence(
    folder: AnyLedger,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("."),
    as_json: JsonFlag = False,
) -> None:
    """Export the evidence in a ledger against authors who signed two entries with one sequence number, a file each."""
    from liberate.ledger.evidence.split_view import keep_evidence
    from liberate.ledger.log.sqlite import SqliteLedger
    from liberate.runs.federation_folder import ledger_folder_of

    with closing(SqliteLedger.open(ledger_folder_of(folder))) as ledger:
        files = [keep_evidence(out, data) for data in ledger.equivocations()]
    print_result({"evidence": files}, as_json=as_json)


def compare(
    one: AnyLedger,
    other: Annotated[Path, typer.Argument(metavar="COPY", help="What claims to be a copy of the same ledger.")],
    key: Key,
    out: Annotated[Path, typer.Option(help="Folder for the evidence, if the two contradict each other.")] = Path("."),
    as_json: JsonFlag = False,
) -> None:
    """Compare two copies of a ledger; exit 1, and write evidence, if its log has contradicted itself."""
    from liberate.ledger.evidence import split_view
    from liberate.ledger.log.sqlite import SqliteLedger
    from liberate.runs.federation_folder import ledger_folder_of

    with (
        closing(SqliteLedger.open(ledger_folder_of(one))) as left,
        closing(SqliteLedger.open(ledger_folder_of(other))) as right,
    ):
        data = split_view.evidence_between(left, right)
        found: dict[str, Any] = {"ok": data is None, "first_size": left.size, "second_size": right.size}

    if data is not None:
        split_view.verify_evidence(data, key)
        found["evidence"] = split_view.keep_evidence(out, data)
    print_result(found, as_json=as_json)
    if data is not None:
        sys.exit(1)


def _against_log(data: bytes, key: str) -> dict[str, Any]:
    from liberate.ledger.evidence.split_view import verify_evidence

    conflict = verify_evidence(data, key)
    return {
        "origin": conflict.first.origin,
        "first_size": conflict.first.size,
        "first_root": conflict.first.root,
        "second_size": conflict.second.size,
        "second_root": conflict.second.root,
    }


def _against_author(data: bytes) -> dict[str, Any]:
    from liberate.crypto.signing import key_id
    from liberate.ledger.evidence.equivocation import verify_equivocation

    proved = verify_equivocation(data)
    first = proved.first.record
    return {
        "origin": first.origin,
        "author": first.author,
        "key_id": key_id(proved.key),
        "seq": first.seq,
        "first_kind": first.kind,
        "second_kind": proved.second.record.kind,
    }

"""`liberate ledger verify-evidence`, `evidence` and `compare`: proof against a log, an author, a leak's source."""

from __future__ import annotations

import sys
from base64 import b64encode
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs

Key = Annotated[str, typer.Option(metavar="VKEY", help="The log's verifier key, known from elsewhere.")]


def verify_evidence(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file of a witness, a host, `compare`, `evidence`, `trace --leak`."),
    ],
    key: Annotated[
        str | None,
        typer.Option(metavar="VKEY", help="The log's verifier key, known from elsewhere; needed but against authors."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check proof that a log or an author contradicted itself, or of whose copy leaked; exit 1 if it proves nothing."""
    from liberate.errors import InvalidRecord, ProofMismatch, RefusedEntry
    from liberate.ledger.evidence.equivocation import is_equivocation
    from liberate.ledger.evidence.split_view import read_evidence
    from liberate.tracing.leak.evidence import check_accusations, is_accusation

    data = read_evidence(file)
    try:
        if is_equivocation(data):
            found = _of_author(data)
        elif key is None:
            raise typer.BadParameter("such evidence needs the log's verifier key", param_hint="--key")
        elif is_accusation(data):
            found = {"accusations": [asdict(each) for each in check_accusations(data, key)]}
        else:
            found = _of_log(data, key)
    except (InvalidRecord, ProofMismatch, RefusedEntry) as error:
        _print({"ok": False, "reason": error.message}, as_json=as_json)
        sys.exit(1)
    _print({"ok": True} | found, as_json=as_json)


def evidence(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a ledger's folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("."),
    as_json: JsonFlag = False,
) -> None:
    """Write out what a ledger keeps of authors who signed two entries with one sequence number, a file each."""
    from liberate.ledger.evidence.split_view import keep_evidence
    from liberate.ledger.log.sqlite import SqliteLedger
    from liberate.runs.federation_folder import ledger_folder_of

    with closing(SqliteLedger.open(ledger_folder_of(folder))) as ledger:
        files = [str(keep_evidence(out, data)) for data in ledger.equivocations()]
    _print({"evidence": files}, as_json=as_json)


def _of_log(data: bytes, key: str) -> dict[str, Any]:
    from liberate.ledger.evidence.split_view import verify_evidence

    conflict = verify_evidence(data, key)
    found: dict[str, Any] = {"origin": conflict.first.origin}
    for name, checkpoint in (("first", conflict.first), ("second", conflict.second)):
        found |= {f"{name}_size": checkpoint.size, f"{name}_root": b64encode(checkpoint.root).decode()}
    return found


def _of_author(data: bytes) -> dict[str, Any]:
    from liberate.crypto.signing import key_id
    from liberate.ledger.evidence.equivocation import verify_equivocation

    proved = verify_equivocation(data)
    record = proved.first.record
    found: dict[str, Any] = {"origin": record.origin, "author": record.author, "key_id": key_id(proved.key)}
    return found | {"seq": record.seq, "first_kind": record.kind, "second_kind": proved.second.record.kind}


def compare(
    one: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a ledger's folder.")],
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
        found["evidence"] = str(split_view.keep_evidence(out, data))
    _print(found, as_json=as_json)
    if data is not None:
        sys.exit(1)


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_pairs(found)

"""`liberate ledger verify-evidence` and `compare`: proof that a log has contradicted itself."""

from __future__ import annotations

import sys
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs

Key = Annotated[str, typer.Option(metavar="VKEY", help="The log's verifier key, known from elsewhere.")]


def verify_evidence(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An evidence file of a witness, a host or `compare`.")],
    key: Key,
    as_json: JsonFlag = False,
) -> None:
    """Check that a log's key has signed two checkpoints that contradict each other; exit 1 if not proved."""
    from liberate.errors import InvalidRecord, ProofMismatch
    from liberate.ledger.publish import evidence

    try:
        conflict = evidence.verify_evidence(evidence.read_evidence(file), key)
    except (InvalidRecord, ProofMismatch) as error:
        _print({"ok": False, "reason": error.message}, as_json=as_json)
        sys.exit(1)
    found: dict[str, Any] = {"ok": True, "origin": conflict.first.origin}
    for name, checkpoint in (("first", conflict.first), ("second", conflict.second)):
        found |= {f"{name}_size": checkpoint.size, f"{name}_root": b64encode(checkpoint.root).decode()}
    _print(found, as_json=as_json)


def compare(
    one: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a ledger's folder.")],
    other: Annotated[Path, typer.Argument(metavar="COPY", help="What claims to be a copy of the same ledger.")],
    key: Key,
    out: Annotated[Path, typer.Option(help="Folder for the evidence, if the two contradict each other.")] = Path("."),
    as_json: JsonFlag = False,
) -> None:
    """Compare two copies of a ledger; exit 1, and write evidence, if its log has contradicted itself."""
    from liberate.ledger.log import SqliteLedger
    from liberate.ledger.publish import evidence

    first, second = (folder / "ledger" if (folder / "ledger").is_dir() else folder for folder in (one, other))
    with closing(SqliteLedger.open(first)) as left, closing(SqliteLedger.open(second)) as right:
        data = evidence.between(left, right)
        found: dict[str, Any] = {"ok": data is None, "first_size": left.size, "second_size": right.size}
    if data is not None:
        evidence.verify_evidence(data, key)
        found["evidence"] = str(evidence.keep_evidence(out, data))
    _print(found, as_json=as_json)
    if data is not None:
        sys.exit(1)


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_pairs(found)

"""`liberate keys`: signing keys in files that only their owner may read, and participants' keys on a run's ledger."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, print_table
from liberate.cli.run import Folder

if TYPE_CHECKING:
    from liberate.federation.keys import KeyChangeKind

Participant = Annotated[str, typer.Option(help="Participant number, key id, or user:ID of the data set.")]

app = typer.Typer(help="Make keys; show and change participants' keys.", no_args_is_help=True)


class Kind(StrEnum):
    """Who signs with a key."""

    WITNESS = "witness"
    LOG = "log"


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the key; never overwritten.")],
    name: Annotated[str, typer.Option(help="Who signs with it: a witness's name, or a log's origin.")],
    kind: Annotated[Kind, typer.Option(help="What it signs: a witness cosigns, a log signs checkpoints and blocks.")],
    as_json: JsonFlag = False,
) -> None:
    """Make an Ed25519 key from the system's randomness, and print what others check its signatures with."""
    import os

    from liberate.crypto.note import SignatureType, verifier_key
    from liberate.crypto.signing import SEED_BYTES, SigningKey, key_id, save_key

    key = SigningKey.from_seed(os.urandom(SEED_BYTES))
    signs = SignatureType.COSIGNATURE_V1 if kind is Kind.WITNESS else SignatureType.ED25519
    found = {"key_id": key_id(key.public), "verifier_key": verifier_key(name, key.public, signs), "file": str(file)}
    save_key(file, key)
    if as_json:
        print_json(found)
    else:
        print_pairs(found)


@app.command()
def show(folder: Folder, participant: Participant, as_json: JsonFlag = False) -> None:
    """Show a participant's key, and every one before it with the entry that changed it."""
    from liberate.runs.folder import load_run
    from liberate.runs.keys import show_key

    found = show_key(load_run(folder), participant)
    if as_json:
        print_json(found)
        return
    print_pairs({name: value for name, value in found.items() if name != "history"})
    print()
    columns = ("position", "act", "signed_by", "key_id")
    print_table(columns, [[step[column] for column in columns] for step in found["history"]])


@app.command()
def rotate(folder: Folder, participant: Participant, as_json: JsonFlag = False) -> None:
    """Give a participant a new key; the present one signs for it, and the new one that it is held.

    If it is broken off, the same command, or the next one that writes to the ledger, ends it.
    """
    _change(folder, participant, "rotation", as_json=as_json)


@app.command()
def revoke(folder: Folder, participant: Participant, as_json: JsonFlag = False) -> None:
    """Take the force of a participant's key away, signed by that key: no further update is made or accepted."""
    _change(folder, participant, "revocation", as_json=as_json)


@app.command()
def recover(folder: Folder, participant: Participant, as_json: JsonFlag = False) -> None:
    """Give a participant a new key for a lost or revoked one, signed by the founder.

    What was spent stays spent: accounts belong to the number, not to the key.
    """
    _change(folder, participant, "recovery", as_json=as_json)


def _change(folder: Path, participant: str, act: KeyChangeKind, *, as_json: bool) -> None:
    from liberate.runs.folder import load_run
    from liberate.runs.keys import change_key

    found = change_key(load_run(folder), participant, act)
    if as_json:
        print_json(found)
        return
    print_pairs(found)
    if not found["published"]:
        print("note: too few witnesses have cosigned it; the next command that writes to the ledger asks them again")

"""`liberate keys`: signing keys in files that only their owner may read, and participants' keys in a run's ledger."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs, print_result, print_table
from liberate.cli.run import Folder

if TYPE_CHECKING:
    from liberate.federation.keys import KeyChangeKind

Participant = Annotated[str, typer.Option(help="Participant number, key id, or user:ID of the data set.")]


class Which(StrEnum):
    """Which of a participant's two keys is meant."""

    PERSON = "person"
    DEVICE = "device"


WhichKey = Annotated[
    Which, typer.Option(help="The key with which the person decides, or the one with which the device answers rounds.")
]

app = typer.Typer(help="Create keys; show and change participants' keys.", no_args_is_help=True)


class Kind(StrEnum):
    """Who signs with a key."""

    WITNESS = "witness"
    LOG = "log"
    REGISTRAR = "registrar"


@app.command()
def new(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write the key; an existing file is never overwritten.")
    ],
    name: Annotated[str, typer.Option(help="Who signs with it: a witness's or registrar's name, or a log's origin.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="What it signs: a witness cosigns, a log signs checkpoints and blocks, a registrar approves who joins."
        ),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Create an Ed25519 key from the system's randomness, and print the verifier key that others need."""
    import os

    from liberate.crypto.note import SignatureType, verifier_key
    from liberate.crypto.signing import SEED_BYTES, SigningKey, key_id, save_key

    key = SigningKey.from_seed(os.urandom(SEED_BYTES))
    signs = SignatureType.COSIGNATURE_V1 if kind is Kind.WITNESS else SignatureType.ED25519
    found = {"key_id": key_id(key.public), "verifier_key": verifier_key(name, key.public, signs), "file": str(file)}
    save_key(file, key)
    print_result(found, as_json=as_json)


@app.command()
def show(folder: Folder, participant: Participant, as_json: JsonFlag = False) -> None:
    """Show a participant's two keys and all earlier ones, each with the entry that changed it."""
    from liberate.runs.folder import load_run
    from liberate.runs.keys import show_key

    keys = show_key(load_run(folder), participant)
    if as_json:
        print_json(keys)
        return
    fields = fields_of(keys)
    del fields["history"]
    print_pairs(fields)
    print()
    columns = ("position", "act", "which", "signed_by", "approved_by", "key_id")
    print_table(columns, [[getattr(step, column) for column in columns] for step in keys.history])


@app.command()
def rotate(folder: Folder, participant: Participant, which: WhichKey = Which.PERSON, as_json: JsonFlag = False) -> None:
    """Replace one of a participant's keys with a new one; the person's key and the new one sign the change.

    If it is interrupted, the same command, or the next one that writes to the ledger, completes it.
    """
    _change(folder, participant, "rotation", which, as_json=as_json)


@app.command()
def revoke(folder: Folder, participant: Participant, which: WhichKey = Which.PERSON, as_json: JsonFlag = False) -> None:
    """Revoke one of a participant's keys, signed with the person's: no further updates are made or accepted.

    With the device's key revoked, the person can still withdraw, share and name another key for the device.
    """
    _change(folder, participant, "revocation", which, as_json=as_json)


@app.command()
def recover(
    folder: Folder, participant: Participant, which: WhichKey = Which.PERSON, as_json: JsonFlag = False
) -> None:
    """Replace a participant's lost or revoked key with a new one; registrars sign the change.

    Spent privacy budget stays spent: it belongs to the participant number, not to the key.
    """
    _change(folder, participant, "recovery", which, as_json=as_json)


@app.command("approve")
def approve_pending(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What is to be approved, as `train` or `recover` wrote it.")
    ],
    key: Annotated[Path, typer.Option(help="The registrar's key, as `liberate keys new --kind registrar` writes it.")],
    as_json: JsonFlag = False,
) -> None:
    """Approve enrolments and recoveries as one of several registrars: add signatures to a file.

    Everything that the file lists is printed, and approved.
    """
    from liberate.crypto.signing import load_key
    from liberate.federation.registrars import approve_file
    from liberate.runs.keys import approvals_of

    number, approved = approve_file(file, load_key(key))
    found = approvals_of(number, approved)
    if as_json:
        print_json(found)
        return
    print_pairs({"origin": found.origin, "registrar": found.registrar, "approved": len(found.records)})
    print()
    columns = ("kind", "number", "role", "custody", "key_id", "device_key_id", "registrars")
    print_table(columns, [[getattr(record, column) for column in columns] for record in found.records])


def _change(folder: Path, participant: str, act: KeyChangeKind, which: Which, *, as_json: bool) -> None:
    from liberate.runs.folder import load_run
    from liberate.runs.keys import change_key

    outcome = change_key(load_run(folder), participant, act, which.value)
    print_result(outcome, as_json=as_json)
    if not as_json:
        note_unpublished(fields_of(outcome))


def note_unpublished(outcome: Mapping[str, Any]) -> None:
    """Say of a new entry if the checkpoint that covers it could not be published."""
    if not outcome["published"]:
        print("note: too few witnesses have cosigned this; the next command that writes to the ledger asks them again")

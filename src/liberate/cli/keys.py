"""`liberate keys`: signing keys in files that only their owner may read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs

app = typer.Typer(help="Make signing keys.", no_args_is_help=True)


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

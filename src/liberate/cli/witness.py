"""`liberate witness`: cosign the checkpoints of other parties' logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag


def witness(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the witness stores what it has cosigned.")],
    name: Annotated[str, typer.Option(help="Its name, a URL without scheme; witness.example/replay if it replays.")],
    key: Annotated[Path, typer.Option(help="Its key, as `liberate keys new` writes it.")],
    log: Annotated[list[str], typer.Option(metavar="VKEY", help="Verifier key of a log; repeatable.")],
    replay: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE", help="A copy of a ledger whose entries are replayed before its checkpoints are cosigned."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8300,
    as_json: JsonFlag = False,
) -> None:
    """Cosign checkpoints that are consistent with those cosigned before; runs until it is stopped."""
    from liberate.service.witness import WitnessConfig, serve

    def announce(url: str, verifier_key: str) -> None:
        if as_json:
            print(json.dumps({"url": url, "verifier_key": verifier_key}), flush=True)
        else:
            print(f"listening on {url}\nverifier key {verifier_key}", flush=True)

    config = WitnessConfig(
        folder=folder, name=name, key=key, logs=tuple(log), replay=tuple(replay or ()), host=host, port=port
    )
    serve(config, announce)

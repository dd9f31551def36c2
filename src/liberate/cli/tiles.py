"""`liberate ledger export` and `verify-tiles`: the ledger as files for others, and the check of such files."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.ledger import (
    LogKey,
    Published,
    Threshold,
    Witness,
    ledger_folder,
    print_report,
    read_note,
    witness_policy,
)
from liberate.cli.output import JsonFlag, print_result, progress_lines, tell_simulated
from liberate.cli.run import Folder


def export(
    folder: Folder,
    tiles: Annotated[
        Path | None, typer.Option(help="Into this folder, as C2SP tiles; an earlier export there is extended.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Into this folder, as entries.parquet with one row per entry.")
    ] = None,
    checkpoint: Published = None,
    as_json: JsonFlag = False,
) -> None:
    """Export the ledger as files for others: tiles to check it, a table to query it."""
    from liberate.ledger.log.sqlite import SqliteLedger
    from liberate.ledger.publish.parquet import export_parquet
    from liberate.ledger.publish.tiles import export_tiles
    from liberate.runs.federation_folder import federation_folder_of
    from liberate.tracing.proofs import published_checkpoint

    target = tiles or parquet
    if target is None or (tiles and parquet):
        raise typer.BadParameter("exactly one of --tiles and --parquet is needed")

    with closing(SqliteLedger.open(ledger_folder(folder))) as ledger, progress_lines() as progress:
        note = read_note(checkpoint) or published_checkpoint(federation_folder_of(folder), ledger)
        progress(f"exporting {ledger.size} entries")
        exported = (export_tiles if tiles else export_parquet)(ledger, target, note)
    print_result(exported, as_json=as_json)


def verify_tiles(
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="The folder of an export, or the http address where it is served.")
    ],
    key: LogKey,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint you have kept: the export must contain all that it covered.")
    ] = None,
    witness: Witness = None,
    threshold: Threshold = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Also replay all entries: signatures, rules, and the state roots of blocks."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify exported tiles against all their entries and the signed root; exit 1 if anything is wrong."""
    from liberate.ledger.publish.tile_reader import verify_tiles as verify
    from liberate.ledger.publish.tile_replay import replay_tiles

    kept, policy = read_note(checkpoint), witness_policy(witness, threshold)
    with progress_lines() as progress:
        progress("verifying")
        report = verify(place, key, kept=kept, policy=policy)
        if replay:
            progress(f"replaying {report.entry_count} entries")
            report = replay_tiles(place, key, report)

    tell_simulated(report.simulated)
    print_report(report, report.findings, as_json=as_json)
    if not report.ok:
        sys.exit(1)

"""`liberate privacy`: what a run guarantees, and what it has spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs, print_table, print_text, tell_simulated
from liberate.cli.run import Assignments, Config, Folder, Source, assignments, tell_unused

app = typer.Typer(help="What a run guarantees, and what it has spent.", no_args_is_help=True)


@app.command()
def plan(
    config: Config = None,
    data: Source = None,
    settings: Assignments = None,
    ledger: Annotated[Path | None, typer.Option(help="Say too what the people of this federation have left.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict epsilon and the signal-to-noise ratio from settings and public numbers, before anything is run."""
    from liberate.runs.privacy_forecast import forecast
    from liberate.settings import resolve

    resolved = resolve(config, assignments(data, settings))
    tell_unused(resolved)
    tell_simulated(resolved.run.simulated)
    foreseen = forecast(resolved, ledger=ledger)
    if as_json:
        print_json(foreseen)
        return

    fields = fields_of(foreseen)
    warning, stages, reasons, left = (fields.pop(key, None) for key in ("warning", "stages", "reasons", "accounts"))
    print_pairs(fields)
    for rows in (stages, left):
        if rows:
            print()
            print_table(list(rows[0]), [list(row.values()) for row in rows])
    _print_paragraph(reasons or [])
    _print_paragraph([f"warning: {warning}"] if warning else [])


@app.command()
def report(
    folder: Folder,
    participant: Annotated[
        str | None,
        typer.Option(help="Of this participant only: participant number, key id, or user:ID of the data set."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Report what participants have spent in all runs, read from the ledger, and what that guarantees."""
    from liberate.runs.folder import load_run
    from liberate.runs.privacy_report import privacy_report

    spent = privacy_report(load_run(folder), participant)
    if as_json:
        print_json(spent)
        return

    fields = fields_of(spent)
    this_run, by_run, warning = (fields.pop(key) for key in ("this_run", "by_run", "warning"))
    if len(by_run) < 2:
        print_pairs(fields)
    else:
        names = [name for name in this_run if name != "delta"]
        print_pairs({name: value for name, value in fields.items() if name not in names})
        print()
        print_table(["", "all runs", "this run"], [[name, fields[name], this_run[name]] for name in names])
        print()
        columns = ["run", "mechanism", "rounds joined", "epsilon account", "rho account"]
        print_table(columns, [list(spending.values()) for spending in by_run])
    _print_paragraph([f"warning: {warning}"] if warning else [])


def _print_paragraph(lines: list[str]) -> None:
    """Print lines below an empty one; nothing without lines."""
    if lines:
        print()
    for line in lines:
        print_text(line)

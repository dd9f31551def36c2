"""`liberate privacy`: what will be promised, and what was spent."""

from __future__ import annotations

from typing import Any

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, print_table
from liberate.cli.run import Assignments, Config, Folder, Source, assignments

app = typer.Typer(help="What a run promises and what it has spent.", no_args_is_help=True)


@app.command()
def plan(config: Config = None, data: Source = None, settings: Assignments = None, as_json: JsonFlag = False) -> None:
    """Predict epsilon and the signal-to-noise ratio from settings and public numbers, before anything is run."""
    from liberate.runs.privacy import forecast
    from liberate.settings import resolve

    _print(forecast(resolve(config, assignments(data, settings))), as_json)


@app.command()
def report(folder: Folder, as_json: JsonFlag = False) -> None:
    """Say what each participant has spent, read from the ledger, and what that promises."""
    from liberate.runs.folder import load_run
    from liberate.runs.privacy import statement

    _print(statement(load_run(folder)), as_json)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    warning, stages, reasons = found.pop("warning"), found.pop("stages", []), found.pop("reasons", [])
    print_pairs(found)
    if stages:
        print()
        print_table(list(stages[0]), [list(stage.values()) for stage in stages])
    if reasons:
        print("\n" + "\n".join(reasons))
    if warning:
        print(f"\nwarning: {warning}")

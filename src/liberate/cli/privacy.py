"""`liberate privacy`: what will be promised, and what was spent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, print_table, print_text
from liberate.cli.run import Assignments, Config, Folder, Source, assignments, tell_unused

app = typer.Typer(help="What a run promises and what it has spent.", no_args_is_help=True)


@app.command()
def plan(config: Config = None, data: Source = None, settings: Assignments = None, as_json: JsonFlag = False) -> None:
    """Predict epsilon and the signal-to-noise ratio from settings and public numbers, before anything is run."""
    from liberate.runs.privacy_report import forecast
    from liberate.settings import resolve

    resolved = resolve(config, assignments(data, settings))
    tell_unused(resolved)
    _print(forecast(resolved), as_json)


@app.command()
def report(
    folder: Folder,
    participant: Annotated[
        str | None, typer.Option(help="Of this one alone: participant number, key id, or user:ID of the data set.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what each participant has spent in all runs, read from the ledger, and what that promises."""
    from liberate.runs.folder import load_run
    from liberate.runs.privacy_report import privacy_report

    found = privacy_report(load_run(folder), participant)
    if as_json:
        print_json(found)
        return
    this_run, by_run, warning = (found.pop(key) for key in ("this_run", "by_run", "warning"))
    if len(by_run) < 2:
        print_pairs(found)
    else:
        names = [name for name in this_run if name != "delta"]
        print_pairs({name: value for name, value in found.items() if name not in names})
        print()
        print_table(["", "all runs", "this run"], [[name, found[name], this_run[name]] for name in names])
        print()
        columns = ["run", "mechanism", "rounds joined", "epsilon account", "rho account"]
        print_table(columns, [list(each.values()) for each in by_run])
    if warning:
        print()
        print_text(f"warning: {warning}")


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
        print()
        for reason in reasons:
            print_text(reason)
    if warning:
        print()
        print_text(f"warning: {warning}")

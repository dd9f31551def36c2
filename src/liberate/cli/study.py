"""`liberate study`: the paper's experiments and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, progress_lines, tell_simulated


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="centralised, federated, ledgered, ladder, paper, frontier, attacks, sharing, leaks, unlearning or "
            "poisoning."
        ),
    ],
    data: Annotated[str | None, typer.Option(help="Data set; by default the study's own.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small version that takes seconds; on synthetic data without --data.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the table and the figure.")] = Path("studies"),
    as_json: JsonFlag = False,
) -> None:
    """Run a study; its table and figure are written to studies/NAME/."""
    from liberate_studies import run_study

    tell_simulated(True)
    with progress_lines() as progress:
        outcome = run_study(name, data=data, is_quick=quick, out=out / name, progress=progress)
    if as_json:
        print_json({"table": outcome.table, "figure": outcome.figure})
    else:
        print(f"{outcome.text}\n\ntable:  {outcome.table}\nfigure: {outcome.figure}")

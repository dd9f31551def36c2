"""`liberate unlearn`: a further run without the participants who have left."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs, progress_lines
from liberate.cli.run import Folder


class Method(StrEnum):
    """How to unlearn."""

    exact = "exact"
    fast = "fast"


def unlearn(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The folder of the further run.")],
    method: Annotated[
        Method,
        typer.Option(
            help="exact trains again from the last model without their data; fast estimates what the model before "
            "last would have been, and adds one round."
        ),
    ] = Method.exact,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train again centrally, and measure how far the models are from that.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Unlearn all participants who have withdrawn from everything, by a further run without them."""
    from liberate import report
    from liberate.runs.folder import load_run
    from liberate.runs.unlearn import unlearn as forget

    with progress_lines() as progress:
        found = forget(load_run(folder), out, method=method.value, measure=measure, progress=progress)
        if found.result is not None:
            progress("writing the report")
            report.write(load_run(out))
    if as_json:
        print_json(found)
        return
    fields = {name: value for name, value in fields_of(found).items() if value is not None and name != "result"}
    print_pairs(fields | ({} if found.result is None else {"run": found.result.run, "rmse": found.result.rmse}))

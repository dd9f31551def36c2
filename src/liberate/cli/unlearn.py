"""`liberate unlearn`: a further run without those who have left."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, progress_lines
from liberate.cli.run import Folder


class Method(StrEnum):
    """How to forget."""

    exact = "exact"
    fast = "fast"


def unlearn(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The folder of the further run.")],
    method: Annotated[
        Method,
        typer.Option(
            help="exact learns again from the last model without their data; fast estimates the model before last as "
            "it would have been, and adds one round."
        ),
    ] = Method.exact,
    measure: Annotated[
        bool, typer.Option("--measure", help="Learn again in one place, and say how far the models are from that.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget all who have withdrawn everything, by a further run of the federation without them."""
    from liberate import report
    from liberate.runs.folder import load_run
    from liberate.runs.unlearn import unlearn as forget

    with progress_lines() as progress:
        found = forget(load_run(folder), out, method=method.value, measure=measure, progress=progress)
        if found.result is not None:
            progress("writing the report")
            report.write(load_run(out))
    if as_json:
        print_json(asdict(found))
        return
    values = {name: value for name, value in asdict(found).items() if value is not None and name != "result"}
    print_pairs(values | ({} if found.result is None else {"run": found.result.run, "rmse": found.result.rmse}))

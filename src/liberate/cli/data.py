"""`liberate data`: download data sets and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_result
from liberate.cli.run import Assignments, assignments

app = typer.Typer(help="Download data sets and look at them.", no_args_is_help=True)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="ml-100k, ml-1m, ml-latest-small, ...")],
    to: Annotated[Path | None, typer.Option(help="Folder to keep it in; by default your data folder.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Download a public data set, check it, and keep it where --data NAME finds it."""
    from liberate.data.public_datasets import fetch, licence

    path = fetch(name, to)
    if as_json:
        print_json({"path": path})
    else:
        print(f"{licence(name)}\n\n{name} is in {path}")


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="A data set's name, a CSV or Parquet file, or a folder.")],
    settings: Assignments = None,
    as_json: JsonFlag = False,
) -> None:
    """Count users, items and ratings, and show their distribution."""
    from liberate.data.summary import summary
    from liberate.runs.run_data import load_source
    from liberate.settings import resolve

    print_result(summary(load_source(resolve(None, assignments(source, settings)))), as_json=as_json)

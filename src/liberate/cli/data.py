"""`liberate data`: get data sets and look at them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs
from liberate.cli.run import Assignments, assignments

app = typer.Typer(help="Get data sets and look at them.", no_args_is_help=True)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="ml-100k, ml-1m, ml-latest-small, ...")],
    to: Annotated[Path | None, typer.Option(help="Folder to keep it in; your data folder if not given.")] = None,
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
    """Count users, items and ratings, and show how they are spread."""
    from liberate.data.summary import summary
    from liberate.runs.run_data import load_dataset
    from liberate.settings import resolve

    found = summary(load_dataset(resolve(None, assignments(source, settings))))
    if as_json:
        print_json(found)
    else:
        print_pairs(asdict(found))

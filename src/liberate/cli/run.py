"""`liberate train`, `evaluate` and `recommend`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liberate.cli.output import (
    JsonFlag,
    count,
    fields_of,
    print_json,
    print_pairs,
    print_table,
    progress_lines,
    show,
    tell_folder,
)

if TYPE_CHECKING:
    from liberate.settings import Settings

Config = Annotated[Path | None, typer.Argument(help="Settings in TOML.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="A setting, as section.key=value; repeatable.")]
Source = Annotated[
    str | None, typer.Option("--data", help="Data set name, CSV or Parquet file, or folder; sets data.source.")
]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", callback=tell_folder)]


def assignments(data: str | None, others: list[str] | None) -> list[str]:
    """Return all settings given by options, `--data` as one of them."""
    from json import dumps

    return ([] if data is None else [f"data.source={dumps(data)}"]) + (others or [])


def tell_unused(settings: Settings) -> None:
    """Say on stderr that an epsilon was set in a mode that keeps none: whoever sets one expects protection."""
    mode = settings.privacy.mode
    if settings.privacy.epsilon is not None and mode in ("device", "plain"):
        print(f"note: mode {mode} ignores privacy.epsilon; local and distributed guarantee it", file=sys.stderr)


def train(
    config: Config = None,
    data: Source = None,
    settings: Assignments = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default a new one in runs/.")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Continue a federation: its folder, or that of one of its runs; by default a new one is founded."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a federation on a signed ledger; the same command continues an interrupted run."""
    from liberate import report
    from liberate.runs.folder import free_folder, load_run
    from liberate.runs.privacy_forecast import forecast_of
    from liberate.runs.privacy_report import achieved_privacy
    from liberate.runs.train import train as train_run
    from liberate.settings import resolve

    resolved = resolve(config, assignments(data, settings))
    tell_unused(resolved)
    folder = out or free_folder(Path("runs") / f"{Path(resolved.data.source).stem}-{resolved.privacy.mode}")
    with progress_lines() as progress:
        result = train_run(resolved, folder, ledger=ledger, progress=progress)
        progress("writing the report")
        run = load_run(tell_folder(folder))
        page = report.write(run)
    warning = forecast_of(run).warning if resolved.privacy.mode in ("local", "distributed") else None
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print_json(fields_of(result) | {"privacy": achieved_privacy(run)})
        return
    told = {name: value for name, value in fields_of(result).items() if name != "evaluation" or value is not None}
    print_pairs(told | {"report": page})


def evaluate(
    folder: Folder,
    predictions: Annotated[
        Path | None, typer.Option(help="Write held-out ratings with predictions to this Parquet file.")
    ] = None,
    top: Annotated[Path | None, typer.Option(help="Write everybody's top ten to this Parquet file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a simulated run on its held-out ratings, with free baselines beside it."""
    from liberate.runs.evaluate import evaluate_run, write_predictions, write_top
    from liberate.runs.folder import load_run

    run = load_run(folder)
    with progress_lines() as progress:
        progress("evaluating")
        found = evaluate_run(run)
    if predictions is not None:
        write_predictions(predictions, run, found)
    if top is not None:
        write_top(top, run, found)
    metrics = {"rmse": found.metrics.rmse} | fields_of(found.metrics)
    if as_json:
        print_json(metrics | {"baselines": found.baselines})
        return
    names = list(metrics)
    rows = [[name, *(values.get(key) for key in names)] for name, values in found.baselines.items()]
    print_table(["", *names], [["this run", *metrics.values()], *rows])


def recommend(
    folder: Folder,
    participant: Annotated[str, typer.Option(help="Participant number, key id, or user:ID of the data set.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many items.")] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Recommend items to a participant, by the public model and what is on their device; show their own error."""
    from liberate.runs.evaluate import own_error
    from liberate.runs.evaluate import recommend as recommend_to
    from liberate.runs.folder import load_run

    run = load_run(folder)
    person, items = recommend_to(run, participant, n)
    error = own_error(run, participant)
    if as_json:
        print_json(fields_of(person) | {"items": items, "own_error": error})
        return
    print(f"participant {person.number} (key {person.key_id}, user {person.user_id})")
    print_table(["rank", "item_id", "prediction", "title"], [[i.rank, i.item_id, i.prediction, i.title] for i in items])
    if error is not None:
        held_out = count(error.ratings, "rating")
        print(f"your own error: RMSE {show(error.rmse)} on {held_out} that your device holds out")

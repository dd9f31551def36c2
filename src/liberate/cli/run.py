"""`liberate train`, `evaluate` and `recommend`: the main job."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_pairs, print_table, progress_lines

if TYPE_CHECKING:
    from liberate.settings import Settings

Config = Annotated[Path | None, typer.Argument(help="Settings in TOML.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="A setting, as section.key=value; repeatable.")]
Source = Annotated[
    str | None, typer.Option("--data", help="Data set name, CSV or Parquet file, or folder; sets data.source.")
]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]


def assignments(data: str | None, others: list[str] | None) -> list[str]:
    """Give all settings of the flags, `--data` as one among them."""
    from json import dumps

    return ([] if data is None else [f"data.source={dumps(data)}"]) + (others or [])


def tell_unused(settings: Settings) -> None:
    """Say on stderr that an epsilon was set in a mode that keeps none: whoever sets one expects protection."""
    mode = settings.privacy.mode
    if settings.privacy.epsilon is not None and mode in ("device", "plain"):
        print(f"note: mode {mode} makes no use of privacy.epsilon; local and distributed keep it", file=sys.stderr)


def train(
    config: Config = None,
    data: Source = None,
    settings: Assignments = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; a new one in runs/ if not given.")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Go on with a federation: its folder, or that of one of its runs; a new one if not given."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a federation on a signed ledger; the same command goes on with a run that was killed."""
    from liberate import report
    from liberate.runs.folder import free_folder, load_run
    from liberate.runs.privacy_report import achieved_privacy, forecast_of
    from liberate.runs.train import train as train_run
    from liberate.settings import resolve

    resolved = resolve(config, assignments(data, settings))
    tell_unused(resolved)
    folder = out or free_folder(Path("runs") / f"{Path(resolved.data.source).stem}-{resolved.privacy.mode}")
    with progress_lines() as progress:
        result = train_run(resolved, folder, ledger=ledger, progress=progress)
        progress("writing the report")
        run = load_run(folder)
        page = report.write(run)
    warning = forecast_of(run)["warning"] if resolved.privacy.mode in ("local", "distributed") else None
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print_json(asdict(result) | {"privacy": achieved_privacy(run)})
    else:
        print_pairs(asdict(result) | {"report": page})


def evaluate(
    folder: Folder,
    predictions: Annotated[
        Path | None, typer.Option(help="Write held-out rows with predictions to this Parquet file.")
    ] = None,
    top: Annotated[Path | None, typer.Option(help="Write everybody's top ten to this Parquet file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a run on its held-out ratings, with free baselines beside it."""
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
    metrics = {"rmse": found.metrics.rmse} | asdict(found.metrics)
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
    """Recommend items to one participant, from the own ratings on the own device and the public model."""
    from liberate.runs.evaluate import recommend as recommend_to
    from liberate.runs.folder import load_run

    person, items = recommend_to(load_run(folder), participant, n)
    if as_json:
        print_json(asdict(person) | {"items": [asdict(item) for item in items]})
        return
    print(f"participant {person.number} (key {person.key_id}, user {person.user_id})")
    print_table(["rank", "item_id", "prediction", "title"], [[i.rank, i.item_id, i.prediction, i.title] for i in items])

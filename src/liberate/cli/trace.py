"""`liberate trace`: where did my data go, who shaped this model, whose copy leaked?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liberate.cli.output import JsonFlag, count, print_json, progress_lines
from liberate.cli.run import Folder

if TYPE_CHECKING:
    from liberate.cli.trace_text import TraceAnswer
    from liberate.runs.folder import Run

Participant = Annotated[
    str | None, typer.Option(help="Where this participant's data went: participant number, key id, or user:ID.")
]
ShareEntry = Annotated[int | None, typer.Option(min=0, help="What became of one copy: position of its share.")]
Version = Annotated[int | None, typer.Option(min=1, help="Who shaped this version of the model.")]
Recipient = Annotated[
    str | None,
    typer.Option(help="What this recipient got, and from whom: as --participant, or a coordinator's number."),
]
Leak = Annotated[
    Path | None,
    typer.Option(
        help="Whose copy these leaked rows are, a CSV or Parquet file; the lookup is announced in the ledger first.",
        exists=True,
        dir_okay=False,
    ),
]
Influence = Annotated[
    bool,
    typer.Option(
        "--influence",
        help="With --model: how large each upload was that the run kept, and how the others fare without it.",
    ),
]


def trace(
    folder: Folder,
    participant: Participant = None,
    share: ShareEntry = None,
    model: Version = None,
    recipient: Recipient = None,
    leak: Leak = None,
    influence: Influence = False,
    svg: Annotated[Path | None, typer.Option(help="Also draw the answer into this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the ledger one question about data and models; every proof is checked before it answers."""
    from liberate.runs.folder import load_run

    if [participant, share, model, recipient, leak].count(None) != 4:
        raise typer.BadParameter("exactly one of --participant, --share, --model, --recipient and --leak is needed")
    if influence and (model is None or svg is not None):
        raise typer.BadParameter("--influence needs --model, and cannot be drawn")
    if svg is not None and not svg.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {svg.parent} to draw into")

    run = load_run(folder)
    if model is not None:
        answer = _ask_about_model(run, model, influence=influence)
    elif leak is not None:
        answer = _ask_about_leak(run, leak)
    else:
        answer = _ask_about_data(run, participant, share, recipient)

    _show(answer, svg, as_json=as_json)


def _ask_about_model(run: Run, version: int, *, influence: bool) -> TraceAnswer:
    from liberate.tracing.influence import trace_influence
    from liberate.tracing.model_trace import trace_model

    with progress_lines() as progress:
        return trace_influence(run, version, progress) if influence else trace_model(run, version, progress)


def _ask_about_leak(run: Run, file: Path) -> TraceAnswer:
    from liberate.tracing.leak.lookup import trace_leak

    def announce(position: int, n_participants: int) -> None:
        participants = count(n_participants, "participant")
        print(f"note: entry {position} announces that an auditor looks up copies of {participants}", file=sys.stderr)

    return trace_leak(run, file, announce=announce)


def _ask_about_data(run: Run, participant: str | None, share: int | None, recipient: str | None) -> TraceAnswer:
    from liberate.tracing.traces import trace_participant, trace_recipient, trace_share

    if participant is not None:
        return trace_participant(run, participant)
    return trace_recipient(run, recipient or "") if share is None else trace_share(run, share)


def _show(answer: TraceAnswer, svg: Path | None, *, as_json: bool) -> None:
    from liberate.cli.trace_text import print_answer
    from liberate.tracing.influence import InfluenceAnswer

    if svg is not None and not isinstance(answer, InfluenceAnswer):
        from liberate.report import draw

        draw(answer, svg)
    if as_json:
        print_json(answer)
        return
    print_answer(answer)
    if svg is not None:
        print(f"\ndrawn into {svg}")
